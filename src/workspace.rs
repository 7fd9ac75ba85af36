//! The workspace: resource files and templates on disk, read into what the engine uses. Every problem of a file is shown
//! at once, each with its line.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::commits::policy;
use crate::model::environment::EnvironmentSpec;
use crate::model::rehearsal::RehearsalSpec;
use crate::model::render::{RenderError, Renderer};
use crate::model::system::{Environment, Finding, PortShift};
use crate::model::text::{
    self, Document, Ink, Key, Node, Path, PathPattern, Problem, Problems, Sources, Value, did_you_mean,
};

/// A larger file is not a resource: the largest shipped has some 10 kB.
const MOST_BYTES: u64 = 4 << 20;
/// A chain of replicas longer than this is a circle or nothing that anybody could follow.
const LONGEST_CHAIN: usize = 8;
/// The label of the rehearsal that `quickstart` runs.
pub const QUICKSTART: &str = "stagegate.dev/quickstart";
/// What a workspace's files may state.
const KINDS: [&str; 3] = ["Environment", "Rehearsal", policy::KIND];

/// Why something of the workspace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// What is wrong with the files, with places.
    #[error("{0}")]
    Invalid(String),
    /// A file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// No such resource.
    #[error("there is no {kind} `{name}` in {place}{hint}")]
    Unknown {
        /// Environment or rehearsal.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Where we looked.
        place: PathBuf,
        /// What is near, or what there is.
        hint: String,
    },
    /// A template that does not parse.
    #[error("templates: {0}")]
    Template(#[from] RenderError),
}

/// The files of one workspace.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
}

/// What `lint` looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linted {
    /// Files that were read.
    pub files: usize,
    /// Resources in them.
    pub resources: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resource<T> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Metadata,
    spec: T,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: String,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

/// Texts that were read, with what is wrong with them so far.
#[derive(Default)]
struct Reading {
    sources: Sources,
    problems: Problems,
}

impl Reading {
    fn file(&mut self, path: &FilePath) -> Result<(), WorkspaceError> {
        let unreadable = |why: String| WorkspaceError::Unreadable {
            path: path.to_owned(),
            why,
        };
        let length = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if length > MOST_BYTES {
            return Err(unreadable(format!(
                "it has {length} bytes; a resource file has at most {MOST_BYTES}"
            )));
        }
        let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|e| unreadable(format!("it is not UTF-8: {e}")))?;
        self.sources.add(path.display().to_string(), text);
        Ok(())
    }

    fn documents(&mut self) -> Vec<Document> {
        let loaded = text::load(&self.sources, &KINDS);
        self.problems.extend(loaded.problems);
        loaded.documents
    }

    /// Everything that is wrong, if anything is.
    fn check(&self) -> Result<(), WorkspaceError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let ink = if crate::settings::colours_on_stderr() {
            Ink::Coloured
        } else {
            Ink::Plain
        };
        Err(WorkspaceError::Invalid(self.problems.render(&self.sources, ink)))
    }
}

impl Workspace {
    /// The workspace in this directory.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Its directory.
    pub fn root(&self) -> &FilePath {
        &self.root
    }

