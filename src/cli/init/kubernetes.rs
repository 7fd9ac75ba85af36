//! An Environment of what runs in a namespace, with what is left to say in its comments.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::quoted;
use crate::cluster::survey::{Found, Image, Kind};
use crate::model::check::MOST_PODS;
use crate::model::text::{is_dns_label, to_yaml};
use crate::model::values::Digest;

/// Its version where no label says one.
const UNNAMED: &str = "current";

/// What runs in a namespace, told apart by whether it can be upgraded as it is.
pub(super) struct Sorted<'f> {
    namespace: &'f str,
    all: Vec<(&'f Found, Result<Usable<'f>, LeftOut<'f>>)>,
}

/// What is stated of it beside what was found.
struct Usable<'f> {
    repository: &'f str,
    digest: &'f Digest,
}

/// Why something cannot be upgraded as it is.
enum LeftOut<'f> {
    /// Nobody could say what of it is upgraded.
    NoReplicas,
    TooMany,
    Name,
    /// Another one has this name already, as a component or a node.
    Taken(String),
    Movable {
        image: &'f str,
        runs: Option<&'f str>,
    },
}

impl<'f> Sorted<'f> {
    pub(super) fn new(namespace: &'f str, all: &'f [Found]) -> Self {
        let mut taken = Taken::default();
        let all = all.iter().map(|found| {
            let usable = usable(found).and_then(|usable| taken.by(found).map(|()| usable));
            (found, usable)
        });
        Self {
            namespace,
            all: all.collect(),
        }
    }

    pub(super) fn usable(&self) -> usize {
        self.all.iter().filter(|(_, usable)| usable.is_ok()).count()
    }

    /// The file. What cannot be upgraded as it is stands in it as a comment with what to do.
    pub(super) fn environment(&self) -> String {
        let namespace = self.namespace;
        let mut text = format!(
            "# What ran in namespace {namespace} when this was made. `stagegate lint` says what is wrong with it.\n\
             apiVersion: stagegate.dev/v1alpha1\n\
             kind: Environment\n\
             metadata: {{name: {}}}\n\
             spec:\n\
             \x20 # Whether only promotions bring builds here: a pipeline says which, see docs/guides/promotion.md.\n\
             \x20 # protected: true\n\
             \x20 components:\n",
            scalar(namespace)
        );
        for (found, usable) in &self.all {
            match usable {
                Ok(usable) => text.push_str(&component(namespace, found, usable)),
                Err(why) => {
                    for line in self.left_out(found, why).lines() {
                        let _ = writeln!(text, "    # {line}");
                    }
                }
            }
        }
        text
    }

    /// What was left out, each with why and what to do: some lines.
    pub(super) fn all_left_out(&self) -> String {
        let left_out = self.all.iter().filter_map(|(found, usable)| {
            let why = usable.as_ref().err()?;
            Some(self.left_out(found, why))
        });
        left_out.collect::<Vec<_>>().join("\n")
    }

    fn left_out(&self, found: &Found, why: &LeftOut<'_>) -> String {
        let (kind, name) = (kind(found), &found.name);
        let why = match why {
            LeftOut::NoReplicas => "it has no replicas".to_owned(),
            LeftOut::TooMany => format!("it has {} pods, and there is room for {MOST_PODS}", found.replicas),
            LeftOut::Name => "a component is named by small letters, digits and `-`, at most 63".to_owned(),
            LeftOut::Taken(taken) => {
                format!(
                    "another one has the name {taken} here; an environment of its own, in another file, can have it"
                )
            }
            LeftOut::Movable { image, runs } => {
                let next = match runs {
                    Some(runs) => format!(
                        "Its pods run this one; stating it replaces them once, by its own strategy:\n  \
                         kubectl -n {} set image {}/{name} {}",
                        self.namespace,
                        kind.to_lowercase(),
                        quoted(&format!("{}={runs}", found.container))
                    ),
                    None => {
                        "Its pods do not all run the same one; state one by its digest, REPOSITORY@sha256:…".to_owned()
                    }
                };
                format!(
                    "its image is {}, and a name can be moved to another image. {next}",
                    image.escape_debug()
                )
            }
        };
        format!("Left out, {kind} {name}: {why}")
    }
}

