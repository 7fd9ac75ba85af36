//! What is applied, what is pruned and what is refused, from what is wanted and what is owned. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::of_the_core;
use crate::model::manifest::{Manifest, ObjectId};
use crate::model::target::Quota;
use crate::model::values::Digest;

/// The label of a member of an `ApplySet` (KEP-3659).
pub const PART_OF: &str = "applyset.kubernetes.io/part-of";
/// The label of a set's parent.
pub const SET_ID: &str = "applyset.kubernetes.io/id";
/// On each object: the digest of what was applied, by which a change of the file is told from one in the cluster.
pub const APPLIED: &str = "stagegate.dev/applied";

/// The place of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Identity of its `ApplySet`.
    pub set: String,
    /// Name of the set's parent, a `ConfigMap`.
    pub parent: String,
}

impl Place {
    /// The place of an environment's replica: its parent is a `ConfigMap` there.
    #[must_use]
    pub fn of(namespace: &str, environment: &str) -> Self {
        let parent = Self::parent_name(environment);
        // KEP-3659: base64(sha256(NAME.NAMESPACE.KIND.GROUP)), of the core's group an empty last part.
        let digest = ring::digest::digest(
            &ring::digest::SHA256,
            format!("{parent}.{namespace}.ConfigMap.").as_bytes(),
        );
        let encoded = URL_SAFE_NO_PAD.encode(digest);
        Self {
            namespace: namespace.to_owned(),
            set: format!("applyset-{encoded}-v1"),
            parent,
        }
    }

    /// Name of the set's parent.
    #[must_use]
    pub fn parent_name(environment: &str) -> String {
        format!("stagegate-{environment}")
    }
}

/// An object that is there and carries a set's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// What it is known by.
    pub id: ObjectId,
    /// Which of all that had its name.
    pub uid: String,
    /// The set that its label names.
    pub set: Option<String>,
}

/// Where objects of a kind lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
    /// The API server has no such kind.
    Unknown,
}

/// A field that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldField {
    /// Where, as the API server writes it.
    pub field: String,
    /// Who.
    pub manager: String,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Of a kind without namespaces.
    #[error("{object} belongs to the whole cluster, and a replica has nothing outside of its namespace; leave it out")]
    ClusterScoped {
        /// The object.
        object: ObjectId,
    },
    /// No such kind.
    #[error("{object}: the API server has no kind {} of version {version}; install its definition, or leave it out", object.group_kind())]
    UnknownKind {
        /// The object.
        object: ObjectId,
        /// The version that was asked for.
        version: String,
    },
    /// Of another namespace.
    #[error(
        "{object} is to lie in namespace {}, and the replica's is {ours}; leave `metadata.namespace` out", object.namespace
    )]
    OtherNamespace {
        /// The object.
        object: ObjectId,
        /// The replica's.
        ours: String,
    },
    /// The same object twice.
    #[error("{object} is stated by {one} and by {other}; state it once")]
    StatedTwice {
        /// The object.
        object: ObjectId,
        /// A template.
        one: String,
        /// Another, or the same.
        other: String,
    },
    /// A member of somebody else's set.
    #[error("{object} belongs to the ApplySet {set}, which is not this replica's; give it another name")]
    OtherSet {
        /// The object.
        object: ObjectId,
        /// Whose.
        set: String,
    },
    /// There before us.
    #[error(
        "{object} is there and was not made for this replica; give it another name, or hand it over: `kubectl label -n {} {object} {PART_OF}={set}`",
        object.namespace
    )]
    NotOurs {
        /// The object.
        object: ObjectId,
        /// The set that it would have to belong to.
        set: String,
    },
    /// The parent of our set is somebody else's.
    #[error(
        "{object} is there and is not the parent of this replica's ApplySet; rename it, or hand it over: `kubectl label --overwrite -n {} {object} {SET_ID}={set}`",
        object.namespace
    )]
    OtherParent {
        /// The object.
        object: ObjectId,
        /// The set whose parent it would have to be.
        set: String,
    },
    /// A template states what is ours to write.
    #[error("{object} has the name of the replica's own ConfigMap; give it another")]
    ParentsName {
        /// The object.
        object: ObjectId,
    },
    /// The API server does not take it over what is there.
    #[error(
        "{object} would not be taken over what is there: {why}; correct its template, or where a field stays for ever as it was made, delete it \
         first (`kubectl delete -n {} {object}`): the next `up` makes it anew",
        object.namespace
    )]
    Invalid {
        /// The object.
        object: ObjectId,
        /// What the API server says.
        why: String,
    },
    /// Somebody else holds what we set.
    #[error(
        "{object}: {}; `target.kubernetes.drift: heal` takes them back, or leave them out of the manifest",
        held(fields)
    )]
    Conflict {
        /// The object.
        object: ObjectId,
        /// What is held, by whom.
        fields: Vec<HeldField>,
    },
    /// More than it may take.
    #[error("the objects ask for {asked} {what}, and `target.kubernetes.quota` allows {allowed}")]
    OverQuota {
        /// Of what.
        what: &'static str,
        /// How much.
        asked: String,
        /// How much it may be.
        allowed: String,
    },
    /// A container that does not say what it needs.
    #[error(
        "{object}: container {container} requests no {what}, which `target.kubernetes.quota` bounds, so its pods would be refused; state it, or a LimitRange with a default"
    )]
    Unrequested {
        /// The object.
        object: ObjectId,
        /// Its container.
        container: String,
        /// Of what.
        what: &'static str,
    },
    /// A workload whose need cannot be told.
    #[error("{object}: {why}; correct it, or leave the quota out")]
    Unmeasured {
        /// The object.
        object: ObjectId,
        /// What cannot be read.
        why: String,
    },
}

