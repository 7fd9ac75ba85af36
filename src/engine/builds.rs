//! Builds: found in their component's source by version, made ready once, given to nodes by digest.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use pep440_rs::Version;
use serde::Deserialize;
use tokio::process::Command;

use super::fleet::{Fleet, FleetError, Lifecycle};
use crate::commits::repository::{Repository, RepositoryError};
use crate::home::{Home, make_private};
use crate::hosts::{FencingToken, Finished, Host as _, HostError, LocalHost, NodeAddress, Step, Work};
use crate::model::build::{BuildRef, BuildSpec, CommitRef, LockedPackage};
use crate::model::environment::{BuildCommits, BuildSource, Component, Images, PackageIndex};
use crate::model::values::Digest;
use crate::process::{self, Bounds, Said};
use crate::settings;

/// Resolving asks an index for some dozens of packages; ten minutes is a mirror that is down.
const RESOLVE_LIMIT: Duration = Duration::from_mins(10);
/// pip's report of some dozens of packages takes about 2 MB: it holds their descriptions.
const RESOLVE_OUTPUT: usize = 32 << 20;
/// Copying a build's files from the workspace to the state, on one machine; `cp` only ever complains.
const COPY: Bounds = Bounds {
    deadline: Duration::from_mins(10),
    output_bytes: 1 << 20,
};

/// Why there is no build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The component has no source.
    #[error("component {0} has no `source`, so it cannot be upgraded by version; state where its builds come from")]
    NoSource(String),
    /// The source does not have this version.
    #[error("{component} has no version {version}: {why}")]
    UnknownVersion {
        /// The component.
        component: String,
        /// The version that was asked for.
        version: String,
        /// What the source has.
        why: String,
    },
    /// The source could not be asked.
    #[error("cannot find {component}={version} in its source: {why}")]
    Source {
        /// The component.
        component: String,
        /// The version that was asked for.
        version: String,
        /// What happened.
        why: String,
    },
    /// The preparation failed.
    #[error("preparing {build} ended with {exit}: {log}")]
    Prepare {
        /// The build.
        build: String,
        /// Exit status of its script.
        exit: i32,
        /// Its last words.
        log: String,
    },
    /// The preparation was cut off.
    #[error("preparing {0} was cut off (its process was killed, or the machine restarted); `resume` begins it anew")]
    CutOff(String),
    /// The source is not what it was when the build was found in it.
    #[error(
        "{build} is {expected} and its source {path} holds {found} now: a build never changes; put the files back, or give what \
         is there now a version of its own"
    )]
    Changed {
        /// The build.
        build: String,
        /// Where its files lie.
        path: PathBuf,
        /// Its digest.
        expected: Digest,
        /// Of what is there.
        found: Digest,
    },
    /// Files.
    #[error("cannot {tried} {path}: {source}")]
    File {
        /// What was tried.
        tried: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The commit that it is cannot be named.
    #[error("cannot say which commit {component}={version} is: {why}")]
    Commit {
        /// The component.
        component: String,
        /// The version that was asked for.
        version: String,
        /// What git said.
        why: RepositoryError,
    },
    /// The script.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The agent on this machine.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What is to be made ready.
#[derive(Debug, Clone)]
pub struct Order {
    /// The build.
    pub build: BuildRef,
    /// Its locked set.
    pub spec: BuildSpec,
}

/// Finds a version of a component in its source.
///
/// # Errors
/// The source does not have it, or cannot be asked.
pub async fn resolve(component: &Component, version: &str, workspace: &Path) -> Result<BuildSpec, BuildError> {
    let found = match &component.source {
        None => return Err(BuildError::NoSource(component.name.clone())),
        Some(BuildSource::PackageIndex(index)) => from_index(component, index, version).await?,
        Some(BuildSource::Directory(directory)) => from_directory(component, &workspace.join(directory), version)?.0,
        Some(BuildSource::Images(images)) => from_images(component, images, version)?,
    };
    let found = match &component.images {
        None => found,
        Some(images) => {
            let manifest = manifest_of(component, images, &found.version)?;
            found.with_image(&images.repository, manifest)
        }
    };
    match &component.commits {
        None => Ok(found),
        Some(commits) => {
            let why = |why| BuildError::Commit {
                component: component.name.clone(),
                version: version.to_owned(),
                why,
            };
            let commit = commit_of(commits, &found.version, workspace).map_err(why)?;
            Ok(found.of_commit(commit))
        }
    }
}

/// The commit that a version is, by its full name: what a tag names may change, and a build does not.
fn commit_of(commits: &BuildCommits, version: &str, workspace: &Path) -> Result<CommitRef, RepositoryError> {
    let repository = Repository::open_at(&workspace.join(&commits.repository))?;
    let commit = repository.named_commit(&commits.revision_of(version))?;
    repository.directory_of(commit, commits.path.as_deref())?;
    Ok(CommitRef {
        repository: commits.repository.clone(),
        commit: commit.to_string(),
        path: commits.path.clone(),
    })
}

/// Every build whose image a component's source states.
pub(crate) fn of_images(component: &Component) -> Vec<BuildSpec> {
    let Some(BuildSource::Images(images)) = &component.source else {
        return Vec::new();
    };
    let stated = images.digests.iter();
    stated
        .map(|(version, manifest)| BuildSpec::of_image(&component.name, version, &images.repository, manifest))
        .collect()
}

fn manifest_of<'a>(component: &Component, images: &'a Images, version: &str) -> Result<&'a Digest, BuildError> {
    images.digests.get(version).ok_or_else(|| {
        let there: Vec<&str> = images.digests.keys().map(String::as_str).collect();
        BuildError::Source {
            component: component.name.clone(),
            version: version.to_owned(),
            why: format!("`images.digests` does not have it; it has {}", nearest(version, &there)),
        }
    })
}

