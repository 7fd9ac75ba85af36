//! `PostgreSQL` as a sensor: statements of our own, and who blocks whom.
//!
//! Connections are few, made when first needed, and made anew after the database was away. While it is away, one
//! attempt at a time goes out, at growing intervals; everybody else hears at once what the last one said.

pub mod blocking;
pub mod hold;
pub mod schema;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::excerpt;

/// What our sessions are called in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "stagegate";

/// Rows of an answer that are read; more is not what a check or a look at sessions asks for.
pub const MAX_ROWS: usize = 2_000;

/// First and longest pause between attempts to connect. A restarted `PostgreSQL` is back within a second or two, and
/// one attempt in five seconds is no load for one that is gone.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the server gets to say that a statement took too long before we stop listening.
const GRACE: Duration = Duration::from_secs(1);

/// How to reach a database and how to behave there.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// Host name, address, or the directory of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<String>,
    /// What the session is called in `pg_stat_activity`; [`APPLICATION_NAME`] unless it must be told apart.
    pub application_name: String,
    /// A connection that takes longer has failed.
    pub connect_timeout: Duration,
    /// The server ends a statement that takes longer.
    pub statement_timeout: Duration,
    /// Connections at most.
    pub connections: usize,
}

impl DatabaseConfig {
    /// A configuration with our defaults: 5 s to connect, 5 s a statement, 8 connections (12 nodes at 5 calls/s, each with a
    /// statement before and a check after that take 20 ms, keep two or three busy; the rest is for a database that is slow).
    #[must_use]
    pub fn new(host: String, port: u16, database: String, user: String) -> Self {
        Self {
            host,
            port,
            database,
            user,
            password: None,
            application_name: APPLICATION_NAME.to_owned(),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            connections: 8,
        }
    }

    /// As its errors name it.
    pub(crate) fn place(&self) -> String {
        format!("{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl std::fmt::Debug for DatabaseConfig {
    /// Without the password (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("place", &self.place())
            .field("application_name", &self.application_name)
            .finish_non_exhaustive()
    }
}

/// Why a statement gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DatabaseError {
    /// No connection.
    #[error("cannot connect to {place}: {why}")]
    Unreachable {
        /// `user@host:port/database`.
        place: String,
        /// What the attempt said.
        why: String,
    },
    /// The connection broke; what was asked may or may not have happened.
    #[error("lost the connection to {place}: {why}")]
    Lost {
        /// `user@host:port/database`.
        place: String,
        /// What happened.
        why: String,
    },
    /// The database refused the statement.
    #[error("{place} refused `{statement}`: {why} (SQLSTATE {code})")]
    Statement {
        /// `user@host:port/database`.
        place: String,
        /// The beginning of the statement.
        statement: String,
        /// Five characters.
        code: String,
        /// What it said.
        why: String,
    },
    /// No answer in time.
    #[error("no answer from {place} to `{statement}` within {after:?}")]
    TimedOut {
        /// `user@host:port/database`.
        place: String,
        /// The beginning of the statement.
        statement: String,
        /// How long we listened.
        after: Duration,
    },
}

impl DatabaseError {
    /// Whether a connection broke that had worked, so that a new one may tell more.
    pub fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

/// One row of an answer: each value as the text that `PostgreSQL` writes, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// A database with a few connections to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    inner: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    config: DatabaseConfig,
    permits: Semaphore,
    idle: Mutex<Vec<Client>>,
    away: Mutex<Option<Away>>,
}

/// The database could not be reached at the last attempt.
#[derive(Debug, Clone)]
struct Away {
    why: String,
    pause: Duration,
    again_at: Instant,
}

impl Database {
    /// Does not connect yet.
    #[must_use]
    pub fn new(config: DatabaseConfig) -> Self {
        Self {
            inner: Arc::new(Pool {
                permits: Semaphore::new(config.connections.max(1)),
                config,
                idle: Mutex::default(),
                away: Mutex::default(),
            }),
        }
    }

    /// How it is reached.
    pub fn config(&self) -> &DatabaseConfig {
        &self.inner.config
    }

    /// The longest that [`Database::query`] takes.
    pub fn patience(&self) -> Duration {
        self.inner.config.connect_timeout + self.inner.config.statement_timeout + GRACE
    }

    /// Runs a text of one or more statements and returns the rows of all, at most [`MAX_ROWS`].
    ///
    /// # Errors
    /// No connection, a refused statement, or no answer in time; never later than [`Database::patience`].
    pub async fn query(&self, sql: &str) -> Result<Vec<Row>, DatabaseError> {
        let patience = self.patience();
        match timeout(patience, self.inner.run(sql)).await {
            Ok(answer) => answer,
            // Dropping the attempt closed its connection, so that a late answer meets nobody.
            Err(_) => Err(DatabaseError::TimedOut {
                place: self.inner.config.place(),
                statement: excerpt(sql, 80),
                after: patience,
            }),
        }
    }
}

