//! An environment brought up: its objects, its builds, its nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, ObjectMeta, PostParams};
use serde_json::json;

use super::keeper::ObjectKeeper;
use super::leader::{Leader, Purpose, Trouble};
use super::look::Version;
use crate::cluster::objects::{ApiError, Kind, asked, name, part, patiently};
use crate::engine::builds;
use crate::engine::fleet::{Fleet, OF_NAMESPACE};
use crate::engine::interrupt::Interrupt;
use crate::engine::replica::{self, Keeper as _};
use crate::engine::session::KnownBuild;
use crate::engine::up::Bringing;
use crate::model::build::{BuildRef, BuildSpec};
use crate::model::environment::Component;
use crate::store::{BuildStatus, Expect, Store as _};

impl Leader {
    /// Every build that there is: what was heard may be older than a quarantine of a moment ago.
    pub(super) async fn listed_builds(&self) -> Result<BTreeMap<String, KnownBuild>, ApiError> {
        let (api, all) = (self.api(Kind::Build), ListParams::default());
        let listed = patiently(|| asked("list", "Builds", api.list(&all))).await?;
        Ok(readable_builds(listed.items.iter()))
    }

    pub(super) async fn bring_up(
        &self,
        environment: &str,
        of: &Version,
        ending: Interrupt,
        lost: Interrupt,
    ) -> Result<(), Trouble> {
        let fleet = Arc::new(self.fleet(environment)?);
        if !self.heard.is_placed(environment, of.generation) {
            return Err(Trouble::Changed);
        }
        let spec = json!(fleet.environment.spec);
        self.home
            .store()
            .put_resource("Environment", environment, &spec, Expect::Anything, Timestamp::now())?;
        let whose = json!({OF_NAMESPACE: self.namespace});
        self.home
            .store()
            .put_status("Environment", environment, &whose, Expect::Anything, Timestamp::now())?;
        let token = self.take(&fleet, Purpose::BringUp).await?;
        let builds = self.listed_builds().await?;
        self.copy_builds(&fleet, &builds)?;
        let tell = Arc::clone(&self.tell);
        let on_step = move |what: &str| tell(&format!("  {what}"));
        let keeper = ObjectKeeper::new(self, &fleet, &ending, &lost);
        let replica = if let Some((of, remembered)) = self.replica(&fleet).await? {
            of.refuse_other_cluster().await?;
            replica::bring_up(&of, remembered, &keeper).await?;
            Some(of)
        } else {
            // What stood until now is stated no more.
            self.take_down(environment, &ending, &lost).await?;
            None
        };
        let bringing = Bringing {
            home: &self.home,
            fleet: &fleet,
            token,
            on_step: &on_step,
            interrupt: ending.clone(),
        };
        for component in fleet.environment.components_in_order() {
            if lost.is_set() {
                return Err(Trouble::Changed);
            }
            let build = self.build(component, &builds).await?;
            if let Some(replica) = &replica {
                replica.pods_ready(component, keeper.on_write()).await?;
            }
            bringing
                .up(component, build.as_ref().map(|(build, spec)| (build, spec)))
                .await?;
        }
        Ok(())
    }

    /// Makes what the store is asked for on the way up what the objects say.
    pub(super) fn copy_builds(&self, fleet: &Fleet, builds: &BTreeMap<String, KnownBuild>) -> Result<(), Trouble> {
        let store = self.home.store();
        for (name, build) in builds {
            if fleet.environment.component(&build.spec.component).is_none() {
                continue;
            }
            KnownBuild::create(&self.home, &build.spec)?;
            let status = json!(build.status);
            store.put_status("Build", name, &status, Expect::Anything, Timestamp::now())?;
        }
        Ok(())
    }

    /// The build that a component's nodes get when they have none: as the objects have it, or as its source has it, which then
    /// becomes an object.
    async fn build(
        &self,
        component: &Component,
        builds: &BTreeMap<String, KnownBuild>,
    ) -> Result<Option<(BuildRef, BuildSpec)>, Trouble> {
        let (Some(_), Some(version)) = (&component.source, &component.build) else {
            return Ok(None);
        };
        let spec = self.build_of(component, version, builds).await?;
        KnownBuild::create(&self.home, &spec)?;
        Ok(Some((spec.reference(), spec)))
    }

