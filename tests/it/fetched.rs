//! What tests fetch from the registries, once for all runs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A package of the npm registry, unpacked once.
pub fn npm(name: &str, version: &str) -> PathBuf {
    once(&format!("{}-{version}", name.replace(['@', '/'], "")), |place| {
        let script = format!("npm pack -s '{name}@{version}' >packed && tar xzf \"$(tail -n1 packed)\"");
        let done = Command::new("sh").args(["-euc", &script]).current_dir(place).status();
        assert!(done.expect("sh runs").success(), "{script}");
    })
    .join("package")
}

/// Python that can judge by a JSON schema.
pub fn python_with_jsonschema() -> PathBuf {
    once("jsonschema-4.26.0", |place| {
        let script = "python3 -m venv v && v/bin/pip install -q jsonschema==4.26.0";
        let done = Command::new("sh").args(["-euc", script]).current_dir(place).status();
        assert!(done.expect("sh runs").success(), "{script}");
    })
    .join("v/bin/python")
}

/// Python with a mail server.
pub fn python_with_aiosmtpd() -> PathBuf {
    once("aiosmtpd-1.4.6", |place| {
        let script = "python3 -m venv v && v/bin/pip install -q aiosmtpd==1.4.6";
        let done = Command::new("sh").args(["-euc", script]).current_dir(place).status();
        assert!(done.expect("sh runs").success(), "{script}");
    })
    .join("v/bin/python")
}

/// A directory for what tests fetch, filled by the first that asks.
pub fn once(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (place, lock) = (root.join(name), root.join(format!("{name}.lock")));
    let lock = std::fs::File::create(lock).expect("made");
    lock.lock().expect("locked");
    if !place.join("complete").exists() {
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).expect("made");
        fill(&place);
        std::fs::write(place.join("complete"), "").expect("written");
    }
    place
}
