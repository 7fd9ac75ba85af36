//! Which expression of SQL stands for a column on its way into a replica. Pure.
//!
//! All is computed where the data is: what is masked does not leave it. The same value gives the same stand-in in every table of
//! one refresh, so that what was joined by it still is, and another in the next: they depend on a random salt that nobody keeps. Of
//! few different values (a sex, a status) a stand-in still shows which are the same.

use crate::model::environment::{Mask, RefreshTable};

/// Where the sessions keep the salt.
pub(super) const SALT: &str = "stagegate.salt";
/// Hexadecimal digits of a hash that a stand-in carries where there is room: of a million different values two get the same one in
/// 37 million refreshes (n² / 2 · 16^-16).
const DIGITS: u32 = 16;
/// All that there are of one.
const HASH_DIGITS: u32 = 64;
/// And at least: of ten thousand values two get the same one in some 20,000 refreshes.
const FEWEST_DIGITS: u32 = 10;

/// A column as its database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What `pg_type.typname` calls its type.
    pub kind: String,
    /// Characters at most, of a text that is bounded.
    pub longest: Option<u32>,
    /// It may be without a value.
    pub nullable: bool,
    /// Its database computes it, so nothing can be put there.
    pub generated: bool,
}

/// What becomes of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// The column.
    pub column: String,
    /// What was stated of it.
    pub mask: Mask,
    /// What is selected in its place.
    pub expression: String,
}

/// Why a table is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// Nobody has looked at them.
    #[error(
        "columns {} of {table} may tell of people or let somebody in, and nothing is said of them; state each under `columns`, or all that is left by `rest`: keep, drop, hash or a fake",
        columns.join(", ")
    )]
    Unstated {
        /// The table.
        table: String,
        /// The columns.
        columns: Vec<String>,
    },
    /// A rule for nothing.
    #[error("{table} has no column {column}; it has {}", there.join(", "))]
    NoColumn {
        /// The table.
        table: String,
        /// What was stated.
        column: String,
        /// What is there.
        there: Vec<String>,
    },
    /// It has to have a value.
    #[error("column {column} of {table} cannot be dropped, for it has to have a value; hash or fake it")]
    NotNull {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A type that has no such stand-in.
    #[error("column {column} of {table} is of type {kind}, which cannot be masked by `{mask}`; `drop` can be")]
    Kind {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        kind: String,
        /// What was stated.
        mask: &'static str,
    },
    /// A text that is too short.
    #[error(
        "column {column} of {table} has room for {longest} characters, and `{mask}` needs {needed}; `drop` needs none"
    )]
    TooShort {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its room.
        longest: u32,
        /// What was stated.
        mask: &'static str,
        /// What that needs.
        needed: u32,
    },
}

/// Types whose values are figures or times. Whatever else there is may hold anything.
const PLAIN: [&str; 13] = [
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "bool",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
];
/// Parts of names by which even a figure tells of people or lets somebody in.
const TELLING: [&str; 10] = [
    "user",
    "owner",
    "person",
    "phone",
    "birth",
    "pin",
    "token",
    "secret",
    "passw",
    "credential",
];

/// What is selected of a table, column by column.
///
/// # Errors
/// A column that nobody has looked at, or one whose rule cannot be kept.
pub fn fates(table: &RefreshTable, columns: &[Column]) -> Result<Vec<Fate>, MaskError> {
    if let Some(column) = table
        .columns
        .keys()
        .find(|stated| columns.iter().all(|c| c.name != **stated))
    {
        return Err(MaskError::NoColumn {
            table: table.name.clone(),
            column: column.clone(),
            there: columns.iter().map(|c| c.name.clone()).collect(),
        });
    }
    let mask = |column: &Column| {
        let stated = table.columns.get(&column.name).copied();
        stated.or(if is_plain(column) { Some(Mask::Keep) } else { table.rest })
    };
    let taken = || columns.iter().filter(|column| !column.generated);
    let unstated: Vec<String> = taken()
        .filter(|column| mask(column).is_none())
        .map(|column| column.name.clone())
        .collect();
    if !unstated.is_empty() {
        return Err(MaskError::Unstated {
            table: table.name.clone(),
            columns: unstated,
        });
    }
    let fate = |column: &Column| {
        let mask = mask(column).unwrap_or(Mask::Drop);
        Ok(Fate {
            column: column.name.clone(),
            mask,
            expression: expression(&table.name, column, mask)?,
        })
    };
    taken().map(fate).collect()
}

