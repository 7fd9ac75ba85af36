//! A disturbance: a session of ours that holds the rows of a SELECT … FOR UPDATE for part of every period, as a
//! forgotten shell or a slow report would.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{DatabaseConfig, FIRST_PAUSE, LONGEST_PAUSE, connect, explain};
use crate::signals::{Calendar, Feed};

/// What the session is called in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "stagegate-rehearsal";

/// How much longer than intended the server lets the lock live when we are cut off without it noticing.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// Which rows are held, and when.
#[derive(Debug, Clone)]
pub struct HoldPlan {
    /// Its name, for troubles (`disturbance/hot-row`).
    pub name: String,
    /// Where; the application name is replaced by [`APPLICATION_NAME`].
    pub database: DatabaseConfig,
    /// A SELECT … FOR UPDATE that finds at least one row.
    pub select: String,
    /// How long the rows are held once they are ours.
    pub hold: Duration,
    /// From one hold's beginning to the next; one that ends later lets the next begin at once.
    pub every: Duration,
}

/// What the session does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Nothing is held; this many holds are over.
    Released(u64),
    /// The rows are held, for the nth time from 1.
    Held(u64),
}

/// A running disturbance; dropping it lets the rows go.
#[derive(Debug)]
pub struct HoldHandle {
    task: JoinHandle<()>,
    state: watch::Receiver<Holding>,
}

impl HoldHandle {
    /// Begins at once. Must run within a tokio runtime. Without connection or row it goes on trying, and says so.
    #[must_use]
    pub fn start(plan: HoldPlan, feed: Feed) -> Self {
        let (tell, state) = watch::channel(Holding::Released(0));
        let holder = Holder {
            database: DatabaseConfig {
                application_name: APPLICATION_NAME.to_owned(),
                // Our SELECT may stand in a queue itself; after a period it has missed its turn.
                statement_timeout: plan.every.max(plan.hold),
                ..plan.database.clone()
            },
            plan,
            feed,
            tell,
        };
        Self {
            task: tokio::spawn(holder.run()),
            state,
        }
    }

    /// What it does, and every change of it.
    pub fn state(&self) -> watch::Receiver<Holding> {
        self.state.clone()
    }

    /// Lets the rows go and waits until our side of the session is gone.
    pub async fn stop(mut self) {
        self.task.abort();
        // The error says that it was aborted.
        let _ = (&mut self.task).await;
    }
}

impl Drop for HoldHandle {
    /// The task owns the connection; a connection that closes rolls back.
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Holder {
    plan: HoldPlan,
    database: DatabaseConfig,
    feed: Feed,
    tell: watch::Sender<Holding>,
}

impl Holder {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        let mut client = None;
        let mut begin = Instant::now();
        loop {
            match self.once(client.take()).await {
                Ok(alive) => {
                    client = Some(alive);
                    pause = FIRST_PAUSE;
                    begin = (begin + self.plan.every).max(Instant::now());
                    sleep_until(begin).await;
                }
                Err(why) => {
                    self.over();
                    let at_us = Calendar::read().now();
                    self.feed.trouble(&self.plan.name, "", at_us, why);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    begin = Instant::now();
                }
            }
        }
    }

    /// One hold from beginning to end, on the connection given or a new one.
    async fn once(&self, client: Option<Client>) -> Result<Client, String> {
        let client = match client.filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => connect(&self.database).await.map_err(|e| e.to_string())?,
        };
        let orphan_ms = (self.plan.hold + ORPHAN_GRACE).as_millis();
        let begin = format!("BEGIN; SET LOCAL idle_in_transaction_session_timeout = {orphan_ms}");
        self.ask(&client, &begin).await?;
        let held = self.ask(&client, &self.plan.select).await?;
        if held == 0 {
            self.ask(&client, "ROLLBACK").await?;
            return Err(format!(
                "`{}` finds no row, so nothing is held",
                super::excerpt(&self.plan.select, 80)
            ));
        }
        self.tell.send_modify(|state| {
            *state = match *state {
                Holding::Released(n) | Holding::Held(n) => Holding::Held(n + 1),
            }
        });
        sleep(self.plan.hold).await;
        self.ask(&client, "ROLLBACK").await?;
        self.over();
        Ok(client)
    }

    fn over(&self) {
        self.tell.send_if_modified(|state| match *state {
            Holding::Held(n) => {
                *state = Holding::Released(n);
                true
            }
            Holding::Released(_) => false,
        });
    }

    /// Runs statements and counts their rows.
    async fn ask(&self, client: &Client, sql: &str) -> Result<usize, String> {
        let patience = self.database.statement_timeout + super::GRACE;
        let Ok(answer) = timeout(patience, client.simple_query(sql)).await else {
            return Err(format!("no answer to `{sql}` within {patience:?}"));
        };
        let messages = answer.map_err(|error| explain(&self.database, sql, &error, client).to_string())?;
        Ok(messages
            .iter()
            .filter(|message| matches!(message, SimpleQueryMessage::Row(_)))
            .count())
    }
}
