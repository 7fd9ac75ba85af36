//! Which expression of SQL stands for a column on its way into a replica. Pure.
//!
//! All is computed where the data is: what is masked does not leave it. The same value gives the same stand-in in every table of
//! one refresh, so that what was joined by it still is, and another in the next: they depend on a random salt that nobody keeps. Of
//! few different values (a sex, a status) a stand-in still shows which are the same.

use crate::model::environment::{Mask, RefreshTable};

/// Where the sessions keep the salt; set as a parameter of a statement, so that no statement's text has it.
pub(super) const SALT: &str = "stagegate.salt";
/// Fewer characters than this would make stand-ins of different values the same too often: of a million, one pair in a hundred
/// thousand with ten.
const SHORTEST: u32 = 10;
/// Hexadecimal digits of a hash that a made-up value carries, so that different people stay different.
const DIGITS: u32 = 10;

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
        "columns {} of {table} may tell of people or let somebody in, and nothing is said of them; state each under `columns`: keep, drop, hash or a fake",
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
    #[error("column {column} of {table} has room for {longest} characters, and `{mask}` needs {needed}; `drop` needs none")]
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

/// Parts of names by which columns tell of people or let somebody in. Whoever knows better says `keep`.
const TELLING: [&str; 14] = [
    "mail", "passw", "secret", "token", "user", "owner", "phone", "credential", "proxy", "name_of", "fullname", "ipaddr",
    "distinguished", "private",
];

/// What is selected of a table, column by column.
///
/// # Errors
/// A column that nobody has looked at, or one whose rule cannot be kept.
pub fn fates(table: &RefreshTable, columns: &[Column]) -> Result<Vec<Fate>, MaskError> {
    let stated = |name: &str| table.columns.get(name).copied();
    if let Some(column) = table.columns.keys().find(|stated| columns.iter().all(|c| c.name != **stated)) {
        return Err(MaskError::NoColumn {
            table: table.name.clone(),
            column: column.clone(),
            there: columns.iter().map(|c| c.name.clone()).collect(),
        });
    }
    let taken = || columns.iter().filter(|column| !column.generated);
    let unstated: Vec<String> = taken()
        .filter(|column| stated(&column.name).is_none() && is_telling(&column.name))
        .map(|column| column.name.clone())
        .collect();
    if !unstated.is_empty() {
        return Err(MaskError::Unstated {
            table: table.name.clone(),
            columns: unstated,
        });
    }
    let fate = |column: &Column| {
        let mask = stated(&column.name).unwrap_or(Mask::Keep);
        Ok(Fate {
            column: column.name.clone(),
            mask,
            expression: expression(&table.name, column, mask)?,
        })
    };
    taken().map(fate).collect()
}

fn is_telling(name: &str) -> bool {
    let name = name.to_lowercase();
    TELLING.iter().any(|part| name.contains(part)) || name == "dn" || name.ends_with("_dn")
}

fn expression(table: &str, column: &Column, mask: Mask) -> Result<String, MaskError> {
    let name = quoted(&column.name);
    let hash = format!("encode(sha256(convert_to(current_setting('{SALT}') || {name}::text, 'UTF8')), 'hex')");
    let refused = || MaskError::Kind {
        table: table.to_owned(),
        column: column.name.clone(),
        kind: column.kind.clone(),
        mask: mask.word(),
    };
    let fitting = |needed: u32, expression: String| match column.longest {
        Some(longest) if longest < needed => Err(MaskError::TooShort {
            table: table.to_owned(),
            column: column.name.clone(),
            longest,
            mask: mask.word(),
            needed,
        }),
        Some(longest) => Ok(format!("left({expression}, {longest})")),
        None => Ok(expression),
    };
    let is_text = matches!(column.kind.as_str(), "text" | "varchar" | "bpchar" | "citext" | "name");
    // A made-up value carries some of the hash; without a value there is nothing to make up.
    let faked = |before: &str, after: &str| {
        let needed = u32::try_from(before.len() + after.len()).unwrap_or(u32::MAX).saturating_add(DIGITS);
        fitting(needed, format!("'{before}' || left({hash}, {DIGITS}) || '{after}'"))
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
        Mask::Hash if is_text => fitting(SHORTEST, hash)?,
        Mask::Hash => match column.kind.as_str() {
            // Below zero, where no sequence counts.
            "int8" => format!("-1 - ('x' || left({hash}, 15))::bit(60)::bigint"),
            "int4" => format!("-1 - ('x' || left({hash}, 7))::bit(28)::integer"),
            "uuid" => format!("left({hash}, 32)::uuid"),
            "bytea" => format!("decode({hash}, 'hex')"),
            _ => return Err(refused()),
        },
        Mask::FakeEmail if is_text => faked("user-", "@example.invalid")?,
        Mask::FakeName if is_text => faked("Person ", "")?,
        Mask::FakeDn if is_text => faked("/DC=invalid/CN=", "")?,
        Mask::FakeText if is_text => faked("text ", "")?,
        Mask::FakeEmail | Mask::FakeName | Mask::FakeDn | Mask::FakeText => return Err(refused()),
    };
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
            columns: columns.iter().map(|(name, mask)| ((*name).to_owned(), *mask)).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn what_tells_of_people_is_not_taken_unless_somebody_has_looked_at_it() {
        let columns = [column("id", "int8"), column("produserID", "text"), column("proxy_dn", "text"), column("dn", "text")];
        let refused = fates(&table(&[("dn", Mask::Hash)]), &columns).expect_err("two are unstated");
        let MaskError::Unstated { columns: unstated, .. } = &refused else {
            panic!("{refused}")
        };
        assert_eq!(unstated, &["produserID", "proxy_dn"]);
        let all = [("dn", Mask::Hash), ("produserID", Mask::Keep), ("proxy_dn", Mask::Drop)];
        let fates = fates(&table(&all), &columns).expect("stated");
        let selected: Vec<&str> = fates.iter().map(|fate| fate.expression.as_str()).collect();
        assert_eq!((selected[0], selected[1], selected[2]), ("\"id\"", "\"produserID\"", "NULL"));
        assert!(selected[3].contains("sha256"), "{}", selected[3]);
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
            (needed, Mask::Drop, "has to have a value"),
            (column("code", "jsonb"), Mask::Hash, "of type jsonb"),
            (column("code", "int2"), Mask::Hash, "of type int2"),
            (column("code", "int8"), Mask::FakeName, "of type int8"),
            (column("other", "text"), Mask::Keep, "no column code"),
        ] {
            let refused = fates(&table(&[("code", mask)]), &[column]).expect_err(words).to_string();
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
