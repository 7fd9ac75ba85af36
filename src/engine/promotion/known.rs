//! What a home knows, at one moment, of all that promotions into an environment are decided on.

use std::collections::BTreeMap;

use super::record::PromotionRecord;
use crate::engine::session::Past;
use crate::home::Home;
use crate::model::freeze::FreezeSpec;
use crate::store::{Store as _, StoreError, UpgradeRecord};

/// The kind of freezes that a command has stated.
pub const FREEZE: &str = "Freeze";

/// What a home knows.
#[derive(Debug, Clone)]
pub struct Known {
    /// Every build, and the environment's upgrades.
    pub past: Past,
    /// Every promotion, whatever environment it leads into.
    pub promotions: Vec<PromotionRecord>,
    /// Every freeze, by name, whether it holds now or not.
    pub freezes: BTreeMap<String, FreezeSpec>,
    /// The environment's upgrade that has not ended.
    pub busy: Option<UpgradeRecord>,
}

impl Known {
    /// By the embedded home, whose files state freezes, too.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn of(home: &Home, of_files: &BTreeMap<String, FreezeSpec>, environment: &str) -> Result<Self, StoreError> {
        Ok(Self {
            past: Past::of(home, environment)?,
            promotions: PromotionRecord::all(home)?,
            freezes: freezes(home, of_files)?,
            busy: home.store().unfinished(Some(environment))?.pop(),
        })
    }
}

/// The freezes of the files, and those that a command has stated.
///
/// # Errors
/// The state cannot be read.
pub fn freezes(
    home: &Home,
    of_files: &BTreeMap<String, FreezeSpec>,
) -> Result<BTreeMap<String, FreezeSpec>, StoreError> {
    let mut all = of_files.clone();
    for resource in home.store().resources(FREEZE)? {
        all.insert(resource.name.clone(), resource.spec_as()?);
    }
    Ok(all)
}
