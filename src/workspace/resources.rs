//! The resources of one workspace, each file read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::WorkspaceError;
use super::files;
use super::reading::{Reading, words_of};
use super::replicas::{self, NotFound};
use super::texts::{self, Fault, Why};
use crate::commits::policy;
use crate::model::build::BuildSpec;
use crate::model::environment::EnvironmentSpec;
use crate::model::freeze::FreezeSpec;
use crate::model::pipeline::PipelineSpec;
use crate::model::rehearsal::RehearsalSpec;
use crate::model::render::{RenderError, Renderer};
use crate::model::repository::RepositorySpec;
use crate::model::system::{Environment, Finding, PortShift};
use crate::model::text::{self, Broken, Document, Path, Problem, Readable, SourceId, did_you_mean, what_is_known};
use crate::model::tracker::IssueTrackerSpec;
use crate::model::upgrade::UpgradeSpec;

/// What a file may state.
pub(super) const KINDS: [&str; 9] = [
    "Environment",
    "Build",
    "Upgrade",
    "Rehearsal",
    "Pipeline",
    "Freeze",
    "Repository",
    "IssueTracker",
    policy::KIND,
];

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resource<T> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Metadata,
    #[serde(rename = "spec")]
    _spec: T,
    /// Stagegate's own word; what stands here in a file is not read.
    #[serde(default, rename = "status")]
    _status: Option<serde_json::Value>,
}

/// What `get -o yaml` prints is accepted again.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: String,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    #[serde(default, rename = "generation")]
    _generation: Option<u64>,
    #[serde(default, rename = "resourceVersion")]
    _resource_version: Option<String>,
    #[serde(default, rename = "creationTimestamp")]
    _creation_timestamp: Option<String>,
}

/// A document as far as it was read.
struct Read<T> {
    spec: T,
    /// Without what was left out.
    document: Document,
    broken: Broken,
}

impl<T> Read<T> {
    fn problem(&self, path: &Path, message: String) -> Problem {
        let span = self.document.tree.nearest_span(path);
        Problem::new(message).at(self.broken.place(path)).span(span)
    }
}

/// The resources of one workspace, as far as its files were read.
pub(super) struct Resources<'a> {
    root: &'a FilePath,
    reading: &'a mut Reading,
    read: BTreeSet<PathBuf>,
    /// Of these, the ones whose text is wrong: what they were to state is missing, and that has been told.
    broken: BTreeSet<PathBuf>,
    documents: Vec<Arc<Document>>,
    templates: BTreeMap<String, SourceId>,
    renderer: Renderer,
}

impl<'a> Resources<'a> {
    /// Reads the templates; of resources none yet.
    pub(super) fn open(root: &'a FilePath, reading: &'a mut Reading) -> Self {
        let mut this = Self {
            root,
            reading,
            read: BTreeSet::new(),
            broken: BTreeSet::new(),
            documents: Vec::new(),
            templates: BTreeMap::new(),
            renderer: Renderer::default(),
        };
        let place = root.join("templates");
        if place.is_dir() {
            match files::texts_below(root, &place) {
                Ok(texts) => this.take_templates(texts),
                Err(why) => this.reading.unreadable(&why),
            }
        }
        this
    }

    /// One that cannot be read is told and taken for an empty one, as one that does not parse.
    fn take_templates(&mut self, read: BTreeMap<String, Result<String, WorkspaceError>>) {
        let mut texts = BTreeMap::new();
        for (name, text) in read {
            let text = text.unwrap_or_else(|why| {
                self.reading.unreadable(&why);
                String::new()
            });
            texts.insert(name, text);
        }
        self.parse_templates(texts);
    }

