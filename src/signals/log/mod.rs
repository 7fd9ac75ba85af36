//! Log files as a signal: followed over rotation and truncation, and read for how long requests took.

pub mod calls;
pub mod follow;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Calendar, Feed};
use calls::{CallsInLog, LogPlan};
use follow::{Begin, Follower, HostLog, Polled};

/// A log file that is followed; dropping it ends that.
#[derive(Debug)]
pub struct LogHandle {
    task: JoinHandle<()>,
    build: watch::Sender<String>,
}

impl LogHandle {
    /// Reads the file every `period` from now on. Must run within a tokio runtime.
    #[must_use]
    pub fn start(log: HostLog, plan: LogPlan, begin: Begin, period: Duration, feed: Feed) -> Self {
        let (build, builds) = watch::channel(plan.build.clone());
        let task = tokio::spawn(follow(log, plan, begin, period, feed, builds));
        Self { task, build }
    }

    /// Calls that begin from now on count for this build.
    pub fn set_build(&self, build: String) {
        self.build.send_replace(build);
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    log: HostLog,
    plan: LogPlan,
    begin: Begin,
    period: Duration,
    feed: Feed,
    builds: watch::Receiver<String>,
) {
    let (signal, node) = (plan.signal.clone(), plan.node.clone());
    let mut follower = Follower::new(log, begin);
    let mut calls = CallsInLog::new(plan);
    let calendar = Calendar::read();
    let mut looks = interval(period);
    // A look that was held up is not made up for: one look reads everything that is there.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let asked_us = calendar.at(Instant::now());
        match follower.poll().await {
            Err(why) => feed.trouble(&signal, &node, asked_us, why),
            Ok(Polled {
                lines,
                notes,
                caught_up,
            }) => {
                calls.set_build(&builds.borrow());
                for line in &lines {
                    calls.line(line, asked_us).into_iter().for_each(|o| feed.put(o));
                }
                for why in notes {
                    feed.trouble(&signal, &node, asked_us, why);
                }
                // What we have not read yet may hold the end of a call that looks open.
                if caught_up {
                    calls.tick(asked_us).into_iter().for_each(|o| feed.put(o));
                }
            }
        }
    }
}
