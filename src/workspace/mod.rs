//! The workspace: resource files and templates on disk, read into what the engine uses. Every problem of every file is
//! shown at once, each with its line, and what passes here does not fail later for a reason that stood in the files.

mod files;
mod reading;
mod replicas;
mod resources;
mod texts;

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

pub use self::reading::{Invalid, Reading};

use self::resources::Resources;
use crate::model::freeze::FreezeSpec;
use crate::model::pipeline::PipelineSpec;
use crate::model::rehearsal::RehearsalSpec;
use crate::model::render::Renderer;
use crate::model::repository::RepositorySpec;
use crate::model::system::{Environment, PortShift};
use crate::model::text::{self, Document, Path};
use crate::model::tracker::IssueTrackerSpec;

/// The label of the rehearsal that `quickstart` runs.
pub const QUICKSTART: &str = "stagegate.dev/quickstart";

/// Why something of the workspace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// What is wrong with the files, with places.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A link.
    #[error(
        "{path} is a link to {target}, out of the workspace, and is not read; put the file itself there",
        path = path.display(),
        target = target.display()
    )]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
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
}

/// The files of one workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workspace {
    root: PathBuf,
}

/// What a workspace states of how builds get onto environments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromotionRules {
    /// The ways, by name.
    pub pipelines: BTreeMap<String, PipelineSpec>,
    /// When nothing moves, by name.
    pub freezes: BTreeMap<String, FreezeSpec>,
}

/// What `lint` looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Linted {
    /// Files that were asked for.
    pub files: usize,
    /// Resources in them.
    pub resources: usize,
}

impl Workspace {
    /// The workspace in this directory.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The workspace that a file or directory belongs to: the nearest directory, from itself upwards, that has
    /// `environments/`.
    #[must_use]
    pub fn around(path: &FilePath) -> Option<Self> {
        let root = path.ancestors().find(|above| above.join("environments").is_dir())?;
        let here = root.as_os_str().is_empty();
        Some(Self::at(if here { PathBuf::from(".") } else { root.to_owned() }))
    }

    /// Its directory.
    pub fn root(&self) -> &FilePath {
        &self.root
    }

    /// Where it keeps its resources.
    #[must_use]
    pub fn places(&self) -> Vec<PathBuf> {
        let others = ["pipelines", "hooks"].map(|name| self.root.join(name));
        let mut all = vec![self.root.join("environments")];
        all.extend(others.into_iter().filter(|place| place.is_dir()));
        all
    }

