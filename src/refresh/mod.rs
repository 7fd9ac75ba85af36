//! Data for a replica from the environment that it is a replica of, with what tells of people masked on the way.
//!
//! One snapshot is read, in a session that can write nothing; one transaction writes it, and is only kept when a comparison of both
//! sides has shown that no masked value has arrived as it was. Killed or failed anywhere, the replica has what it had before.

mod masks;

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _, pin_mut};
use tokio_postgres::Client;

pub use self::masks::{Column, Fate, MaskError, fates};
use self::masks::{SALT, quoted, quoted_table};
use crate::model::environment::{Mask, Refresh, RefreshTable};
use crate::signals::postgres::{self, DatabaseConfig, DatabaseError};
use crate::store::random_id;

/// Tables of the replica that others hold are waited for so long: its services hold them for moments.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// What our sessions are called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "stagegate refresh";

/// Why a replica's data was not made new. It has what it had before.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The databases.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A rule.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// Both are one.
    #[error(
        "{from} and {into} are the same database: its data would be replaced by itself, masked; state another under `databases` of the replica"
    )]
    Same {
        /// Where it was to come from.
        from: String,
        /// Where it was to go.
        into: String,
    },
    /// A table that is missing, on one side.
    #[error("{place} has no table {table} that {user} may {act}")]
    NoTable {
        /// Which database.
        place: String,
        /// The table.
        table: String,
        /// The role.
        user: String,
        /// To read, or to write.
        act: &'static str,
    },
    /// Columns that the replica's table does not have.
    #[error("table {table} of the replica has no column {}; bring its schema to that of its base first", columns.join(", "))]
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
}

/// What has been taken of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
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
}

impl Side {
    async fn new(config: &DatabaseConfig, limit: Duration) -> Result<Self, DatabaseError> {
        let config = DatabaseConfig {
            application_name: APPLICATION_NAME.to_owned(),
            statement_timeout: limit,
            ..config.clone()
        };
        Ok(Self {
            client: postgres::connect(&config).await?,
            config,
        })
    }

    fn place(&self) -> String {
        self.config.place()
    }

    fn refused(&self, sql: &str) -> impl Fn(tokio_postgres::Error) -> DatabaseError {
        move |why| postgres::explain(&self.config, sql, &why, &self.client)
    }

    async fn run(&self, sql: &str) -> Result<(), DatabaseError> {
        self.client.batch_execute(sql).await.map_err(self.refused(sql))
    }

    /// Sets what expressions read, without any statement's text having it.
    async fn salt(&self, salt: &str) -> Result<(), DatabaseError> {
        let sql = "SELECT set_config($1, $2, false)";
        let done = self.client.execute(sql, &[&SALT, &salt]).await;
        done.map(|_| ()).map_err(self.refused(sql))
    }

    /// Tells one database from every other.
    async fn identity(&self) -> Result<(String, String), DatabaseError> {
        let sql = "SELECT system_identifier::text, current_database()::text FROM pg_control_system()";
        let row = self.client.query_one(sql, &[]).await.map_err(self.refused(sql))?;
        Ok((row.get(0), row.get(1)))
    }

    /// The columns of a table, if there is one that may be read or written.
    async fn columns(&self, table: &str, act: &'static str) -> Result<Vec<Column>, RefreshError> {
        let sql = "SELECT a.attname::text, coalesce(b.typname, t.typname)::text, \
                   CASE WHEN a.atttypmod > 4 AND t.typname IN ('varchar', 'bpchar') THEN a.atttypmod - 4 END, \
                   NOT a.attnotnull, a.attgenerated <> '' \
                   FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype \
                   WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let rows = self.client.query(sql, &[&quoted_table(table)]).await.map_err(self.refused(sql))?;
        if rows.is_empty() {
            return Err(RefreshError::NoTable {
                place: self.place(),
                table: table.to_owned(),
                user: self.config.user.clone(),
                act,
            });
        }
        let column = |row: &tokio_postgres::Row| Column {
            name: row.get(0),
            kind: row.get(1),
            longest: row.get::<_, Option<i32>>(2).and_then(|longest| u32::try_from(longest).ok()),
            nullable: row.get(3),
            generated: row.get(4),
        };
        Ok(rows.iter().map(column).collect())
    }
}

impl<'a> Refreshing<'a> {
    /// Connects to both. `limit` is what one table may take.
    ///
    /// # Errors
    /// One of them is not there, or both are the same.
    pub async fn new(
        stated: &'a Refresh,
        from: &DatabaseConfig,
        into: &DatabaseConfig,
        limit: Duration,
    ) -> Result<Self, RefreshError> {
        let (from, into) = (Side::new(from, limit).await?, Side::new(into, limit).await?);
        if from.identity().await? == into.identity().await? {
            return Err(RefreshError::Same {
                from: from.place(),
                into: into.place(),
            });
        }
        // Whatever a condition of the file says, nothing of the base is changed.
        from.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        Ok(Self { stated, from, into })
    }

