//! `stagegate controller`: the Kubernetes home. Environments, Builds and Upgrades are objects of an API server, and their status is
//! the state; this process sees them change and moves them on. Of several replicas one leads; the others stand by, and each carries
//! the reports that lie on its own volume.
//!
//! It keeps nothing that matters: one that was killed is replaced by the next, which finds all of it in the objects.

mod acts;
mod bring_up;
mod drive;
mod elector;
mod files;
mod heard;
mod keeper;
mod lanes;
mod lead;
mod leader;
mod look;
mod made;
mod policies;
mod promotions;
mod rehearsals;
mod rounds;
mod runs;
mod shared;
mod statuses;
mod told;

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use rustix::fs::{FlockOperation, flock};
use tokio::net::TcpListener;
use tokio::time::Instant;

use self::elector::Elector;
use self::files::Files;
use self::heard::Heard;
use self::leader::Leader;
use self::told::Told;
use super::couriers::Couriers;
use super::health::answer;
use super::{LAST_REPORTS, PRUNE_EVERY, ServeError};
use crate::cluster::connection;
use crate::cluster::objects::{ApiError, MANAGER, asked};
use crate::engine::interrupt::Interrupt;
use crate::home::Home;
use crate::model::system::PortShift;
use crate::report::Lines;
use crate::store::random_id;

/// At the longest between two turns: templates are mounted anew without anybody saying so, and health wants a beat.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What a controller locks on its volume.
const IN_USE: &str = "controller.lock";

/// How a text calls the commands that it names, for who reads it in an object of that namespace.
pub type Phrase = for<'t> fn(&'t str, &str) -> Cow<'t, str>;

/// Why a controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// No cluster.
    #[error("cannot find the API server: {why}; in a pod it is the service account's, elsewhere KUBECONFIG says which")]
    Cluster {
        /// What is wrong.
        why: String,
    },
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The namespace.
    #[error(
        "{why}; is Stagegate installed in {namespace}? `stagegate install --print --namespace {namespace} | kubectl apply --server-side -f -` \
         does that, and `kubectl auth can-i get namespace/{namespace}` says what this account may"
    )]
    Namespace {
        /// Which was asked for.
        namespace: String,
        /// What the API server said.
        why: ApiError,
    },
    /// The address of `/healthz`.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A controller of one namespace.
pub struct Controller {
    /// The volume: history, outbox, evidence, prepared builds.
    pub home: Home,
    /// Files that are no resources.
    pub templates: Option<PathBuf>,
    /// The namespace; its own unless named.
    pub namespace: Option<String>,
    /// Ends it.
    pub interrupt: Interrupt,
    /// Told what happens, a line each.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// Puts what is written into objects into the words of who reads it there.
    pub phrase: Phrase,
    /// Where the sink `stdout` of environments writes.
    pub lines: Arc<dyn Lines>,
}

