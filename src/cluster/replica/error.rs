//! Why a replica is not as it is wanted.

use super::namespace::ClusterId;
use super::plan::Refused;
use super::{ENVIRONMENT, GONE_LIMIT, HOME, READY_LIMIT};
use crate::model::manifest::ObjectId;

/// Why a replica is not as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// No connection.
    #[error(
        "cannot find the cluster of {environment}: {why}; KUBECONFIG and `target.kubernetes.context` say which it is"
    )]
    NoCluster {
        /// Whose.
        environment: String,
        /// What was found.
        why: String,
    },
    /// No answer.
    #[error("cannot {tried}: {on}: {why}; the same command again goes on with it")]
    Unreachable {
        /// What was tried.
        tried: String,
        /// On what.
        on: String,
        /// What happened.
        why: String,
    },
    /// The API server says no.
    #[error("cannot {tried}: {on}: {why}")]
    Api {
        /// What was tried.
        tried: String,
        /// On what.
        on: String,
        /// What it said.
        why: String,
        /// Its code.
        code: u16,
    },
    /// What must not be.
    #[error("nothing was written:{}", lines(.0))]
    Refused(Vec<Refused>),
    /// Somebody else's namespace.
    #[error(
        "namespace {namespace} is not this replica's ({whose}), so it is left alone; if it is to be, hand it over: `kubectl label \
         --overwrite namespace {namespace} {HOME}={home} {ENVIRONMENT}={environment}`"
    )]
    NotOurs {
        /// The namespace.
        namespace: String,
        /// What it says.
        whose: String,
        /// This home.
        home: String,
        /// This environment.
        environment: String,
    },
    /// Another cluster than it was made in.
    #[error(
        "{environment} stands in {before}, and what the kubeconfig names now is {now}: nothing was looked for there; point KUBECONFIG or \
         `target.kubernetes.context` at the cluster where it stands, and if that is gone for good: `stagegate down {environment} --cluster-is-gone`"
    )]
    OtherCluster {
        /// Whose.
        environment: String,
        /// Where it was made.
        before: ClusterId,
        /// What was found.
        now: ClusterId,
    },
    /// A namespace that goes.
    #[error("namespace {0} is being deleted; run the command again when it is gone")]
    Ending(String),
    /// Pods that do not come.
    #[error(
        "{object} has {ready} of {wanted} pods ready after {limit_s} s; `kubectl -n {namespace} describe {object}` says why",
        limit_s = READY_LIMIT.as_secs()
    )]
    NotReady {
        /// The object.
        object: ObjectId,
        /// Its namespace.
        namespace: String,
        /// How many there are.
        ready: u64,
        /// How many there should be.
        wanted: u64,
    },
    /// It did not go.
    #[error(
        "namespace {namespace} was not gone within {limit_s} s; `kubectl describe namespace {namespace}` says what holds it",
        limit_s = GONE_LIMIT.as_secs()
    )]
    Stays {
        /// The namespace.
        namespace: String,
    },
    /// Asked to end.
    #[error("interrupted between two writes; the same command again goes on with it")]
    Interrupted,
}

fn lines(refused: &[Refused]) -> String {
    let all: Vec<String> = refused.iter().map(ToString::to_string).collect();
    // Tables show the first line.
    format!(" {}", all.join("\n  "))
}