impl Refused {
    /// Whether it is about this object, and none other.
    #[must_use]
    pub fn is_about(&self, id: &ObjectId) -> bool {
        match self {
            Refused::ClusterScoped { object }
            | Refused::UnknownKind { object, .. }
            | Refused::OtherNamespace { object, .. }
            | Refused::StatedTwice { object, .. }
            | Refused::OtherSet { object, .. }
            | Refused::NotOurs { object, .. }
            | Refused::OtherParent { object, .. }
            | Refused::ParentsName { object }
            | Refused::Invalid { object, .. }
            | Refused::Conflict { object, .. }
            | Refused::Unrequested { object, .. }
            | Refused::Unmeasured { object, .. } => is_same(object, id),
            Refused::OverQuota { .. } => false,
        }
    }
}

/// Wherever they lie: all of a replica lie in its namespace.
fn is_same(one: &ObjectId, other: &ObjectId) -> bool {
    one.group == other.group && one.kind == other.kind && one.name == other.name
}

fn held(fields: &[HeldField]) -> String {
    let said: Vec<String> = fields
        .iter()
        .map(|HeldField { field, manager }| format!("{field} is held by {manager}"))
        .collect();
    said.join(", ")
}

/// What is wrong with what is wanted, by itself.
#[must_use]
pub fn refused(wanted: &[Manifest], scope: &dyn Fn(&Manifest) -> Scope, place: &Place) -> Vec<Refused> {
    let mut refused = Vec::new();
    let mut stated: BTreeMap<ObjectId, &str> = BTreeMap::new();
    for manifest in wanted {
        let object = manifest.id.clone();
        if !object.namespace.is_empty() && object.namespace != place.namespace {
            let ours = place.namespace.clone();
            refused.push(Refused::OtherNamespace { object, ours });
            continue;
        }
        if object.group.is_empty() && object.kind == "ConfigMap" && object.name == place.parent {
            refused.push(Refused::ParentsName { object });
            continue;
        }
        match scope(manifest) {
            Scope::Namespaced => {}
            Scope::Cluster => {
                refused.push(Refused::ClusterScoped { object });
                continue;
            }
            Scope::Unknown => {
                let version = manifest.version.clone();
                refused.push(Refused::UnknownKind { object, version });
                continue;
            }
        }
        let object = ObjectId {
            namespace: place.namespace.clone(),
            ..object
        };
        if let Some(one) = stated.insert(object.clone(), &manifest.template) {
            refused.push(Refused::StatedTwice {
                object,
                one: one.to_owned(),
                other: manifest.template.clone(),
            });
        }
    }
    refused
}

/// Whether it holds what is not told.
#[must_use]
pub fn is_secret(object: &ObjectId) -> bool {
    object.group.is_empty() && object.kind == "Secret"
}