    /// One that does not parse is told and taken for an empty one, so that the others are looked at too.
    fn parse_templates(&mut self, mut texts: BTreeMap<String, String>) {
        for (name, text) in &texts {
            let shown = self.root.join("templates").join(name).display().to_string();
            let source = self.reading.sources.add(shown, text.clone());
            self.templates.insert(name.clone(), source);
        }
        loop {
            match Renderer::new(&texts) {
                Ok(renderer) => {
                    self.renderer = renderer;
                    return;
                }
                Err(why) => {
                    let problem = self.rendering_problem(&why);
                    self.reading.problems.push(problem);
                    let broken = why.template().and_then(|name| texts.get_mut(name));
                    match broken {
                        Some(text) if !text.is_empty() => text.clear(),
                        // About the templates as a whole, as an include that goes in a circle.
                        Some(_) | None => return,
                    }
                }
            }
        }
    }

    /// The templates, for who has made sure that nothing is wrong.
    pub(super) fn into_renderer(self) -> Renderer {
        self.renderer
    }

    /// The documents of a file.
    pub(super) fn read(&mut self, file: &FilePath) -> Vec<Arc<Document>> {
        let known_as = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        if !self.read.insert(known_as.clone()) {
            return Vec::new();
        }
        let Some(source) = self.reading.text(file) else {
            self.broken.insert(known_as);
            return Vec::new();
        };
        let Reading { sources, problems } = &mut *self.reading;
        let before = problems.len();
        let documents: Vec<_> = text::documents(sources, source, &KINDS, problems)
            .into_iter()
            .map(Arc::new)
            .collect();
        if documents.is_empty() && problems.len() == before {
            let file = file.display();
            let problem = Problem::new(format!(
                "{file} states no resource: it is empty, or has nothing but comments"
            ))
            .hint("a resource has `apiVersion`, `kind`, `metadata` and `spec`; delete the file if there is to be none");
            problems.push(problem);
        }
        if problems.len() > before {
            self.broken.insert(known_as);
        }
        for document in &documents {
            self.is_named_as_its_file(file, document);
        }
        self.documents.extend(documents.iter().cloned());
        documents
    }

    /// By that name it is looked for. One that cannot be a name has been told.
    fn is_named_as_its_file(&mut self, file: &FilePath, document: &Document) {
        let place = match document.kind.as_str() {
            "Environment" => "environments",
            "Rehearsal" | "Pipeline" | "Freeze" => "pipelines",
            _ => return,
        };
        let directory = |path: &FilePath| path.canonicalize().ok();
        let is_looked_for = file.parent().and_then(directory) == directory(&self.root.join(place));
        let stem = file.file_stem().unwrap_or_default();
        if is_looked_for && text::is_dns_label(&document.name) && stem != document.name.as_str() {
            let name = Path::root().key("metadata").key("name");
            let message = format!(
                "the file of `{}` is called {}, and nothing finds it",
                document.name,
                file.file_name().unwrap_or_default().display()
            );
            let hint = format!("call the file {}.yaml, or the resource as its file", document.name);
            let problem = Problem::in_tree(&document.tree, &name, message);
            self.reading.problems.push(problem.hint(hint));
        }
    }

    /// What is stated twice, once everything is read.
    pub(super) fn are_stated_once(&mut self) {
        let Reading { sources, problems } = &mut *self.reading;
        let documents = self.documents.iter().map(Arc::as_ref);
        text::report_twice_stated(sources, documents, problems);
    }

    pub(super) fn count(&self) -> usize {
        self.documents.len()
    }

    /// The environment of this name; its file is read when it is in none that was.
    fn environment_named(&mut self, name: &str) -> Result<Arc<Document>, NotFound> {
        let place = self.root.join("environments");
        let known = |documents: &[Arc<Document>]| {
            let mut all = documents.iter();
            all.find(|d| d.kind == "Environment" && d.name == name).cloned()
        };
        if let Some(found) = known(&self.documents) {
            return Ok(found);
        }
        let file = files::find(&place, name, "environment").ok();
        if let Some(file) = &file {
            self.read(file);
        }
        let is_broken = file.is_some_and(|file| self.broken.contains(&file.canonicalize().unwrap_or(file)));
        if is_broken && known(&self.documents).is_none() {
            return Err(NotFound::Told);
        }
        let stated = || {
            let all = self.documents.iter().filter(|d| d.kind == "Environment");
            all.map(|d| d.name.as_str()).collect::<Vec<_>>()
        };
        known(&self.documents).ok_or_else(|| {
            let stated: Vec<&str> = stated();
            let hint = match did_you_mean(name, stated.iter().copied()) {
                Some(_) => what_is_known(name, &stated),
                None => files::hint(&place, name),
            };
            let message = format!("there is no environment `{name}` in {}", place.display());
            NotFound::Untold(Box::new(Problem::new(message).hint(hint)))
        })
    }

