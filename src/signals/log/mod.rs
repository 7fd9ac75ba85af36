//! Logs as a signal: files followed over rotation and truncation, what containers print, and both read for how long requests took.

pub mod calls;
pub mod follow;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Calendar, Feed};
use calls::{CallsInLog, LogPlan};
use follow::{Follower, Polled};

use crate::cluster::printed::{Lines, Printed};

/// Where a log is.
#[derive(Debug)]
pub enum Source {
    /// In a file on a node.
    File(Follower),
    /// In what the containers of a node print.
    Printed(Printed),
}

impl Source {
    /// Looks once: lines with who wrote them, where a node is several that do.
    async fn poll(&mut self) -> Result<Lines, String> {
        match self {
            Source::File(follower) => {
                let Polled {
                    lines,
                    notes,
                    caught_up,
                } = follower.poll().await?;
                let nobody: Arc<str> = Arc::from("");
                Ok(Lines {
                    lines: lines.into_iter().map(|line| (Arc::clone(&nobody), line)).collect(),
                    notes,
                    caught_up,
                })
            }
            Source::Printed(printed) => printed.poll().await,
        }
    }
}

/// A log that is followed; dropping it ends that.
#[derive(Debug)]
pub struct LogHandle {
    task: JoinHandle<()>,
    build: watch::Sender<String>,
}

impl LogHandle {
    /// Reads it every `period` from now on. Must run within a tokio runtime.
    #[must_use]
    pub fn start(log: Source, plan: LogPlan, period: Duration, feed: Feed) -> Self {
        let (build, builds) = watch::channel(plan.build.clone());
        let task = tokio::spawn(follow(log, plan, period, feed, builds));
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

async fn follow(mut log: Source, plan: LogPlan, period: Duration, feed: Feed, builds: watch::Receiver<String>) {
    let (signal, node) = (plan.signal.clone(), plan.node.clone());
    let mut calls = CallsInLog::new(plan);
    let calendar = Calendar::read();
    let mut looks = interval(period);
    // A look that was held up is not made up for: one look reads everything that is there.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let asked_us = calendar.at(Instant::now());
        match log.poll().await {
            Err(why) => feed.trouble(&signal, &node, asked_us, why),
            Ok(Lines {
                lines,
                notes,
                caught_up,
            }) => {
                calls.set_build(&builds.borrow());
                for (from, line) in &lines {
                    calls.line(from, line, asked_us).into_iter().for_each(|o| feed.put(o));
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