    /// An environment with all that it inherits, checked.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn environment(&self, name: &str, shift: PortShift) -> Result<Environment, WorkspaceError> {
        let mut reading = Reading::default();
        let chain = self.chain(name, &mut reading)?;
        reading.check()?;
        let environment = self.validate(&chain, shift, &mut reading);
        reading.check()?;
        // Without a problem there is an environment.
        environment.ok_or_else(|| WorkspaceError::Invalid(format!("environment {name} could not be read")))
    }

    /// Names of the environments.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn environments(&self) -> Result<Vec<String>, WorkspaceError> {
        names_in(&self.root.join("environments"))
    }

    /// A rehearsal by its name in `pipelines/`, or by a path.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn rehearsal(&self, name_or_path: &str) -> Result<(String, RehearsalSpec), WorkspaceError> {
        let place = self.root.join("pipelines");
        let looks_like_path = name_or_path.contains('/') || has_yaml_ending(FilePath::new(name_or_path));
        let path = if looks_like_path {
            PathBuf::from(name_or_path)
        } else {
            find(&place, name_or_path, "rehearsal")?
        };
        let mut reading = Reading::default();
        reading.file(&path)?;
        let documents = reading.documents();
        reading.check()?;
        let Some(document) = documents.iter().find(|d| d.kind == "Rehearsal") else {
            return Err(WorkspaceError::Unknown {
                kind: "rehearsal",
                name: name_or_path.to_owned(),
                place: path,
                hint: String::new(),
            });
        };
        let spec = rehearsal(document, &mut reading);
        reading.check()?;
        spec.map(|spec| (document.name.clone(), spec))
            .ok_or_else(|| WorkspaceError::Invalid(format!("{name_or_path} could not be read")))
    }

    /// The rehearsal that is labelled [`QUICKSTART`].
    ///
    /// # Errors
    /// There is none, or something is wrong with one.
    pub fn quickstart(&self) -> Result<(String, RehearsalSpec), WorkspaceError> {
        let place = self.root.join("pipelines");
        for name in names_in(&place)? {
            let mut reading = Reading::default();
            let path = find(&place, &name, "rehearsal")?;
            reading.file(&path)?;
            let documents = reading.documents();
            reading.check()?;
            let label = Path::root().key("metadata").key("labels").key(QUICKSTART);
            if documents
                .iter()
                .any(|d| d.kind == "Rehearsal" && d.tree.at(&label).is_some())
            {
                return self.rehearsal(&path.to_string_lossy());
            }
        }
        Err(WorkspaceError::Unknown {
            kind: "rehearsal labelled",
            name: QUICKSTART.to_owned(),
            place,
            hint: "; give the name of one".to_owned(),
        })
    }

    /// All templates, parsed.
    ///
    /// # Errors
    /// The first that does not parse.
    pub fn templates(&self) -> Result<Renderer, WorkspaceError> {
        Ok(Renderer::new(&self.template_texts()?)?)
    }

    fn template_texts(&self) -> Result<BTreeMap<String, String>, WorkspaceError> {
        let root = self.root.join("templates");
        let mut texts = BTreeMap::new();
        if root.is_dir() {
            collect_texts(&root, &root, &mut texts)?;
        }
        Ok(texts)
    }

    /// Checks a file or every file below a directory.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn lint(&self, path: &FilePath) -> Result<Linted, WorkspaceError> {
        let mut files = Vec::new();
        list_yaml(path, &mut files)?;
        files.sort();
        let mut reading = Reading::default();
        for file in &files {
            reading.file(file)?;
        }
        let documents = reading.documents();
        for document in &documents {
            if document.kind == "Rehearsal" {
                rehearsal(document, &mut reading);
            } else if document.kind == policy::KIND {
                if let Err(problems) = policy::Policy::of_document(document) {
                    reading.problems.extend(problems);
                }
            } else {
                // A base may lie in another file than those that are asked about.
                let mut chain = vec![document.clone()];
                if let Some(base) = replica_of(document) {
                    match documents.iter().find(|d| d.kind == "Environment" && d.name == base) {
                        Some(found) => chain.push(found.clone()),
                        None => chain.extend(self.chain(&base, &mut reading)?),
                    }
                }
                self.validate(&chain, PortShift::default(), &mut reading);
            }
        }
        self.templates()?;
        reading.check()?;
        Ok(Linted {
            files: files.len(),
            resources: documents.len(),
        })
    }

    /// An environment's document, its base's, and so on.
    fn chain(&self, name: &str, reading: &mut Reading) -> Result<Vec<Document>, WorkspaceError> {
        let place = self.root.join("environments");
        let mut chain: Vec<Document> = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            if chain.iter().any(|d| d.name == name) || chain.len() == LONGEST_CHAIN {
                let names: Vec<&str> = chain.iter().map(|d| d.name.as_str()).collect();
                let message = format!(
                    "`replicaOf` goes in a circle: {} of {name}",
                    names.join(" is a replica of ")
                );
                let path = Path::root().key("spec").key("replicaOf");
                if let Some(last) = chain.last() {
                    reading.problems.push(Problem::in_tree(&last.tree, &path, message));
                }
                return Ok(chain);
            }
            let path = find(&place, &name, "environment")?;
            reading.file(&path)?;
            let documents = reading.documents();
            reading.check()?;
            let document = documents
                .into_iter()
                .find(|d| d.kind == "Environment" && d.name == name)
                .ok_or_else(|| WorkspaceError::Unknown {
                    kind: "environment",
                    name: name.clone(),
                    place: path,
                    hint: "; the file states another name".to_owned(),
                })?;
            next = replica_of(&document);
            chain.push(document);
        }
        Ok(chain)
    }

    /// `chain` begins with the environment itself and ends with the one that copies nobody.
    fn validate(&self, chain: &[Document], shift: PortShift, reading: &mut Reading) -> Option<Environment> {
        let (first, bases) = chain.split_first()?;
        let mut tree = bases
            .last()
            .map_or_else(|| first.tree.clone(), |base| base.tree.clone());
        for document in chain.iter().rev().skip(1) {
            tree = laid_over(&tree, &document.tree, &mut reading.problems);
        }
        let merged = Document { tree, ..first.clone() };
        let resource: Resource<EnvironmentSpec> = match text::decode(&merged) {
            Ok(resource) => resource,
            Err(problems) => {
                reading.problems.extend(problems);
                return None;
            }
        };
        self.missing_templates(&merged, &resource.spec, reading);
        match Environment::new(&first.name, resource.spec, shift) {
            Ok(environment) => Some(environment),
            Err(findings) => {
                for Finding { path, message, hint } in findings {
                    let path = Path::root().key("spec").join(&path.into_iter().collect());
                    let mut problem = Problem::in_tree(&merged.tree, &path, message);
                    if let Some(hint) = hint {
                        problem = problem.hint(hint);
                    }
                    reading.problems.push(problem);
                }
                None
            }
        }
    }

    fn missing_templates(&self, document: &Document, spec: &EnvironmentSpec, reading: &mut Reading) {
        for (c, component) in spec.components.iter().enumerate() {
            let actions = &component.actions;
            for (word, action) in [
                ("setup", &actions.setup),
                ("check", &actions.check),
                ("prepare", &actions.prepare),
                ("install", &actions.install),
                ("start", &actions.start),
                ("stop", &actions.stop),
                ("drain", &actions.drain),
                ("admit", &actions.admit),
                ("warm", &actions.warm),
                ("remove", &actions.remove),
            ] {
                let Some(action) = action else { continue };
                if self.root.join("templates").join(&action.template).is_file() {
                    continue;
                }
                let path = Path::root()
                    .key("spec")
                    .key("components")
                    .index(c)
                    .key("actions")
                    .key(word)
                    .key("template");
                let message = format!("there is no template `{}`", action.template);
                reading.problems.push(
                    Problem::in_tree(&document.tree, &path, message)
                        .hint(format!("templates lie in {}", self.root.join("templates").display())),
                );
            }
        }
    }
}