    /// What would become of every column; changes nothing.
    ///
    /// # Errors
    /// What would be refused.
    pub async fn look(&self) -> Result<Vec<Taken>, RefreshError> {
        let mut all = Vec::new();
        for table in &self.stated.tables {
            let fates = fates(table, &self.from.columns(&table.name, "read").await?)?;
            let there = self.into.columns(&table.name, "write").await?;
            let missing: Vec<String> = fates
                .iter()
                .filter(|fate| there.iter().all(|column| column.name != fate.column))
                .map(|fate| fate.column.clone())
                .collect();
            if !missing.is_empty() {
                return Err(RefreshError::Schema {
                    table: table.name.clone(),
                    columns: missing,
                });
            }
            all.push(Taken {
                table: table.name.clone(),
                fates,
                rows: None,
                compared: 0,
            });
        }
        Ok(all)
    }

    /// Puts the base's rows in the place of the replica's, table by table in the stated order. Returns when they are durable.
    ///
    /// # Errors
    /// Whatever is refused; then the replica has what it had.
    pub async fn run(&self, mut told: impl FnMut(&Taken)) -> Result<Vec<Taken>, RefreshError> {
        let mut all = self.look().await?;
        self.from.salt(&random_id()).await?;
        self.into.run("BEGIN").await?;
        self.into
            .run(&format!("SET LOCAL lock_timeout = {}", LOCK_PATIENCE.as_millis()))
            .await?;
        let names: Vec<String> = all.iter().map(|taken| quoted_table(&taken.table)).collect();
        self.into.run(&format!("TRUNCATE {}", names.join(", "))).await?;
        for (table, taken) in self.stated.tables.iter().zip(&mut all) {
            taken.rows = Some(self.copy(table, &taken.fates).await?);
        }
        // One salt for what is compared, that neither side's data has seen.
        let salt = random_id();
        self.from.salt(&salt).await?;
        self.into.salt(&salt).await?;
        for (table, taken) in self.stated.tables.iter().zip(&mut all) {
            for fate in taken.fates.iter().filter(|fate| fate.mask != Mask::Keep) {
                taken.compared += self.compare(table, fate).await?;
            }
            told(taken);
        }
        self.into.run("COMMIT").await?;
        Ok(all)
    }

    async fn copy(&self, table: &RefreshTable, fates: &[Fate]) -> Result<u64, RefreshError> {
        let name = quoted_table(&table.name);
        let selected: Vec<&str> = fates.iter().map(|fate| fate.expression.as_str()).collect();
        let columns: Vec<String> = fates.iter().map(|fate| quoted(&fate.column)).collect();
        let out = format!("COPY (SELECT {} FROM {name}{}) TO STDOUT", selected.join(", "), condition(table));
        let into = format!("COPY {name} ({}) FROM STDIN", columns.join(", "));
        let rows = self.from.client.copy_out(out.as_str()).await.map_err(self.from.refused(&out))?;
        let sink = self.into.client.copy_in(into.as_str()).await.map_err(self.into.refused(&into))?;
        pin_mut!(rows);
        pin_mut!(sink);
        while let Some(part) = rows.next().await {
            let part = part.map_err(self.from.refused(&out))?;
            sink.send(part).await.map_err(self.into.refused(&into))?;
        }
        Ok(sink.finish().await.map_err(self.into.refused(&into))?)
    }

    /// Compares all different values of a masked column on both sides, in one walk through both in the same order.
    async fn compare(&self, table: &RefreshTable, fate: &Fate) -> Result<u64, RefreshError> {
        let (name, column) = (quoted_table(&table.name), quoted(&fate.column));
        let values = |condition: &str| {
            format!(
                "SELECT DISTINCT sha256(convert_to(current_setting('{SALT}') || {column}::text, 'UTF8')) AS value FROM {name} \
                 WHERE {column} IS NOT NULL{condition} ORDER BY value"
            )
        };
        let before = values(&table.rows.as_ref().map_or_else(String::new, |rows| format!(" AND ({rows})")));
        let after = values("");
        let none: [&str; 0] = [];
        let theirs = self.from.client.query_raw(before.as_str(), none).await.map_err(self.from.refused(&before))?;
        let ours = self.into.client.query_raw(after.as_str(), none).await.map_err(self.into.refused(&after))?;
        pin_mut!(theirs);
        pin_mut!(ours);
        let (mut their, mut compared, mut same) = (None::<Vec<u8>>, 0, 0);
        while let Some(row) = ours.next().await {
            let our: Vec<u8> = row.map_err(self.into.refused(&after))?.get(0);
            compared += 1;
            while their.as_ref().is_none_or(|their| *their < our) {
                match theirs.next().await {
                    Some(row) => their = Some(row.map_err(self.from.refused(&before))?.get(0)),
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

fn condition(table: &RefreshTable) -> String {
    table.rows.as_ref().map_or_else(String::new, |rows| format!(" WHERE {rows}"))
}
