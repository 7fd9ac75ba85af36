//! Whether what was acknowledged is still there once an upgrade has ended: each call's effect was looked at when its answer
//! came; here all of them are looked at again, after every restart and rollback that came in between.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use crate::model::upgrade::Updates;
use crate::signals::traffic::{Acknowledged, Effect};

/// Looks under way together: as many as a database's connections are shared by, so that none waits long.
const LOOKS_AT_ONCE: usize = 8;
/// All looks together: thousands take seconds; a database that is gone must not keep a driver.
const LONGEST: Duration = Duration::from_mins(1);
/// Examples of what is missing that are kept for people.
const MOST_EXAMPLES: usize = 5;

/// What a second look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Counts.
    pub(crate) updates: Updates,
    /// Of what is missing or could not be looked at, the first few in words.
    pub(crate) examples: Vec<String>,
}

/// Looks for the effect of each acknowledged call again. What could not be looked at is counted as such, never as kept.
pub(super) async fn look_again(acknowledged: Vec<Acknowledged>) -> Kept {
    let mut kept = Kept::default();
    kept.updates.acknowledged = acknowledged.len() as u64;
    let mut left = acknowledged.len() as u64;
    let looks = stream::iter(acknowledged)
        .map(|one| async move { one.call.effect(one.id).await })
        .buffer_unordered(LOOKS_AT_ONCE);
    tokio::pin!(looks);
    let deadline = tokio::time::Instant::now() + LONGEST;
    while let Ok(Some(looked)) = tokio::time::timeout_at(deadline, looks.next()).await {
        left -= 1;
        let why = match looked {
            Ok(Effect::Seen) => continue,
            Ok(Effect::Missing { why }) => {
                kept.updates.lost += 1;
                why
            }
            // What keeps one from being looked for mostly keeps all.
            Err(_) if kept.updates.unchecked > 0 => {
                kept.updates.unchecked += 1;
                continue;
            }
            Err(why) => {
                kept.updates.unchecked += 1;
                why
            }
        };
        if kept.examples.len() < MOST_EXAMPLES {
            kept.examples.push(why);
        }
    }
    if left > 0 {
        kept.updates.unchecked += left;
        kept.examples
            .push(format!("{left} were not looked at within {} s", LONGEST.as_secs()));
    }
    kept
}

impl Kept {
    /// For the report.
    pub(crate) fn words(&self) -> String {
        let Updates {
            acknowledged,
            lost,
            unchecked,
        } = self.updates;
        let mut words = match (lost, unchecked) {
            (0, 0) => format!("all {acknowledged} acknowledged updates are in the database"),
            (0, n) => format!("{n} of {acknowledged} acknowledged updates could not be looked for again"),
            (n, 0) => format!("{n} of {acknowledged} acknowledged updates are not in the database"),
            (n, m) => format!(
                "{n} of {acknowledged} acknowledged updates are not in the database, {m} could not be looked for"
            ),
        };
        if !self.examples.is_empty() {
            words = format!("{words}: {}", self.examples.join("; "));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::signals::traffic::{Answer, Call, CallId};

    /// Calls by their number: a multiple of 5 is lost, one of 7 cannot be looked for.
    struct ByNumber;

    impl Call for ByNumber {
        fn prepare(&self, _: CallId) -> BoxFuture<'_, Result<(), String>> {
            async { Ok(()) }.boxed()
        }
        fn send(&self, _: CallId) -> BoxFuture<'_, Result<Answer, String>> {
            async { Ok(Answer::Right) }.boxed()
        }
        fn effect(&self, id: CallId) -> BoxFuture<'_, Result<Effect, String>> {
            async move {
                match id {
                    id if id % 5 == 0 => Ok(Effect::Missing {
                        why: format!("call {id} is gone"),
                    }),
                    id if id % 7 == 0 => Err(format!("call {id}: no database")),
                    99 => std::future::pending().await,
                    _ => Ok(Effect::Seen),
                }
            }
            .boxed()
        }
    }

    fn acknowledged(ids: &[CallId]) -> Vec<Acknowledged> {
        ids.iter()
            .map(|&id| Acknowledged {
                id,
                node: "n".to_owned(),
                call: Arc::new(ByNumber),
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_or_cannot_be_looked_for_is_never_counted_as_kept() {
        let rows = [
            (
                vec![1, 2, 3],
                (3, 0, 0),
                "all 3 acknowledged updates are in the database",
            ),
            (
                vec![1, 5],
                (2, 1, 0),
                "1 of 2 acknowledged updates are not in the database: call 5 is gone",
            ),
            (
                vec![7],
                (1, 0, 1),
                "1 of 1 acknowledged updates could not be looked for again: call 7: no database",
            ),
            (
                vec![5, 7, 14, 21],
                (4, 1, 3),
                "1 of 4 acknowledged updates are not in the database, 3 could not be looked for: call 5 is gone; call 7: no database",
            ),
            (
                vec![1, 99],
                (2, 0, 1),
                "1 of 2 acknowledged updates could not be looked for again: 1 were not looked at within 60 s",
            ),
        ];
        for (ids, (acknowledged_, lost, unchecked), words) in rows {
            let kept = look_again(acknowledged(&ids)).await;
            let counts = (kept.updates.acknowledged, kept.updates.lost, kept.updates.unchecked);
            assert_eq!(
                (counts, kept.words().as_str()),
                ((acknowledged_, lost, unchecked), words)
            );
        }
    }
}
