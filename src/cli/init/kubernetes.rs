//! An Environment of what runs in a namespace, with what is left to say in its comments.

use std::fmt::Write as _;

use crate::cluster::survey::{Found, Image, Kind};

/// Its version where no label says one.
const UNNAMED: &str = "current";

/// What of it can be upgraded as it is.
pub(super) fn is_usable(found: &Found) -> bool {
    matches!(found.image, Image::Stated { .. }) && found.replicas > 0
}

/// The file. What cannot be upgraded as it is stands in it as a comment with what to do.
pub(super) fn environment(namespace: &str, all: &[Found]) -> String {
    let mut text = format!(
        "# What ran in namespace {namespace} when this was made. `stagegate lint` says what is wrong with it.\n\
         apiVersion: stagegate.dev/v1alpha1\n\
         kind: Environment\n\
         metadata: {{name: {namespace}}}\n\
         spec:\n\
         \x20 # Whether only promotions bring builds here: a pipeline says which, see docs/guides/promotion.md.\n\
         \x20 # protected: true\n\
         \x20 components:\n"
    );
    for found in all {
        let part = if is_usable(found) {
            component(namespace, found)
        } else {
            left_out(namespace, found)
        };
        text.push_str(&part);
    }
    text
}

fn component(namespace: &str, found: &Found) -> String {
    let Image::Stated { repository, digest } = &found.image else {
        return String::new();
    };
    let Found { name, replicas, .. } = found;
    let version = found.version.as_deref().unwrap_or(UNNAMED);
    let container = if found.others.is_empty() {
        String::new()
    } else {
        format!(", container: {}", found.container)
    };
    let pods = match found.kind {
        Kind::StatefulSet => {
            format!("statefulSet: {{namespace: {namespace}, name: {name}, replicas: {replicas}{container}}}")
        }
        Kind::Deployment => format!("deployment: {{namespace: {namespace}, name: {name}{container}}}"),
    };
    let mut text = format!(
        "\x20   - name: {name}\n\
         \x20     source:\n\
         \x20       images:\n\
         \x20         repository: {repository}\n\
         \x20         # One line a version; the next build to go out is the next line.\n\
         \x20         digests:\n\
         \x20           {version:?}: {digest}\n\
         \x20     build: {version:?}\n"
    );
    if !found.others.is_empty() {
        let others = found.others.join(", ");
        let _ = writeln!(text, "      # Of its containers; beside it: {others}.");
    }
    let _ = writeln!(text, "      {pods}");
    if !found.ports.is_empty() {
        let ports: Vec<String> = found
            .ports
            .iter()
            .map(|(name, port)| format!("{name}: {port}"))
            .collect();
        let _ = writeln!(text, "      ports: {{{}}}", ports.join(", "));
    }
    text.push_str(&judged(found));
    text
}

/// What it is judged by: what the kubelet asks, or else nothing yet.
fn judged(found: &Found) -> String {
    let Some((path, port)) = &found.asked else {
        return "\x20     # Nothing judges it yet, and an upgrade of it waits for its pods to be ready alone. A probe asks a pod by its own address:\n\
                \x20     # probes: [{name: alive, http: {url: \"http://{{ node.address }}:{{ node.ports.http }}/alive\", body: \"^alive\"}}]\n\
                \x20     # gates: [{name: alive, probe: alive}]\n"
            .to_owned();
    };
    let path = path.trim_start_matches('/').replace(['"', '\\'], "");
    format!(
        "\x20     probes:\n\
         \x20       # As the kubelet asks; a status alone may lie, so say what the answer must be: body: \"^alive\".\n\
         \x20       - {{name: alive, http: {{url: \"http://{{{{ node.address }}}}:{{{{ node.ports['{port}'] }}}}/{path}\"}}}}\n\
         \x20     gates:\n\
         \x20       - {{name: alive, probe: alive}}\n\
         \x20       # What its users feel is judged better by requests of our own (traffic) and a gate over their answers.\n"
    )
}

fn left_out(namespace: &str, found: &Found) -> String {
    let Found { kind, name, .. } = found;
    let (kind, short) = match kind {
        Kind::StatefulSet => ("StatefulSet", "statefulset"),
        Kind::Deployment => ("Deployment", "deployment"),
    };
    let why = match &found.image {
        Image::Stated { .. } => "it has no replicas".to_owned(),
        Image::Movable { image, runs } => {
            let next = match runs {
                Some(runs) => format!(
                    "Its pods run this one; stating it replaces them once, by the set's own strategy:\n\
                     \x20   #   kubectl -n {namespace} set image {short}/{name} {}={runs}",
                    found.container
                ),
                None => "Its pods do not all run the same one; state one by its digest, REPOSITORY@sha256:…".to_owned(),
            };
            format!("its image is {image}, and a name can be moved to another image. {next}\n\x20   #  ")
        }
    };
    format!(
        "\x20   # Left out, {kind} {name}: {}\n",
        why.trim_end_matches(['\n', ' ', '#'])
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::values::Digest;

    fn found(name: &str) -> Found {
        Found {
            kind: Kind::StatefulSet,
            name: name.to_owned(),
            replicas: 3,
            container: "main".to_owned(),
            others: Vec::new(),
            image: Image::Stated {
                repository: "registry.example.org/web".to_owned(),
                digest: Digest::of(b"1"),
            },
            version: None,
            ports: BTreeMap::new(),
            asked: None,
        }
    }

    fn lints(text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("environments")).expect("made");
        std::fs::write(directory.path().join("environments/shop.yaml"), text).expect("written");
        let workspace = crate::workspace::Workspace::at(directory.path().to_owned());
        match workspace.environment("shop", crate::model::system::PortShift::default()) {
            Ok((environment, _)) => environment
                .spec
                .components
                .iter()
                .map(|component| component.name.clone())
                .collect(),
            Err(why) => panic!("{why}\n{text}"),
        }
    }

    #[test]
    fn whatever_is_found_the_file_is_accepted() {
        let plain = found("plain");
        let beside = Found {
            others: vec!["proxy".to_owned()],
            version: Some("1.10".to_owned()),
            ..found("beside")
        };
        let asked = Found {
            kind: Kind::Deployment,
            ports: BTreeMap::from([("http-main".to_owned(), 8_080), ("port9".to_owned(), 9)]),
            asked: Some(("/health?of=\"all\"".to_owned(), "http-main".to_owned())),
            ..found("asked")
        };
        let by_tag = |name: &str, runs: Option<&str>| Found {
            image: Image::Movable {
                image: "web:1".to_owned(),
                runs: runs.map(str::to_owned),
            },
            ..found(name)
        };
        let none = Found {
            replicas: 0,
            ..found("none")
        };
        let all = [
            plain,
            beside,
            asked,
            by_tag("tagged", Some("web@sha256:1")),
            by_tag("mixed", None),
            none,
        ];
        let text = environment("shop", &all);
        assert_eq!(lints(&text), ["plain", "beside", "asked"], "{text}");
        for line in [
            "    # Left out, StatefulSet tagged: its image is web:1,",
            "    #   kubectl -n shop set image statefulset/tagged main=web@sha256:1\n",
            "    # Left out, StatefulSet none: it has no replicas\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
