//! Bringing an environment up and down: component by component in their order, the nodes of one together. What is seen on
//! a node is not done again, so a second run costs a look, and one that was killed is gone on with.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use jiff::Timestamp;

use super::builds::{self, BuildError, Order};
use super::fleet::{Fleet, FleetError, Lifecycle, Place};
use super::foreign::Foreign;
use super::interrupt::Interrupt;
use super::session::{self, KnownBuild, Refusal};
use crate::home::Home;
use crate::hosts::{FencingToken, Finished, Host as _, HostError, NodeSight, Step, Work};
use crate::http::Connections;
use crate::model::build::{BuildRef, BuildSpec};
use crate::model::environment::{Component, HostRef};
use crate::signals::http::HttpCall;
use crate::store::StoreError;

/// A service that was started answers within this: the slowest that we run need seconds.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);
/// Between two questions whether it answers yet.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Why an environment could not be brought up or down.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A step failed.
    #[error("{node}: {action} ended with {exit}: {log}")]
    Step {
        /// The node.
        node: String,
        /// Which action.
        action: String,
        /// Exit status; 124 is a deadline that passed.
        exit: i32,
        /// Its last words.
        log: String,
    },
    /// A step was cut off.
    #[error("{node}: {action} was cut off (its process was killed, or the machine restarted); run the command again")]
    CutOff {
        /// The node.
        node: String,
        /// Which action.
        action: String,
    },
    /// A service does not answer.
    #[error("{node} was started, but probe {probe} does not pass: {why}")]
    Mute {
        /// The node.
        node: String,
        /// Which probe.
        probe: String,
        /// What it says.
        why: String,
    },
    /// What pods are on is no build.
    #[error("{why}")]
    Unstated {
        /// Which, and what to do.
        why: String,
    },
    /// Asked to end.
    #[error("interrupted once the running steps had ended; the same command again goes on with it")]
    Interrupted,
    /// A build that failed here, or lacks what is required.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A component's build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Scripts, secrets.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Told what begins, and what else people who wait are to know.
pub type OnStep<'a> = dyn Fn(&str) + Sync + 'a;

/// What becomes of the pods of a component that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfPods {
    /// They are made from manifests and have gone with them: nothing is asked of them any more.
    GoneWithTheirObjects,
    /// Their workload is its owner's: what is remembered on it is deleted, and it stays.
    GivenBack,
}

/// A bring-up or take-down under way.
pub struct Bringing<'a> {
    /// The home.
    pub home: &'a Home,
    /// The environment.
    pub fleet: &'a Arc<Fleet>,
    /// Proof of holding the lease; its counter makes the ids of steps.
    pub token: FencingToken,
    /// Told what begins.
    pub on_step: &'a OnStep<'a>,
    /// Lets the running steps end and begins no other.
    pub interrupt: Interrupt,
}