fn from_images(component: &Component, images: &Images, version: &str) -> Result<BuildSpec, BuildError> {
    let manifest = manifest_of(component, images, version)?;
    Ok(BuildSpec::of_image(
        &component.name,
        version,
        &images.repository,
        manifest,
    ))
}

#[derive(Deserialize)]
struct PipReport {
    install: Vec<PipInstall>,
}
#[derive(Deserialize)]
struct PipInstall {
    metadata: PipMetadata,
    download_info: PipDownload,
}
#[derive(Deserialize)]
struct PipMetadata {
    name: String,
    version: String,
}
#[derive(Deserialize)]
struct PipDownload {
    #[serde(default)]
    archive_info: Option<PipArchive>,
}
#[derive(Deserialize)]
struct PipArchive {
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

async fn from_index(component: &Component, index: &PackageIndex, version: &str) -> Result<BuildSpec, BuildError> {
    let failed = |why: String| BuildError::Source {
        component: component.name.clone(),
        version: version.to_owned(),
        why,
    };
    let extras = if index.extras.is_empty() {
        String::new()
    } else {
        format!("[{}]", index.extras.join(","))
    };
    let wanted = format!("{}{extras}=={version}", index.package);
    let scratch = Scratch::new().map_err(|e| failed(format!("cannot make a directory for pip: {e}")))?;
    let environment = scratch.0.join("venv");
    let venv = run(&scratch, index, Path::new(&index.python), |c| {
        c.args(["-m", "venv"]).arg(&environment);
    });
    let made = venv.await.map_err(&failed)?;
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr);
        return Err(failed(format!("{} -m venv: {}", index.python, why.trim())));
    }
    let program = environment.join("bin/pip");
    // The pip that comes with Python 3.11 tries versions of a conflicting package one by one, for minutes; its resolver
    // has learnt since. Where no newer one can be had, the old one finds the same set.
    let newer = run(&scratch, index, &program, |c| {
        c.args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--upgrade",
            "pip",
        ]);
    });
    if let Err(why) = newer.await {
        tracing::debug!(%why, "the resolver stays as old as its Python");
    }
    let pip = run(&scratch, index, &program, |c| {
        c.args(["install", "--dry-run", "--ignore-installed", "--quiet"])
            .args(["--disable-pip-version-check", "--no-input", "--report", "-"])
            .arg(&wanted)
            .args(&index.also);
    });
    let output = pip.await.map_err(&failed)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(explain_pip(component, index, version, &complaint).unwrap_or_else(|| {
            let last: Vec<_> = complaint.lines().rev().take(5).collect();
            failed(last.into_iter().rev().collect::<Vec<_>>().join(" / "))
        }));
    }
    let report: PipReport =
        serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("pip's report cannot be read: {e}")))?;
    let mut locked = Vec::new();
    for PipInstall {
        metadata,
        download_info,
    } in report.install
    {
        let hashes = download_info.archive_info.map(|a| a.hashes).unwrap_or_default();
        let sha256 = hashes.get("sha256").cloned().ok_or_else(|| {
            failed(format!(
                "the index gives no sha256 for {}=={}, so it cannot be pinned",
                metadata.name, metadata.version
            ))
        })?;
        locked.push(LockedPackage {
            name: metadata.name,
            version: metadata.version,
            sha256: vec![sha256],
        });
    }
    // `1.0`, `1.0.0` and `==1.*` may all mean one release: a build is named by what it is.
    let canonical = |name: &str| name.to_lowercase().replace(['_', '.'], "-");
    let itself = locked.iter().find(|p| canonical(&p.name) == canonical(&index.package));
    let version = itself.map_or(version, |p| p.version.as_str()).to_owned();
    Ok(BuildSpec::new(&component.name, &version, locked))
}