    /// A version of a component, as its object has it, which is made of its source where there is none.
    pub(super) async fn build_of(
        &self,
        component: &Component,
        version: &str,
        builds: &BTreeMap<String, KnownBuild>,
    ) -> Result<BuildSpec, Trouble> {
        if let Some(known) = builds.get(&format!("{}-{version}", component.name)) {
            refuse_other_bytes(component, &known.spec)?;
            return Ok(known.spec.clone());
        }
        let spec = builds::resolve(component, version, self.files.workspace.root()).await?;
        self.create_build(spec).await
    }

    /// The build as its object has it, which is made where there is none.
    async fn create_build(&self, spec: BuildSpec) -> Result<BuildSpec, Trouble> {
        let named = spec.name();
        let object = DynamicObject {
            metadata: ObjectMeta {
                name: Some(named.clone()),
                ..ObjectMeta::default()
            },
            ..DynamicObject::new(&named, &Kind::Build.resource()).data(json!({"spec": spec}))
        };
        let (what, api) = (format!("Build {named}"), self.api(Kind::Build));
        match asked("make", &what, api.create(&PostParams::default(), &object)).await {
            Ok(_) => Ok(spec),
            // Another environment was quicker, and what it has found is what there is.
            Err(why) if why.is_conflict() => {
                let there: BuildSpec = part(&asked("read", &what, api.get(&named)).await?, "spec")?;
                refuse_others(&there, &spec)?;
                Ok(there)
            }
            Err(why) => Err(why.into()),
        }
    }
}

/// Builds as objects have them. One that cannot be read is none, and says so.
pub(super) fn readable_builds<'a>(objects: impl Iterator<Item = &'a DynamicObject>) -> BTreeMap<String, KnownBuild> {
    let read = |object: &DynamicObject| -> Result<KnownBuild, ApiError> {
        Ok(KnownBuild {
            spec: part(object, "spec")?,
            status: if object.data["status"].is_object() {
                part(object, "status")?
            } else {
                BuildStatus::default()
            },
        })
    };
    let all = objects.filter_map(|object| match read(object) {
        Ok(build) => Some((name(object).to_owned(), build)),
        Err(why) => {
            tracing::warn!(%why, "a build is passed over");
            None
        }
    });
    all.collect()
}

/// Refuses a known build under whose version its component states another image by now. Files are compared when they are copied, and
/// packages are fetched by their digests.
fn refuse_other_bytes(component: &Component, known: &BuildSpec) -> Result<(), Trouble> {
    let stated = builds::of_images(component);
    let same = stated.iter().find(|stated| stated.version == known.version);
    same.map_or(Ok(()), |stated| refuse_others(known, stated))
}

fn refuse_others(there: &BuildSpec, here: &BuildSpec) -> Result<(), Trouble> {
    if there.digest == here.digest {
        return Ok(());
    }
    Err(Trouble::OtherBytes {
        build: there.name(),
        there: there.digest,
        here: here.digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_build_of_which_its_source_has_another_image_by_now_is_refused() {
        let of = |manifest: &str| -> Component {
            let stated = json!({
                "name": "web", "nodes": [],
                "source": {"images": {"repository": "r/web", "digests": {"1": format!("sha256:{}", manifest.repeat(64))}}},
            });
            serde_json::from_value(stated).expect("a component")
        };
        let known = builds::of_images(&of("a")).remove(0);
        refuse_other_bytes(&of("a"), &known).expect("the same");
        let refused = refuse_other_bytes(&of("b"), &known).expect_err("another");
        let words = refused.to_string();
        assert!(words.starts_with("Build web-1 is sha256:"), "{words}");
        let other = BuildSpec {
            version: "2".to_owned(),
            ..known
        };
        refuse_other_bytes(&of("b"), &other).expect("its source does not state this version");
    }
}
