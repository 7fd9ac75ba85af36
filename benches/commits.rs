//! What checking commits costs: `cargo bench --bench commits` prints the table of docs/benchmarks.md. Rivals run in turn with us,
//! over the same files and rules, each round. Nothing else should run on the machine meanwhile.

#[allow(dead_code, reason = "each benchmark uses its part")]
mod field;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use field::{plain, spread, succeeded};
use stagegate::commits::examine::{Bounds, Examiner};
use stagegate::commits::policy::Policy;
use stagegate::commits::prek;
use stagegate::commits::repository::{Change, Repository};

const FILES: usize = 2_000;
/// Lines of a file, some 40 bytes each.
const LINES: usize = 60;
const COMMITS: usize = 100;
const RUNS: usize = 30;
/// pre-commit takes seconds a run.
const ROUNDS: usize = 5;
const PRE_COMMIT: [&str; 2] = ["pre-commit==4.7.0", "pre-commit-hooks==6.0.0"];
/// The same rules for all three: each id with the program of pre-commit-hooks and its arguments.
const RULES: [(&str, &str, &str, &str); 10] = [
    ("trailing-whitespace", "trailing-whitespace-fixer", "", "text"),
    ("end-of-file-fixer", "end-of-file-fixer", "", "text"),
    ("mixed-line-ending", "mixed-line-ending", "", "text"),
    ("check-yaml", "check-yaml", "--allow-multiple-documents", "yaml"),
    ("check-json", "check-json", "", "json"),
    ("check-toml", "check-toml", "", "toml"),
    (
        "check-merge-conflict",
        "check-merge-conflict",
        "--assume-in-merge",
        "text",
    ),
    ("detect-private-key", "detect-private-key", "", "text"),
    (
        "check-added-large-files",
        "check-added-large-files",
        "--enforce-all",
        "file",
    ),
    ("check-case-conflict", "check-case-conflict", "", "file"),
];

fn main() {
    let place = tempfile::tempdir().expect("a directory");
    let bench = Bench::new(place.path());
    bench.one_file();
    bench.all_files();
    bench.rivals();
    bench.push();
}

/// A clone of many files whose hooks are wholly covered natively.
struct Bench {
    root: PathBuf,
    clone: PathBuf,
}

