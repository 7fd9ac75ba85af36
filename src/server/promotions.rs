//! The promotions of a home, each looked at when something about it may have changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::engine::fleet::Fleet;
use crate::engine::promotion::signatures::Verifier;
use crate::engine::promotion::{Ground, PromotionError, PromotionRecord, Turned};
use crate::home::Home;
use crate::model::system::PortShift;
use crate::promotion::Effect;
use crate::store::Store as _;
use crate::workspace::Workspace;

/// What is not written in the state, as files, keys and commits, is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What was seen of a promotion at its last turn.
struct Seen {
    version: u64,
    upgrade_version: u64,
    again_at: Instant,
    wake_at: Option<Timestamp>,
    /// What is in the way of looking at it, as it was told.
    trouble: Option<String>,
}

/// Looks at every open promotion.
pub(super) struct Promotions<'a> {
    home: &'a Home,
    workspace: &'a Workspace,
    shift: PortShift,
    verifier: Verifier,
    seen: BTreeMap<String, Seen>,
}

impl<'a> Promotions<'a> {
    pub(super) fn new(home: &'a Home, workspace: &'a Workspace, shift: PortShift) -> Self {
        Self {
            home,
            workspace,
            shift,
            verifier: Verifier::default(),
            seen: BTreeMap::new(),
        }
    }

    /// Takes a turn of each that may have changed; returns the environments whose reports there are more of.
    pub(super) async fn look(&mut self, tell: &dyn Fn(&str)) -> Vec<String> {
        let open = match PromotionRecord::open(self.home) {
            Ok(open) => open,
            Err(why) => {
                tracing::warn!(%why, "cannot look for promotions");
                return Vec::new();
            }
        };
        self.seen
            .retain(|name, _| open.iter().any(|record| record.name == *name));
        let mut environments = Vec::new();
        for record in &open {
            let upgrade_version = match self.home.store().glance(&record.name) {
                Ok(glance) => glance.map_or(0, |glance| glance.resource_version + glance.wish_version),
                Err(_) => 0,
            };
            if !self.is_due(record, upgrade_version) {
                continue;
            }
            let turned = self.turn(record).await;
            let trouble = match &turned {
                Ok((environment, _)) => {
                    environments.push(environment.clone());
                    None
                }
                Err(why) => Some(why.to_string()),
            };
            let told = self.seen.get(&record.name).and_then(|seen| seen.trouble.clone());
            if let Some(why) = trouble.as_ref().filter(|why| told.as_ref() != Some(*why)) {
                tell(&format!("promotion {} cannot be gone on with: {why}", record.name));
            }
            let (version, wake_at) = match &turned {
                Ok((_, turned)) => (turned.record.resource_version, turned.wake_at),
                Err(_) => (record.resource_version, None),
            };
            let seen = Seen {
                version,
                upgrade_version,
                again_at: Instant::now() + LOOK_EVERY,
                wake_at,
                trouble,
            };
            self.seen.insert(record.name.clone(), seen);
        }
        environments
    }

    fn is_due(&self, record: &PromotionRecord, upgrade_version: u64) -> bool {
        let Some(seen) = self.seen.get(&record.name) else {
            return true;
        };
        seen.version != record.resource_version
            || seen.upgrade_version != upgrade_version
            || Instant::now() >= seen.again_at
            || seen.wake_at.is_some_and(|at| Timestamp::now() >= at)
    }

    async fn turn(&self, record: &PromotionRecord) -> Result<(String, Turned), PromotionError> {
        let rules = self.workspace.promotion_rules()?;
        let environment = Ground::environment_of(&rules, record)?;
        let fleet = Arc::new(Fleet::read(self.home, self.workspace, &environment, self.shift)?);
        let way = Ground::of(self.home, &fleet, &rules, record)?;
        let turned = way.turn(&record.name, None, &self.verifier, &|_, _| {}).await?;
        match &turned.effect {
            Some(Effect::Rehearse(_)) => {}
            Some(Effect::Upgrade | Effect::Pause(_) | Effect::GoOn(_)) | None => way.carry_out(&turned).await?,
        }
        Ok((environment, turned))
    }
}