fn replica_of(document: &Document) -> Option<String> {
    let path = Path::root().key("spec").key("replicaOf");
    document.tree.at(&path).and_then(Node::as_str).map(str::to_owned)
}

/// A replica's document over its base's: the head is the replica's, the spec is merged. A replica has its own nodes.
fn laid_over(base: &Node, replica: &Node, problems: &mut Problems) -> Node {
    let nodes: Vec<PathPattern> = "spec.components[*].nodes".parse().into_iter().collect();
    let nothing = Node {
        span: base.span,
        value: Value::Map(Vec::new()),
    };
    let base_spec = base.get("spec").unwrap_or(&nothing);
    let entries: Vec<(Key, Node)> = replica
        .entries()
        .iter()
        .map(|(key, node)| {
            let node = if key.name == "spec" {
                text::merge(base_spec, node, &Path::root().key("spec"), &nodes, problems)
            } else {
                node.clone()
            };
            (key.clone(), node)
        })
        .collect();
    Node {
        span: replica.span,
        value: Value::Map(entries),
    }
}

fn rehearsal(document: &Document, reading: &mut Reading) -> Option<RehearsalSpec> {
    let spec = match text::decode::<Resource<RehearsalSpec>>(document) {
        Ok(resource) => resource.spec,
        Err(problems) => {
            reading.problems.extend(problems);
            return None;
        }
    };
    let spec_path = Path::root().key("spec");
    let before = reading.problems.len();
    for (i, disturbance) in spec.disturbances.iter().enumerate() {
        let given = [
            disturbance.hold_row.is_some(),
            disturbance.restart_component.is_some(),
            disturbance.kill_node.is_some(),
            disturbance.fill_disk.is_some(),
        ];
        let n = given.iter().filter(|g| **g).count();
        if n != 1 {
            let path = spec_path.key("disturbances").index(i);
            let message = format!(
                "disturbance `{}` is of {n} kinds, and must be of exactly one",
                disturbance.name
            );
            reading.problems.push(Problem::in_tree(&document.tree, &path, message));
        }
    }
    if spec.runs.is_empty() {
        let problem = Problem::in_tree(
            &document.tree,
            &spec_path.key("runs"),
            "a rehearsal without runs shows nothing",
        );
        reading.problems.push(problem);
    }
    for (i, run) in spec.runs.iter().enumerate() {
        let path = spec_path.key("runs").index(i);
        if !run
            .build
            .split_once('=')
            .is_some_and(|(c, v)| !c.is_empty() && !v.is_empty())
        {
            let message = format!("`{}` does not name a build", run.build);
            reading
                .problems
                .push(Problem::in_tree(&document.tree, &path.key("build"), message).hint("write COMPONENT=VERSION"));
        }
        if let Some(pattern) = &run.expect.blocker_statement
            && let Err(why) = regex::Regex::new(pattern)
        {
            let message = format!("`{pattern}` is no regular expression: {why}");
            let path = path.key("expect").key("blockerStatement");
            reading.problems.push(Problem::in_tree(&document.tree, &path, message));
        }
    }
    (reading.problems.len() == before).then_some(spec)
}

