//! Plain scalars by the core schema of YAML 1.2 (chapter 10.3 of its specification): `on` and `yes` are strings.

use std::sync::LazyLock;

use regex::Regex;

use super::tree::Value;

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
        .expect("a fixed pattern, compiled in every test")
});

/// A number that YAML can write and neither JSON nor we can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSuchNumber {
    /// `.inf`, `.nan`.
    NotFinite,
    /// Does not fit 64 bits.
    TooLarge,
}

/// The value of an unquoted scalar.
pub(super) fn plain(text: &str) -> Result<Value, NoSuchNumber> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Err(NoSuchNumber::NotFinite),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Err(NoSuchNumber::NotFinite);
    }
    if is_digits(unsigned, 10) {
        return text.parse().map(Value::Int).map_err(|_| NoSuchNumber::TooLarge);
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix).filter(|digits| is_digits(digits, radix)) {
            return i64::from_str_radix(digits, radix)
                .map(Value::Int)
                .map_err(|_| NoSuchNumber::TooLarge);
        }
    }
    if NUMBER.is_match(text) {
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            Ok(_) | Err(_) => Err(NoSuchNumber::TooLarge),
        };
    }
    Ok(Value::String(text.to_owned()))
}

fn is_digits(text: &str, radix: u32) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_digit(radix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_read_by_the_yaml_1_2_core_schema() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(plain(text), Ok(Value::Null), "{text}");
        }
        for (text, truth) in [
            ("true", true),
            ("True", true),
            ("TRUE", true),
            ("false", false),
            ("FALSE", false),
        ] {
            assert_eq!(plain(text), Ok(Value::Bool(truth)), "{text}");
        }
        for (text, number) in [
            ("0", 0),
            ("-7", -7),
            ("+12", 12),
            ("010", 10),
            ("0x1F", 31),
            ("0o17", 15),
        ] {
            assert_eq!(plain(text), Ok(Value::Int(number)), "{text}");
        }
        for (text, number) in [("1.", 1.0), (".5", 0.5), ("-1.5e3", -1500.0), ("1e3", 1000.0)] {
            assert_eq!(plain(text), Ok(Value::Float(number)), "{text}");
        }
        for text in [
            "on",
            "off",
            "yes",
            "no",
            "y",
            "n",
            "tRUE",
            "nULL",
            "1.2.4",
            "0x",
            "0xg",
            "0o8",
            "-0x1",
            "+-5",
            "1_000",
            "12:30",
            "1e",
            ".",
            "-",
            "+",
            "e5",
            "infinity",
            "NaN",
            "2024-01-01",
            "=",
        ] {
            assert_eq!(plain(text), Ok(Value::String(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        for text in [".inf", "-.INF", "+.Inf", ".nan", ".NaN"] {
            assert_eq!(plain(text), Err(NoSuchNumber::NotFinite), "{text}");
        }
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "0xffffffffffffffff",
            "1e999",
        ] {
            assert_eq!(plain(text), Err(NoSuchNumber::TooLarge), "{text}");
        }
        assert_eq!(plain("9223372036854775807"), Ok(Value::Int(i64::MAX)));
    }
}
