//! `stagegate controller`: the Kubernetes home. Environments, Builds and Upgrades are objects of an API server, and their status is
//! the state; this process sees them change and moves them on. Of several replicas one leads; the others stand by, and each carries
//! the reports that lie on its own volume.
//!
//! It keeps nothing that matters: one that was killed is replaced by the next, which finds all of it in the objects.

mod elector;
mod files;
mod lead;
mod leader;
mod told;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DynamicObject;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store as Cache};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::elector::Elector;
use self::files::Files;
use self::leader::Leader;
use self::told::Told;
use super::couriers::Couriers;
use super::health::answer;
use super::{LAST_REPORTS, PRUNE_EVERY, ServeError};
use crate::cluster::objects::{ApiError, Kind, MANAGER, asked};
use crate::engine::interrupt::Interrupt;
use crate::engine::session;
use crate::home::Home;
use crate::model::system::PortShift;
use crate::report::Lines;
use crate::store::random_id;

/// At the longest between two turns: templates are mounted anew without anybody saying so, and health wants a beat.
const LOOK_EVERY: Duration = Duration::from_secs(15);

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
    /// Where the sink `stdout` of environments writes.
    pub lines: Arc<dyn Lines>,
}

/// What is heard of the API server.
#[derive(Clone)]
struct Heard {
    environments: Cache<DynamicObject>,
    builds: Cache<DynamicObject>,
    upgrades: Cache<DynamicObject>,
}

/// Watches end with it.
struct Watches(Vec<JoinHandle<()>>);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Controller {
    /// Runs until interrupted; then the running steps end, and another may lead at once.
    ///
    /// # Errors
    /// There is no API server, it does not let us in, or the address cannot be used.
    pub async fn run(self, listen: &str) -> Result<(), ControllerError> {
        let cluster = |why: String| ControllerError::Cluster { why };
        let config = Config::infer().await.map_err(|e| cluster(e.to_string()))?;
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| cluster(e.to_string()))?;
        let served: Api<Namespace> = Api::all(client.clone());
        let served = asked("read", &format!("Namespace {namespace}"), served.get(&namespace)).await?;
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
        let changed = Arc::new(Notify::new());
        let (heard, watches) = watch(&client, &namespace, &changed);
        // The host is a pod's name; the rest tells two processes of one host apart.
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let me = format!("{host}_{}", &random_id()[..12]);
        (self.tell)(&format!(
            "controlling namespace {namespace} as {me}; http://{address}/healthz"
        ));
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
            changed,
            told,
            tell: Arc::clone(&self.tell),
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
        let mut prune_at = Instant::now();
        while !self.interrupt.is_set() {
            leader.told.beat();
            leader.told.leader.set(0);
            leader.place();
            couriers.reread();
            if Instant::now() >= prune_at {
                session::prune_home(&self.home);
                prune_at = Instant::now() + PRUNE_EVERY;
            }
            if leader.has_listed() && *leads.borrow_and_update() {
                (self.tell)("leading");
                leader.told.leader.set(1);
                leader.lead(&self.interrupt, &mut leads, &mut couriers).await;
                (self.tell)("leading no more");
                continue;
            }
            tokio::select! {
                () = leader.changed.notified() => {}
                _ = leads.changed() => {}
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

fn watch(client: &Client, namespace: &str, changed: &Arc<Notify>) -> (Heard, Watches) {
    let mut tasks = Vec::new();
    let mut begin = |kind: Kind| {
        let writer = reflector::store::Writer::new(kind.resource());
        let reader = writer.as_reader();
        let (api, changed) = (kind.api(client, namespace), Arc::clone(changed));
        tasks.push(tokio::spawn(async move {
            let seen = watcher(api, watcher::Config::default()).default_backoff();
            let mut seen = std::pin::pin!(reflector::reflector(writer, seen));
            while let Some(event) = seen.next().await {
                if let Err(why) = event {
                    tracing::warn!(%why, ?kind, "objects are not heard of for a while");
                }
                changed.notify_one();
            }
        }));
        reader
    };
    let heard = Heard {
        environments: begin(Kind::Environment),
        builds: begin(Kind::Build),
        upgrades: begin(Kind::Upgrade),
    };
    (heard, Watches(tasks))
}
