//! The schema of a database: tables with their columns, indexes and constraints, and types of its own.

use serde_json::{Map, Value, json};

use super::{Database, DatabaseError, MAX_ROWS, Row};

/// One row a table: columns, indexes and constraints by name, each as `PostgreSQL` writes it. One answer holds [`MAX_ROWS`].
const TABLES: &str = "\
SELECT n.nspname || '.' || c.relname, c.relkind,
  (SELECT coalesce(json_object_agg(a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
     || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
     || coalesce(' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid), '')), '{}')
   FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT coalesce(json_object_agg(i.relname, pg_catalog.pg_get_indexdef(x.indexrelid)), '{}')
   FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid),
  (SELECT coalesce(json_object_agg(k.conname, pg_catalog.pg_get_constraintdef(k.oid)), '{}')
   FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f', 'p', 'u', 'x'))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema') AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY 1";

/// One row a type: the labels of an enumeration, or what a domain is of.
const TYPES: &str = "\
SELECT n.nspname || '.' || t.typname,
  CASE t.typtype WHEN 'd' THEN 'domain of ' || pg_catalog.format_type(t.typbasetype, t.typtypmod)
  ELSE 'enumeration of ' || (SELECT coalesce(string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder), '')
    FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) END
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype IN ('d', 'e') AND n.nspname NOT IN ('information_schema') AND n.nspname NOT LIKE 'pg\\_%'
ORDER BY 1";

/// Why there is no schema to compare.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// More than is read.
    #[error("{database} has {MAX_ROWS} {what} or more, and no more are compared; leave it out of `databases`")]
    TooLarge {
        /// The database.
        database: String,
        /// Tables or types.
        what: &'static str,
    },
}

/// Reads the schema of a database, as a value whose paths name what is in it. Partitions are as their table.
///
/// # Errors
/// No answer, or more in it than is read.
pub async fn look(database: &Database) -> Result<Value, SchemaError> {
    let all = async |what: &'static str, sql: &str| -> Result<Vec<Row>, SchemaError> {
        let rows = database.query(sql).await?;
        if rows.len() >= MAX_ROWS {
            let database = database.config().place();
            return Err(SchemaError::TooLarge { database, what });
        }
        Ok(rows)
    };
    let text = |row: &Row, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let (mut tables, mut types) = (Map::new(), Map::new());
    for row in all("tables", TABLES).await? {
        let map = |at: usize| serde_json::from_str::<Value>(&text(&row, at)).unwrap_or_default();
        let kind = match text(&row, 1).as_str() {
            "v" => "view",
            "m" => "materialized view",
            "f" => "foreign table",
            _ => "table",
        };
        tables.insert(
            text(&row, 0),
            json!({"kind": kind, "columns": map(2), "indexes": map(3), "constraints": map(4)}),
        );
    }
    for row in all("types", TYPES).await? {
        types.insert(text(&row, 0), Value::from(text(&row, 1)));
    }
    Ok(json!({"tables": tables, "types": types}))
}