impl Bench {
    fn new(root: &Path) -> Self {
        let this = Self {
            root: root.to_owned(),
            clone: root.join("clone"),
        };
        std::fs::create_dir_all(&this.clone).expect("made");
        this.git("init -q -b main .");
        for number in 0..FILES {
            let (ending, text) = content(number);
            let file = this.clone.join(format!("d{}/f{number}.{ending}", number % 50));
            std::fs::create_dir_all(file.parent().expect("below")).expect("made");
            std::fs::write(file, text).expect("written");
        }
        let mut config = "repos:\n- repo: builtin\n  hooks:\n".to_owned();
        for (id, _, arguments, _) in RULES {
            let arguments = quoted(arguments);
            writeln!(config, "  - {{id: {id}, args: [{arguments}]}}").expect("to a text");
        }
        std::fs::write(this.clone.join(".pre-commit-config.yaml"), config).expect("written");
        this.git("add .");
        this.git("commit -qm Begin");
        this
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.clone)
            .env("HOME", &self.root)
            .env("STAGEGATE_STATE", self.root.join("state"))
            .env("STAGEGATE_WORKSPACE", &self.root)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "A Developer")
                .env(format!("GIT_{role}_EMAIL"), "developer@example.org");
        }
        command
    }

    fn stagegate(&self, arguments: &str) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_stagegate"));
        command.args(arguments.split(' '));
        command
    }

    fn git(&self, arguments: &str) -> String {
        let mut git = self.command("git");
        let output = succeeded(git.args(arguments.split(' ')).output().expect("git runs"));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The native rules in this process, from opening the repository to the last finding.
    fn scan(&self, what: &str, changes: fn(&Repository) -> Vec<Change>, goal: &str) {
        let policy = Policy::built_in();
        let times = (0..RUNS).map(|_| {
            let began = Instant::now();
            let repository = Repository::open_at(&self.clone).expect("a repository");
            let changes = changes(&repository);
            let mut examiner = Examiner::new(&repository, &policy, Bounds::none());
            examiner.files_of_index(&changes).expect("it can be read");
            let report = examiner.report();
            assert!(!report.findings.refuse() && report.files == changes.len(), "{report:?}");
            began.elapsed().as_secs_f64() * 1e3
        });
        line(what, times.collect(), goal);
    }

    fn one_file(&self) {
        std::fs::write(self.clone.join("d1/f1.py"), content(0).1.replace("one", "two")).expect("written");
        self.git("add d1/f1.py");
        let staged = |repository: &Repository| repository.staged().expect("it can be read");
        self.scan("native scan of a diff of 1 file", staged, "< 10 ms");
        let times = (0..RUNS).map(|_| timed(&mut self.stagegate("check")));
        line(
            "whole `stagegate check` of a commit of 1 file",
            times.collect(),
            "< 15 ms",
        );
        self.git("commit -qm More");
    }

    fn all_files(&self) {
        let tracked = |repository: &Repository| repository.tracked().expect("it can be read");
        self.scan("native scan of 2,000 blobs", tracked, "< 150 ms");
    }

    /// Whole runs over every file, in turn.
    fn rivals(&self) {
        let prek = prek::fetch(&self.root.join("prek")).expect("prek can be fetched");
        let venv = self.root.join("venv");
        succeeded(
            Command::new("python3")
                .args(["-m", "venv", plain(&venv)])
                .output()
                .expect("python3 runs"),
        );
        let bin = |name: &str| plain(&venv.join("bin").join(name)).to_owned();
        let mut pip = Command::new(bin("pip"));
        pip.args(["install", "-q", "--disable-pip-version-check"])
            .args(PRE_COMMIT);
        succeeded(pip.output().expect("pip runs"));
        // The hooks' own programs, as pre-commit would install them; where it gets them from is no part of a run.
        let mut config = "repos:\n- repo: local\n  hooks:\n".to_owned();
        for (id, program, arguments, types) in RULES {
            let (entry, arguments) = (bin(program), quoted(arguments));
            writeln!(
                config,
                "  - {{id: {id}, name: {id}, language: system, entry: '{entry}', args: [{arguments}], types: [{types}]}}"
            )
            .expect("to a text");
        }
        let config_file = self.root.join("pre-commit.yaml");
        std::fs::write(&config_file, config).expect("written");
        let (mut ours, mut of_prek, mut of_pre_commit) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..RUNS {
            ours.push(timed(&mut self.stagegate("check --all")));
            let mut run = self.command(&prek);
            of_prek.push(timed(run.args(["run", "--all-files"])));
            if round < ROUNDS {
                let mut run = self.command(bin("pre-commit"));
                run.args(["run", "--all-files", "-c", plain(&config_file)]);
                of_pre_commit.push(timed(&mut run));
            }
        }
        let middle = |times: &[f64]| spread(times.to_vec()).1;
        let (us, prek, pre_commit) = (middle(&ours), middle(&of_prek), middle(&of_pre_commit));
        line("whole `stagegate check --all`", ours, "");
        line("whole `prek run --all-files`, builtin hooks", of_prek, "");
        line("whole `pre-commit run --all-files`", of_pre_commit, "");
        println!("| of prek's time | {:.2} | ≤ 1.2 |", us / prek);
        println!("| faster than pre-commit | {:.1} times | ≥ 10 |", pre_commit / us);
    }

    /// The hook of a push of 100 commits, whose objects are there and whose ref is not.
    fn push(&self) {
        let old = self.git("rev-parse HEAD");
        for number in 0..COMMITS {
            let file = format!("d{}/f{}.py", number % 50, number % 50);
            std::fs::write(self.clone.join(&file), format!("{}# {number}\n", content(0).1)).expect("written");
            self.git("add .");
            self.git(&format!("commit -qm Commit-{number}"));
        }
        let new = self.git("rev-parse HEAD");
        let server = self.root.join("server.git");
        self.git(&format!("clone -q --bare . {}", plain(&server)));
        let update = format!("--git-dir={} update-ref refs/heads/main {old}", plain(&server));
        self.git(&update);
        let input = self.root.join("input");
        std::fs::write(&input, format!("{old} {new} refs/heads/main\n")).expect("written");
        let times = (0..RUNS).map(|_| {
            let mut hook = self.stagegate("pre-receive");
            hook.current_dir(&server)
                .stdin(std::fs::File::open(&input).expect("written"));
            timed(&mut hook)
        });
        line("`pre-receive` of a push of 100 commits", times.collect(), "< 300 ms");
    }
}

/// Text that every rule is content with, of the kinds that a repository has.
fn content(number: usize) -> (&'static str, String) {
    let lines = |line: &str| format!("{line}\n").repeat(LINES);
    match number % 8 {
        0..=3 => ("py", lines("one = compute(another, of_some_length)  # why")),
        4 => ("md", lines("A sentence that explains something, at length.")),
        5 => {
            let rows = (0..LINES).fold(String::new(), |text, i| {
                format!("{text}key{i}: [a, value, of, a, list]\n")
            });
            ("yaml", rows)
        }
        6 => {
            let rows: Vec<String> = (0..LINES)
                .map(|i| format!("  \"key{i}\": [\"a\", \"value\", {i}]"))
                .collect();
            ("json", format!("{{\n{}\n}}\n", rows.join(",\n")))
        }
        _ => {
            let rows = (0..LINES).fold(String::new(), |text, i| format!("{text}key{i} = [\"a\", \"value\"]\n"));
            ("toml", rows)
        }
    }
}

fn quoted(arguments: &str) -> String {
    let words = arguments.split_whitespace().map(|word| format!("'{word}'"));
    words.collect::<Vec<_>>().join(", ")
}

/// From start to end of a program that must succeed, in milliseconds.
fn timed(command: &mut Command) -> f64 {
    let began = Instant::now();
    let output = command.output().expect("it runs");
    let took = began.elapsed().as_secs_f64() * 1e3;
    succeeded(output);
    took
}

fn line(what: &str, times: Vec<f64>, goal: &str) {
    let runs = times.len();
    let (least, middle, most) = spread(times);
    println!("| {what} | {middle:.1} ms ({least:.1} to {most:.1}, {runs} runs) | {goal} |");
}
