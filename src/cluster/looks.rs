//! One reading for all who look within a moment.
//!
//! A hundred pods of one workload are looked at by a hundred nodes, each in its own time, and what is read for one of them is the
//! same for all. A look is answered by a reading that was under way when it came, or that began a moment before it; but by none
//! that began before a write of ours ended, if that was before the look: who has written sees what it wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::hosts::HostError;

/// Pods that are waited for are looked at four times a second: those of a batch look within this of each other.
pub const MOMENT: Duration = Duration::from_millis(250);

/// What is read for all.
#[derive(Debug)]
pub struct Looks<T> {
    /// Held while one reads, so that the others wait for what it finds.
    last: Mutex<Option<Reading<T>>>,
    /// Writes of ours that have ended, whichever way.
    writes: AtomicU64,
}

#[derive(Debug)]
struct Reading<T> {
    began: Instant,
    ended: Instant,
    /// Those that had ended when it began.
    writes: u64,
    /// A failure is shared, too: an API server that is slow would else be waited for by one after the other.
    is: Result<Arc<T>, HostError>,
}

/// A write that is under way. It counts as made once this is gone, whatever was heard of it.
#[derive(Debug)]
#[must_use]
pub struct Writing<'a>(&'a AtomicU64);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            writes: AtomicU64::default(),
        }
    }
}

impl<T> Looks<T> {
    /// What there is, read now or a moment ago. One who reads may be ended: the next in line reads then.
    ///
    /// # Errors
    /// As reading does.
    pub async fn look(&self, read: impl AsyncFnOnce() -> Result<T, HostError>) -> Result<Arc<T>, HostError> {
        let (asked, written) = (Instant::now(), self.writes.load(Ordering::SeqCst));
        let mut last = self.last.lock().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.answers(asked, written)) {
            return reading.is.clone();
        }
        let (began, writes) = (Instant::now(), self.writes.load(Ordering::SeqCst));
        let is = read().await.map(Arc::new);
        *last = Some(Reading {
            began,
            ended: Instant::now(),
            writes,
            is: is.clone(),
        });
        is
    }

    /// To be held over a write: what was read before its end answers nobody who looks after that.
    pub fn writing(&self) -> Writing<'_> {
        Writing(&self.writes)
    }
}

impl<T> Reading<T> {
    /// Whether it answers a look that came then, after so many writes.
    fn answers(&self, asked: Instant, written: u64) -> bool {
        let was_under_way = self.ended >= asked;
        self.writes >= written && (was_under_way || asked.duration_since(self.began) <= MOMENT)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::future::join_all;

    use super::*;

    /// Counts what is read of it. Time is the test's.
    #[derive(Default)]
    struct Server {
        looks: Looks<usize>,
        read: AtomicUsize,
    }

    impl Server {
        /// The number of the reading that answers, which takes so long.
        async fn look(&self, takes: Duration) -> Result<usize, HostError> {
            let read = async || {
                let number = self.read.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(takes).await;
                Ok(number)
            };
            self.looks.look(read).await.map(|number| *number)
        }
    }

    fn away() -> HostError {
        HostError::Unreachable {
            host: "web".to_owned(),
            why: "no answer".to_owned(),
        }
    }

    const SLOW: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn all_who_look_while_one_reads_have_what_it_finds() {
        let server = Server::default();
        let late = async {
            tokio::time::sleep(SLOW / 2).await;
            server.look(SLOW).await
        };
        let (first, late) = tokio::join!(join_all((0..100).map(|_| server.look(SLOW))), late);
        assert!(first.into_iter().chain([late]).all(|found| found == Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_answers_for_a_moment_after_it_began() {
        let server = Server::default();
        for (after, found) in [(Duration::ZERO, 1), (MOMENT, 1), (Duration::from_millis(1), 2)] {
            tokio::time::sleep(after).await;
            assert_eq!(server.look(Duration::ZERO).await, Ok(found), "{after:?}");
        }
        // It is as old as its beginning.
        assert_eq!(server.looks.look(async || Ok(7)).await.map(|n| *n), Ok(2));
        tokio::time::sleep(MOMENT * 2).await;
        assert_eq!(server.look(SLOW).await, Ok(3));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(server.look(SLOW).await, Ok(4));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_written_sees_it() {
        let server = Server::default();
        assert_eq!(server.look(Duration::ZERO).await, Ok(1));
        drop(server.looks.writing());
        assert_eq!(
            server.look(Duration::ZERO).await,
            Ok(2),
            "and not what was read before it"
        );
        drop(server.looks.writing());
        // One that is under way may have read before it was written; who has asked before that need not know of it.
        let asked_before = async {
            tokio::time::sleep(SLOW / 3).await;
            server.look(SLOW).await
        };
        let asked_after = async {
            tokio::time::sleep(SLOW / 2).await;
            drop(server.looks.writing());
            server.look(Duration::ZERO).await
        };
        let seen = tokio::join!(server.look(SLOW), asked_before, asked_after);
        assert_eq!(seen, (Ok(3), Ok(3), Ok(4)));
        // Nor is one that was read while it was being written believed after its end.
        let writing = server.looks.writing();
        assert_eq!(server.look(Duration::ZERO).await, Ok(4));
        drop(writing);
        assert_eq!(server.look(Duration::ZERO).await, Ok(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_every_ones_who_waited_for_it_and_one_who_is_ended_is_followed_by_the_next() {
        let server = Server::default();
        let fails = async || {
            tokio::time::sleep(SLOW).await;
            Err(away())
        };
        let begun = Instant::now();
        let all = join_all((0..100).map(|_| server.looks.look(fails))).await;
        assert!(all.iter().all(|found| *found == Err(away())), "{all:?}");
        assert_eq!(begun.elapsed(), SLOW, "nobody waits for it again");
        tokio::time::sleep(MOMENT).await;
        assert_eq!(server.look(SLOW).await, Ok(1));
        tokio::time::sleep(MOMENT).await;
        let ended = tokio::time::timeout(SLOW / 2, server.look(SLOW));
        let (ended, next) = tokio::join!(ended, server.look(SLOW));
        assert!(ended.is_err() && next == Ok(3), "{next:?}");
    }
}
