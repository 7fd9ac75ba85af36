//! A run that makes a namespace what it is to be: tried as a whole, then written.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::Value;

use super::api::{self, Applied, Apply, Others};
use super::demand::Demand;
use super::parent::Said;
use super::plan::{self, HeldField, Owned, Refused};
use super::{
    AT_ONCE, MANAGER, OnWrite, Outcome, Replica, ReplicaError, Run, Seen, UPGRADES, Wanted, digest_of, fields, settled,
    write,
};
use crate::model::manifest::{Manifest, ObjectId};
use crate::model::target::Drift;

/// A run of which nothing is refused, before its first write.
pub struct Tried<'a> {
    run: Run<'a>,
    steps: Vec<Step>,
    pruned: Vec<Owned>,
    namespace: There,
    /// What the parent says before.
    before: Said,
    /// And what it is to say in the end.
    after: Said,
}

impl Tried<'_> {
    /// When the replica is to go, once this is written.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.after.expires_at
    }
}

/// An object that is about to be written.
struct Step {
    manifest: Manifest,
    live: Option<Value>,
    upgrades: HeldByUpgrades,
}

/// Whether fields that we set are still held in the name of upgrades, of which none goes on there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldByUpgrades {
    Some,
    None,
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Yes,
    No,
}

impl Replica {
    /// Looks whether anything of a run is refused. Writes nothing.
    ///
    /// # Errors
    /// What is refused, all of it; or the API server does not answer.
    pub async fn try_out<'r>(&self, wanted: &Wanted, run: Run<'r>) -> Result<Tried<'r>, ReplicaError> {
        let mut refused = self.refused(&wanted.manifests).await?;
        if let Some(quota) = &self.target.quota {
            refused.extend(Demand::over(&wanted.manifests, quota));
        }
        none(refused)?;
        let prepared = self.prepared(&wanted.manifests);
        let namespace = self.namespace().await?;
        let seen = match &namespace {
            None => Seen::of_nothing(&prepared),
            Some(_) => self.seen(&prepared).await?,
        };
        let Seen { parent, owned, live } = seen;
        let before = parent.map(|parent| parent.said).unwrap_or_default();
        let after = Said {
            group_kinds: prepared.iter().map(|m| m.id.group_kind()).collect(),
            applied: digest_of(&prepared),
            expires_at: match run {
                Run::BringUp { now } => self
                    .target
                    .ttl
                    .map(|ttl| now.saturating_add(ttl.signed()).unwrap_or(Timestamp::MAX)),
                Run::Heal(_) => before.expires_at,
            },
        };
        let is_meant = |object: &ObjectId| match run {
            Run::BringUp { .. } => true,
            Run::Heal(objects) => objects.contains(&object.to_string()),
        };
        let pruned = plan::pruned(&prepared, &owned, &self.place);
        let meant = settled(prepared, &live, &wanted.moved)
            .into_iter()
            .zip(live)
            .filter(|(manifest, _)| is_meant(&manifest.id));
        Ok(Tried {
            run,
            steps: self.steps(meant.collect()).await?,
            pruned: pruned.into_iter().filter(|owned| is_meant(&owned.id)).collect(),
            namespace: match namespace {
                Some(_) => There::Yes,
                None => There::No,
            },
            before,
            after,
        })
    }

    /// Writes what was tried.
    ///
    /// # Errors
    /// The first thing that did not work, after which a next run goes on.
    pub async fn carry_out(&self, tried: Tried<'_>, on_write: &OnWrite<'_>) -> Result<Outcome, ReplicaError> {
        let Tried {
            run,
            steps,
            pruned,
            namespace,
            before,
            after,
        } = tried;
        let mut outcome = Outcome {
            objects: steps.len(),
            expires_at: after.expires_at,
            ..Outcome::default()
        };
        // What was applied is said once it is, and the other way about a kind.
        let meanwhile = Said {
            group_kinds: before.group_kinds.union(&after.group_kinds).cloned().collect(),
            expires_at: after.expires_at,
            applied: before.applied,
        };
        if let Run::BringUp { .. } = run {
            if namespace == There::No {
                write(on_write, &format!("making namespace {}", self.place.namespace))?;
                self.cluster.make_namespace(&self.namespace_manifest().value).await?;
            }
            write(on_write, &format!("writing the ApplySet {}", self.place.parent))?;
            self.write_parent(&meanwhile).await?;
        }
        for step in &steps {
            write(on_write, &format!("applying {}", step.manifest.id))?;
            if self.applied(step).await? == There::No {
                outcome.changed.push(step.manifest.id.clone());
            }
        }
        for object in pruned {
            write(on_write, &format!("deleting {}", object.id))?;
            self.cluster.delete(&object).await?;
            outcome.pruned.push(object.id);
        }
        if let Run::BringUp { .. } = run
            && meanwhile != after
        {
            write(on_write, "writing what the ApplySet has now")?;
            self.write_parent(&after).await?;
        }
        Ok(outcome)
    }

    fn others(&self) -> Others {
        match self.target.drift {
            Drift::Report => Others::Keep,
            Drift::Heal => Others::Lose,
        }
    }

    /// What is to be written over what is there, unless some of it must not be.
    async fn steps(&self, meant: Vec<(Manifest, Option<Value>)>) -> Result<Vec<Step>, ReplicaError> {
        let tried: Vec<Result<Step, Refused>> = stream::iter(meant)
            .map(|(manifest, live)| self.step(manifest, live))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let (mut steps, mut refused) = (Vec::new(), Vec::new());
        for tried in tried {
            match tried {
                Ok(step) => steps.push(step),
                Err(why) => refused.push(why),
            }
        }
        none(refused)?;
        Ok(steps)
    }

    async fn step(&self, manifest: Manifest, live: Option<Value>) -> Result<Result<Step, Refused>, ReplicaError> {
        let mut upgrades = HeldByUpgrades::None;
        let Some(there) = &live else {
            return Ok(Ok(Step {
                manifest,
                live,
                upgrades,
            }));
        };
        let manages = fields::manages(there, MANAGER);
        if let Err(refused) = plan::may_write(&manifest.id, there, manages, &self.place) {
            return Ok(Err(refused));
        }
        // It also says what the server would not take of it, before anything is written.
        let mut others = self.others();
        loop {
            match self
                .cluster
                .apply(&manifest, &manifest.value, Apply::Trial, others)
                .await
            {
                Ok(Applied::Object(_)) => {
                    return Ok(Ok(Step {
                        manifest,
                        live,
                        upgrades,
                    }));
                }
                Ok(Applied::Held(fields)) => {
                    let fields: Vec<HeldField> = distinct(fields)
                        .into_iter()
                        .filter(|field| field.manager != UPGRADES)
                        .collect();
                    if !fields.is_empty() || others == Others::Lose {
                        let object = manifest.id;
                        return Ok(Err(Refused::Conflict { object, fields }));
                    }
                    // What is held by our own upgrades alone is tried as it will be when they have let it go.
                    (upgrades, others) = (HeldByUpgrades::Some, Others::Lose);
                }
                Err(ReplicaError::Api {
                    code: api::INVALID,
                    why,
                    ..
                }) => {
                    let object = manifest.id;
                    return Ok(Err(Refused::Invalid { object, why }));
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// Applies an object; whether it was there as it is now.
    async fn applied(&self, step: &Step) -> Result<There, ReplicaError> {
        let Step {
            manifest,
            live,
            upgrades,
        } = step;
        if *upgrades == HeldByUpgrades::Some {
            self.cluster.let_go(manifest, UPGRADES).await?;
        }
        match self
            .cluster
            .apply(manifest, &manifest.value, Apply::Write, self.others())
            .await?
        {
            Applied::Object(now) => {
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                Ok(if live.as_ref().map(version) == Some(version(&now)) {
                    There::Yes
                } else {
                    There::No
                })
            }
            // Since the trial.
            Applied::Held(fields) => Err(ReplicaError::Refused(vec![Refused::Conflict {
                object: manifest.id.clone(),
                fields,
            }])),
        }
    }
}

fn none(refused: Vec<Refused>) -> Result<(), ReplicaError> {
    if refused.is_empty() {
        Ok(())
    } else {
        Err(ReplicaError::Refused(refused))
    }
}

/// A field that several hold is told once for each of them, and once at all.
fn distinct(fields: Vec<HeldField>) -> Vec<HeldField> {
    let mut told: Vec<HeldField> = Vec::new();
    for field in fields {
        if !told.contains(&field) {
            told.push(field);
        }
    }
    told
}