    /// An environment with all that it inherits, checked, and the templates of its texts.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn environment(&self, name: &str, shift: PortShift) -> Result<(Environment, Renderer), WorkspaceError> {
        let file = files::find(&self.root.join("environments"), name, "environment")?;
        let mut reading = Reading::default();
        let mut resources = Resources::open(&self.root, &mut reading);
        let documents = resources.read(&file);
        let stated = documents.iter().find(|d| d.kind == "Environment" && d.name == name);
        let environment = stated.and_then(|document| resources.environment(document, shift));
        resources.are_stated_once();
        let renderer = resources.into_renderer();
        reading.into_result()?;
        environment
            .map(|environment| (environment, renderer))
            .ok_or_else(|| WorkspaceError::Unknown {
                kind: "environment",
                name: name.to_owned(),
                place: file,
                hint: "; the file does not state it".to_owned(),
            })
    }

    /// What the file of an environment itself states below `spec`, without what it inherits.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn own(&self, name: &str) -> Result<serde_json::Value, WorkspaceError> {
        let file = files::find(&self.root.join("environments"), name, "environment")?;
        let mut reading = Reading::default();
        let documents = Resources::open(&self.root, &mut reading).read(&file);
        reading.into_result()?;
        let stated = documents.iter().find(|d| d.kind == "Environment" && d.name == name);
        let spec = stated.and_then(|document| document.tree.get("spec"));
        Ok(spec.map(text::Node::to_json).unwrap_or_default())
    }

    /// The names by which environments are looked for; none where nothing can be read.
    #[must_use]
    pub fn environment_names(&self) -> Vec<String> {
        files::names_in(&self.root.join("environments")).unwrap_or_default()
    }

    /// A rehearsal by its name in `pipelines/`, or by a path.
    ///
    /// # Errors
    /// Everything that is wrong with it and its environment.
    pub fn rehearsal(&self, name_or_path: &str, shift: PortShift) -> Result<(String, RehearsalSpec), WorkspaceError> {
        let looks_like_path = name_or_path.contains('/') || files::has_yaml_ending(FilePath::new(name_or_path));
        let file = if looks_like_path {
            PathBuf::from(name_or_path)
        } else {
            files::find(&self.root.join("pipelines"), name_or_path, "rehearsal")?
        };
        let mut reading = Reading::default();
        let mut resources = Resources::open(&self.root, &mut reading);
        let documents = resources.read(&file);
        let stated = documents.iter().find(|d| d.kind == "Rehearsal");
        let rehearsal = stated.and_then(|d| Some((d.name.clone(), resources.rehearsal(d, shift)?)));
        resources.are_stated_once();
        reading.into_result()?;
        rehearsal.ok_or_else(|| WorkspaceError::Unknown {
            kind: "rehearsal",
            name: name_or_path.to_owned(),
            place: file,
            hint: "; the file states none".to_owned(),
        })
    }

    /// The rehearsal that is labelled [`QUICKSTART`].
    ///
    /// # Errors
    /// There is none, or something is wrong with it.
    pub fn quickstart(&self, shift: PortShift) -> Result<(String, RehearsalSpec), WorkspaceError> {
        let place = self.root.join("pipelines");
        let label = Path::root().key("metadata").key("labels").key(QUICKSTART);
        for file in files::yaml_below(&place)? {
            let mut reading = Reading::default();
            let documents = Resources::open(&self.root, &mut reading).read(&file);
            if documents
                .iter()
                .any(|d| d.kind == "Rehearsal" && d.tree.at(&label).is_some())
            {
                return self.rehearsal(&file.to_string_lossy(), shift);
            }
        }
        Err(WorkspaceError::Unknown {
            kind: "rehearsal labelled",
            name: QUICKSTART.to_owned(),
            place,
            hint: "; give the name of one".to_owned(),
        })
    }

    /// The rules of promotion that files in `pipelines/` state.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn promotion_rules(&self) -> Result<PromotionRules, WorkspaceError> {
        let mut rules = PromotionRules::default();
        let place = self.root.join("pipelines");
        if !place.is_dir() {
            return Ok(rules);
        }
        let mut reading = Reading::default();
        let mut resources = Resources::open(&self.root, &mut reading);
        for file in files::yaml_below(&place)? {
            for document in resources.read(&file) {
                let name = || document.name.clone();
                match document.kind.as_str() {
                    "Pipeline" => rules
                        .pipelines
                        .extend(resources.pipeline(&document).map(|spec| (name(), spec))),
                    "Freeze" => rules
                        .freezes
                        .extend(resources.freeze(&document).map(|spec| (name(), spec))),
                    _ => {}
                }
            }
        }
        resources.are_stated_once();
        reading.into_result()?;
        Ok(rules)
    }

    /// The repositories that are checked where they are hosted: those that files in `hooks/` state, by name.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method is of one lifetime, and the closure of any"
    )]
    pub fn repositories(&self) -> Result<Vec<(String, RepositorySpec)>, WorkspaceError> {
        self.of_hooks("Repository", |resources, document| resources.repository(document))
    }

    /// The trackers of issues that commits name: those that files in `hooks/` state, by name.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method is of one lifetime, and the closure of any"
    )]
    pub fn trackers(&self) -> Result<Vec<(String, IssueTrackerSpec)>, WorkspaceError> {
        self.of_hooks("IssueTracker", |resources, document| resources.tracker(document))
    }

    /// The resources of one kind that files in `hooks/` state.
    fn of_hooks<T>(
        &self,
        kind: &str,
        decode: impl Fn(&mut Resources<'_>, &Document) -> Option<T>,
    ) -> Result<Vec<(String, T)>, WorkspaceError> {
        let place = self.root.join("hooks");
        if !place.is_dir() {
            return Ok(Vec::new());
        }
        let mut reading = Reading::default();
        let mut resources = Resources::open(&self.root, &mut reading);
        let mut found = Vec::new();
        for file in files::yaml_below(&place)? {
            for document in resources.read(&file).iter().filter(|d| d.kind == kind) {
                found.extend(decode(&mut resources, document).map(|spec| (document.name.clone(), spec)));
            }
        }
        resources.are_stated_once();
        reading.into_result()?;
        Ok(found)
    }

    /// Checks files and every file below directories; what is wrong with them is then in `reading`.
    pub fn lint(&self, paths: &[PathBuf], reading: &mut Reading) -> Linted {
        let mut files = Vec::new();
        for path in paths {
            match files::yaml_below(path) {
                Ok(found) => files.extend(found),
                Err(why) => reading.unreadable(&why),
            }
        }
        let mut resources = Resources::open(&self.root, reading);
        let documents: Vec<_> = files.iter().flat_map(|file| resources.read(file)).collect();
        let linted = Linted {
            files: files.len(),
            resources: resources.count(),
        };
        for document in &documents {
            resources.check(document, PortShift::default());
        }
        resources.are_stated_once();
        linted
    }
}