fn usable(found: &Found) -> Result<Usable<'_>, LeftOut<'_>> {
    let (repository, digest) = match &found.image {
        Image::Stated { repository, digest } => (repository, digest),
        Image::Movable { image, runs } => {
            return Err(LeftOut::Movable {
                image,
                runs: runs.as_deref(),
            });
        }
    };
    if found.replicas <= 0 {
        return Err(LeftOut::NoReplicas);
    }
    if found.kind == Kind::StatefulSet && found.replicas > MOST_PODS.into() {
        return Err(LeftOut::TooMany);
    }
    if !is_dns_label(&found.name) {
        return Err(LeftOut::Name);
    }
    Ok(Usable { repository, digest })
}

/// Names of an environment, of which each is there once among its like.
#[derive(Default)]
struct Taken {
    components: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl Taken {
    fn by<'f>(&mut self, found: &Found) -> Result<(), LeftOut<'f>> {
        let name = &found.name;
        let nodes: Vec<String> = match found.kind {
            Kind::StatefulSet => (0..found.replicas).map(|ordinal| format!("{name}-{ordinal}")).collect(),
            Kind::Deployment => vec![name.clone(), format!("{name}-canary")],
        };
        if self.components.contains(name) {
            return Err(LeftOut::Taken(name.clone()));
        }
        if let Some(node) = nodes.iter().find(|node| self.nodes.contains(*node)) {
            return Err(LeftOut::Taken(node.clone()));
        }
        self.components.insert(name.clone());
        self.nodes.extend(nodes);
        Ok(())
    }
}

/// A word as YAML has it: in quotes where it would be read as something else than a string (`123`, `on`, `1e3`).
fn scalar(word: &str) -> String {
    match to_yaml(word) {
        Ok(text) => text.trim_end().to_owned(),
        Err(_) => serde_json::Value::from(word).to_string(),
    }
}

fn kind(found: &Found) -> &'static str {
    match found.kind {
        Kind::StatefulSet => "StatefulSet",
        Kind::Deployment => "Deployment",
    }
}

fn component(namespace: &str, found: &Found, usable: &Usable<'_>) -> String {
    let replicas = found.replicas;
    let (name, namespace) = (scalar(&found.name), scalar(namespace));
    // A label may be there and say nothing.
    let version = found.version.as_deref().filter(|version| !version.is_empty());
    let version = scalar(version.unwrap_or(UNNAMED));
    let container = if found.others.is_empty() {
        String::new()
    } else {
        format!(", container: {}", scalar(&found.container))
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
         \x20         repository: {}\n\
         \x20         # One line a version; the next build to go out is the next line.\n\
         \x20         digests:\n\
         \x20           {version}: {}\n\
         \x20     build: {version}\n",
        scalar(usable.repository),
        usable.digest,
    );
    if !found.others.is_empty() {
        let others = found.others.join(", ");
        let _ = writeln!(text, "      # Of its containers; beside it: {others}.");
    }
    let _ = writeln!(text, "      {pods}");
    if !found.ports.is_empty() {
        let ports = found.ports.iter();
        let ports: Vec<String> = ports.map(|(name, port)| format!("{}: {port}", scalar(name))).collect();
        let _ = writeln!(text, "      ports: {{{}}}", ports.join(", "));
    }
    text.push_str(&judged(found));
    text
}