fn is_plain(column: &Column) -> bool {
    let name = column.name.to_lowercase();
    PLAIN.contains(&column.kind.as_str()) && !TELLING.iter().any(|part| name.contains(part))
}

fn expression(table: &str, column: &Column, mask: Mask) -> Result<String, MaskError> {
    let name = quoted(&column.name);
    // Texts that are equal for their database are equal here.
    let text = match column.kind.as_str() {
        "citext" => format!("lower({name}::text)"),
        _ => format!("{name}::text"),
    };
    let hash = format!("encode(sha256(convert_to(current_setting('{SALT}') || {text}, 'UTF8')), 'hex')");
    let refused = || MaskError::Kind {
        table: table.to_owned(),
        column: column.name.clone(),
        kind: column.kind.clone(),
        mask: mask.word(),
    };
    let is_text = matches!(column.kind.as_str(), "text" | "varchar" | "bpchar" | "citext" | "name");
    // A made-up value carries some of the hash, as much as there is room for.
    let made_up = |before: &str, after: &str, most: u32| {
        let around = u32::try_from(before.len() + after.len()).unwrap_or(u32::MAX);
        let digits = column
            .longest
            .map_or(most, |longest| longest.saturating_sub(around).min(most));
        if digits < FEWEST_DIGITS {
            return Err(MaskError::TooShort {
                table: table.to_owned(),
                column: column.name.clone(),
                longest: column.longest.unwrap_or_default(),
                mask: mask.word(),
                needed: around.saturating_add(FEWEST_DIGITS),
            });
        }
        Ok(format!("'{before}' || left({hash}, {digits}) || '{after}'"))
    };
    let some = match mask {
        Mask::Keep => return Ok(name),
        Mask::Drop if column.nullable => return Ok("NULL".to_owned()),
        Mask::Drop => {
            return Err(MaskError::NotNull {
                table: table.to_owned(),
                column: column.name.clone(),
            });
        }
        Mask::Hash if is_text => made_up("", "", HASH_DIGITS)?,
        Mask::Hash => match column.kind.as_str() {
            // Below zero, where no sequence counts. An `integer` has no room for stand-ins that stay different.
            "int8" => format!("-1 - ('x' || left({hash}, 15))::bit(60)::bigint"),
            "uuid" => format!("left({hash}, 32)::uuid"),
            "bytea" => format!("decode({hash}, 'hex')"),
            _ => return Err(refused()),
        },
        Mask::FakeEmail if is_text => made_up("user-", "@example.invalid", DIGITS)?,
        Mask::FakeName if is_text => made_up("Person ", "", DIGITS)?,
        Mask::FakeDn if is_text => made_up("/DC=invalid/CN=", "", DIGITS)?,
        Mask::FakeText if is_text => made_up("text ", "", DIGITS)?,
        Mask::FakeEmail | Mask::FakeName | Mask::FakeDn | Mask::FakeText => return Err(refused()),
    };
    // Without a value there is nothing to stand in for.
    Ok(format!("CASE WHEN {name} IS NULL THEN NULL ELSE {some} END"))
}

