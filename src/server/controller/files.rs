//! Objects as a workspace: what is read of an environment is read of files, so that every check, replica and template is the
//! same in both homes. The directory is ours alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kube::api::DynamicObject;
use serde_json::json;

use crate::cluster::crd::{GROUP, VERSION};
use crate::cluster::objects::generation;
use crate::cluster::templates;
use crate::home::make_private;
use crate::model::values::Digest;
use crate::workspace::Workspace;

/// Files that are no resources: some dozens of scripts, of some kilobytes each.
const MOST_FILES: usize = 1_000;
/// All of them together; a `ConfigMap` holds 1 MiB.
const MOST_BYTES: u64 = 16 << 20;

/// Where files are written before they get their names. Not beside the others: a template may have any name.
const NEW: &str = "new";

/// The workspace of a controller.
pub(super) struct Files {
    pub(super) workspace: Workspace,
    templates: Option<PathBuf>,
    /// Whether they have changed since somebody asked.
    changed: AtomicBool,
}

impl Files {
    /// In this directory, with the templates that lie in another.
    pub(super) fn new(root: PathBuf, templates: Option<PathBuf>) -> Self {
        Self {
            workspace: Workspace::at(root),
            templates,
            changed: AtomicBool::new(false),
        }
    }

    /// Makes an environment's file what its object states, or takes it away with the object.
    pub(super) fn place(&self, environment: &str, object: Option<&DynamicObject>) -> io::Result<Change> {
        let directory = self.workspace.root().join("environments");
        make_private(&directory)?;
        let file = directory.join(format!("{environment}.yaml"));
        let Some(object) = object else {
            return match std::fs::remove_file(file) {
                Ok(()) => Ok(Change::Some),
                Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Change::None),
                Err(why) => Err(why),
            };
        };
        let text = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Environment",
            "metadata": {"name": environment},
            "spec": object.data["spec"],
        });
        let text = serde_yaml::to_string(&text).map_err(io::Error::other)?;
        let text = format!(
            "# Generation {}, written by `stagegate controller`.\n{text}",
            generation(object)
        );
        self.write(&file, text.as_bytes())
    }

    /// Takes away what an earlier process has left of environments that are no more.
    pub(super) fn only(&self, environments: &BTreeSet<String>) -> io::Result<()> {
        let directory = self.workspace.root().join("environments");
        make_private(&directory)?;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let file = entry.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".yaml"));
            if !name.is_some_and(|name| environments.contains(name)) {
                remove(&entry)?;
            }
        }
        // And of what it was killed in writing.
        match std::fs::remove_dir_all(self.workspace.root().join(NEW)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// A text for who does not see the volume: what lies there is named by where it comes from.
    pub(super) fn by_origin(&self, text: &str) -> String {
        let root = self.workspace.root();
        let from = |place: &str| root.join(place).display().to_string();
        let text = text.replace(&format!("{}/", from("environments")), "Environment ");
        let templates = format!("ConfigMap {}", templates::NAME);
        text.replace(&format!("{}/", from("templates")), &format!("{templates}, "))
            .replace(&from("templates"), &templates)
    }

    /// Makes the templates what they are where they are mounted.
    pub(super) fn templates(&self) -> io::Result<Change> {
        let to = self.workspace.root().join("templates");
        make_private(&to)?;
        let change = match &self.templates {
            None => Change::None,
            Some(from) => self.copy(from, &to)?,
        };
        if change == Change::Some {
            self.changed.store(true, Ordering::Relaxed);
        }
        Ok(change)
    }

    /// Whether that was otherwise than before at any time since this was last asked.
    pub(super) fn were_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// Of the templates as they are used, if they can be read.
    pub(super) fn digest(&self) -> Option<Digest> {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(self.workspace.root().join("templates")).ok()? {
            let entry = entry.ok()?;
            let path = entry.path();
            if path.is_file() {
                all.insert(entry.file_name().into_string().ok()?, std::fs::read(path).ok()?);
            }
        }
        Some(templates::digest(&all))
    }

    /// Also of what links lead to: a mounted `ConfigMap` consists of them.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<Change> {
        let (mut files, mut bytes) = (0, 0);
        let (mut there, mut change) = (BTreeSet::new(), Change::None);
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
            if self.write(&to.join(&name), &std::fs::read(&file)?)? == Change::Some {
                change = Change::Some;
            }
            there.insert(name);
        }
        for entry in std::fs::read_dir(to)? {
            let entry = entry?;
            if !there.contains(&entry.file_name()) {
                remove(&entry)?;
                change = Change::Some;
            }
        }
        Ok(change)
    }

    /// Whoever reads meanwhile finds the old or the new.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<Change> {
        if std::fs::read(file).is_ok_and(|before| before == bytes) {
            return Ok(Change::None);
        }
        let directory = self.workspace.root().join(NEW);
        make_private(&directory)?;
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        new.write_all(bytes)?;
        new.persist(file)?;
        Ok(Change::Some)
    }
}