/// What it is judged by: what the kubelet asks, or else nothing yet.
fn judged(found: &Found) -> String {
    // What a template or a text in quotes would read otherwise is left to who knows what it means.
    let plain = |path: &&(String, String)| path.0.chars().all(|c| c.is_ascii_graphic() && !"\"\\{}".contains(c));
    let Some((path, port)) = found.asked.as_ref().filter(plain) else {
        return "\x20     # Nothing judges it yet, and an upgrade of it waits for its pods to be ready alone. A probe asks a pod by its own address:\n\
                \x20     # probes: [{name: alive, http: {url: \"http://{{ node.address }}:{{ node.ports.http }}/alive\", body: \"^alive\"}}]\n\
                \x20     # gates: [{name: alive, probe: alive}]\n"
            .to_owned();
    };
    let path = path.trim_start_matches('/');
    format!(
        "\x20     probes:\n\
         \x20       # As the kubelet asks; a status alone may lie, so say what the answer must be: body: \"^alive\".\n\
         \x20       - {{name: alive, http: {{url: \"http://{{{{ node.address }}}}:{{{{ node.ports['{port}'] }}}}/{path}\"}}}}\n\
         \x20     gates:\n\
         \x20       - {{name: alive, probe: alive}}\n\
         \x20       # What its users feel is judged better by requests of our own (traffic) and a gate over their answers.\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

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

    /// The components of a file of a namespace, which is as good as one that somebody wrote.
    fn lints(namespace: &str, text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("environments")).expect("made");
        let file = directory.path().join(format!("environments/{namespace}.yaml"));
        std::fs::write(file, text).expect("written");
        let workspace = crate::workspace::Workspace::at(directory.path().to_owned());
        match workspace.environment(namespace, crate::model::system::PortShift::default()) {
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
    fn what_is_left_out_stands_there_with_why() {
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
        let text = Sorted::new("shop", &all).environment();
        assert_eq!(lints("shop", &text), ["plain", "beside", "asked"], "{text}");
        for line in [
            "    # Left out, StatefulSet tagged: its image is web:1,",
            "    #   kubectl -n shop set image statefulset/tagged main=web@sha256:1\n",
            "    # Left out, StatefulSet none: it has no replicas\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn no_two_have_one_name_in_an_environment() {
        let deployment = |name: &str| Found {
            kind: Kind::Deployment,
            ..found(name)
        };
        let all = [found("web"), deployment("web"), deployment("web-1"), found("web.eu")];
        let sorted = Sorted::new("shop", &all);
        assert_eq!(lints("shop", &sorted.environment()), ["web"]);
        insta::assert_snapshot!(sorted.all_left_out(), @"
        Left out, Deployment web: another one has the name web here; an environment of its own, in another file, can have it
        Left out, Deployment web-1: another one has the name web-1 here; an environment of its own, in another file, can have it
        Left out, StatefulSet web.eu: a component is named by small letters, digits and `-`, at most 63
        ");
    }

    /// Names as an API server takes them, those first that are no strings where nothing quotes them.
    fn label() -> impl Strategy<Value = String> {
        prop_oneof![
            "(123|0x1|1e3|true|null|on|y|no|0o7|012|1-1|2024-01-01)",
            "[a-z0-9]([-a-z0-9]{0,6}[a-z0-9])?"
        ]
    }

    fn any_image() -> impl Strategy<Value = Image> {
        let stated = || ("([a-z.]{1,9}(:[0-9]{1,4})?/)?[a-z0-9]{1,4}", any::<u8>());
        prop_oneof![
            2 => stated().prop_map(|(repository, byte)| Image::Stated {
                repository,
                digest: Digest::of(&[byte]),
            }),
            1 => ("\\PC{1,12}|a\nb: c", proptest::option::of("[a-z]{1,4}@sha256:[0-9a-f]{4}"))
                .prop_map(|(image, runs)| Image::Movable { image, runs }),
        ]
    }

    fn any_found() -> impl Strategy<Value = Found> {
        let about = (
            prop_oneof![Just(Kind::StatefulSet), Just(Kind::Deployment)],
            prop_oneof![4 => label(), 1 => "[a-z]{1,3}\\.[a-z]{1,3}"],
            prop_oneof![4 => 0..4, 1 => 499..502],
            label(),
            proptest::collection::vec(label(), 0..3),
        );
        let version = proptest::option::of("([A-Za-z0-9]([-A-Za-z0-9_.]{0,6}[A-Za-z0-9])?)?");
        let asked = proptest::option::of("/(\\PC{0,9}|\\{\\{ node|\"\\\\)");
        let ports = proptest::collection::btree_map(label(), 1..u16::MAX, 0..3);
        (about, any_image(), version, ports, asked).prop_map(|(about, image, version, ports, asked)| {
            let (kind, name, replicas, container, others) = about;
            let asked = asked.zip(ports.keys().next().cloned());
            Found {
                kind,
                name,
                replicas,
                container,
                others,
                image,
                version,
                ports,
                asked,
            }
        })
    }

    proptest! {
        #[test]
        fn whatever_is_found_the_file_is_accepted(
            namespace in label(),
            all in proptest::collection::vec(any_found(), 1..5),
        ) {
            let sorted = Sorted::new(&namespace, &all);
            let usable: Vec<&str> = sorted.all.iter().filter(|(_, usable)| usable.is_ok()).map(|(found, _)| &*found.name).collect();
            prop_assert_eq!(sorted.usable(), usable.len());
            // Of none no file is written, and what to do is said for each.
            prop_assert_eq!(sorted.all_left_out().lines().filter(|line| line.starts_with("Left out")).count(), all.len() - usable.len());
            if !usable.is_empty() {
                prop_assert_eq!(lints(&namespace, &sorted.environment()), usable);
            }
        }
    }
}