impl Pool {
    async fn run(&self, sql: &str) -> Result<Vec<Row>, DatabaseError> {
        // The semaphore is never closed; if it were, running without a place in it would be the lesser harm.
        let _permit = self.permits.acquire().await.ok();
        let client = match self.idle_client() {
            Some(client) => client,
            None => self.connect().await?,
        };
        let answer = rows(&client, sql).await;
        let answer = answer.map_err(|error| explain(&self.config, sql, &error, &client));
        if let Ok((rows, Reading::Partial)) = answer {
            // The rest of the answer is still on its way on this connection: it is of no more use.
            return Ok(rows);
        }
        if !client.is_closed() && !matches!(&answer, Err(error) if error.is_lost_connection()) {
            lock(&self.idle).push(client);
        }
        answer.map(|(rows, _)| rows)
    }

    fn idle_client(&self) -> Option<Client> {
        let mut idle = lock(&self.idle);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Client, DatabaseError> {
        let unreachable = |why: String| DatabaseError::Unreachable {
            place: self.config.place(),
            why,
        };
        let last = {
            let mut away = lock(&self.away);
            match &mut *away {
                Some(last) if Instant::now() < last.again_at => {
                    return Err(unreachable(last.why.clone()));
                }
                Some(last) => {
                    // This attempt is the one; the others wait for what it says.
                    last.again_at = Instant::now() + self.config.connect_timeout;
                    Some(last.pause)
                }
                None => None,
            }
        };
        match connect(&self.config).await {
            Ok(client) => {
                *lock(&self.away) = None;
                Ok(client)
            }
            Err(error) => {
                let why = match error {
                    DatabaseError::Unreachable { why, .. } => why,
                    other => other.to_string(),
                };
                let pause = last.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
                *lock(&self.away) = Some(Away {
                    why: why.clone(),
                    pause,
                    again_at: Instant::now() + pause,
                });
                Err(unreachable(why))
            }
        }
    }
}

enum Reading {
    Whole,
    Partial,
}

async fn rows(client: &Client, sql: &str) -> Result<(Vec<Row>, Reading), tokio_postgres::Error> {
    let messages = client.simple_query_raw(sql).await?;
    pin_mut!(messages);
    let mut rows = Vec::new();
    while let Some(message) = messages.next().await {
        if let SimpleQueryMessage::Row(row) = message? {
            if rows.len() == MAX_ROWS {
                return Ok((rows, Reading::Partial));
            }
            rows.push(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            );
        }
    }
    Ok((rows, Reading::Whole))
}

/// Connects without TLS and lets a task of its own drive the connection until the client is dropped.
pub(crate) async fn connect(config: &DatabaseConfig) -> Result<Client, DatabaseError> {
    let mut settings = tokio_postgres::Config::new();
    settings
        .host(&config.host)
        .port(config.port)
        .dbname(&config.database)
        .user(&config.user)
        .application_name(&config.application_name)
        .connect_timeout(config.connect_timeout)
        .options(format!("-c statement_timeout={}", config.statement_timeout.as_millis()));
    if let Some(password) = &config.password {
        settings.password(password);
    }
    let unreachable = |why: String| DatabaseError::Unreachable {
        place: config.place(),
        why,
    };
    // The library's own timeout covers the TCP handshake only, not a server that accepts and then says nothing.
    match timeout(config.connect_timeout, settings.connect(NoTls)).await {
        Err(_) => Err(unreachable(format!("no answer within {:?}", config.connect_timeout))),
        Ok(Err(error)) => Err(unreachable(causes(&error))),
        Ok(Ok((client, connection))) => {
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a database connection ended");
                }
            });
            Ok(client)
        }
    }
}

pub(crate) fn explain(
    config: &DatabaseConfig,
    sql: &str,
    error: &tokio_postgres::Error,
    client: &Client,
) -> DatabaseError {
    let place = config.place();
    match error.as_db_error() {
        Some(refusal) if !ends_the_session(refusal.code()) => DatabaseError::Statement {
            place,
            statement: excerpt(sql, 80),
            code: refusal.code().code().to_owned(),
            why: excerpt(refusal.message(), 200),
        },
        Some(_) => DatabaseError::Lost {
            place,
            why: causes(error),
        },
        None if error.is_closed() || client.is_closed() => DatabaseError::Lost {
            place,
            why: causes(error),
        },
        None => DatabaseError::Statement {
            place,
            statement: excerpt(sql, 80),
            code: "none".to_owned(),
            why: causes(error),
        },
    }
}

fn ends_the_session(code: &SqlState) -> bool {
    [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ]
    .contains(code)
}

fn causes(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    excerpt(&text, 200)
}

/// What is behind these locks is changed by single assignments, so a panic elsewhere cannot have left it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
