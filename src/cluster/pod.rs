//! What pods of every kind of workload have in common: one as it is seen, why it does not come up, and the steps that are
//! remembered of it. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::hosts::{FencingToken, IMAGE_NOT_FETCHED, StepEnd, StepState};
use crate::model::values::Digest;

/// Steps of a pod that are remembered: what it points to, and how it was made anew. One is under way at most, and an API server
/// takes 256 KiB of annotations, which is this for some 600 pods.
pub const STEPS_KEPT: usize = 2;
/// Why a container does not come up, and never will.
const HOPELESS: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];
/// Of those, that its machine does not get its image: `RegistryUnavailable` is a kubelet's own word for one reason of it.
const NO_IMAGE: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"];
/// How a registry says that it has no such image: the codes of the distribution specification, and what containerd and Docker make of
/// them. The last two are of an image that is there, and not for this machine.
const NO_SUCH_IMAGE: [&str; 5] = [
    "manifest unknown",
    "name unknown",
    ": not found",
    "no match for platform",
    "no matching manifest",
];
/// What is not found then is the registry, a program that asks it, or a name of it. They have a space in them, here as above: the names of images are
/// in the same messages, and have none.
const NOT_ASKED: [&str; 6] = [
    "dial tcp",
    "lookup ",
    "executable file not found",
    "exec: \"docker-credential",
    "error getting credentials",
    "credential provider",
];
/// A part of the image that the machine has fetched is lost there, as containerd says it: a pull does not help, and the build is as good as
/// before.
const LOST_THERE: &str = "content digest ";
/// What a kubelet says of a container that it has not begun: it fetches the image meanwhile, or cannot make what the container is put into.
const NOT_BEGUN: &str = "ContainerCreating";
/// Why a container does not come up so far. A registry that is away, or a Secret that comes a little later, mends itself.
const TROUBLES: [&str; 6] = [
    "RegistryUnavailable",
    "ErrImagePull",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// Such a trouble that lasts longer than this, once the pod has its place and its volumes, is held against the build: its node has
/// tried three times by then, at once, after 10 and after 20 seconds more.
pub const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// It ended by itself so often after it had been begun. A database that comes a little later mends one or two.
const CRASHES: u32 = 2;
/// What a node says of a container between two of its crashes.
const CRASHED: &str = "CrashLoopBackOff";

/// A pod as it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Tells it from the one before it.
    pub uid: String,
    /// When it was made, by its cluster's clock.
    pub made_at: Timestamp,
    /// The image that it was made with.
    pub image: String,
    /// Since when it has its place, its network and its volumes, by its cluster's clock; its image is fetched from then on.
    pub placed_at: Option<Timestamp>,
    /// How often its container ended and was begun again.
    pub restarts: u32,
    /// It was made by its workload's template as the controller of that has seen it last.
    pub is_of_template: bool,
    /// Since when its container runs, if it does.
    pub running_since: Option<Timestamp>,
    /// Its container says that it is ready.
    pub is_ready: bool,
    /// Why its container waits.
    pub waiting: Option<Waiting>,
    /// It was asked to end.
    pub ending: bool,
    /// The machine that it is on.
    pub machine: Option<String>,
    /// Its own address.
    pub address: Option<String>,
}

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// In one word.
    pub reason: String,
    /// In its own words.
    pub message: String,
    /// How often it ended and was begun again: it may be one that was put beside that of the build, or that comes before it.
    pub restarts: u32,
}

/// What is remembered of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// The build that it is to be made with when it is made anew; without one it is as the set has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Digest>,
    /// The last steps, the oldest first.
    #[serde(default)]
    pub steps: Vec<StepRecord>,
}

/// A step that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Its id.
    pub id: String,
    /// Of a replacement: what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replacement>,
}

/// A pod that makes way for its successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// The build that the successor runs.
    pub release: Digest,
    /// The one that goes; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// How long it may take.
    pub deadline_s: u64,
}

