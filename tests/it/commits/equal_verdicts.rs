//! Native rules come to the verdicts, and mend to the bytes, of the hooks that they stand for: pre-commit-hooks itself is run
//! beside them. Where they differ on purpose, a row says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use stagegate::commits::content::{File, Mode, fixed, hits};
use stagegate::commits::finding::Rule;
use stagegate::commits::policy::Policy;

use super::KEY;

/// The version whose verdicts are compared.
const HOOKS: &str = "pre-commit-hooks==6.0.0";

/// Its programs, installed once for all runs of the tests.
fn programs() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pre-commit-hooks-6.0.0");
    let bin = place.join("bin");
    if !bin.join("trailing-whitespace-fixer").exists() {
        let run = |command: &mut Command| {
            let output = command.output().expect("python3 runs");
            assert!(
                output.status.success(),
                "these tests need `pip install {HOOKS}` in a virtual environment: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&place));
        run(Command::new(bin.join("pip")).args(["install", "--quiet", "--disable-pip-version-check", HOOKS]));
    }
    bin
}

/// What differs on purpose, and which of the two refuses.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Same,
    OnlyTheHook,
    OnlyWe,
}
use Expected::{OnlyTheHook, OnlyWe, Same};

/// A hook with its arguments, the rule that stands for it, the file's name, and texts.
type Row<'a> = (&'a str, &'a [&'a str], Rule, &'a str, Vec<(String, Expected)>);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_native_rule_says_what_its_hook_says() {
    let bin = programs();
    let (a, b, c) = ("<<<<<<< HEAD\n", "=======\n", ">>>>>>> topic\n");
    let rows: Vec<Row> = vec![
        (
            "trailing-whitespace-fixer",
            &[],
            Rule::TrailingWhitespace,
            "f.txt",
            [
                "", "a\n", "a \n", "a\t\r\n", "a\r\n", "a\r", " \n", "a\x0c\n", "a\n b", "a \r\r\n", "\u{a0}\n", "a  ",
            ]
            .map(|t| (t.to_owned(), Same))
            .to_vec(),
        ),
        (
            "end-of-file-fixer",
            &[],
            Rule::EndOfFile,
            "f.txt",
            [
                "",
                "a",
                "a\n",
                "a\n\n",
                "\n",
                "\n\n",
                "\r\n",
                "a\r\n",
                "a\r\n\r\n",
                "a\r",
                "a\r\r",
                "a\n\r",
                "a\r\n\n",
            ]
            .map(|t| (t.to_owned(), Same))
            .to_vec(),
        ),
        (
            "mixed-line-ending",
            &[],
            Rule::LineEndings,
            "f.txt",
            [
                "",
                "a",
                "a\nb\n",
                "a\r\nb\r\n",
                "a\nb\r\n",
                "a\r\nb\nc\r\n",
                "a\rb\n",
                "a\rb\r",
                "a\rb\r\nc\nd",
                "a\n\r\n\r",
            ]
            .map(|t| (t.to_owned(), Same))
            .to_vec(),
        ),
        (
            "detect-private-key",
            &[],
            Rule::PrivateKey,
            "f.txt",
            vec![
                (KEY.to_owned(), Same),
                (KEY.replace("RSA ", ""), Same),
                (KEY.replace("RSA", "DSA"), Same),
                (KEY.replace("RSA", "EC"), Same),
                (KEY.replace("RSA", "OPENSSH"), Same),
                (KEY.replace("RSA", "ENCRYPTED"), Same),
                (KEY.replace("RSA", "SSH2 ENCRYPTED"), Same),
                (KEY.replace("RSA", "PGP").replace("KEY", "KEY BLOCK"), Same),
                (KEY.replace("RSA", "PGP"), Same),
                (KEY.replace("RSA", "FOO"), Same),
                (KEY.replace("PRIVATE", "PUBLIC"), Same),
                (format!("PuTTY-User-Key-File-{}: ssh-rsa", 2), Same),
                (format!("PuTTY-User-Key-File-{}: ssh-rsa", 3), OnlyWe),
                (format!("-----BEGIN OpenVPN Static key V{}-----", 1), Same),
            ],
        ),
        (
            "check-merge-conflict",
            &["--assume-in-merge"],
            Rule::ConflictMarker,
            "f.txt",
            vec![
                (format!("{a}1\n{b}2\n{c}"), Same),
                ("text\n".to_owned(), Same),
                // T23: the hook takes a heading for a conflict.
                (format!("Heading\n{b}"), OnlyTheHook),
                (a.to_owned(), OnlyTheHook),
            ],
        ),
        (
            "check-yaml",
            &["--allow-multiple-documents"],
            Rule::YamlSyntax,
            "f.yaml",
            [
                ("a: 1\n", Same),
                ("a: [\n", Same),
                ("a: 1\na: 2\n", Same),
                ("a: 1\n---\nb: 2\n", Same),
                ("a: b: c\n", Same),
                ("a:\n\tb: 1\n", Same),
                // YAML 1.2 takes a tab for a blank where nothing is indented, and prek passes it, too.
                ("\ta: 1\n", OnlyTheHook),
                ("a: *x\n", Same),
                ("a: &x {b: 1}\nc: {<<: *x}\n", Same),
                ("- a\nb\n", Same),
                ("", Same),
                ("a: 'x\n", Same),
                ("{a: 1, a: 2}\n", Same),
                // T11: a tag of some application, which prek passes as we do.
                ("foo: !reference [a]\n", OnlyTheHook),
            ]
            .map(|(t, e)| (t.to_owned(), e))
            .to_vec(),
        ),
        (
            "check-json",
            &[],
            Rule::JsonSyntax,
            "f.json",
            [
                ("{}\n", Same),
                ("{\n", Same),
                ("", Same),
                ("{\"a\": 1, \"a\": 2}", Same),
                ("[1, 2,]", Same),
                ("\u{feff}{}", Same),
                ("{} {}", Same),
                ("\"\\ud83d\\ude00\"", Same),
                ("{\"a\": {\"b\": 1, \"b\": 1}}", Same),
                // Python's own addition to JSON.
                ("NaN", OnlyWe),
            ]
            .map(|(t, e)| (t.to_owned(), e))
            .to_vec(),
        ),
        (
            "check-toml",
            &[],
            Rule::TomlSyntax,
            "f.toml",
            [
                "a = 1\n",
                "a = \n",
                "a = 1\na = 2\n",
                "[a]\n[a]\n",
                "",
                "a.b = 1\n[a]\nc = 1\n",
                "a = 'x\n",
                "[[a]]\n[[a]]\n",
            ]
            .map(|t| (t.to_owned(), Same))
            .to_vec(),
        ),
        (
            "check-added-large-files",
            &["--enforce-all"],
            Rule::LargeFile,
            "f.bin",
            vec![("x".repeat(512_000), Same), ("x".repeat(512_001), Same)],
        ),
        (
            "check-executables-have-shebangs",
            &[],
            Rule::ExecutableShebang,
            "run",
            vec![
                ("#!/bin/sh\n".to_owned(), Same),
                ("echo\n".to_owned(), Same),
                (String::new(), Same),
            ],
        ),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    let git = Command::new("git")
        .args(["init", "-q"])
        .current_dir(directory.path())
        .status();
    assert!(git.expect("git runs").success());
    let policy = Policy::built_in();
    let mut compared = 0;
    for (program, arguments, rule, name, texts) in rows {
        for (text, expected) in texts {
            let path = directory.path().join(name);
            std::fs::write(&path, &text).expect("written");
            let mut add = Command::new("git");
            assert!(
                add.args(["add", "-A"])
                    .current_dir(directory.path())
                    .status()
                    .expect("git runs")
                    .success()
            );
            let hook = Command::new(bin.join(program))
                .args(arguments)
                .arg(name)
                .current_dir(directory.path())
                .output()
                .expect("the hook runs");
            let mode = if rule == Rule::ExecutableShebang {
                Mode::Executable
            } else {
                Mode::Regular
            };
            let file = File::new(name.as_bytes(), mode, text.as_bytes());
            let ours = hits(&policy, &file).iter().any(|(found, _)| *found == rule);
            let verdicts = (!hook.status.success(), ours);
            let wanted = match expected {
                Same => verdicts.0 == verdicts.1,
                OnlyTheHook => verdicts == (true, false),
                OnlyWe => verdicts == (false, true),
            };
            let shown: String = text.chars().take(40).collect();
            assert!(
                wanted,
                "{program} {shown:?}: (the hook, we) refuse: {verdicts:?}: {}",
                String::from_utf8_lossy(&hook.stdout)
            );
            if let Some(mended) = fixed(rule, text.as_bytes()) {
                assert_eq!(std::fs::read(&path).expect("read"), mended, "{program} {shown:?}");
            }
            compared += 1;
        }
    }
    assert!(compared > 85, "{compared}");
}
