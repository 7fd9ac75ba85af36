//! A look at nodes through their hosts, as `plan`, `status --look` and an upgrade that is to begin take it: all at once, within bounds.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use super::fleet::Place;
use crate::hosts::{Host as _, NodeSight};

/// Nodes asked at the same time; each costs a process or a channel.
const AT_ONCE: usize = 32;
/// A node that has not answered by then is taken for one that cannot be reached. A slow connection to a far host is made
/// within seconds, and ssh's own wait for one that says nothing is shorter.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a look at a node showed, or why it showed nothing.
pub type Sight = Result<NodeSight, String>;

/// Looks at these nodes, each of which has this time to answer; the answers are in their order.
pub async fn at(places: impl IntoIterator<Item = &Place>, patience: Duration) -> Vec<Sight> {
    stream::iter(places)
        .map(async |place| {
            let asked = place.host.observe(&place.address, &[]);
            match tokio::time::timeout(patience, asked).await {
                Ok(Ok(sight)) => Ok(sight),
                Ok(Err(why)) => Err(why.to_string()),
                Err(_) => Err(format!("it did not answer within {} s", patience.as_secs())),
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}