/// Why a pod cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another driver was here.
    #[error("it has seen token {seen}")]
    Fenced {
        /// What it has seen.
        seen: u64,
    },
    /// Another home's.
    #[error("it serves another home ({seen})")]
    Foreign {
        /// Whose.
        seen: String,
    },
    /// The environment does not say what it is.
    #[error("the image of build {} is not stated in the environment's `source.images`", .0.short())]
    NoImage(Digest),
    /// Nobody said what it is to run.
    #[error("it points to no build that is known")]
    Aimless,
    /// It rolls, or has not come to rest.
    #[error(
        "its pods are not all of its one revision, so where they would go back to is not known; `kubectl rollout status` waits for it"
    )]
    Unsettled,
    /// Another upgrade has it.
    #[error("upgrade {by} has it, and has not given it back yet")]
    Taken {
        /// Which.
        by: String,
    },
    /// What it was cannot be restored.
    #[error("its revisionHistoryLimit is 0, so nobody could restore what it was; set 1 or more")]
    NoHistory,
    /// Its owner has a boundary of their own.
    #[error(
        "its updateStrategy has partition {partition}, so a pod below that would, once lost, come back with the build from before; set 0, for while an upgrade goes on each pod is moved by itself"
    )]
    Partitioned {
        /// The boundary.
        partition: u32,
    },
    /// What pods are made with is not what their workload says.
    #[error(
        "a pod of its template was made with image {image}, and the template says {template}: something in the cluster rewrites the images of pods; exempt its namespace from that, or state what it makes of them in the template and in `source.images`"
    )]
    Rewritten {
        /// What a pod has.
        image: String,
        /// What the template says.
        template: String,
    },
    /// Pods are made one after the other, from below.
    #[error(
        "pod {below} is not ready, and with podManagementPolicy OrderedReady a pod is made anew only while all below it are ready"
    )]
    NotReady {
        /// The pod that is in the way.
        below: u32,
    },
    /// Who has begun to go back goes all the way.
    #[error("its pods are on their way back, and none goes forward before that is over")]
    GoesBack,
    /// A partition is a boundary.
    #[error("a StatefulSet's pods change from the top ordinal down, and ordinal {above} has not changed yet")]
    Order {
        /// The pod that is in the way.
        above: u32,
    },
    /// Nobody has the set, and its controller moves nothing.
    #[error(
        "its updateStrategy is OnDelete: a pod that is lost would come back with the build that is under test; set RollingUpdate, with partition 0"
    )]
    OnDelete,
    /// The set is not as it was left.
    #[error("{found}, and the upgrade had it as {meant}: {by} has changed it")]
    ForeignEdit {
        /// What is there.
        found: String,
        /// What was written.
        meant: String,
        /// Who has written since.
        by: String,
    },
    /// What was remembered of it is gone in mid-upgrade.
    #[error("nothing is remembered of its upgrade: it was made anew, or its annotation was taken out")]
    Forgotten,
    /// It was deleted.
    #[error("there is none of that name")]
    Gone,
    /// One takes what the other has shown to be good.
    #[error("its pods change after the canary alone has passed on this build, and it has not been asked to run it")]
    CanaryFirst,
    /// Nothing would be left that serves.
    #[error(
        "its strategy ends all pods before the first new one comes; set RollingUpdate with a maxUnavailable below its replicas"
    )]
    AllAtOnce,
    /// Nothing would happen.
    #[error("it is paused (`spec.paused`), so nothing that is written would be done; `kubectl rollout resume` goes on")]
    Paused,
    /// There is nothing to copy.
    #[error("it has 0 replicas, so nothing of it serves; scale it up first")]
    NoPods,
    /// What nobody can go back to.
    #[error(
        "it is made with image {image}, which no version of its component's images is, so nobody could go back to it; state it there"
    )]
    Unstated {
        /// That image.
        image: String,
    },
    /// Somebody else's object is in the way.
    #[error(
        "a Deployment {name} is there already, and its labels do not say that it is a canary of ours; rename or delete it"
    )]
    NotOurs {
        /// Its name.
        name: String,
    },
}