impl Bringing<'_> {
    /// Brings a component up: every node set up, on a build, running and answering. `build` is what a node gets that has none.
    ///
    /// # Errors
    /// The first thing that did not work; what worked stays.
    pub async fn up(&self, component: &Component, build: Option<(&BuildRef, &BuildSpec)>) -> Result<(), UpError> {
        let places = self.fleet.places(&component.name);
        let sights = try_join_all(places.iter().map(|p| p.host.observe(&p.address, &[]))).await?;
        // To look is free, and where nothing is to be done nothing is refused; but an upgrade would be.
        if let Some(foreign) = Foreign::among(self.fleet, places.iter().zip(sights.iter().map(Some)), &self.token.home)
        {
            (self.on_step)(&foreign.to_string());
        }
        if let Some(why) = sights.iter().find_map(|sight| sight.unstated.clone()) {
            return Err(UpError::Unstated { why });
        }
        if let Some((build, spec)) = build
            && sights.iter().any(|s| s.current.is_none())
        {
            self.may_begin()?;
            if let Some(refusal) = session::refusal(self.home, self.fleet, component, spec).await? {
                return Err(refusal.into());
            }
            (self.on_step)(&format!("preparing {}", build.name));
            let order = Order {
                build: build.clone(),
                spec: spec.clone(),
            };
            builds::prepare(self.home, self.fleet, &order).await?;
        }
        let nodes = places.iter().zip(&sights);
        all(nodes.map(|(place, sight)| self.node_up(component, place, sight, build.map(|(b, _)| b)))).await
    }

    async fn node_up(
        &self,
        component: &Component,
        place: &Place,
        sight: &NodeSight,
        build: Option<&BuildRef>,
    ) -> Result<(), UpError> {
        let node = &place.site.name;
        // Its cluster makes and begins it; of what runs there, the sight has told.
        if is_pod(place) {
            return Ok(());
        }
        if component.actions.setup.is_some() && !sight.set_up {
            self.script(component, place, build, Lifecycle::Setup).await?;
        }
        let known = KnownBuild::by_digest(self.home, component)?;
        // What a node runs is what was last activated there, which an upgrade may have changed since the file was written.
        let mut running_build = sight.current.as_ref().and_then(|current| known.get(current));
        if let Some(build) = build
            && sight.current.is_none()
        {
            let release = build.digest;
            let artifact = self.home.artifact(&release);
            (self.on_step)(&format!("{node}: installing {}", build.name));
            place
                .host
                .deliver(&place.address, &self.token, &release, &artifact)
                .await?;
            let script = self
                .fleet
                .script(component, Some(&place.site), Some(build), Lifecycle::Install)?;
            self.work(place, "install", Work::Install { release, script }).await?;
            self.work(place, "activate", Work::Activate { release }).await?;
            running_build = Some(build);
        }
        if component.service.is_none() || component.actions.start.is_none() {
            return Ok(());
        }
        if sight.running.is_none() {
            (self.on_step)(&format!("{node}: starting"));
            self.script(component, place, running_build, Lifecycle::Start).await?;
        }
        self.answers(component, place, running_build).await
    }

    /// Waits until every probe that is for this build has passed once.
    async fn answers(&self, component: &Component, place: &Place, build: Option<&BuildRef>) -> Result<(), UpError> {
        let context = self
            .fleet
            .environment
            .context(&component.name, Some(&place.site), build);
        let client = crate::signals::http::client(None, None, Connections::Fresh, None);
        for probe in component.probes_for(build.map(|b| b.version.as_str())) {
            let mute = |why: String| UpError::Mute {
                node: place.site.name.clone(),
                probe: probe.name.clone(),
                why,
            };
            let client = client.as_ref().map_err(|e| mute(e.to_string()))?;
            let call = HttpCall::probe(client.clone(), &probe.http, &context).map_err(|e| mute(e.to_string()))?;
            let deadline = tokio::time::Instant::now() + ANSWER_LIMIT;
            loop {
                let said = call.once(probe.timeout.0).await;
                if said.as_ref().is_ok_and(|(outcome, _)| outcome.is_ok()) {
                    break;
                }
                if tokio::time::Instant::now() >= deadline {
                    return Err(mute(match said {
                        Ok((outcome, _)) => format!("{outcome:?}"),
                        Err(why) => why,
                    }));
                }
                tokio::select! {
                    () = self.interrupt.wait() => return Err(UpError::Interrupted),
                    () = tokio::time::sleep(ASK_EVERY) => {}
                }
            }
        }
        Ok(())
    }

    /// Stops a component's services on its servers. Its pods are not looked at: no script of ours runs there, and a cluster that is gone
    /// would keep everything else from being taken down.
    ///
    /// # Errors
    /// The first that could not be stopped.
    pub async fn down(&self, component: &Component) -> Result<(), UpError> {
        let places = self.fleet.places(&component.name).iter();
        all(places.filter(|place| !is_pod(place)).map(async |place| {
            let sight = place.host.observe(&place.address, &[]).await?;
            let lives = sight.running.is_some() || !sight.remains.is_empty();
            if lives && component.actions.stop.is_some() {
                (self.on_step)(&format!("{}: stopping", place.site.name));
                self.script(component, place, None, Lifecycle::Stop).await?;
            }
            Ok::<_, UpError>(())
        }))
        .await
    }

    /// Deletes a component's node directories with everything in them.
    ///
    /// # Errors
    /// The first that could not be deleted.
    pub async fn remove(&self, component: &Component, pods: OfPods) -> Result<(), UpError> {
        let places = self.fleet.places(&component.name).iter();
        let is_there = |place: &&Place| pods == OfPods::GivenBack || !is_pod(place);
        all(places.filter(is_there).map(async |place| {
            if is_pod(place) {
                (self.on_step)(&format!("{}: forgetting it", place.site.name));
            } else {
                let sight = place.host.observe(&place.address, &[]).await?;
                if component.actions.remove.is_some() && sight.set_up {
                    self.script(component, place, None, Lifecycle::Remove).await?;
                }
                (self.on_step)(&format!("{}: deleting its directory", place.site.name));
            }
            place.host.destroy(&place.address, &self.token).await?;
            Ok::<_, UpError>(())
        }))
        .await
    }

    async fn script(
        &self,
        component: &Component,
        place: &Place,
        build: Option<&BuildRef>,
        action: Lifecycle,
    ) -> Result<(), UpError> {
        if action == Lifecycle::Setup {
            (self.on_step)(&format!("{}: setting up", place.site.name));
        }
        let id = self.id(action.word());
        let step = self.fleet.script_step(component, &place.site, build, action, id)?;
        self.finish(place, &step).await
    }

    async fn work(&self, place: &Place, action: &str, work: Work) -> Result<(), UpError> {
        let step = Step {
            id: self.id(action),
            action: action.to_owned(),
            work,
        };
        self.finish(place, &step).await
    }

    /// A lease's counter is never given twice, so neither is a step's id.
    fn id(&self, action: &str) -> String {
        format!(
            "lease{}.{}.{action}",
            self.token.counter,
            Timestamp::now().as_microsecond()
        )
    }

    fn may_begin(&self) -> Result<(), UpError> {
        if self.interrupt.is_set() {
            Err(UpError::Interrupted)
        } else {
            Ok(())
        }
    }

    async fn finish(&self, place: &Place, step: &Step) -> Result<(), UpError> {
        self.may_begin()?;
        let (node, action) = (place.site.name.clone(), step.action.clone());
        match place.host.finish(&place.address, &self.token, step).await? {
            Finished::Ended(end) if end.exit == 0 => Ok(()),
            Finished::Ended(end) => Err(UpError::Step {
                node,
                action,
                exit: end.exit,
                log: end.log_tail,
            }),
            Finished::CutOff => Err(UpError::CutOff { node, action }),
        }
    }
}