fn find(place: &FilePath, name: &str, kind: &'static str) -> Result<PathBuf, WorkspaceError> {
    let path = place.join(format!("{name}.yaml"));
    if !name.contains('/') && path.is_file() {
        return Ok(path);
    }
    let there = names_in(place).unwrap_or_default();
    let hint = match did_you_mean(name, there.iter().map(String::as_str)) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if there.is_empty() => "; STAGEGATE_WORKSPACE says where the workspace is".to_owned(),
        None => format!("; there is {}", there.join(", ")),
    };
    Err(WorkspaceError::Unknown {
        kind,
        name: name.to_owned(),
        place: place.to_owned(),
        hint,
    })
}

fn names_in(directory: &FilePath) -> Result<Vec<String>, WorkspaceError> {
    let mut files = Vec::new();
    list_yaml(directory, &mut files)?;
    let mut names: Vec<String> = files
        .iter()
        .filter_map(|f| f.file_stem())
        .map(|stem| stem.to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

fn has_yaml_ending(path: &FilePath) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}

fn list_yaml(path: &FilePath, files: &mut Vec<PathBuf>) -> Result<(), WorkspaceError> {
    let unreadable = |why: std::io::Error| WorkspaceError::Unreadable {
        path: path.to_owned(),
        why: why.to_string(),
    };
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        // A link could lead anywhere, also back up.
        let kind = std::fs::symlink_metadata(&path).map_err(unreadable)?.file_type();
        if kind.is_dir() && !hidden {
            list_yaml(&path, files)?;
        } else if has_yaml_ending(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn collect_texts(
    root: &FilePath,
    directory: &FilePath,
    texts: &mut BTreeMap<String, String>,
) -> Result<(), WorkspaceError> {
    let unreadable = |path: &FilePath, why: std::io::Error| WorkspaceError::Unreadable {
        path: path.to_owned(),
        why: why.to_string(),
    };
    for entry in std::fs::read_dir(directory).map_err(|e| unreadable(directory, e))? {
        let path = entry.map_err(|e| unreadable(directory, e))?.path();
        let kind = std::fs::symlink_metadata(&path)
            .map_err(|e| unreadable(&path, e))?
            .file_type();
        if kind.is_dir() {
            collect_texts(root, &path, texts)?;
        } else if kind.is_file() {
            let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            texts.insert(name, text);
        }
    }
    Ok(())
}