    /// Checks one document by its kind.
    pub(super) fn check(&mut self, document: &Arc<Document>, shift: PortShift) {
        match document.kind.as_str() {
            "Environment" => {
                self.environment(document, shift);
            }
            "Rehearsal" => {
                self.rehearsal(document, shift);
            }
            "Pipeline" => {
                self.pipeline_among_others(document, shift);
            }
            "Freeze" => {
                self.freeze_among_others(document);
            }
            "Build" => {
                self.decode::<BuildSpec>(document);
            }
            "Repository" => {
                self.repository(document);
            }
            "IssueTracker" => {
                self.tracker(document);
            }
            policy::KIND => {
                if let Err(problems) = policy::Policy::of_document(document) {
                    self.reading.problems.extend(problems);
                }
            }
            _ => {
                self.decode::<UpgradeSpec>(document);
            }
        }
    }

    /// Reads a document as far as it can be read; what is wrong is told.
    fn decode<T: DeserializeOwned + JsonSchema>(&mut self, document: &Document) -> Option<Read<T>> {
        let Readable {
            value,
            document,
            problems,
            broken,
        } = text::decode_readable::<Resource<T>, T>(document);
        self.reading.problems.extend(problems);
        Some(Read {
            spec: value?,
            document,
            broken,
        })
    }

    /// An environment with all that it inherits; with which nothing is wrong if there are no problems.
    pub(super) fn environment(&mut self, document: &Arc<Document>, shift: PortShift) -> Option<Environment> {
        // Told apart, since looking a base up reads files and so finds problems of its own.
        let mut problems = std::mem::take(&mut self.reading.problems);
        let chain = replicas::chain(document, &mut |name| self.environment_named(name), &mut problems);
        let merged = chain.and_then(|chain| replicas::merged(&chain, &mut problems));
        self.reading.problems.extend(problems);
        let merged = self.decode::<EnvironmentSpec>(&merged?)?;
        self.templates_are_there(&merged);
        let (environment, findings) = Environment::check(&merged.document.name, merged.spec.clone(), shift);
        self.tell(&merged, findings);
        for fault in texts::faults(&environment, &self.renderer) {
            self.tell_fault(&merged, &environment.name, &fault);
        }
        // What is missing of it others may rightly refer to.
        merged.broken.is_empty().then_some(environment)
    }

    /// A rehearsal, checked against its environment.
    pub(super) fn rehearsal(&mut self, document: &Arc<Document>, shift: PortShift) -> Option<RehearsalSpec> {
        let read = self.decode::<RehearsalSpec>(document)?;
        let spec = &read.spec;
        let path = Path::root().key("spec").key("environment");
        let environment = match self.environment_named(&spec.environment) {
            Ok(found) => self.environment(&found, shift),
            Err(NotFound::Untold(problem)) => {
                let span = document.tree.nearest_span(&path);
                self.reading.problems.push(problem.at(path).span(span));
                None
            }
            Err(NotFound::Told) => None,
        };
        self.tell(&read, spec.findings(environment.as_ref().map(|e| &e.spec)));
        if let Some(environment) = environment {
            for (i, disturbance) in spec.disturbances.iter().enumerate() {
                let Some(hold) = &disturbance.hold_row else { continue };
                let at = Path::root().key("spec").key("disturbances").index(i);
                let at = at.key("holdRow").key("sql");
                if let Some(fault) = texts::hold_row_fault(&environment, &self.renderer, &at, &hold.sql) {
                    self.tell_fault(&read, &environment.name, &fault);
                }
            }
        }
        Some(read.spec)
    }