fn is_pod(place: &Place) -> bool {
    matches!(place.site.host, Some(HostRef::Pod(_)))
}

/// Waits for every node, whatever becomes of one: what goes on there would go on unseen.
async fn all(nodes: impl Iterator<Item = impl Future<Output = Result<(), UpError>>>) -> Result<(), UpError> {
    join_all(nodes).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::lease::HeldLease;
    use crate::model::system::PortShift;
    use crate::workspace::Workspace;

    /// A set in a cluster that nobody finds, beside a server.
    const MIXED: &str = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: web
      source: {directory: builds}
      images: {repository: r/web, digests: {\"1\": \"sha256:DIGEST\"}}
      statefulSet: {context: no-such-context, namespace: shop, name: web, replicas: 2}
      nodes: [{name: server}]
      service: {pidFile: run/pid}
      actions:
        setup: {template: a.sh}
        install: {template: a.sh}
        start: {template: a.sh}
        stop: {template: a.sh}
        remove: {template: a.sh}
";

    #[tokio::test]
    async fn servers_beside_pods_are_removed_and_pods_that_have_gone_are_not_looked_at() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for place in ["environments", "templates", "builds/1"] {
            std::fs::create_dir_all(at(place)).expect("made");
        }
        std::fs::write(at("environments/one.yaml"), MIXED.replace("DIGEST", &"a".repeat(64))).expect("written");
        std::fs::write(at("templates/a.sh"), "exit 0\n").expect("written");
        let home = Home::open(&at("state")).expect("a home");
        let workspace = Workspace::at(directory.path().to_owned());
        let fleet = Fleet::read(&home, &workspace, "one", PortShift::default()).expect("sound");
        let fleet = Arc::new(fleet);
        let lease = HeldLease::take(&home, "one").expect("free");
        let (_nobody, interrupt) = Interrupt::new();
        let bringing = Bringing {
            home: &home,
            fleet: &fleet,
            token: lease.token().clone(),
            on_step: &|_| (),
            interrupt,
        };
        let component = fleet.environment.component("web").expect("stated");
        let places = fleet.places("web");
        let server = places.iter().find(|place| !is_pod(place)).expect("a server");
        let is_there = || std::path::Path::new(&server.address.directory).exists();
        assert_eq!(places.len(), 3);
        bringing
            .script(component, server, None, Lifecycle::Setup)
            .await
            .expect("set up");
        assert!(is_there());
        bringing.down(component).await.expect("down");
        // Those that are their owner's are asked.
        let refused = bringing.remove(component, OfPods::GivenBack).await;
        assert!(matches!(refused, Err(UpError::Host(_))), "{refused:?}");
        bringing
            .remove(component, OfPods::GoneWithTheirObjects)
            .await
            .expect("removed");
        assert!(!is_there());
    }
}