/// A name as SQL takes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name with its schema, as SQL takes it.
pub(super) fn quoted_table(name: &str) -> String {
    let parts: Vec<String> = name.splitn(2, '.').map(quoted).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn column(name: &str, kind: &str) -> Column {
        Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            longest: None,
            nullable: true,
            generated: false,
        }
    }

    fn table(columns: &[(&str, Mask)]) -> RefreshTable {
        RefreshTable {
            name: "shop.orders".to_owned(),
            rows: None,
            rest: None,
            sequences: BTreeMap::new(),
            columns: columns
                .iter()
                .map(|(name, mask)| ((*name).to_owned(), *mask))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn what_may_hold_anything_is_not_taken_unless_somebody_has_looked_at_it() {
        let columns = [
            column("id", "int8"),
            column("made", "timestamptz"),
            column("state", "text"),
            column("key", "varchar"),
            column("parameters", "jsonb"),
            column("owner_id", "int8"),
        ];
        let some = [("state", Mask::Keep), ("key", Mask::Drop)];
        let refused = fates(&table(&some), &columns).expect_err("two are unstated");
        let MaskError::Unstated { columns: unstated, .. } = &refused else {
            panic!("{refused}")
        };
        assert_eq!(unstated, &["parameters", "owner_id"]);
        let looked_at = RefreshTable {
            rest: Some(Mask::Drop),
            ..table(&some)
        };
        let selected: Vec<String> = fates(&looked_at, &columns)
            .expect("all is said")
            .into_iter()
            .map(|fate| fate.expression)
            .collect();
        assert_eq!(selected, ["\"id\"", "\"made\"", "\"state\"", "NULL", "NULL", "NULL"]);
    }

    #[test]
    fn a_rule_that_cannot_be_kept_is_refused() {
        let short = Column {
            longest: Some(9),
            ..column("code", "varchar")
        };
        let needed = Column {
            nullable: false,
            ..column("code", "text")
        };
        for (column, mask, words) in [
            (short.clone(), Mask::Hash, "room for 9 characters"),
            (short, Mask::FakeEmail, "needs 31"),
            (column("code", "int4"), Mask::Hash, "of type int4"),
            (needed, Mask::Drop, "has to have a value"),
            (column("code", "jsonb"), Mask::Hash, "of type jsonb"),
            (column("code", "int2"), Mask::Hash, "of type int2"),
            (column("code", "int8"), Mask::FakeName, "of type int8"),
            (column("other", "text"), Mask::Keep, "no column code"),
        ] {
            let refused = fates(&table(&[("code", mask)]), &[column])
                .expect_err(words)
                .to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn a_computed_column_is_left_to_its_database() {
        let computed = Column {
            generated: true,
            ..column("user_key", "text")
        };
        let fates = fates(&table(&[]), &[column("id", "int8"), computed]).expect("nothing to say");
        assert_eq!(fates.len(), 1);
    }

    proptest::proptest! {
        /// Whatever a column is called, it is one name in SQL.
        #[test]
        fn a_name_stays_a_name(name in "\\PC{1,20}") {
            let quoted = quoted(&name);
            let inner = &quoted[1..quoted.len() - 1];
            proptest::prop_assert_eq!(inner.replace("\"\"", ""), name.replace('"', ""));
            proptest::prop_assert_eq!(inner.matches('"').count() % 2, 0);
        }

        /// A column that is masked is never selected as it is, whatever its type.
        #[test]
        fn what_is_masked_is_never_selected_itself(
            kind in "(text|varchar|int4|int8|uuid|bytea|jsonb|numeric|timestamptz)",
            mask in proptest::sample::select(Mask::ALL.to_vec()),
            longest in proptest::option::of(1_u32..80),
        ) {
            let column = Column { longest, ..column("secret_thing", &kind) };
            if let Ok(fates) = fates(&table(&[("secret_thing", mask)]), &[column]) {
                let bare = fates[0].expression.replace("convert_to(current_setting('stagegate.salt') || \"secret_thing\"::text, 'UTF8')", "")
                    .replace("\"secret_thing\" IS NULL", "");
                proptest::prop_assert_eq!(bare.contains("secret_thing"), mask == Mask::Keep, "{}", bare);
            }
        }
    }
}