/// Whether objects of a kind end, and some of them go, by themselves: one that has gone has done what it was made for.
#[must_use]
pub fn ends_by_itself(object: &ObjectId) -> bool {
    matches!(
        (object.group.as_str(), object.kind.as_str()),
        ("batch", "Job") | ("", "Pod")
    )
}

/// What bounds all that is in the namespace, whoever makes it: the member of the set that a quota stands for. Objects of every kind
/// together are bounded by nothing that Kubernetes has.
#[must_use]
pub fn quota(quota: Option<&Quota>, place: &Place) -> Option<Manifest> {
    let Quota {
        objects: _,
        pods,
        cpu,
        memory,
    } = quota?;
    let mut hard = Map::new();
    for (what, bound) in [
        ("pods", pods.map(|pods| pods.to_string())),
        ("requests.cpu", cpu.as_ref().map(ToString::to_string)),
        ("requests.memory", memory.as_ref().map(ToString::to_string)),
    ] {
        hard.extend(bound.map(|bound| (what.to_owned(), Value::from(bound))));
    }
    if hard.is_empty() {
        return None;
    }
    let name = &place.parent;
    let value =
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}});
    Some(of_the_core("ResourceQuota", &place.namespace, name, value))
}

/// What upgrades have moved of a workload whose pods are nodes, which is not its file's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its kind, of the group `apps`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The container that runs the build, where it is stated.
    pub container: Option<String>,
    /// The image of the build that it was upgraded to last; nothing where it never was.
    pub image: Option<String>,
    /// Whether an upgrade is at it.
    pub upgrade: UnderWay,
}

/// Whether an upgrade is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// One is, or the last one has left the pods on several builds: what is in the cluster stays.
    Yes,
    /// None is.
    No,
}

impl Moved {
    /// Whether this is of that object.
    #[must_use]
    pub fn is_of(&self, id: &ObjectId) -> bool {
        id.group == "apps" && id.kind == self.kind && id.name == self.name
    }

    /// Makes of what a file states what is to be: with the build of the record, and while an upgrade is at it with whatever that has set.
    pub(super) fn settle(&self, stated: &mut Value, live: Option<&Value>) {
        let under_way = live.filter(|_| self.upgrade == UnderWay::Yes);
        let at_work = under_way.and_then(|live| self.image_in(live)).map(str::to_owned);
        let Some(image) = at_work.or_else(|| self.image.clone()) else {
            return;
        };
        if let Some(at) = self.container_in(stated) {
            stated["spec"]["template"]["spec"]["containers"][at]["image"] = Value::from(image);
        }
        if let Some(live) = under_way
            && !stated["spec"]["updateStrategy"].is_null()
        {
            stated["spec"]["updateStrategy"] = live["spec"]["updateStrategy"].clone();
        }
    }

    fn image_in<'v>(&self, set: &'v Value) -> Option<&'v str> {
        set["spec"]["template"]["spec"]["containers"][self.container_in(set)?]["image"].as_str()
    }

    fn container_in(&self, set: &Value) -> Option<usize> {
        let containers = set["spec"]["template"]["spec"]["containers"].as_array()?;
        match &self.container {
            Some(name) => containers
                .iter()
                .position(|container| container["name"] == name.as_str()),
            None => (containers.len() == 1).then_some(0),
        }
    }
}

/// Whether an object that is there may be written.
///
/// # Errors
/// It is somebody else's.
pub fn may_write(object: &ObjectId, live: &Value, manages: Manages, place: &Place) -> Result<(), Refused> {
    let set = live["metadata"]["labels"][PART_OF].as_str();
    match (set, manages) {
        (Some(set), _) if set == place.set => Ok(()),
        (Some(set), _) => Err(Refused::OtherSet {
            object: object.clone(),
            set: set.to_owned(),
        }),
        // Its label was taken off, which is drift like any other.
        (None, Manages::Yes) => Ok(()),
        (None, Manages::No) => Err(Refused::NotOurs {
            object: object.clone(),
            set: place.set.clone(),
        }),
    }
}

