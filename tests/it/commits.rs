//! Commits are checked where they are made and where they arrive, with the real git. Cases are named T1 to T80 after the list
//! in docs/guides/commits.md.

mod clone;
mod equal_verdicts;
mod github;
mod history;
mod issues;
mod messages;
mod own_hooks;
mod proof;
mod pushes;
mod refs;
mod required;
mod sandbox;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The first line of a private key, written so that this file has none.
const KEY: &str = concat!("-----BEGIN RSA PRIVATE", " KEY-----");
const PROGRAM: &str = env!("CARGO_BIN_EXE_stagegate");
const HEAD: &str = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: tested}\n";

/// What a program said, and whether it agreed.
struct Said {
    code: Option<i32>,
    out: String,
    all: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Self {
            code: output.status.code(),
            all: format!("{out}{err}"),
            out,
        }
    }

    fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// A directory in which git and the program run as for somebody who has no settings.
struct Place {
    dir: PathBuf,
    home: PathBuf,
}

impl Place {
    fn at(dir: PathBuf, home: &Path) -> Self {
        std::fs::create_dir_all(&dir).expect("made");
        Self {
            dir,
            home: home.to_owned(),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir);
        for name in [
            "GIT_DIR",
            "GIT_INDEX_FILE",
            "GIT_WORK_TREE",
            "GIT_PREFIX",
            "SKIP",
            "PREK_HOME",
        ] {
            command.env_remove(name);
        }
        command
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.home.join("config"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("STAGEGATE_STATE", self.home.join("state"))
            .env("STAGEGATE_WORKSPACE", &self.dir)
            .env("NO_COLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_AUTHOR_NAME", "A Developer")
            .env("GIT_AUTHOR_EMAIL", "developer@example.org")
            .env("GIT_COMMITTER_NAME", "A Developer")
            .env("GIT_COMMITTER_EMAIL", "developer@example.org")
            .env("KEY", KEY)
            .env("STAGEGATE", PROGRAM);
        command
    }

    fn try_sh(&self, script: &str) -> Said {
        let output = self.command("sh").args(["-euc", script]).output().expect("sh runs");
        Said::of(&output)
    }

    /// Runs a script that must succeed, and gives what it wrote.
    fn sh(&self, script: &str) -> String {
        let said = self.try_sh(script);
        assert!(said.ok(), "{script}: {}", said.all);
        said.out.trim_end().to_owned()
    }

    fn stagegate(&self, arguments: &[&str]) -> Said {
        Said::of(
            &self
                .command(PROGRAM)
                .args(arguments)
                .output()
                .expect("the program runs"),
        )
    }

    /// Writes a policy with this below its `spec:`.
    fn policy(&self, spec: &str) {
        self.write("hooks/policy.yaml", format!("{HEAD}spec: {{{spec}}}\n"));
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, content).expect("written");
    }
}

/// A server's repository of this name without any commit, and a clone of it.
fn server_and_clone(root: &Path, name: &str) -> (Place, Place) {
    let home = root.join("home");
    std::fs::create_dir_all(&home).expect("made");
    let server = Place::at(root.join(name), &home);
    server.sh("git init -q --bare -b main .");
    let clone = Place::at(root.join("clone"), &home);
    clone.sh(&format!("git init -q -b main .; git remote add origin ../{name}"));
    (server, clone)
}

/// A server's repository with our hook, and a clone of it.
struct World {
    root: tempfile::TempDir,
    server: Place,
    clone: Place,
}

impl World {
    /// With a first commit, and this below `spec:` of its policy; none for no policy.
    fn new(spec: Option<&str>) -> Self {
        let world = Self::empty();
        world
            .clone
            .sh("printf '# Project\\n' >README.md; git add .; git commit -qm 'Begin'");
        if let Some(spec) = spec {
            world.clone.policy(spec);
            world.clone.sh("git add .; git commit -qm 'Add the policy'");
        }
        world
            .clone
            .sh("git push -q origin main; git remote set-head origin main");
        world
    }

    /// Without any commit.
    fn empty() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let (server, clone) = server_and_clone(root.path(), "server.git");
        let world = Self { root, server, clone };
        world.hook("exec \"$STAGEGATE\" pre-receive");
        world
    }

    fn hook(&self, script: &str) {
        self.server.write("hooks/pre-receive", format!("#!/bin/sh\n{script}\n"));
        self.server.sh("chmod +x hooks/pre-receive");
    }

    /// Pushes, and looks at what must hold whatever came of it: a refused push leaves no ref, no object and no half-way
    /// directory, and the repository is whole.
    fn push(&self, arguments: &str) -> Said {
        let refs = || self.server.sh("git for-each-ref");
        let before = refs();
        let said = self.clone.try_sh(&format!("git push origin {arguments}"));
        self.server.sh("git fsck --strict --no-dangling");
        let half = self.server.sh("find objects -name 'tmp_objdir*' -o -name 'incoming-*'");
        assert_eq!(half, "", "{arguments}");
        if !said.ok() {
            assert_eq!(refs(), before, "{arguments}: {}", said.all);
        }
        said
    }

    /// Runs a script on a branch of its own and pushes that: the rule that refuses, or nothing. What is refused is not
    /// there afterwards.
    #[track_caller]
    fn expect(&self, case: &str, script: &str, rule: Option<&str>) -> Said {
        self.clone.sh("git checkout -qf main; git reset -q --hard origin/main; git clean -qfdx; git branch -D -q topic 2>/dev/null || :");
        self.clone.sh("git checkout -qb topic");
        self.clone.sh(script);
        let said = self.push("HEAD:refs/heads/topic");
        match rule {
            None => assert!(said.ok(), "{case}: {}", said.all),
            Some(rule) => {
                assert!(!said.ok(), "{case} was accepted: {}", said.all);
                assert!(
                    said.all.contains(&format!(" {rule} ")),
                    "{case}: no {rule} in {}",
                    said.all
                );
                let tip = self.clone.sh("git rev-parse HEAD");
                assert!(
                    !self.server.try_sh(&format!("git cat-file -e {tip}")).ok(),
                    "{case}: its commit stayed"
                );
            }
        }
        self.server.sh("git update-ref -d refs/heads/topic");
        said
    }
}