impl Refused {
    /// Whether it is that the workload is not the upgrade's any more: nothing that it asks for will ever be done, and a look says the same.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        match self {
            Refused::Forgotten | Refused::Gone | Refused::Taken { .. } => true,
            Refused::Fenced { .. }
            | Refused::Foreign { .. }
            | Refused::NoImage(_)
            | Refused::Aimless
            | Refused::Unsettled
            | Refused::NoHistory
            | Refused::Partitioned { .. }
            | Refused::Rewritten { .. }
            | Refused::NotReady { .. }
            | Refused::GoesBack
            | Refused::Order { .. }
            | Refused::OnDelete
            | Refused::ForeignEdit { .. }
            | Refused::CanaryFirst
            | Refused::AllAtOnce
            | Refused::Paused
            | Refused::NoPods
            | Refused::Unstated { .. }
            | Refused::NotOurs { .. } => false,
        }
    }
}

impl Waiting {
    /// Whether the build may be why. Who asks a registry that cannot be reached, or will not say, has learnt nothing of the build: an
    /// image counts as missing where the registry has said so. Nor has who waits for a machine that has not begun.
    fn is_builds_fault(&self) -> bool {
        let words = self.message.to_lowercase();
        if self.reason == NOT_BEGUN || words.contains(LOST_THERE) {
            return false;
        }
        if !NO_IMAGE.contains(&self.reason.as_str()) {
            return true;
        }
        let says = |all: &[&str]| all.iter().any(|word| words.contains(word));
        says(&NO_SUCH_IMAGE) && !says(&NOT_ASKED)
    }
}

/// Whether this token may write, by the highest that was seen.
///
/// # Errors
/// Another home, or a newer token was here.
pub fn admits(fence: Option<&FencingToken>, token: &FencingToken) -> Result<(), Refused> {
    match fence {
        Some(fence) if fence.home != token.home => Err(Refused::Foreign {
            seen: fence.home.clone(),
        }),
        Some(fence) if fence.counter > token.counter => Err(Refused::Fenced { seen: fence.counter }),
        Some(_) | None => Ok(()),
    }
}

impl Replacement {
    /// Whether it takes too long, counted from this on. A clock that was set back makes nothing late.
    #[must_use]
    pub fn is_late(&self, from: Timestamp, now: Timestamp) -> bool {
        let deadline = SignedDuration::from_secs(i64::try_from(self.deadline_s).unwrap_or(i64::MAX));
        now.duration_since(from.max(self.since)) > deadline
    }
}

impl Pod {
    /// What its container waits for, in one word.
    #[must_use]
    pub fn waits_for(&self) -> &str {
        self.waiting.as_ref().map_or("", |waiting| &waiting.reason)
    }

    /// Whether what its container waits for is held against its build.
    fn is_given_up(&self, waiting: &Waiting, since: Timestamp, now: Timestamp) -> bool {
        let waited = self.placed_at.map(|at| now.duration_since(at.max(since)));
        let reason = waiting.reason.as_str();
        HOPELESS.contains(&reason)
            || reason == CRASHED && waiting.restarts >= CRASHES
            || TROUBLES.contains(&reason) && waited.is_some_and(|waited| waited > GRACE)
    }