/// Whether an object's `managedFields` name us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manages {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// An object as it is applied: in its namespace, with the label of its set and the digest of what its template says.
#[must_use]
pub fn prepared(manifest: &Manifest, place: &Place) -> Manifest {
    let mut manifest = manifest.clone();
    let digest = Digest::of(manifest.value.to_string().as_bytes());
    manifest.id.namespace.clone_from(&place.namespace);
    if is_secret(&manifest.id) {
        encode(&mut manifest.value);
    }
    let metadata = map_in(&mut manifest.value, "metadata");
    metadata.insert("namespace".to_owned(), Value::from(place.namespace.as_str()));
    insert_text(metadata, "labels", PART_OF, &place.set);
    insert_text(metadata, "annotations", APPLIED, &digest.to_string());
    manifest
}

/// `stringData` is for writing alone: what is applied by it belongs to nobody, so it could be neither compared nor taken away.
pub fn encode(secret: &mut Value) {
    let plain = secret.as_object_mut().and_then(|secret| secret.remove("stringData"));
    let Some(Value::Object(plain)) = plain else { return };
    let data = map_in(secret, "data");
    for (key, text) in plain {
        if let Value::String(text) = text {
            data.insert(key, Value::from(BASE64.encode(text)));
        }
    }
}

fn map_in<'v>(value: &'v mut Value, key: &str) -> &'v mut Map<String, Value> {
    if !value[key].is_object() {
        value[key] = Value::Object(Map::new());
    }
    value[key].as_object_mut().expect("it was just made one")
}

fn insert_text(metadata: &mut Map<String, Value>, part: &str, key: &str, text: &str) {
    let texts = metadata.entry(part).or_insert(Value::Null);
    // Written as `labels:` with nothing below it.
    if texts.is_null() {
        *texts = Value::Object(Map::new());
    }
    // What is no map the API server refuses, as it stands in the template.
    if let Some(texts) = texts.as_object_mut() {
        texts.insert(key.to_owned(), Value::from(text));
    }
}

/// Kinds that others need, each before those that need it; every other kind comes between them and what runs.
const FIRST: [&str; 11] = [
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Role",
    "RoleBinding",
    "Service",
];
/// What runs, and what is about it.
const LAST: [&str; 10] = [
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Deployment",
    "Job",
    "CronJob",
    "HorizontalPodAutoscaler",
    "Ingress",
];

fn rank(kind: &str) -> usize {
    let at = |list: &[&str]| list.iter().position(|k| *k == kind);
    at(&FIRST).unwrap_or_else(|| at(&LAST).map_or(FIRST.len(), |i| FIRST.len() + 1 + i))
}

/// In the order in which they are applied: by kind, and those of one kind in the order of their components.
#[must_use]
pub fn ordered(mut wanted: Vec<Manifest>) -> Vec<Manifest> {
    wanted.sort_by_key(|manifest| rank(&manifest.id.kind));
    wanted
}

