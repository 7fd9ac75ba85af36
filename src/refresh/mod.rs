//! Data for a replica from the environment that it is a replica of, with what tells of people masked on the way.
//!
//! One snapshot is read, in a session that can write no table; one transaction writes it, and is only kept when a comparison of both
//! sides has shown that no masked value has arrived as it was. Killed or failed anywhere, the replica has what it had before. The
//! base comes first: whoever waits for what we read there ends the refresh.

mod masks;

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _, pin_mut};
use tokio_postgres::{Client, NoTls};

pub use self::masks::{Column, Fate, MaskError, fates};
use self::masks::{SALT, quoted, quoted_table};
use crate::model::environment::{Mask, Refresh, RefreshTable};
use crate::signals::postgres::{self, DatabaseConfig, DatabaseError};
use crate::store::random_id;

/// Tables that others hold are waited for so long, on either side: services hold them for moments.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether anybody waits for us at the base. Its people notice a minute.
const WAITING_EVERY: Duration = Duration::from_secs(2);
/// A peer that says nothing for so long is gone, and its server is not to hold a snapshot for it.
const DEAD_PEER: Duration = Duration::from_mins(1);
/// What our sessions are called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "stagegate refresh";

/// Why a replica's data was not made new. But for [`RefreshError::Unknown`] it has what it had before.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The databases.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A rule.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// It would go to the base.
    #[error(
        "{into} is a database of the environment that this is a replica of ({base}), or a copy of its files: its tables would be emptied; state another under `databases` of the replica"
    )]
    Same {
        /// Where it was to go.
        into: String,
        /// Which of the base's it is.
        base: String,
    },
    /// A table that is missing, or may not be touched.
    #[error("{place}: table {table} cannot be {act}: {why}")]
    Table {
        /// Which database.
        place: String,
        /// The table.
        table: String,
        /// Read, or written.
        act: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// Columns that the replica's table does not have, or that nothing can be put in.
    #[error("table {table} of the replica has no column {} that could be written; bring its schema to that of its base first", columns.join(", "))]
    Schema {
        /// The table.
        table: String,
        /// What is missing.
        columns: Vec<String>,
    },
    /// Values that came through.
    #[error("{values} values of column {column} of {table} would have arrived as they are; nothing of it was kept")]
    Unmasked {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// How many different ones.
        values: u64,
    },
    /// Somebody waits for the base's tables.
    #[error("somebody waits at the base for what the refresh reads ({statement}); it gave way and kept nothing")]
    InTheWay {
        /// What waits.
        statement: String,
    },
    /// It took too long.
    #[error("it was not done within {} s (`refresh.timeout`); nothing of it was kept", after.as_secs())]
    TooLong {
        /// The bound.
        after: Duration,
    },
    /// The answer to the last word was lost.
    #[error(
        "the connection was lost while the replica's database kept it ({0}): whether it did is not known; the same command again makes it sure"
    )]
    Unknown(DatabaseError),
}

/// What has been taken of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The table.
    pub table: String,
    /// What became of its columns.
    pub fates: Vec<Fate>,
    /// How many rows; none of a look.
    pub rows: Option<u64>,
    /// How many different values of masked columns were compared.
    pub compared: u64,
}

/// Both sides, connected.
pub struct Refreshing<'a> {
    stated: &'a Refresh,
    from: Side,
    into: Side,
}

struct Side {
    client: Client,
    config: DatabaseConfig,
    /// What is done to its tables.
    act: &'static str,
}

/// What tells one database from another.
#[derive(PartialEq, Eq)]
struct Identity {
    /// Of the files, in every copy of them.
    system: String,
    database: String,
}