/// Whether something is otherwise than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Some,
}

/// What nobody states any more.
fn remove(entry: &std::fs::DirEntry) -> io::Result<()> {
    if entry.file_type()?.is_dir() {
        return std::fs::remove_dir_all(entry.path());
    }
    std::fs::remove_file(entry.path())
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
        for (environment, object, change) in [
            ("one", Some(&one), Change::Some),
            ("two", Some(&two), Change::Some),
            ("two", Some(&two), Change::None),
            ("one", None, Change::Some),
            ("one", None, Change::None),
        ] {
            assert_eq!(
                files.place(environment, object).expect("placed"),
                change,
                "{environment}"
            );
        }
        assert_eq!(files.workspace.environment_names(), ["two"]);
        files.place("left", Some(&one)).expect("placed");
        files.only(&BTreeSet::from(["two".to_owned()])).expect("taken away");
        assert_eq!(files.workspace.environment_names(), ["two"]);
        let root = files.workspace.root().display().to_string();
        let said = format!("{root}/environments/two.yaml: no such template; templates lie in {root}/templates");
        assert_eq!(
            files.by_origin(&said),
            "Environment two.yaml: no such template; templates lie in ConfigMap stagegate-templates"
        );
        assert_eq!(files.templates().expect("copied"), Change::Some);
        assert_eq!(files.templates().expect("copied"), Change::None);
        let copied = files.workspace.root().join("templates/start.sh");
        assert!(std::fs::symlink_metadata(&copied).expect("there").is_file());
    }

    #[test]
    fn what_a_killed_controller_left_is_no_change_for_ever_and_a_template_may_have_any_name() {
        let place = tempfile::tempdir().expect("a directory");
        let mounted = place.path().join("mounted");
        std::fs::create_dir(&mounted).expect("made");
        std::fs::write(mounted.join("start.sh"), "true\n").expect("written");
        let files = Files::new(place.path().join("workspace"), Some(mounted.clone()));
        files.templates().expect("copied");
        assert!(files.were_changed());
        let copied = files.workspace.root().join("templates");
        let there = || {
            let all = std::fs::read_dir(&copied).expect("listed");
            let all = all.map(|entry| entry.expect("one").file_name().into_string().expect("a name"));
            all.collect::<BTreeSet<_>>()
        };
        // Whatever an earlier process was writing, under whichever name.
        std::fs::write(copied.join("start.sh.7.new"), "tr").expect("written");
        std::fs::create_dir_all(copied.join("left/over")).expect("made");
        std::fs::create_dir_all(files.workspace.root().join(NEW)).expect("made");
        std::fs::write(files.workspace.root().join(NEW).join("half"), "tr").expect("written");
        files.only(&BTreeSet::new()).expect("taken away");
        assert!(!files.workspace.root().join(NEW).exists());
        files.templates().expect("copied");
        files.were_changed();
        assert_eq!(there(), BTreeSet::from(["start.sh".to_owned()]));
        files.templates().expect("copied");
        assert!(!files.were_changed(), "it was taken away");

        // A key of the ConfigMap is a template, whatever it is called: who waits for it goes by its digest.
        std::fs::write(mounted.join("x.new"), "false\n").expect("written");
        files.templates().expect("copied");
        assert!(files.were_changed());
        let wanted = BTreeMap::from([("start.sh".to_owned(), "true\n"), ("x.new".to_owned(), "false\n")]);
        assert_eq!(files.digest(), Some(templates::digest(&wanted)));
        std::fs::remove_file(mounted.join("x.new")).expect("removed");
        files.templates().expect("copied");
        assert!(files.were_changed());
        files.templates().expect("copied");
        assert!(!files.were_changed(), "it is gone");
    }
}