/// Whom code of packages runs as when we are root: the user that owns nothing, 65534 on every Linux.
const NOBODY: u32 = 65_534;

/// A directory for one resolution. Resolving runs the build hooks of source distributions: in a throwaway virtual
/// environment, and never as root.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("stagegate-{}", crate::store::random_id()));
        make_private(&directory)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY))?;
        }
        Ok(Self(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(why) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%why, "cannot remove {}", self.0.display());
        }
    }
}

async fn run(
    scratch: &Scratch,
    index: &PackageIndex,
    program: &Path,
    arguments: impl FnOnce(&mut Command),
) -> Result<Said, String> {
    let mut command = Command::new(program);
    arguments(&mut command);
    command
        .current_dir(&scratch.0)
        .env_clear()
        .envs(settings::path().map(|path| ("PATH", path)))
        .envs(settings::package_tools())
        .envs([
            ("HOME", &scratch.0),
            ("TMPDIR", &scratch.0),
            ("VIRTUAL_ENV", &scratch.0.join("venv")),
        ])
        .envs(&index.environment);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let bounds = Bounds {
        deadline: RESOLVE_LIMIT,
        output_bytes: RESOLVE_OUTPUT,
    };
    process::run(command, bounds).await.map_err(|e| e.to_string())
}

/// pip's words for a version that is not there. They have stood since pip 1.5 and name what there is.
fn explain_pip(component: &Component, index: &PackageIndex, version: &str, complaint: &str) -> Option<BuildError> {
    let missing = format!("No matching distribution found for {}", index.package);
    let unknown = complaint.to_lowercase().contains(&missing.to_lowercase());
    if !unknown {
        return None;
    }
    let there = complaint
        .split("(from versions: ")
        .nth(1)
        .and_then(|rest| rest.split(')').next())
        .filter(|list| *list != "none")?;
    let there: Vec<&str> = there.split(", ").map(str::trim).collect();
    Some(BuildError::UnknownVersion {
        component: component.name.clone(),
        version: version.to_owned(),
        why: format!("the package index has {}", nearest(version, &there)),
    })
}

/// Versions on either side of one that is not there, which are named.
const NEAR: usize = 3;

/// What to choose from instead of a version that is not there: those just below and above it, and the newest. What is no
/// version as package tools know it is ordered by its letters, before all that are.
fn nearest(wanted: &str, there: &[&str]) -> String {
    let order = |text: &str| (Version::from_str(text).ok(), text.to_owned());
    let mut sorted = there.to_vec();
    sorted.sort_by_key(|text| order(text));
    sorted.dedup();
    let Some(newest) = sorted.last() else {
        return "none".to_owned();
    };
    let at = sorted.partition_point(|text| order(text) < order(wanted));
    let near = &sorted[at.saturating_sub(NEAR)..(at + NEAR).min(sorted.len())];
    let mut words = near.join(", ");
    if near.len() < sorted.len() {
        words = format!("{words} near it");
        if !near.contains(newest) {
            words = format!("{words}, {newest} as its newest");
        }
        words = format!("{words}; {} in all", sorted.len());
    }
    words
}