    /// A pipeline, checked by itself.
    pub(super) fn pipeline(&mut self, document: &Document) -> Option<PipelineSpec> {
        let read = self.decode::<PipelineSpec>(document)?;
        self.tell(&read, read.spec.findings());
        Some(read.spec)
    }

    /// A pipeline, checked against the environments, rehearsals and keys that it names.
    fn pipeline_among_others(&mut self, document: &Arc<Document>, shift: PortShift) {
        let Some(read) = self.decode::<PipelineSpec>(document) else {
            return;
        };
        self.tell(&read, read.spec.findings());
        let place = Path::root().key("spec");
        for (name, role) in &read.spec.roles {
            let Some(file) = &role.allowed_signers else { continue };
            if !self.root.join(file).is_file() {
                let path = place.key("roles").key(name).key("allowedSigners");
                let problem = read.problem(&path, format!("there is no file {}", self.root.join(file).display()));
                let hint =
                    "make it: a line `NAME ssh-ed25519 AAAA…` for each member, the path from the workspace's directory";
                self.push(&read, &path, problem.hint(hint));
            }
        }
        for (s, stage) in read.spec.stages.iter().enumerate() {
            let at = place.key("stages").index(s);
            for (i, rehearsal) in stage.rehearsals.iter().enumerate() {
                let place = self.root.join("pipelines");
                if files::find(&place, rehearsal, "rehearsal").is_err() {
                    let path = at.key("rehearsals").index(i);
                    let problem = read.problem(&path, format!("there is no rehearsal `{rehearsal}`"));
                    self.push(&read, &path, problem.hint(files::hint(&place, rehearsal)));
                }
            }
            let path = at.key("environment");
            let environment = match self.environment_named(&stage.environment) {
                Ok(found) => self.environment(&found, shift),
                Err(NotFound::Untold(problem)) => {
                    let span = document.tree.nearest_span(&path);
                    self.reading.problems.push(problem.at(path.clone()).span(span));
                    None
                }
                Err(NotFound::Told) => None,
            };
            let component = &read.spec.component;
            if let Some(environment) = environment
                && environment.component(component).is_none()
            {
                let message = format!("environment `{}` has no component `{component}`", stage.environment);
                let names: Vec<&str> = environment.spec.components.iter().map(|c| c.name.as_str()).collect();
                let problem = read.problem(&path, message).hint(what_is_known(component, &names));
                self.push(&read, &path, problem);
            }
        }
    }

    /// A freeze, checked by itself.
    pub(super) fn freeze(&mut self, document: &Document) -> Option<FreezeSpec> {
        let read = self.decode::<FreezeSpec>(document)?;
        self.tell(&read, read.spec.findings());
        Some(read.spec)
    }

    /// A freeze, checked against the environments that there are: one that holds none of them is a mistake.
    fn freeze_among_others(&mut self, document: &Document) {
        let Some(read) = self.decode::<FreezeSpec>(document) else {
            return;
        };
        self.tell(&read, read.spec.findings());
        let names = files::names_in(&self.root.join("environments")).unwrap_or_default();
        for (i, pattern) in read.spec.environments.iter().enumerate() {
            let alone = FreezeSpec {
                environments: vec![pattern.clone()],
                ..read.spec.clone()
            };
            if !names.iter().any(|name| alone.names(name)) {
                let path = Path::root().key("spec").key("environments").index(i);
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let problem = read.problem(&path, format!("there is no environment `{pattern}`"));
                self.push(&read, &path, problem.hint(what_is_known(pattern, &known)));
            }
        }
    }

    /// A repository that is checked where it is hosted.
    pub(super) fn repository(&mut self, document: &Document) -> Option<RepositorySpec> {
        let read = self.decode::<RepositorySpec>(document)?;
        self.tell(&read, read.spec.findings());
        Some(read.spec)
    }