impl Controller {
    /// Runs until interrupted; then the running steps end, and another may lead at once.
    ///
    /// # Errors
    /// There is no API server, it does not let us in, or the address cannot be used.
    pub async fn run(self, listen: &str) -> Result<(), ControllerError> {
        let connected = connection::connect_to_own().await;
        let (client, own) = connected.map_err(|why| ControllerError::Cluster { why })?;
        let namespace = self.namespace.clone().unwrap_or(own);
        let served: Api<Namespace> = Api::all(client.clone());
        let served = asked("read", &format!("Namespace {namespace}"), served.get(&namespace)).await;
        let served = served.map_err(|why| match why {
            // A rule says no, or there is none of that name.
            ApiError::Refused { code: 403 | 404, .. } => ControllerError::Namespace {
                namespace: namespace.clone(),
                why,
            },
            why @ (ApiError::Refused { .. } | ApiError::Unreachable { .. } | ApiError::Unreadable { .. }) => why.into(),
        })?;
        let refused = |source| ServeError::Listen {
            address: listen.to_owned(),
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let told = Arc::new(Told::new());
        let interrupt = self.interrupt.clone();
        let answering = tokio::spawn(answer(listener, told::router(Arc::clone(&told)), async move {
            interrupt.wait().await;
        }));
        let (heard, watches) = Heard::listen(&client, &namespace);
        // The host is a pod's name; the rest tells two processes of one host apart.
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let me = format!("{host}_{}", &random_id()[..12]);
        (self.tell)(&format!(
            "controlling namespace {namespace} as {me}; http://{address}/healthz"
        ));
        // Held for as long as this process runs.
        let _only_one = match only_one(self.home.root()) {
            Ok(mark) => Some(mark),
            Err(why) => {
                (self.tell)(&format!(
                    "{} is in use by another controller, or cannot be locked ({why}): a volume belongs to one replica, so give this one \
                     its own",
                    self.home.root().display()
                ));
                None
            }
        };
        let leader = Leader {
            home: self.home.clone(),
            home_uid: served.metadata.uid.unwrap_or_default(),
            me: me.clone(),
            files: Files::new(self.home.root().join("workspace"), self.templates.clone()),
            recorder: Recorder::new(
                client.clone(),
                Reporter {
                    controller: MANAGER.to_owned(),
                    instance: Some(me.clone()),
                },
            ),
            client: client.clone(),
            namespace: namespace.clone(),
            heard,
            complaints: Mutex::default(),
            judged: Mutex::default(),
            told,
            tell: Arc::clone(&self.tell),
            phrase: self.phrase,
            failures: Mutex::default(),
        };
        self.work(&leader, &client, &namespace, me).await;
        drop(watches);
        answering.abort();
        Ok(())
    }

    async fn work(&self, leader: &Leader, client: &Client, namespace: &str, me: String) {
        let (elector, mut leads) = Elector::new(client, namespace, me);
        let (ender, end) = Interrupt::new();
        let electing = tokio::spawn(elector.run(end));
        let mut couriers = Couriers::new(&self.home, &leader.files.workspace, PortShift::default(), &self.lines);
        let (mut prune_at, mut carry_at) = (Instant::now(), Instant::now());
        let mut has_cleared = false;
        while !self.interrupt.is_set() {
            leader.told.beat();
            leader.told.leader.set(0);
            if leader.has_listed() {
                for environment in &leader.place() {
                    couriers.changed(environment);
                }
                if !has_cleared {
                    leader.clear_files();
                    has_cleared = true;
                }
            }
            if Instant::now() >= carry_at {
                leader.has_other_templates();
                couriers.carry_waiting();
                couriers.rest(|_| false);
                carry_at = Instant::now() + LOOK_EVERY;
            }
            if Instant::now() >= prune_at {
                leader.prune();
                prune_at = Instant::now() + PRUNE_EVERY;
            }
            if leader.has_listed() && *leads.borrow_and_update() {
                (self.tell)("leading");
                leader.told.leader.set(1);
                let of_promotions = leads.clone();
                tokio::select! {
                    () = leader.lead(&self.interrupt, &mut leads, &mut couriers) => {}
                    // Whatever of it is under way is done once, by whoever comes next.
                    () = leader.promote(of_promotions, &self.interrupt) => {}
                }
                (self.tell)("leading no more");
                continue;
            }
            tokio::select! {
                () = leader.heard.changed.notified() => {}
                alive = leads.changed() => {
                    if alive.is_err() {
                        (self.tell)("the election has ended badly; ending");
                        break;
                    }
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.interrupt.wait() => {}
            }
        }
        // Nothing of ours is under way any more.
        ender.interrupt();
        if let Err(why) = electing.await {
            tracing::warn!(%why, "the election has ended badly");
        }
        couriers.finish(LAST_REPORTS).await;
    }
}

/// Takes a volume for this process, until what is handed back is dropped.
fn only_one(volume: &Path) -> std::io::Result<File> {
    let mark = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(volume.join(IN_USE))?;
    flock(&mark, FlockOperation::NonBlockingLockExclusive)?;
    Ok(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_used_by_one_controller_at_a_time() {
        let volume = tempfile::tempdir().expect("a directory");
        let first = only_one(volume.path()).expect("nobody else has it");
        only_one(volume.path()).expect_err("another has it");
        drop(first);
        only_one(volume.path()).expect("it has gone");
    }
}