    /// How far one is that a step waits for: it runs what it is to run.
    #[must_use]
    pub fn coming_up(&self, replaces: &Replacement, now: Timestamp) -> StepState {
        // From when it had its place: until then it could not do anything.
        let late = replaces.is_late(self.placed_at.map_or(self.made_at, |at| at.max(self.made_at)), now);
        if self.is_ready {
            return ended(0, String::new());
        }
        // No machine has taken it yet.
        if self.placed_at.is_none() && !HOPELESS.contains(&self.waits_for()) {
            return StepState::Running;
        }
        match &self.waiting {
            Some(waiting) if late || self.is_given_up(waiting, replaces.since, now) => {
                let words = format!("{}: {}", waiting.reason, waiting.message);
                let exit = match late {
                    _ if !waiting.is_builds_fault() => IMAGE_NOT_FETCHED,
                    true => 124,
                    false => 1,
                };
                ended(exit, words)
            }
            None if late => ended(124, "its container is not ready".to_owned()),
            Some(_) | None => StepState::Running,
        }
    }

    /// That its image, or the machine that fetches it, is what it waits for, by no fault of the build.
    #[must_use]
    pub fn unfetched(&self) -> Option<String> {
        let waiting = self.waiting.as_ref().filter(|_| !self.is_ready)?;
        (!waiting.is_builds_fault()).then(|| format!("{}: {}: {}", self.name, waiting.reason, waiting.message))
    }

    /// Whether a container of it ends again and again.
    #[must_use]
    pub fn is_crashing(&self) -> bool {
        let waiting = self.waiting.as_ref();
        !self.is_ready && waiting.is_some_and(|waiting| waiting.reason == CRASHED && waiting.restarts >= CRASHES)
    }

    /// Why no machine has it, where none has.
    #[must_use]
    pub fn is_nowhere(&self) -> Option<String> {
        if self.placed_at.is_some() || self.is_ready {
            return None;
        }
        let words = self.waiting.as_ref().map(|w| format!("{}: {}", w.reason, w.message));
        Some(format!(
            "the pod has no machine, or not all of its volumes: {}",
            words.as_deref().unwrap_or("nothing says why")
        ))
    }

    /// That it does not end, and where.
    #[must_use]
    pub fn does_not_end(&self) -> String {
        format!(
            "the pod does not end; look at the machine that it is on ({})",
            self.machine.as_deref().unwrap_or("none")
        )
    }
}

/// That a pod has another image than the template that it was made of.
#[must_use]
pub fn rewritten(image: &str, template: &str) -> String {
    format!(
        "the pod was made with image {image}, and its template says {template}: something in the cluster rewrites images"
    )
}

/// A step's id is its upgrade's name, a number and a word (`rollout::nodes`).
#[must_use]
pub fn upgrade_of(id: &str) -> &str {
    id.rsplitn(3, '.').last().unwrap_or(id)
}

/// The end of a step that leaves no trace on its workload: it needed nothing, or was refused.
#[must_use]
pub fn without_trace(why: Option<&Refused>) -> StepState {
    why.map_or_else(|| ended(0, String::new()), |why| ended(1, why.to_string()))
}

/// A step that ended so.
#[must_use]
pub fn ended(exit: i32, log_tail: String) -> StepState {
    StepState::Ended(StepEnd { exit, log_tail })
}