/// A directory's files as a locked set: each is a package whose version is its mode.
fn from_directory(component: &Component, directory: &Path, version: &str) -> Result<(BuildSpec, PathBuf), BuildError> {
    let unknown = |why: String| BuildError::UnknownVersion {
        component: component.name.clone(),
        version: version.to_owned(),
        why,
    };
    if version.is_empty() || version.contains('/') || version.starts_with('.') {
        return Err(unknown("a version is the name of a directory".to_owned()));
    }
    let from = directory.join(version);
    if !from.is_dir() {
        let there: Vec<String> = std::fs::read_dir(directory)
            .map(|list| {
                list.flatten()
                    .filter(|e| e.path().is_dir())
                    .map(|e| e.file_name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        return Err(unknown(format!(
            "{} has {}",
            directory.display(),
            nearest(version, &there)
        )));
    }
    Ok((BuildSpec::new(&component.name, version, files_of(&from)?), from))
}

/// The files below a directory, as a locked set has them.
///
/// # Errors
/// One cannot be read.
pub fn files_of(directory: &Path) -> Result<Vec<LockedPackage>, BuildError> {
    let mut locked = Vec::new();
    list_files(directory, directory, &mut locked)?;
    Ok(locked)
}

fn list_files(root: &Path, directory: &Path, locked: &mut Vec<LockedPackage>) -> Result<(), BuildError> {
    use std::os::unix::fs::MetadataExt as _;
    let failed = |tried, path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::File { tried, path, source }
    };
    for entry in std::fs::read_dir(directory).map_err(failed("read", directory))? {
        let path = entry.map_err(failed("read", directory))?.path();
        let seen = std::fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
        if seen.is_dir() {
            list_files(root, &path, locked)?;
            continue;
        }
        let bytes = if seen.is_symlink() {
            let target = std::fs::read_link(&path).map_err(failed("read", &path))?;
            target.into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).map_err(failed("read", &path))?
        };
        locked.push(LockedPackage {
            name: path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned(),
            version: format!("{:o}", seen.mode()),
            sha256: vec![Digest::of(&bytes).hex()],
        });
    }
    Ok(())
}

/// Makes a build ready, once for all nodes; one that is ready costs a look. A preparation that a dead driver left running
/// is found and waited for; one that ended badly is begun anew by the next call.
///
/// # Errors
/// Its script failed or was cut off.
pub async fn prepare(home: &Home, fleet: &Fleet, order: &Order) -> Result<PathBuf, BuildError> {
    let ready = home.artifact(&order.build.digest);
    if ready.exists() {
        return Ok(ready);
    }
    let failed = |tried, path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::File { tried, path, source }
    };
    let component = fleet
        .environment
        .component(&order.spec.component)
        .ok_or_else(|| BuildError::NoSource(order.spec.component.clone()))?;
    // What is an image is ready where it lies; nodes of a cluster fetch it themselves.
    if let Some(BuildSource::Images(_)) = &component.source {
        return Ok(ready);
    }
    let place = home.preparation(&order.build.digest);
    make_private(&place).map_err(failed("make", &place))?;
    let attempt = Attempt::read(&place)?;
    let artifact = place.join(format!("artifact-{}", attempt.number));
    let made = if component.actions.prepare.is_some() {
        run_script(home, fleet, component, order, &place, &artifact, attempt.number).await
    } else {
        copy_source(component, order, fleet.workspace.root(), &artifact).await
    };
    match made {
        Ok(()) => {}
        // Another environment's driver was quicker, and has cleared the place.
        Err(_) if ready.exists() => return Ok(ready),
        Err(why) => {
            attempt.has_failed()?;
            return Err(why);
        }
    }
    if let Some(parent) = ready.parent() {
        make_private(parent).map_err(failed("make", parent))?;
    }
    match std::fs::rename(&artifact, &ready) {
        Err(_) if ready.exists() => {}
        other => other.map_err(failed("name", &ready))?,
    }
    // What is left of the preparation is scratch, unless another environment's driver is at it, too.
    let node = preparation_node(order, &place);
    if let Err(why) = LocalHost::new().destroy(&node, &preparation_token()).await {
        tracing::debug!(%why, "{} stays", place.display());
    }
    Ok(ready)
}

/// Which attempt at a preparation is the present one: a step runs once, so one that failed is repeated under another number.
struct Attempt {
    number: u32,
    file: PathBuf,
}

impl Attempt {
    fn read(place: &Path) -> Result<Self, BuildError> {
        let file = place.join("failed-attempts");
        let number = match std::fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(none) if none.kind() == std::io::ErrorKind::NotFound => 0,
            Err(source) => {
                return Err(BuildError::File {
                    tried: "read",
                    path: file,
                    source,
                });
            }
        };
        Ok(Self { number, file })
    }

    fn has_failed(self) -> Result<(), BuildError> {
        let next = format!("{}\n", self.number + 1);
        std::fs::write(&self.file, next).map_err(|source| BuildError::File {
            tried: "write",
            path: self.file,
            source,
        })
    }
}

fn preparation_node(order: &Order, place: &Path) -> NodeAddress {
    NodeAddress {
        // It is of none: all that need the build find it here.
        environment: String::new(),
        node: order.build.name.clone(),
        directory: place.to_string_lossy().into_owned(),
        pid_file: None,
    }
}

/// No lease is over a preparation: whoever needs the build makes it, and the place's lock lets them in one by one.
/// It serves whichever home finds it, so that one in a copied state goes on.
fn preparation_token() -> FencingToken {
    FencingToken {
        home: "preparations".to_owned(),
        counter: 1,
    }
}