impl Side {
    async fn new(config: &DatabaseConfig, act: &'static str, limit: Duration) -> Result<Self, DatabaseError> {
        let config = DatabaseConfig {
            application_name: APPLICATION_NAME.to_owned(),
            statement_timeout: limit,
            ..config.clone()
        };
        let this = Self {
            client: postgres::connect(&config).await?,
            config,
            act,
        };
        // Texts of values mean the same on both sides, and names mean what they say.
        this.run(&format!(
            "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'; \
             SET timezone = 'UTC'; SET client_encoding = 'UTF8'; SET search_path = pg_catalog; SET lock_timeout = {}; \
             SET tcp_user_timeout = {peer}; SET idle_in_transaction_session_timeout = {}",
            LOCK_PATIENCE.as_millis(),
            limit.as_millis(),
            peer = DEAD_PEER.as_millis(),
        ))
        .await?;
        Ok(this)
    }

    fn place(&self) -> String {
        self.config.place()
    }

    fn refused(&self, sql: &str) -> impl Fn(tokio_postgres::Error) -> DatabaseError {
        move |why| postgres::explain(&self.config, sql, &why, &self.client)
    }

    /// The same where a server's words may hold a value of a row.
    fn refused_quietly(&self, sql: &str) -> impl Fn(tokio_postgres::Error) -> DatabaseError {
        move |why| match postgres::explain(&self.config, sql, &why, &self.client) {
            DatabaseError::Statement {
                place, statement, code, ..
            } => DatabaseError::Statement {
                place,
                statement,
                code,
                why: "its words may hold a value, so they are in its own log only".to_owned(),
            },
            other => other,
        }
    }

    async fn run(&self, sql: &str) -> Result<(), DatabaseError> {
        self.client.batch_execute(sql).await.map_err(self.refused(sql))
    }

    async fn identity(&self) -> Result<Identity, DatabaseError> {
        let sql = "SELECT system_identifier::text, current_database()::text FROM pg_control_system()";
        let row = self.client.query_one(sql, &[]).await.map_err(self.refused(sql))?;
        Ok(Identity {
            system: row.get(0),
            database: row.get(1),
        })
    }

    /// Whether a table is one whose rows lie in it, and may be touched.
    async fn table(&self, table: &str, privileges: &str) -> Result<(), RefreshError> {
        let sql = "SELECT c.relkind IN ('r', 'p'), c.relispartition, \
                   EXISTS (SELECT FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid WHERE i.inhparent = c.oid AND NOT k.relispartition), \
                   EXISTS (SELECT FROM pg_partition_tree(c.oid) t JOIN pg_class k ON k.oid = t.relid WHERE k.relkind NOT IN ('r', 'p')), \
                   NOT EXISTS (SELECT FROM unnest(string_to_array($2, ',')) AS one(p) WHERE NOT has_table_privilege(c.oid, one.p)) \
                   FROM pg_class c WHERE c.oid = to_regclass($1)";
        let row = self.client.query_opt(sql, &[&quoted_table(table), &privileges]).await;
        let row = row.map_err(self.refused(sql))?;
        let why = match row.map(|row| [0, 1, 2, 3, 4].map(|column| row.get::<_, bool>(column))) {
            None => "there is none of this name",
            Some([false, ..]) => "it is no table that holds rows itself (a view, or one of another server)",
            Some([_, true, ..]) => "it is a part of another table; state that one",
            Some([_, _, true, ..]) => "other tables inherit from it",
            Some([_, _, _, true, _]) => "a part of it lies on another server",
            Some([.., false]) => "its role may not",
            Some([true, false, false, false, true]) => return Ok(()),
        };
        Err(RefreshError::Table {
            place: self.place(),
            table: table.to_owned(),
            act: self.act,
            why,
        })
    }

    async fn columns(&self, table: &str) -> Result<Vec<Column>, DatabaseError> {
        let sql = "SELECT a.attname::text, coalesce(b.typname, t.typname)::text, \
                   CASE WHEN coalesce(b.typname, t.typname) IN ('varchar', 'bpchar') \
                        THEN nullif(greatest(a.atttypmod, t.typtypmod), -1) - 4 END, \
                   NOT a.attnotnull, a.attgenerated <> '' \
                   FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype \
                   WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let rows = self
            .client
            .query(sql, &[&quoted_table(table)])
            .await
            .map_err(self.refused(sql))?;
        let column = |row: &tokio_postgres::Row| Column {
            name: row.get(0),
            kind: row.get(1),
            longest: row
                .get::<_, Option<i32>>(2)
                .and_then(|longest| u32::try_from(longest).ok()),
            nullable: row.get(3),
            generated: row.get(4),
        };
        Ok(rows.iter().map(column).collect())
    }
}