/// What is owned and no longer wanted, in the order in which it is deleted: what runs goes before what it needs.
#[must_use]
pub fn pruned(wanted: &[Manifest], owned: &[Owned], place: &Place) -> Vec<Owned> {
    let is_wanted = |id: &ObjectId| wanted.iter().any(|manifest| is_same(&manifest.id, id));
    let mut pruned: Vec<Owned> = owned
        .iter()
        .filter(|owned| {
            owned.set.as_deref() == Some(&place.set) && owned.id.namespace == place.namespace && !is_wanted(&owned.id)
        })
        .cloned()
        .collect();
    pruned.sort_by_key(|owned| std::cmp::Reverse(rank(&owned.id.kind)));
    pruned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest(kind: &str, namespace: &str, name: &str) -> Manifest {
        Manifest {
            component: "web".to_owned(),
            template: "web.yaml".to_owned(),
            id: ObjectId {
                group: String::new(),
                kind: kind.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            version: "v1".to_owned(),
            value: json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}),
        }
    }

    fn place() -> Place {
        Place::of("shop-staging", "shop")
    }

    #[test]
    fn the_identity_of_a_set_is_the_one_that_kubectl_computes() {
        // echo -n 'stagegate-shop.shop-staging.ConfigMap.' | openssl sha256 -binary | basenc --base64url | tr -d =
        assert_eq!(place().set, "applyset--ZrRJHemFmpmfesVs1bzijltXa83_raMBVT3GuD3uCA-v1");
    }

    #[test]
    fn a_secrets_texts_are_applied_as_its_data() {
        let mut secret = manifest("Secret", "elsewhere", "s");
        secret.value["stringData"] = serde_json::json!({"word": "open"});
        secret.value["data"] = serde_json::json!({"word": "b2xk", "other": "eA=="});
        let prepared = prepared(&secret, &place()).value;
        assert_eq!(
            prepared["data"],
            serde_json::json!({"word": "b3Blbg==", "other": "eA=="})
        );
        assert!(prepared["stringData"].is_null());
    }

    #[test]
    fn what_is_no_map_is_left_to_the_api_server_to_refuse() {
        let mut odd = manifest("ConfigMap", "", "a");
        odd.value["metadata"]["labels"] = json!("app=web");
        odd.value["metadata"]["annotations"] = Value::Null;
        let metadata = &prepared(&odd, &place()).value["metadata"];
        assert_eq!(metadata["labels"], "app=web");
        assert!(metadata["annotations"][APPLIED].is_string(), "{metadata}");
    }

    #[test]
    fn the_record_says_which_build_and_an_open_upgrade_whatever_it_has_set() {
        let set = |image: &str, partition: u32| {
            json!({"spec": {
                "updateStrategy": {"rollingUpdate": {"partition": partition}},
                "template": {"spec": {"containers": [{"name": "log", "image": "l"}, {"name": "web", "image": image}]}},
            }})
        };
        let settled = |recorded: Option<&str>, upgrade: UnderWay, live: Option<&Value>| {
            let moved = Moved {
                kind: "StatefulSet",
                name: "web".to_owned(),
                container: Some("web".to_owned()),
                image: recorded.map(str::to_owned),
                upgrade,
            };
            let mut stated = set("file", 0);
            moved.settle(&mut stated, live);
            stated
        };
        let live = set("live", 2);
        for (recorded, upgrade, there, expected) in [
            (None, UnderWay::No, Some(&live), set("file", 0)),
            (Some("record"), UnderWay::No, Some(&live), set("record", 0)),
            (Some("record"), UnderWay::No, None, set("record", 0)),
            (Some("record"), UnderWay::Yes, Some(&live), set("live", 2)),
            (None, UnderWay::Yes, Some(&live), set("live", 2)),
            // Somebody has deleted it meanwhile.
            (Some("record"), UnderWay::Yes, None, set("record", 0)),
        ] {
            assert_eq!(settled(recorded, upgrade, there), expected, "{recorded:?} {upgrade:?}");
        }
    }

    #[test]
    fn what_others_need_is_applied_first_and_pruned_last() {
        let kinds = [
            "Deployment",
            "Widget",
            "ConfigMap",
            "Service",
            "ServiceAccount",
            "StatefulSet",
        ];
        let ordered: Vec<String> = ordered(kinds.iter().map(|k| manifest(k, "", "a")).collect())
            .into_iter()
            .map(|m| m.id.kind)
            .collect();
        assert_eq!(
            ordered,
            [
                "ServiceAccount",
                "ConfigMap",
                "Service",
                "Widget",
                "StatefulSet",
                "Deployment"
            ]
        );
        let owned: Vec<Owned> = kinds
            .iter()
            .map(|kind| owned(kind, "shop-staging", "a", true))
            .collect();
        let gone: Vec<String> = pruned(&[], &owned, &place()).into_iter().map(|o| o.id.kind).collect();
        assert_eq!(
            gone,
            [
                "Deployment",
                "StatefulSet",
                "Widget",
                "Service",
                "ConfigMap",
                "ServiceAccount"
            ]
        );
    }

    fn owned(kind: &str, namespace: &str, name: &str, ours: bool) -> Owned {
        Owned {
            id: manifest(kind, namespace, name).id,
            uid: format!("{kind}-{namespace}-{name}"),
            set: Some(if ours {
                place().set
            } else {
                Place::of("shop-staging", "other").set
            }),
        }
    }

    #[test]
    fn what_leaves_the_namespace_is_refused_and_so_is_what_is_stated_twice() {
        let wanted = [
            manifest("ConfigMap", "", "a"),
            manifest("ConfigMap", "shop-staging", "a"),
            manifest("ConfigMap", "elsewhere", "a"),
            manifest("ClusterRole", "", "a"),
            manifest("Widget", "", "a"),
        ];
        let scope = |manifest: &Manifest| match manifest.id.kind.as_str() {
            "ClusterRole" => Scope::Cluster,
            "Widget" => Scope::Unknown,
            _ => Scope::Namespaced,
        };
        let said: Vec<String> = refused(&wanted, &scope, &place())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(said.len(), 4, "{said:#?}");
        for (said, why) in said.iter().zip([
            "ConfigMap/a is stated by web.yaml and by web.yaml",
            "namespace elsewhere",
            "ClusterRole/a belongs to the whole cluster",
            "no kind Widget of version v1",
        ]) {
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn what_was_there_before_us_and_what_is_of_another_set_is_not_written() {
        let id = manifest("ConfigMap", "shop-staging", "a").id;
        let live = |set: Option<&str>| match set {
            Some(set) => json!({"metadata": {"labels": {PART_OF: set}}}),
            None => json!({"metadata": {}}),
        };
        let ours = place().set;
        assert!(may_write(&id, &live(Some(&ours)), Manages::No, &place()).is_ok());
        assert!(may_write(&id, &live(None), Manages::Yes, &place()).is_ok());
        let said = may_write(&id, &live(None), Manages::No, &place()).expect_err("not ours");
        assert!(
            said.to_string().contains("kubectl label -n shop-staging ConfigMap/a"),
            "{said}"
        );
        let said = may_write(&id, &live(Some("applyset-x-v1")), Manages::Yes, &place()).expect_err("not ours");
        assert!(said.to_string().contains("applyset-x-v1"), "{said}");
    }

    fn ids() -> impl Strategy<Value = (usize, usize, usize, bool)> {
        (0..3_usize, 0..2_usize, 0..3_usize, any::<bool>())
    }

    const SOME_KINDS: [&str; 3] = ["ConfigMap", "Deployment", "Widget"];
    const SOME_NAMESPACES: [&str; 2] = ["shop-staging", "elsewhere"];
    const SOME_NAMES: [&str; 3] = ["a", "b", "c"];

    proptest! {
        #[test]
        fn pruning_takes_all_of_its_own_that_is_not_wanted_and_nothing_else(
            wanted in prop::collection::vec(ids(), 0..6),
            there in prop::collection::vec(ids(), 0..12),
        ) {
            let place = place();
            let wanted: Vec<Manifest> = wanted
                .into_iter()
                .map(|(kind, _, name, _)| prepared(&manifest(SOME_KINDS[kind], "", SOME_NAMES[name]), &place))
                .collect();
            let there: Vec<Owned> = there
                .into_iter()
                .map(|(kind, namespace, name, ours)| owned(SOME_KINDS[kind], SOME_NAMESPACES[namespace], SOME_NAMES[name], ours))
                .collect();
            let gone = pruned(&wanted, &there, &place);
            for object in &there {
                let is_wanted = wanted.iter().any(|m| m.id == object.id);
                let is_ours = object.set.as_ref() == Some(&place.set);
                let is_here = object.id.namespace == place.namespace;
                prop_assert_eq!(gone.contains(object), is_ours && is_here && !is_wanted, "{:?}", object);
            }
            // Once it is gone, nothing more goes; with nothing wanted, all of its own does.
            let left: Vec<Owned> = there.iter().filter(|o| !gone.contains(o)).cloned().collect();
            prop_assert!(pruned(&wanted, &left, &place).is_empty());
            let all = pruned(&[], &there, &place);
            prop_assert!(all.iter().all(|o| o.set.as_ref() == Some(&place.set) && o.id.namespace == place.namespace));
            // Another environment's set takes nothing of it.
            let other = Place::of("shop-staging", "renamed");
            prop_assert!(pruned(&[], &there, &other).is_empty());
        }

        #[test]
        fn what_is_prepared_twice_is_the_same_object(kind in 0..3_usize, name in 0..3_usize) {
            let one = manifest(SOME_KINDS[kind], "", SOME_NAMES[name]);
            let prepared_once = prepared(&one, &place());
            prop_assert_eq!(&prepared_once, &prepared(&one, &place()));
            prop_assert_eq!(prepared_once.value["metadata"]["namespace"].as_str(), Some("shop-staging"));
        }
    }
}
