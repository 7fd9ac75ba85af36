//! The Kubernetes objects of an environment, rendered from its components' templates.

use std::fmt;

use serde_json::{Value, json};

use super::environment::{BuildSource, Component};
use super::render::{RenderError, Renderer, Variables};
use super::system::Environment;
use super::text::{Ink, Problems, Sources, tree};

/// Documents of one template at most; a chart of a large system has some two hundred in all.
const MOST_DOCUMENTS: usize = 500;

/// What an object is known by, whichever version it is written in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Group of its kind; nothing for the core's.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; nothing where it states none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// Its kind, as an `ApplySet` names it: `Kind.group`, of the core's group the kind alone.
    #[must_use]
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }
}

impl fmt::Display for ObjectId {
    /// As kubectl takes it, and with its group where that is needed to find it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group_kind(), self.name)
    }
}

/// An object as it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The component that it is of.
    pub component: String,
    /// The template that it is rendered from.
    pub template: String,
    /// What it is known by.
    pub id: ObjectId,
    /// Version of its kind.
    pub version: String,
    /// All of it.
    pub value: Value,
}

/// Why a template gives no objects.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It does not render.
    #[error("{component}: {source}")]
    Render {
        /// The component.
        component: String,
        /// What is wrong.
        source: RenderError,
    },
    /// It renders to something that is no object.
    #[error("{template}, rendered for component {component}: {why}")]
    NoObject {
        /// The component.
        component: String,
        /// The template.
        template: String,
        /// What is wrong.
        why: String,
    },
}

/// The objects of all components, those of a component after those of the components that it needs.
///
/// # Errors
/// The first template that gives none.
pub fn all(environment: &Environment, templates: &Renderer, namespace: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    for component in environment.components_in_order() {
        for template in &component.manifests {
            manifests.extend(of(environment, component, template, templates, namespace)?);
        }
    }
    Ok(manifests)
}

/// The objects of one template.
///
/// # Errors
/// It does not render, or not to objects.
pub fn of(
    environment: &Environment,
    component: &Component,
    template: &str,
    templates: &Renderer,
    namespace: &str,
) -> Result<Vec<Manifest>, ManifestError> {
    let render = |source| ManifestError::Render {
        component: component.name.clone(),
        source,
    };
    let variables = Variables::new(&context(environment, component, namespace)).map_err(render)?;
    let text = templates.render(template, &variables).map_err(render)?;
    objects(&text)
        .map_err(|why| ManifestError::NoObject {
            component: component.name.clone(),
            template: template.to_owned(),
            why,
        })
        .map(|objects| {
            let manifest = |(id, version, value)| Manifest {
                component: component.name.clone(),
                template: template.to_owned(),
                id,
                version,
                value,
            };
            objects.into_iter().map(manifest).collect()
        })
}

/// What a template of objects sees: what scripts see, where it will lie, and the image of the component's build.
fn context(environment: &Environment, component: &Component, namespace: &str) -> Value {
    let mut context = environment.context(&component.name, None, None);
    let sites = context["nodes"][component.name.as_str()].clone();
    let replicas = component.stateful_set.as_ref().map(|set| set.replicas);
    context["component"] = json!({"name": component.name, "ports": component.ports, "nodes": sites});
    if let Some(replicas) = replicas {
        context["component"]["replicas"] = json!(replicas);
    }
    context["target"] = json!({"namespace": namespace});
    let images = match &component.source {
        Some(BuildSource::Images(images)) => Some(images),
        Some(BuildSource::PackageIndex(_) | BuildSource::Directory(_)) | None => component.images.as_ref(),
    };
    if let (Some(images), Some(version)) = (images, &component.build)
        && let (Some(image), Some(digest)) = (images.image(version), images.digests.get(version))
    {
        let name = format!("{}-{version}", component.name);
        context["build"] = json!({"name": name, "version": version, "digest": digest.hex(), "image": image});
    }
    context
}

type Found = (ObjectId, String, Value);

fn objects(text: &str) -> Result<Vec<Found>, String> {
    let (mut sources, mut problems) = (Sources::new(), Problems::new());
    let source = sources.add("rendered", text);
    let trees = tree::parse(&sources, source, &mut problems);
    if !problems.is_empty() {
        return Err(format!("it is no YAML:\n{}", problems.render(&sources, Ink::Plain)));
    }
    if trees.len() > MOST_DOCUMENTS {
        return Err(format!(
            "it has {} documents, and at most {MOST_DOCUMENTS} are taken",
            trees.len()
        ));
    }
    trees
        .iter()
        .map(tree::Node::to_json)
        .filter(|value| !value.is_null())
        .map(object)
        .collect()
}

fn object(value: Value) -> Result<Found, String> {
    let text = |at: &str| {
        value
            .pointer(at)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let (Some(api), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return Err("a document states no `apiVersion` or no `kind`".to_owned());
    };
    if kind.ends_with("List") && value["items"].is_array() {
        return Err(format!("a {kind} is no object: state its items as documents"));
    }
    let Some(name) = text("/metadata/name") else {
        return Err(format!(
            "a {kind} has no `metadata.name`; one that is made up anew each time could not be found again"
        ));
    };
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let id = ObjectId {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
        name: name.to_owned(),
    };
    let version = version.to_owned();
    Ok((id, version, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_may_yield_several_documents_and_none() {
        let two = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b, namespace: n}\n";
        let found = objects(two).expect("objects");
        let names: Vec<String> = found.iter().map(|(id, ..)| id.to_string()).collect();
        assert_eq!(names, ["ConfigMap/a", "Deployment.apps/b"]);
        assert_eq!(found[1].0.namespace, "n");
        assert!(objects("\n# none\n").expect("objects").is_empty());
    }

    #[test]
    fn what_is_no_object_is_refused_with_what_is_missing() {
        for (text, why) in [
            ("a: [", "no YAML"),
            ("kind: ConfigMap", "no `apiVersion`"),
            (
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a}",
                "no `metadata.name`",
            ),
            ("apiVersion: v1\nkind: List\nitems: []", "state its items"),
            ("just words", "no `apiVersion`"),
        ] {
            let said = objects(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