impl<'a> Refreshing<'a> {
    /// Connects to both. What is written may be none of `bases`: every database of the environments that this is a replica of.
    ///
    /// # Errors
    /// One of the two is not there, or it would go to the base.
    pub async fn new(
        stated: &'a Refresh,
        from: &DatabaseConfig,
        into: &DatabaseConfig,
        bases: &[DatabaseConfig],
    ) -> Result<Self, RefreshError> {
        let limit = stated.timeout.0;
        let (from, into) = (
            Side::new(from, "read", limit).await?,
            Side::new(into, "written", limit).await?,
        );
        let ours = into.identity().await?;
        for base in [&from.config].into_iter().chain(bases) {
            let is_at_same_place =
                (&base.host, base.port, &base.database) == (&into.config.host, into.config.port, &into.config.database);
            let is_same = is_at_same_place
                || match Side::new(base, "read", limit).await {
                    Ok(side) => side.identity().await? == ours,
                    // One that cannot be asked is told by its place alone.
                    Err(_) => false,
                };
            if is_same {
                return Err(RefreshError::Same {
                    into: into.place(),
                    base: base.place(),
                });
            }
        }
        // Whatever a condition of the file says, no table of the base is changed. Its tables are locked against changes of their
        // definition before anything is known of them.
        from.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        for table in &stated.tables {
            from.table(&table.name, "SELECT").await?;
            into.table(&table.name, "SELECT,INSERT,TRUNCATE").await?;
        }
        // The snapshot is taken with the first query, so it is begun anew once the locks are had.
        from.run("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let names: Vec<String> = stated.tables.iter().map(|table| quoted_table(&table.name)).collect();
        from.run(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")))
            .await?;
        Ok(Self { stated, from, into })
    }

    /// What would become of every column; changes nothing.
    ///
    /// # Errors
    /// What would be refused.
    pub async fn look(&self) -> Result<Vec<Copied>, RefreshError> {
        let mut all = Vec::new();
        for table in &self.stated.tables {
            let theirs = self.from.columns(&table.name).await?;
            let ours = self.into.columns(&table.name).await?;
            let our = |name: &str| ours.iter().find(|column| column.name == name);
            // Where nothing may be left out is for the replica's table to say, too.
            let needed = |column: Column| Column {
                nullable: column.nullable && our(&column.name).is_none_or(|ours| ours.nullable),
                ..column
            };
            let fates = fates(table, &theirs.into_iter().map(needed).collect::<Vec<_>>())?;
            let missing: Vec<String> = fates
                .iter()
                .filter(|fate| our(&fate.column).is_none_or(|ours| ours.generated))
                .map(|fate| fate.column.clone())
                .collect();
            if !missing.is_empty() {
                return Err(RefreshError::Schema {
                    table: table.name.clone(),
                    columns: missing,
                });
            }
            let selected = selection(table, &fates);
            self.from
                .client
                .prepare(&selected)
                .await
                .map_err(self.from.refused(&selected))?;
            all.push(Copied {
                table: table.name.clone(),
                fates,
                rows: None,
                compared: 0,
            });
        }
        Ok(all)
    }

    /// Puts the base's rows in the place of the replica's, table by table in the stated order, and compares them. What has come is
    /// kept by [`Refreshing::keep`], and by nothing else.
    ///
    /// # Errors
    /// Whatever is refused; then the replica has what it had.
    pub async fn copy(&self, told: impl FnMut(&Copied)) -> Result<Vec<Copied>, RefreshError> {
        let limit = self.stated.timeout.0;
        let done = tokio::select! {
            done = tokio::time::timeout(limit, self.copied(told)) => {
                done.unwrap_or(Err(RefreshError::TooLong { after: limit }))
            }
            statement = self.waiting_for_us() => Err(RefreshError::InTheWay { statement }),
        };
        if done.is_err() {
            self.cancel().await;
        }
        done
    }

    /// Keeps what has come. It is durable when this returns.
    ///
    /// # Errors
    /// The replica's database refuses it, or its answer was lost.
    pub async fn keep(self) -> Result<(), RefreshError> {
        match self.into.run("COMMIT").await {
            Err(why) if why.is_lost_connection() => Err(RefreshError::Unknown(why)),
            other => Ok(other?),
        }
    }

    /// Ends what the servers still do for us: a connection that is dropped ends no sort.
    pub async fn cancel(&self) {
        for side in [&self.from, &self.into] {
            // A server that does not hear this notices by itself that nobody listens.
            if let Err(why) = side.client.cancel_token().cancel_query(NoTls).await {
                tracing::debug!(%why, place = side.place(), "a query was not cancelled");
            }
        }
    }

    async fn copied(&self, mut told: impl FnMut(&Copied)) -> Result<Vec<Copied>, RefreshError> {
        let mut all = self.look().await?;
        // Made where it is used: no statement's text has it, no list of activities and no log, and not even we.
        self.from
            .run(&format!(
                "DO $$ BEGIN PERFORM set_config('{SALT}', gen_random_uuid()::text || gen_random_uuid()::text, false); END $$"
            ))
            .await?;
        self.into.run("BEGIN").await?;
        let names: Vec<String> = all.iter().map(|copied| quoted_table(&copied.table)).collect();
        self.into.run(&format!("TRUNCATE {}", names.join(", "))).await?;
        for (table, copied) in self.stated.tables.iter().zip(&mut all) {
            copied.rows = Some(self.rows(table, &copied.fates).await?);
            self.sequences(table, &copied.fates).await?;
            told(copied);
        }
        // What waits for the end of the transaction may change rows, too.
        self.into.run("SET CONSTRAINTS ALL IMMEDIATE").await?;
        // Another for what is compared, on both sides the same, which the data has not seen.
        let salt = random_id();
        for side in [&self.from, &self.into] {
            side.run(&format!("SET {SALT} = '{salt}'")).await?;
        }
        for (table, copied) in self.stated.tables.iter().zip(&mut all) {
            for fate in copied.fates.iter().filter(|fate| fate.mask != Mask::Keep) {
                copied.compared += self.compare(table, fate).await?;
            }
        }
        // Nothing more is asked of the base.
        self.from.run("ROLLBACK").await?;
        Ok(all)
    }

    /// Resolves when somebody waits at the base for what we hold there, with what that is. A base that cannot be asked for that is
    /// not told from one where nobody waits.
    async fn waiting_for_us(&self) -> String {
        let looking = postgres::Database::new(self.from.config.clone());
        let sql = format!(
            "SELECT coalesce(left(nullif(query, '<insufficient privilege>'), 200), 'a session of another user') FROM pg_stat_activity WHERE EXISTS (SELECT FROM \
             unnest(pg_blocking_pids(pid)) AS b(blocker) JOIN pg_stat_activity a ON a.pid = b.blocker \
             WHERE a.application_name = '{APPLICATION_NAME}' AND a.datname = current_database())"
        );
        loop {
            tokio::time::sleep(WAITING_EVERY).await;
            if let Ok(rows) = looking.query(&sql).await
                && let Some(row) = rows.into_iter().next()
            {
                return row.into_iter().flatten().next().unwrap_or_default();
            }
        }
    }

    async fn rows(&self, table: &RefreshTable, fates: &[Fate]) -> Result<u64, RefreshError> {
        let columns: Vec<String> = fates.iter().map(|fate| quoted(&fate.column)).collect();
        let out = format!("COPY ({}) TO STDOUT", selection(table, fates));
        let into = format!("COPY {} ({}) FROM STDIN", quoted_table(&table.name), columns.join(", "));
        let rows = self.from.client.copy_out(out.as_str()).await;
        let rows = rows.map_err(self.from.refused_quietly(&out))?;
        let sink = self.into.client.copy_in(into.as_str()).await;
        let sink = sink.map_err(self.into.refused(&into))?;
        pin_mut!(rows);
        pin_mut!(sink);
        while let Some(part) = rows.next().await {
            let part = part.map_err(self.from.refused_quietly(&out))?;
            sink.send(part).await.map_err(self.into.refused_quietly(&into))?;
        }
        Ok(sink.finish().await.map_err(self.into.refused_quietly(&into))?)
    }

    /// Sequences go on above what has come. They never go down: that would outlive a transaction that is taken back.
    async fn sequences(&self, table: &RefreshTable, fates: &[Fate]) -> Result<(), RefreshError> {
        let name = quoted_table(&table.name);
        let kept = |column: &str| {
            fates
                .iter()
                .any(|fate| fate.column == column && fate.mask == Mask::Keep)
        };
        let sql = "SELECT a.attname::text, pg_get_serial_sequence($1, a.attname) FROM pg_attribute a \
                   WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped \
                   AND pg_get_serial_sequence($1, a.attname) IS NOT NULL";
        let owned = self
            .into
            .client
            .query(sql, &[&name])
            .await
            .map_err(self.into.refused(sql))?;
        let owned = owned
            .iter()
            .map(|row| (row.get::<_, String>(1), row.get::<_, String>(0)));
        let stated = table
            .sequences
            .iter()
            .map(|(sequence, column)| (quoted_table(sequence), column.clone()));
        for (sequence, column) in owned.chain(stated).filter(|(_, column)| kept(column)) {
            let raise = format!(
                "SELECT setval('{}', greatest((SELECT max({}) FROM {name}), (SELECT last_value FROM {sequence})))",
                sequence.replace('\'', "''"),
                quoted(&column)
            );
            self.into.run(&raise).await?;
        }
        Ok(())
    }

    /// Compares all different values of a masked column on both sides, in one walk through both in the same order.
    async fn compare(&self, table: &RefreshTable, fate: &Fate) -> Result<u64, RefreshError> {
        let (name, column) = (quoted_table(&table.name), quoted(&fate.column));
        // All rows of the base, taken or not: a stand-in is to be nobody's value.
        let values = format!(
            "SELECT DISTINCT sha256(convert_to(current_setting('{SALT}') || {column}::text, 'UTF8')) AS value FROM {name} \
             WHERE {column} IS NOT NULL ORDER BY value"
        );
        let none: [&str; 0] = [];
        let ours = self.into.client.query_raw(values.as_str(), none).await;
        let ours = ours.map_err(self.into.refused_quietly(&values))?.peekable();
        pin_mut!(ours);
        // A column of which nothing came costs the base nothing.
        if ours.as_mut().peek().await.is_none() {
            return Ok(0);
        }
        let theirs = self.from.client.query_raw(values.as_str(), none).await;
        let theirs = theirs.map_err(self.from.refused_quietly(&values))?.fuse();
        pin_mut!(theirs);
        let (mut their, mut compared, mut same) = (None::<Vec<u8>>, 0, 0);
        while let Some(row) = ours.next().await {
            let our: Vec<u8> = row.map_err(self.into.refused_quietly(&values))?.get(0);
            compared += 1;
            while their.as_ref().is_none_or(|their| *their < our) {
                match theirs.next().await {
                    Some(row) => their = Some(row.map_err(self.from.refused_quietly(&values))?.get(0)),
                    None => break,
                }
            }
            same += u64::from(their.as_ref() == Some(&our));
        }
        if same > 0 {
            return Err(RefreshError::Unmasked {
                table: table.name.clone(),
                column: fate.column.clone(),
                values: same,
            });
        }
        Ok(compared)
    }
}

/// What is read of a table. A condition stands by itself, whatever is in it.
fn selection(table: &RefreshTable, fates: &[Fate]) -> String {
    let selected: Vec<&str> = fates.iter().map(|fate| fate.expression.as_str()).collect();
    let rows = table
        .rows
        .as_ref()
        .map_or_else(String::new, |rows| format!(" WHERE (\n{rows}\n)"));
    format!(
        "SELECT {} FROM {}{rows}",
        selected.join(", "),
        quoted_table(&table.name)
    )
}