async fn copy_source(
    component: &Component,
    order: &Order,
    workspace: &Path,
    artifact: &Path,
) -> Result<(), BuildError> {
    let Some(BuildSource::Directory(directory)) = &component.source else {
        return Err(BuildError::NoSource(component.name.clone()));
    };
    let from = workspace.join(directory).join(&order.spec.version);
    let failed = |source| BuildError::File {
        tried: "copy",
        path: from.clone(),
        source,
    };
    // What a killed driver left would be copied into, not over.
    if artifact.exists() {
        std::fs::remove_dir_all(artifact).map_err(failed)?;
    }
    let mut copy = Command::new("cp");
    copy.args(["-a", "--"]).arg(&from).arg(artifact);
    let done = process::run(copy, COPY)
        .await
        .map_err(|e| failed(std::io::Error::other(e.to_string())))?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(failed(std::io::Error::other(why)));
    }
    // Of the copy, not of the source: what is checked is what nodes get.
    let mut locked = files_of(artifact)?;
    locked.extend(order.spec.locked.iter().filter(|part| part.is_image()).cloned());
    let found = BuildSpec::new(&component.name, &order.spec.version, locked).digest;
    if found == order.spec.digest {
        return Ok(());
    }
    Err(BuildError::Changed {
        build: order.build.name.clone(),
        path: from,
        expected: order.spec.digest,
        found,
    })
}

async fn run_script(
    home: &Home,
    fleet: &Fleet,
    component: &Component,
    order: &Order,
    place: &Path,
    artifact: &Path,
    attempt: u32,
) -> Result<(), BuildError> {
    let failed = |tried, path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::File { tried, path, source }
    };
    let lock_file = place.join("lock.txt");
    std::fs::write(&lock_file, requirements(&order.spec)).map_err(failed("write", &lock_file))?;
    let cache = home.cache(&component.name);
    for directory in [artifact, &cache] {
        make_private(directory).map_err(failed("make", directory))?;
    }
    let mut script = fleet.script(component, None, Some(&order.build), Lifecycle::Prepare)?;
    for (name, path) in [
        ("STAGEGATE_ARTIFACT", artifact),
        ("STAGEGATE_LOCK_FILE", &lock_file),
        ("STAGEGATE_CACHE_DIR", &cache),
    ] {
        script
            .environment
            .insert(name.to_owned(), path.to_string_lossy().into_owned());
    }
    // How the package index is reached is this machine's matter: pip reads it from these.
    script.environment.extend(settings::package_tools());
    let host = LocalHost::new();
    let (node, token) = (preparation_node(order, place), preparation_token());
    let step = Step {
        id: format!("prepare.{attempt}"),
        action: Lifecycle::Prepare.word().to_owned(),
        work: Work::Script(script),
    };
    let build = order.build.name.clone();
    match host.finish(&node, &token, &step).await? {
        Finished::Ended(end) if end.exit == 0 => Ok(()),
        Finished::Ended(end) => Err(BuildError::Prepare {
            build,
            exit: end.exit,
            log: end.log_tail,
        }),
        Finished::CutOff => Err(BuildError::CutOff(build)),
    }
}

/// The locked set as pip's requirements with hashes.
fn requirements(spec: &BuildSpec) -> String {
    let mut text = String::new();
    for LockedPackage { name, version, sha256 } in spec.files() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}=={version}");
        for hash in sha256 {
            let _ = write!(text, " --hash=sha256:{hash}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn what_is_near_is_named_and_not_only_what_is_new() {
        let there = ["0.0.9", "0.4.2", "0.7.1", "0.7.10", "0.7.2", "1.2.0", "1.2.4", "2.0"];
        for (wanted, named) in [
            (
                "0.7.3",
                "0.4.2, 0.7.1, 0.7.2, 0.7.10, 1.2.0, 1.2.4 near it, 2.0 as its newest; 8 in all",
            ),
            ("0.1", "0.0.9, 0.4.2, 0.7.1, 0.7.2 near it, 2.0 as its newest; 8 in all"),
            ("9", "1.2.0, 1.2.4, 2.0 near it; 8 in all"),
            ("latest", "0.0.9, 0.4.2, 0.7.1 near it, 2.0 as its newest; 8 in all"),
        ] {
            assert_eq!(nearest(wanted, &there), named, "{wanted}");
        }
        assert_eq!(nearest("3", &["1", "2"]), "1, 2");
        assert_eq!(nearest("3", &[]), "none");
        assert_eq!(nearest("c", &["bad", "slow", "1"]), "bad, slow, 1");
    }
}
