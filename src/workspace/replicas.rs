//! An environment over those that it copies.

use std::sync::Arc;

use crate::model::text::{self, Document, Key, Node, Path, PathPattern, Problem, Problems, Value};

/// A chain of replicas longer than this is nothing that anybody could follow.
const LONGEST_CHAIN: usize = 8;

/// Why there is nothing under the name of an environment.
pub(super) enum NotFound {
    /// Its file is there and its text is wrong, which has been told.
    Told,
    /// What is to be told of whoever names it.
    Untold(Box<Problem>),
}

/// What is found under the name of an environment.
pub(super) type Named<'a> = dyn FnMut(&str) -> Result<Arc<Document>, NotFound> + 'a;

/// An environment's document, its base's, and so on to the one that copies nobody. A base that is not there and a circle are
/// problems of the document that states it.
pub(super) fn chain(
    document: &Arc<Document>,
    find: &mut Named<'_>,
    problems: &mut Problems,
) -> Option<Vec<Arc<Document>>> {
    let mut chain = vec![Arc::clone(document)];
    loop {
        let last = Arc::clone(&chain[chain.len() - 1]);
        let Some(base) = replica_of(&last) else {
            return Some(chain);
        };
        let path = Path::root().key("spec").key("replicaOf");
        if chain.iter().any(|d| d.name == base) || chain.len() == LONGEST_CHAIN {
            let names: Vec<&str> = chain.iter().map(|d| d.name.as_str()).collect();
            let what = if chain.len() == LONGEST_CHAIN {
                format!("is more than {LONGEST_CHAIN} deep")
            } else {
                "goes in a circle".to_owned()
            };
            let message = format!("`replicaOf` {what}: {} of {base}", names.join(" is a replica of "));
            problems.push(Problem::in_tree(&last.tree, &path, message));
            return None;
        }
        match find(&base) {
            Ok(found) => chain.push(found),
            Err(NotFound::Told) => return None,
            Err(NotFound::Untold(problem)) => {
                problems.push(problem.span(last.tree.nearest_span(&path)).at(path));
                return None;
            }
        }
    }
}

fn replica_of(document: &Document) -> Option<String> {
    let path = Path::root().key("spec").key("replicaOf");
    document.tree.at(&path).and_then(Node::as_str).map(str::to_owned)
}

/// A chain as one document: its head is the first one's, its spec is that of all. Nothing where a replica names a component
/// that is not there: what else is missing then, is missing for that.
pub(super) fn merged(chain: &[Arc<Document>], problems: &mut Problems) -> Option<Document> {
    let mut documents = chain.iter().rev();
    let base = documents.next()?;
    let (mut of, mut tree) = (&base.name, base.tree.clone());
    for document in documents {
        let misspelt = misspelt_components(of, &tree, &document.tree);
        if !misspelt.is_empty() {
            for problem in misspelt {
                problems.push(problem);
            }
            return None;
        }
        tree = laid_over(&tree, &document.tree, problems);
        of = &document.name;
    }
    if let [replica, base, ..] = chain {
        // Each that is copied has been told of its own.
        let under = merged(&chain[1..], &mut Problems::default())?;
        for problem in pods_of_the_base(&base.name, &under.tree, replica, &tree) {
            problems.push(problem);
        }
    }
    let first = Document::clone(&chain[0]);
    Some(Document { tree, ..first })
}

/// Who upgrades a replica means no pods of its base, whose approvals nobody is asked for then. Those in the target's namespace are the
/// replica's all the same: it is made there.
fn pods_of_the_base(of: &str, base: &Node, replica: &Document, merged: &Node) -> Vec<Problem> {
    let spec = Path::root().key("spec");
    let made_in = merged.at(&spec.key("target").key("kubernetes").key("namespace"));
    let made_in = made_in.and_then(Node::as_str);
    let items = |tree: &Node| match tree.at(&spec.key("components")).map(|node| &node.value) {
        Some(Value::Seq(items)) => items.clone(),
        Some(_) | None => Vec::new(),
    };
    let name_of = |component: &Node| component.get("name").and_then(Node::as_str).map(str::to_owned);
    let workload = |component: &Node, key: &str| {
        let stated = component.get(key).filter(|node| !matches!(node.value, Value::Null))?;
        Some(["context", "namespace", "name"].map(|part| stated.get(part).and_then(Node::as_str).map(str::to_owned)))
    };
    let (theirs, own) = (items(base), items(&replica.tree));
    let mut problems = Vec::new();
    for component in items(merged) {
        let Some(name) = name_of(&component) else { continue };
        for key in ["statefulSet", "deployment"] {
            let Some(here) = workload(&component, key) else {
                continue;
            };
            let is_made = made_in.is_some() && here[1].as_deref() == made_in;
            if is_made || !theirs.iter().any(|other| workload(other, key).as_ref() == Some(&here)) {
                continue;
            }
            let at = own
                .iter()
                .position(|component| name_of(component).as_deref() == Some(&name));
            let path = match at {
                Some(at) => spec.key("components").index(at).key("name"),
                None => spec.key("replicaOf"),
            };
            let message = format!("the pods of `{name}` are those of `{of}`, which this is a replica of");
            let hint = format!(
                "state a `{key}` of its own, with another `namespace` or `name`; or `{key}: null`, with `nodes` of its own; or take the component \
                 out by `$patch: delete`"
            );
            problems.push(Problem::in_tree(&replica.tree, &path, message).hint(hint));
        }
    }
    problems
}

/// A component is added by what makes it one. What states only what differs, differs from a component of the base: one that
/// the base does not have was meant to be another.
fn misspelt_components(of: &str, base: &Node, replica: &Node) -> Vec<Problem> {
    /// Every component that stands by itself has one of them.
    const MAKES_A_COMPONENT: [&str; 4] = ["actions", "source", "service", "manifests"];
    let path = Path::root().key("spec").key("components");
    let name_of = |component: &Node| component.get("name").and_then(Node::as_str).map(str::to_owned);
    let items = |tree: &Node| match tree.at(&path).map(|node| &node.value) {
        Some(Value::Seq(items)) => items.clone(),
        Some(_) | None => Vec::new(),
    };
    let there: Vec<String> = items(base).iter().filter_map(name_of).collect();
    let mut problems = Vec::new();
    for (i, component) in items(replica).iter().enumerate() {
        let Some(name) = name_of(component) else { continue };
        let stands_alone = MAKES_A_COMPONENT.iter().any(|key| component.get(key).is_some());
        let is_taken_out = component.get("$patch").is_some();
        if there.contains(&name) || stands_alone || is_taken_out {
            continue;
        }
        let hint = match text::did_you_mean(&name, there.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "it has {}; one of its own states at least `actions` or `source`",
                there.join(", ")
            ),
        };
        let message = format!("`{of}`, which this is a replica of, has no component `{name}`");
        problems.push(Problem::in_tree(replica, &path.index(i).key("name"), message).hint(hint));
    }
    problems
}

/// A replica's document over its base's: the head is the replica's, the spec is merged. A replica has its own nodes, and a source
/// of another kind is its own, too.
fn laid_over(base: &Node, replica: &Node, problems: &mut Problems) -> Node {
    let nodes: Vec<PathPattern> = ["nodes", "source", "statefulSet", "deployment"]
        .map(|key| format!("spec.components[*].{key}"))
        .iter()
        .filter_map(|path| path.parse().ok())
        .collect();
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
