//! Taking nodes over that another home has served, or that have seen more than this one remembers: a state that was restored
//! from a backup has an older counter than its nodes, which refuse it rightly until somebody says that it is the one.

use futures::future::join_all;

use super::fleet::Fleet;
use super::lease::HeldLease;
use crate::hosts::{FencingToken, Host as _, HostError};
use crate::store::StoreError;

/// What became of one node.
#[derive(Debug)]
pub struct Adoption {
    /// The node.
    pub node: String,
    /// How it came out.
    pub outcome: Outcome,
}

/// How an adoption came out.
#[derive(Debug)]
pub enum Outcome {
    /// It serves this home from now on, and served as this says before.
    Adopted(FencingToken),
    /// It served this home already, and would have let us in.
    Ours(FencingToken),
    /// No home has touched it yet.
    New,
    /// It could not be asked.
    Failed(HostError),
}

/// Makes every node of an environment serve this home. The lease's counter is raised above what any of ours has seen before
/// one of them is written to, so that a driver from before the restoration is refused from then on.
///
/// # Errors
/// The state cannot be written; no node was changed. What happened to each node is in the answer.
pub async fn adopt(fleet: &Fleet, lease: &mut HeldLease) -> Result<Vec<Adoption>, StoreError> {
    let places: Vec<_> = fleet.all_places().collect();
    let looks = join_all(places.iter().map(|place| place.host.observe(&place.address, &[]))).await;
    let before = lease.token().clone();
    let seen = looks.iter().flatten().filter_map(|sight| sight.fence.as_ref());
    let of_ours = seen
        .filter(|fence| fence.home == before.home)
        .map(|fence| fence.counter);
    if let Some(highest) = of_ours.max().filter(|highest| *highest >= before.counter) {
        lease.raise(highest)?;
    }
    let token = lease.token();
    let each = places.iter().zip(looks).map(async |(place, look)| {
        let outcome = match look.map(|sight| sight.fence) {
            Err(why) => Outcome::Failed(why),
            Ok(None) => Outcome::New,
            Ok(Some(fence)) => match place.host.adopt(&place.address, token).await {
                Err(why) => Outcome::Failed(why),
                Ok(()) if fence.home == before.home && fence.counter < before.counter => Outcome::Ours(fence),
                Ok(()) => Outcome::Adopted(fence),
            },
        };
        Adoption {
            node: place.site.name.clone(),
            outcome,
        }
    });
    Ok(join_all(each).await)
}
