//! One who acts for all that wait for their turn.
//!
//! What is remembered of every pod of a set is one object, and of writes that come together each would be refused by the one before.
//! So one writes at a time, and what it writes is what all have asked for that wait by then.

use std::sync::{Mutex as Queue, MutexGuard as Held, PoisonError};

use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::time::Instant;

/// Who asks, and whose turn it is.
#[derive(Debug)]
pub struct Turns<A, R> {
    waiting: Queue<Vec<(A, oneshot::Sender<R>)>>,
    turn: Mutex<()>,
}

impl<A, R> Default for Turns<A, R> {
    fn default() -> Self {
        Self {
            waiting: Queue::default(),
            turn: Mutex::default(),
        }
    }
}

impl<A: Clone, R> Turns<A, R> {
    /// Asks, and is answered by whoever has the turn; who has it answers all that wait, in their order. Nothing where `until` comes
    /// before either: what was asked for may be done all the same. One that is ended while it answers leaves the others to ask anew.
    pub async fn ask<F>(&self, what: &A, until: Instant, answer: impl Fn(Vec<A>) -> F) -> Option<R>
    where
        F: Future<Output = Vec<R>>,
    {
        loop {
            let (sender, mut answered) = oneshot::channel();
            self.waiting().push((what.clone(), sender));
            let turn = tokio::select! {
                biased;
                said = &mut answered => match said {
                    Ok(said) => return Some(said),
                    Err(_) => continue,
                },
                turn = self.turn.lock() => turn,
                () = tokio::time::sleep_until(until) => return None,
            };
            let mut all = std::mem::take(&mut *self.waiting());
            all.retain(|(_, sender)| !sender.is_closed());
            let (asked, senders): (Vec<A>, Vec<_>) = all.into_iter().unzip();
            if !asked.is_empty() {
                for (sender, said) in senders.into_iter().zip(answer(asked).await) {
                    // Who waits no more asks again.
                    let _ = sender.send(said);
                }
            }
            drop(turn);
            if let Ok(said) = answered.await {
                return Some(said);
            }
        }
    }

    /// The turn, for what is asked alone.
    pub async fn alone(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn waiting(&self) -> Held<'_, Vec<(A, oneshot::Sender<R>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    const SLOW: Duration = Duration::from_secs(30);

    /// Writes what it is asked for at a time, slowly. Time is the test's.
    #[derive(Default)]
    struct Server {
        turns: Turns<u32, u32>,
        written: Queue<Vec<Vec<u32>>>,
    }

    impl Server {
        async fn ask(&self, what: u32, patience: Duration) -> Option<u32> {
            let until = Instant::now() + patience;
            let write = async |all: Vec<u32>| {
                self.written.lock().expect("no panic").push(all.clone());
                tokio::time::sleep(SLOW).await;
                all.into_iter().map(|one| one * 10).collect()
            };
            self.turns.ask(&what, until, write).await
        }

        fn written(&self) -> Vec<Vec<u32>> {
            self.written.lock().expect("no panic").clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_asked_for_by_the_next_in_one_and_each_has_its_answer() {
        let server = Server::default();
        let begun = Instant::now();
        let answers = join_all((0..20).map(|one| server.ask(one, SLOW * 2))).await;
        assert_eq!(answers, (0..20).map(|one| Some(one * 10)).collect::<Vec<_>>());
        assert_eq!(server.written(), [vec![0], (1..20).collect()]);
        assert_eq!(begun.elapsed(), SLOW * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_turn_beyond_its_patience() {
        let server = Server::default();
        let begun = Instant::now();
        let impatient = async {
            let answers = join_all((1..20).map(|one| server.ask(one, SLOW / 3))).await;
            (answers, begun.elapsed())
        };
        // Who has begun is not ended by it: an API server that is that slow would never be written to.
        let (first, (answers, waited)) = tokio::join!(server.ask(0, SLOW / 3), impatient);
        assert_eq!((first, answers), (Some(0), vec![None; 19]));
        assert_eq!(waited, SLOW / 3);
        assert_eq!(server.ask(20, SLOW).await, Some(200));
        assert_eq!(
            server.written(),
            [[0], [20]],
            "nor is anybody asked for who waits no more"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_ended_while_it_answers_is_followed_by_those_that_waited_for_it() {
        let server = Server::default();
        let alone = server.turns.alone().await;
        let another = async {
            tokio::time::sleep(SLOW / 3).await;
            drop(alone);
        };
        let ended = tokio::time::timeout(SLOW / 2, server.ask(1, SLOW * 9));
        let ((), ended, two, three) = tokio::join!(another, ended, server.ask(2, SLOW * 9), server.ask(3, SLOW * 9));
        assert!(ended.is_err());
        assert_eq!((two, three), (Some(20), Some(30)));
        assert_eq!(server.written(), [vec![1, 2, 3], vec![2, 3]]);
    }
}
