//! git's hooks of a clone: put in place beside what is there, looked for, taken out.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::finding::shown;

/// The hooks that are put in place.
pub const STAGES: [&str; 3] = ["pre-commit", "commit-msg", "pre-push"];
/// What every hook of ours has in it.
const MARK: &str = "hooks run";
/// What a hook is called that was there before.
const BEFORE: &str = "before-stagegate";

/// Why hooks could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// git says no.
    #[error("git {arguments} failed: {said}")]
    Git {
        /// What was asked.
        arguments: String,
        /// Its words.
        said: String,
    },
    /// The directory is not this repository's alone.
    #[error(
        "git runs the hooks of {}, for core.hooksPath says so ({scope} setting), and other repositories have it, too; \
         `git config --local core.hooksPath \"$(git rev-parse --path-format=absolute --git-common-dir)/hooks\"` gives this one its own, \
         for `stagegate hooks install`; `stagegate hooks install --shared` puts ours there for all of them",
        directory.display()
    )]
    Shared {
        /// Where.
        directory: PathBuf,
        /// Whose setting.
        scope: String,
    },
    /// A hook from before, twice.
    #[error("{} is there and so is {}; remove one of them", hook.display(), kept.display())]
    Twice {
        /// The hook.
        hook: PathBuf,
        /// The one that was kept earlier.
        kept: PathBuf,
    },
    /// The disk says no.
    #[error("cannot {doing} {}: {why}", path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
}

fn disk(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> InstallError {
    let path = path.to_owned();
    move |why| InstallError::Disk { doing, path, why }
}

/// Whether hooks may go where other repositories look for theirs, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// No.
    Refused,
    /// Yes, it was said.
    Wanted,
}

/// How a hook is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Ours.
    Ours,
    /// Somebody else's.
    Foreign,
    /// Not there, or not executable, which git passes over in silence.
    Missing,
}

/// The hooks directory of the repository around the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HooksDirectory {
    path: PathBuf,
    /// It is where git looks where nobody says otherwise, and so this repository's alone.
    is_usual: bool,
}

impl HooksDirectory {
    /// Where git looks, `core.hooksPath` and linked worktrees considered.
    ///
    /// # Errors
    /// There is no repository.
    pub fn find() -> Result<Self, InstallError> {
        let both = git(&[
            "rev-parse",
            "--path-format=absolute",
            "--git-path",
            "hooks",
            "--git-common-dir",
        ])?;
        let (path, common) = both.split_once('\n').unwrap_or((&both, ""));
        Ok(Self {
            is_usual: Path::new(path) == Path::new(common).join("hooks"),
            path: PathBuf::from(path),
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the hook of a stage is.
    #[must_use]
    pub fn state(&self, stage: &str) -> State {
        let path = self.path.join(stage);
        let executable = std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if !executable {
            return State::Missing;
        }
        match std::fs::read(&path) {
            Ok(text) if is_ours(&text) => State::Ours,
            Ok(_) | Err(_) => State::Foreign,
        }
    }

    /// The stages that are not ours.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        STAGES
            .into_iter()
            .filter(|stage| self.state(stage) != State::Ours)
            .collect()
    }

    /// The hook that was there before ours, if there was one.
    #[must_use]
    pub fn kept(&self, stage: &str) -> Option<PathBuf> {
        let kept = self.path.join(format!("{stage}.{BEFORE}"));
        kept.is_file().then_some(kept)
    }

    /// Puts the hook of a stage in place. One that is there is kept, and runs first from now on.
    ///
    /// # Errors
    /// The disk says no, or two are kept already.
    pub fn put(&self, stage: &str, program: &Path) -> Result<Option<PathBuf>, InstallError> {
        std::fs::create_dir_all(&self.path).map_err(disk("make", &self.path))?;
        let hook = self.path.join(stage);
        let kept = self.path.join(format!("{stage}.{BEFORE}"));
        let half = self.path.join(format!(".{stage}.stagegate"));
        std::fs::write(&half, text(stage, program))
            .and_then(|()| std::fs::set_permissions(&half, std::fs::Permissions::from_mode(0o755)))
            .map_err(disk("write", &half))?;
        // Only once ours is whole: a full disk, or an end in the middle, leaves the hook that was there where git looks.
        let moved = keep(&hook, &kept).inspect_err(|_| {
            let _ = std::fs::remove_file(&half);
        })?;
        std::fs::rename(&half, &hook).map_err(disk("write", &hook))?;
        Ok(moved.then_some(kept))
    }

    /// Takes the hook of a stage out, and puts back what was there before. Only ours is touched.
    ///
    /// # Errors
    /// The disk says no.
    pub fn take_out(&self, stage: &str) -> Result<State, InstallError> {
        let was = self.state(stage);
        if was == State::Ours {
            let hook = self.path.join(stage);
            match self.kept(stage) {
                Some(kept) => std::fs::rename(&kept, &hook).map_err(disk("move", &kept))?,
                None => std::fs::remove_file(&hook).map_err(disk("remove", &hook))?,
            }
        }
        Ok(was)
    }

    /// Refuses a directory that other repositories have, too.
    ///
    /// # Errors
    /// It is one, and nobody said that this is wanted.
    pub fn is_own(&self, sharing: Sharing) -> Result<(), InstallError> {
        // Each question to git costs milliseconds of every check.
        if self.is_usual {
            return Ok(());
        }
        let Ok(setting) = git(&["config", "--show-scope", "--get", "core.hooksPath"]) else {
            return Ok(());
        };
        let scope = setting.split_whitespace().next().unwrap_or_default();
        if sharing == Sharing::Wanted || matches!(scope, "local" | "worktree") {
            return Ok(());
        }
        Err(InstallError::Shared {
            directory: self.path.clone(),
            scope: scope.to_owned(),
        })
    }
}

/// Gives a hook that is not ours its second name, by which ours runs it, and says whether there was one. It keeps the first
/// until ours takes that.
fn keep(hook: &Path, kept: &Path) -> Result<bool, InstallError> {
    let text = match std::fs::read(hook) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(why) => return Err(disk("read", hook)(why)),
    };
    if is_ours(&text) {
        return Ok(false);
    }
    // An installation that was ended here has left both names.
    if kept.exists() && std::fs::read(kept).ok().as_ref() != Some(&text) {
        return Err(InstallError::Twice {
            hook: hook.to_owned(),
            kept: kept.to_owned(),
        });
    }
    if !kept.exists() {
        std::fs::hard_link(hook, kept)
            // Not every file system has them.
            .or_else(|_| std::fs::copy(hook, kept).map(|_| ()))
            .map_err(disk("keep", hook))?;
    }
    Ok(true)
}

fn is_ours(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains(MARK)
}

fn text(stage: &str, program: &Path) -> String {
    let quoted = program.display().to_string().replace('\'', r"'\''");
    format!(
        "#!/bin/sh\n# Written by `stagegate hooks install`. What was here before runs first: {stage}.{BEFORE}\n\
         stagegate='{quoted}'\n[ -x \"$stagegate\" ] || stagegate=stagegate\nexec \"$stagegate\" {MARK} {stage} \"$@\"\n"
    )
}

fn git(arguments: &[&str]) -> Result<String, InstallError> {
    let failed = |said: String| InstallError::Git {
        arguments: arguments.join(" "),
        said,
    };
    let output = Command::new("git")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(shown(output.stderr.trim_ascii())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim_end_matches('\n').to_owned())
}