/// Who has written, as far as that is known.
pub(super) fn somebody(writer: Option<&String>) -> String {
    writer.map_or_else(
        || "somebody else".to_owned(),
        |writer| format!("{writer}, not the upgrade,"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as kubelets, containerd, CRI-O and Docker have them.
    #[test]
    fn an_image_is_the_builds_fault_where_a_registry_says_that_it_has_none() {
        let of_image = "failed to pull and unpack image \"r.example/web@sha256:1\": failed to resolve reference \"r.example/web@sha256:1\"";
        let backoff = "Back-off pulling image \"r.example/web@sha256:1\"";
        let pinging = "initializing source docker://r.example/web@sha256:1: pinging container registry r.example";
        let rows = [
            ("ErrImagePull", format!("rpc error: code = NotFound desc = {of_image}: r.example/web@sha256:1: not found"), true),
            ("ImagePullBackOff", format!("{backoff}: ErrImagePull: rpc error: code = NotFound desc = {of_image}: r.example/web@sha256:1: not found"), true),
            ("ErrImagePull", "initializing source docker://r.example/web:1: reading manifest 1 in r.example/web: manifest unknown".to_owned(), true),
            ("ErrImagePull", "initializing source docker://r.example/web:1: reading manifest 1 in r.example/web: name unknown: repository name not known to registry".to_owned(), true),
            ("ErrImagePull", "Error response from daemon: manifest for r.example/web:1 not found: manifest unknown: manifest unknown".to_owned(), true),
            ("ErrImagePull", "failed to pull and unpack image \"r.example/web:1\": no match for platform in manifest: not found".to_owned(), true),
            ("ErrImagePull", "choosing image instance: no matching manifest for linux/arm64/v8 in the manifest list entries".to_owned(), true),
            // Nobody was reached.
            ("ErrImagePull", format!("{of_image}: failed to do request: Head \"https://r.example/v2/web/manifests/1\": dial tcp: lookup r.example on 10.96.0.10:53: no such host"), false),
            ("ErrImagePull", format!("{pinging}: Get \"https://r.example/v2/\": dial tcp: lookup r.example: Temporary failure in name resolution"), false),
            ("ErrImagePull", format!("{of_image}: failed to do request: Head \"https://r.example/v2/web/manifests/1\": dial tcp 192.0.2.7:443: i/o timeout"), false),
            ("ErrImagePull", format!("{of_image}: failed to do request: Head \"https://r.example/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority"), false),
            ("RegistryUnavailable", "image pull failed for r.example/web:1 because the registry is unavailable".to_owned(), false),
            // Somebody was, and would not say.
            ("ErrImagePull", format!("{of_image}: unexpected status from HEAD request to https://r.example/v2/web/manifests/1: 503 Service Unavailable"), false),
            ("ErrImagePull", format!("{of_image}: unexpected status from HEAD request to https://r.example/v2/web/manifests/1: 403 Forbidden"), false),
            ("ErrImagePull", format!("{of_image}: failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized"), false),
            ("ErrImagePull", format!("{of_image}: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"), false),
            ("ErrImagePull", "reading manifest 1 in r.example/web: unauthorized: access to the requested resource is not authorized".to_owned(), false),
            ("ErrImagePull", "Error response from daemon: toomanyrequests: You have reached your pull rate limit".to_owned(), false),
            ("ErrImagePull", "error getting credentials - err: exec: \"docker-credential-x\": executable file not found in $PATH".to_owned(), false),
            ("ErrImagePull", "error getting credentials - err: exit status 1, out: ``".to_owned(), false),
            // The machine has lost what it had fetched.
            ("ErrImagePull", "failed to pull and unpack image \"r.example/web:1\": failed to extract layer sha256:2: failed to get reader from content store: content digest sha256:3: not found".to_owned(), false),
            ("CreateContainerError", "failed to create containerd container: error unpacking image: content digest sha256:3: not found".to_owned(), false),
            // Names of images are in the words, too.
            ("ErrImagePull", "failed to resolve reference \"r.example/credential-provider:1\": r.example/credential-provider:1: not found".to_owned(), true),
            ("ErrImagePull", "failed to resolve reference \"r.example/lookup:1\": r.example/lookup:1: not found".to_owned(), true),
            // The machine is at it, or cannot.
            ("ContainerCreating", String::new(), false),
            ("PodInitializing", String::new(), true),
            // Older kubelets do not say why between two attempts.
            ("ImagePullBackOff", backoff.to_owned(), false),
            // Of other troubles the words are not read.
            ("CreateContainerConfigError", "secret \"key\" not found".to_owned(), true),
            ("CrashLoopBackOff", "back-off 10s restarting failed container; dial tcp".to_owned(), true),
        ];
        for (reason, message, expected) in rows {
            let waiting = Waiting {
                reason: reason.to_owned(),
                message: message.clone(),
                restarts: 0,
            };
            assert_eq!(waiting.is_builds_fault(), expected, "{message}");
        }
    }
}