    /// A tracker of issues that commits name.
    pub(super) fn tracker(&mut self, document: &Document) -> Option<IssueTrackerSpec> {
        let read = self.decode::<IssueTrackerSpec>(document)?;
        self.tell(&read, read.spec.findings());
        Some(read.spec)
    }

    fn tell<T>(&mut self, read: &Read<T>, findings: Vec<Finding>) {
        for Finding { path, message, hint } in findings {
            let path = Path::root().key("spec").join(&path.into_iter().collect());
            let mut problem = read.problem(&path, message);
            problem.hint = hint;
            self.push(read, &path, problem);
        }
    }

    /// Tells a problem of the value at `path`, unless it may be one only because something was left out of the document.
    fn push<T>(&mut self, read: &Read<T>, path: &Path, problem: Problem) {
        if !read.broken.may_explain(path, &problem.message) {
            self.reading.problems.push(problem);
        }
    }

    fn tell_fault<T>(&mut self, read: &Read<T>, environment: &str, fault: &Fault) {
        let Fault { path, why } = fault;
        let problem = match why {
            Why::Unusable(why) => read.problem(path, why.clone()),
            Why::Render(error) => {
                let mut problem = self.rendering_problem(error);
                if problem.span.is_none() {
                    problem.span = Some(read.document.tree.nearest_span(path));
                    problem.path = Some(read.broken.place(path));
                } else {
                    // The template is right for other environments, perhaps.
                    problem.message = format!("{} in environment {environment}", problem.message);
                }
                problem
            }
        };
        self.push(read, path, problem);
    }

    /// Points into the template, if it is one's.
    fn rendering_problem(&self, error: &RenderError) -> Problem {
        let (message, hint) = words_of(error);
        let mut problem = Problem::new(message);
        problem.hint = hint;
        let source = error.template().and_then(|name| self.templates.get(name));
        if let (Some(source), Some((line, column))) = (source, error.place()) {
            problem = problem.span(self.reading.span(*source, line, column));
        }
        problem
    }

    fn templates_are_there(&mut self, read: &Read<EnvironmentSpec>) {
        let spec = &read.spec;
        let place = Path::root().key("spec");
        let mut stated = Vec::new();
        if let Some(script) = &spec.packages_script {
            let path = place.key("packagesScript");
            self.is_run_as_it_stands(read, &path, script);
            stated.push((path, script));
        }
        for (c, component) in spec.components.iter().enumerate() {
            for (lifecycle, action) in component.actions.each() {
                let Some(action) = action else { continue };
                let at = place.key("components").index(c).key("actions");
                stated.push((at.key(lifecycle.word()).key("template"), &action.template));
            }
            for (i, template) in component.manifests.iter().enumerate() {
                let at = place.key("components").index(c).key("manifests");
                stated.push((at.index(i), template));
            }
        }
        for (i, sink) in spec.reports.iter().enumerate() {
            let at = place.key("reports").index(i).key("template");
            stated.extend(sink.template.as_ref().map(|template| (at, template)));
        }
        for (path, template) in stated {
            if !self.templates.contains_key(template) {
                let message = format!("there is no template `{template}`");
                let hint = format!("templates lie in {}", self.root.join("templates").display());
                self.push(read, &path, read.problem(&path, message).hint(hint));
            }
        }
    }

    /// An operator must be able to read what they run as root.
    fn is_run_as_it_stands(&mut self, read: &Read<EnvironmentSpec>, path: &Path, script: &str) {
        let Some(source) = self.templates.get(script) else {
            return;
        };
        let text = self.reading.sources.text(*source);
        if text.contains("{{") || text.contains("{%") {
            let message = format!("`{script}` is run as it stands, so it can have no variables");
            let problem = read.problem(path, message);
            self.push(read, path, problem.hint("pass what differs as an environment variable"));
        }
    }
}
