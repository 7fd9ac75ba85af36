//! Files of a workspace, found by name or by looking through a directory.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use super::WorkspaceError;
use crate::model::text::what_is_known;

/// Endings of a resource file.
const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// The file that a name stands for.
pub(super) fn find(place: &FilePath, name: &str, kind: &'static str) -> Result<PathBuf, WorkspaceError> {
    let mut paths = ENDINGS.iter().map(|ending| place.join(format!("{name}.{ending}")));
    if let Some(path) = paths.find(|path| !name.contains('/') && path.is_file()) {
        return Ok(path);
    }
    Err(WorkspaceError::Unknown {
        kind,
        name: name.to_owned(),
        place: place.to_owned(),
        hint: format!("; {}", hint(place, name)),
    })
}

/// What is meant by a name that no file has.
pub(super) fn hint(place: &FilePath, name: &str) -> String {
    let there = names_in(place).unwrap_or_default();
    if there.is_empty() {
        return "STAGEGATE_WORKSPACE says where the workspace is".to_owned();
    }
    what_is_known(name, &there)
}

pub(super) fn names_in(directory: &FilePath) -> Result<Vec<String>, WorkspaceError> {
    let mut names: Vec<String> = yaml_below(directory)?
        .iter()
        .filter_map(|f| f.file_stem())
        .map(|stem| stem.to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

pub(super) fn has_yaml_ending(path: &FilePath) -> bool {
    path.extension()
        .is_some_and(|ending| ENDINGS.iter().any(|e| ending == *e))
}

/// A file itself, or every resource file below a directory, in order.
pub(super) fn yaml_below(path: &FilePath) -> Result<Vec<PathBuf>, WorkspaceError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    walk(path, &mut |file| {
        if has_yaml_ending(file) {
            files.push(file.to_owned());
        }
        Ok(())
    })?;
    files.sort();
    Ok(files)
}

/// Every file below a directory of a workspace by its path there, with its text, or why it has none that may be used.
pub(super) fn texts_below(
    workspace: &FilePath,
    root: &FilePath,
) -> Result<BTreeMap<String, Result<String, WorkspaceError>>, WorkspaceError> {
    let mut texts = BTreeMap::new();
    walk(root, &mut |file| {
        let text = lies_inside([workspace, root], file)
            .and_then(|()| std::fs::read_to_string(file).map_err(|why| unreadable(file, &why)));
        let name = file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned();
        texts.insert(name, text);
        Ok(())
    })?;
    Ok(texts)
}

/// Refuses a link that leads out of the workspace: whoever can write there would say what is run on the nodes. A directory that
/// is itself a link to another place is taken for what its owner meant.
fn lies_inside(places: [&FilePath; 2], file: &FilePath) -> Result<(), WorkspaceError> {
    let real = |path: &FilePath| path.canonicalize().map_err(|why| unreadable(path, &why));
    let target = real(file)?;
    for place in places {
        if target.starts_with(real(place)?) {
            return Ok(());
        }
    }
    Err(WorkspaceError::LeadsOut {
        path: file.to_owned(),
        target,
    })
}

fn walk(
    directory: &FilePath,
    each: &mut dyn FnMut(&FilePath) -> Result<(), WorkspaceError>,
) -> Result<(), WorkspaceError> {
    for entry in std::fs::read_dir(directory).map_err(|why| unreadable(directory, &why))? {
        let path = entry.map_err(|why| unreadable(directory, &why))?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
            continue;
        }
        // A link could lead anywhere, also back up.
        let kind = std::fs::symlink_metadata(&path)
            .map_err(|why| unreadable(&path, &why))?
            .file_type();
        if kind.is_dir() {
            walk(&path, each)?;
        } else if path.is_file() {
            each(&path)?;
        }
    }
    Ok(())
}

pub(super) fn unreadable(path: &FilePath, why: &dyn std::fmt::Display) -> WorkspaceError {
    WorkspaceError::Unreadable {
        path: path.to_owned(),
        why: why.to_string(),
    }
}
