//! An environment over those that it copies.

use std::sync::Arc;

use crate::model::text::{self, Document, Key, Node, Path, PathPattern, Problem, Problems, Value};

/// A chain of replicas longer than this is nothing that anybody could follow.
const LONGEST_CHAIN: usize = 8;

/// What is found under the name of an environment.
pub(super) type Named<'a> = dyn FnMut(&str) -> Result<Arc<Document>, Problem> + 'a;

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
            Err(problem) => {
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

/// A chain as one document: its head is the first one's, its spec is that of all.
pub(super) fn merged(chain: &[Arc<Document>], problems: &mut Problems) -> Document {
    let mut documents = chain.iter().rev();
    let mut tree = documents.next().map(|base| base.tree.clone());
    for document in documents {
        tree = tree.map(|base| laid_over(&base, &document.tree, problems));
    }
    let first = Document::clone(&chain[0]);
    Document {
        tree: tree.unwrap_or_else(|| first.tree.clone()),
        ..first
    }
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
