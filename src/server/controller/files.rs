//! Objects as a workspace: what is read of an environment is read of files, so that every check, replica and template is the
//! same in both homes. The directory is ours alone.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use kube::api::DynamicObject;
use serde_json::json;

use crate::cluster::crd::{GROUP, VERSION};
use crate::cluster::objects::{generation, name};
use crate::home::make_private;
use crate::workspace::Workspace;

/// Files that are no resources: some dozens of scripts, of some kilobytes each.
const MOST_FILES: usize = 1_000;
/// All of them together; a `ConfigMap` holds 1 MiB.
const MOST_BYTES: u64 = 16 << 20;

/// Ending of a file that is being written.
const NEW: &str = "new";

/// The workspace of a controller.
pub(super) struct Files {
    pub(super) workspace: Workspace,
    templates: Option<PathBuf>,
}

impl Files {
    /// In this directory, with the templates that lie in another.
    pub(super) fn new(root: PathBuf, templates: Option<PathBuf>) -> Self {
        Self {
            workspace: Workspace::at(root),
            templates,
        }
    }

    /// Makes the files what the objects are: no more and no less.
    pub(super) fn place<'a>(&self, environments: impl Iterator<Item = &'a DynamicObject>) -> io::Result<()> {
        let root = self.workspace.root();
        let directory = root.join("environments");
        make_private(&directory)?;
        let mut there = BTreeSet::new();
        for object in environments {
            let file = format!("{}.yaml", name(object));
            let text = json!({
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": "Environment",
                "metadata": {"name": name(object)},
                "spec": object.data["spec"],
            });
            let text = serde_yaml::to_string(&text).map_err(io::Error::other)?;
            let text = format!(
                "# Generation {}, written by `stagegate controller`.\n{text}",
                generation(object)
            );
            write(&directory.join(&file), text.as_bytes())?;
            there.insert(file);
        }
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if !there.contains(&*entry.file_name().to_string_lossy()) {
                remove(&entry)?;
            }
        }
        let to = root.join("templates");
        make_private(&to)?;
        match &self.templates {
            None => Ok(()),
            Some(from) => copy(from, &to),
        }
    }
}

/// Also of what links lead to: a mounted `ConfigMap` consists of them.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut files, mut bytes) = (0, 0);
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (file, name) = (entry.path(), entry.file_name());
        let about = std::fs::metadata(&file)?;
        // Versions of a mounted ConfigMap lie beside it in directories.
        if !about.is_file() || name.as_encoded_bytes().starts_with(b"..") {
            continue;
        }
        files += 1;
        bytes += about.len();
        if files > MOST_FILES || bytes > MOST_BYTES {
            return Err(io::Error::other(format!(
                "{} holds more than {MOST_FILES} files or {} MiB",
                from.display(),
                MOST_BYTES >> 20
            )));
        }
        write(&to.join(&name), &std::fs::read(&file)?)?;
        there.insert(name);
    }
    for entry in std::fs::read_dir(to)? {
        let entry = entry?;
        if !there.contains(&entry.file_name()) {
            remove(&entry)?;
        }
    }
    Ok(())
}

/// Of what nobody states any more; what is being written has the ending of [`NEW`].
fn remove(entry: &std::fs::DirEntry) -> io::Result<()> {
    let path = entry.path();
    if path.extension().is_some_and(|ending| ending == NEW) {
        return Ok(());
    }
    std::fs::remove_file(path)
}

/// Whoever reads meanwhile finds the old or the new.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if std::fs::read(file).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    // Of this process alone: two controllers of one test may share a volume.
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}.{NEW}", std::process::id()));
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_the_objects_are_and_templates_are_copied_through_links() {
        let place = tempfile::tempdir().expect("a directory");
        let templates = place.path().join("mounted");
        std::fs::create_dir_all(templates.join("..data")).expect("made");
        std::fs::write(templates.join("..data/start.sh"), "true\n").expect("written");
        std::os::unix::fs::symlink("..data/start.sh", templates.join("start.sh")).expect("made");
        let files = Files::new(place.path().join("workspace"), Some(templates));
        let object = |name: &str| -> DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment",
                "metadata": {"name": name, "generation": 3}, "spec": {"components": []},
            }))
            .expect("an object")
        };
        let (one, two) = (object("one"), object("two"));
        files.place([&one, &two].into_iter()).expect("placed");
        files.place([&two].into_iter()).expect("placed");
        assert_eq!(files.workspace.environment_names(), ["two"]);
        let copied = files.workspace.root().join("templates/start.sh");
        assert!(std::fs::symlink_metadata(&copied).expect("there").is_file());
    }
}
