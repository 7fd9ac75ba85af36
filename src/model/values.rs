//! Value types whose parsing is their validation: what exists is right.

use std::fmt;
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a value's text is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a duration.
    #[error("`{0}` is not a duration; write a number and a unit, as 250ms, 30s, 5m, 1h30m")]
    Duration(String),
    /// Not a share between 0 and 100 %.
    #[error("`{0}` is not a share; write a percentage between 0% and 100%, as 2% or 0.5%")]
    Share(String),
    /// Not a count or percentage of nodes.
    #[error("`{0}` is neither a whole number above 0 nor a percentage, as 1 or 25%")]
    Amount(String),
    /// Not a digest.
    #[error("`{0}` is not a digest; one reads sha256: and 64 hexadecimal digits")]
    Digest(String),
    /// Not a quantity.
    #[error("`{0}` is not a quantity; write it as Kubernetes does, as 500m, 2, 64Mi or 1.5Gi")]
    Quantity(String),
    /// Not a range of builds.
    #[error("`{0}` is not a range of versions; write it as `>=1.0,<2` ({1})")]
    Range(String, String),
    /// Not a pattern of cron.
    #[error(
        "`{0}` is no pattern of cron ({1}); write minute, hour, day of the month, month and day of the week, as `0 16 * * FRI`"
    )]
    Cron(String, String),
    /// Not a time zone.
    #[error("there is no time zone `{0}`; write its name in the IANA database, as Europe/Zurich")]
    Zone(String),
    /// Not a moment.
    #[error(
        "`{0}` is no moment; write it with its offset or its time zone, as 2026-12-18T16:00+01:00 or 2026-12-18T16:00[Europe/Zurich]"
    )]
    Moment(String),
    /// Not a head of an audit.
    #[error("`{0}` is no head of an audit; one reads as a report has it, as 120:sha256: and 64 hexadecimal digits")]
    Head(String),
    /// Not a pattern of names.
    #[error(
        "`{0}` does not name NODE once, and COMPONENT and VERSION at most once; write it as COMPONENT/NODE/VERSION"
    )]
    NamePattern(String),
}

/// A type whose text in a file is its `FromStr` and its `Display`, with the schema of that text.
macro_rules! text_value {
    ($type:ty, $name:literal, $pattern:expr, $doc:literal, $what:literal, $examples:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "title": $what, "examples": $examples, "type": "string", "pattern": $pattern, "description": $doc
                })
            }
        }
    };
}

pub(super) use text_value;

/// A length of time, written `250ms`, `30s`, `5m`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    /// Of whole seconds.
    #[must_use]
    pub const fn from_secs(s: u64) -> Self {
        Self(std::time::Duration::from_secs(s))
    }
    /// Of milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(std::time::Duration::from_millis(ms))
    }
    /// As the type that time stamps are moved by; saturates at the largest (292 years).
    #[must_use]
    pub fn signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX)
    }
    /// In microseconds, saturating.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Duration {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Duration(s.to_owned());
        let (mut rest, mut total_ms) = (s, 0_u64);
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let n: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let ms_per = match &rest[..unit] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(bad()),
            };
            rest = &rest[unit..];
            total_ms = n
                .checked_mul(ms_per)
                .and_then(|x| total_ms.checked_add(x))
                .ok_or_else(bad)?;
        }
        Ok(Self::from_millis(total_ms))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms == 0 {
            return write!(f, "0s");
        }
        let parts = [
            (ms / 3_600_000, "h"),
            (ms / 60_000 % 60, "m"),
            (ms / 1000 % 60, "s"),
            (ms % 1000, "ms"),
        ];
        for (n, unit) in parts.into_iter().filter(|(n, _)| *n > 0) {
            write!(f, "{n}{unit}")?;
        }
        Ok(())
    }
}
text_value!(
    Duration,
    "Duration",
    "^([0-9]+(ms|s|m|h|d))+$",
    "A length of time, as 250ms, 30s, 5m, 1h30m",
    "a duration",
    ["250ms", "30s", "5m", "1h30m"]
);

/// A share of calls, strictly between 0 and 1, written as a percentage.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// As a fraction, 0 < x < 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Share(s.to_owned());
        let percent: f64 = s.strip_suffix('%').ok_or_else(bad)?.trim().parse().map_err(|_| bad())?;
        if percent > 0.0 && percent < 100.0 {
            Ok(Self(percent / 100.0))
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ten decimals hide the binary representation of a decimal percentage and keep every one a person writes.
        let text = format!("{:.10}", self.0 * 100.0);
        write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}
text_value!(
    Share,
    "Share",
    "^[0-9]+([.][0-9]+)? ?%$",
    "A share between 0% and 100%, as 2% or 0.5%",
    "a percentage between 0% and 100%",
    ["2%", "0.5%"]
);

/// A number of nodes, absolute or as a percentage of all (rounded down, never to 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// This many.
    Count(u32),
    /// This many of a hundred.
    Percent(u8),
}

impl Amount {
    /// How many that is of `total`, at least 1.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Amount::Count(n) => n as usize,
            Amount::Percent(p) => (total * usize::from(p) / 100).max(1),
        }
    }
}

impl FromStr for Amount {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Amount(s.to_owned());
        match s.strip_suffix('%') {
            Some(p) => match p.parse() {
                Ok(p @ 1..=100) => Ok(Amount::Percent(p)),
                _ => Err(bad()),
            },
            None => match s.parse() {
                Ok(n @ 1..) => Ok(Amount::Count(n)),
                _ => Err(bad()),
            },
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(n) => write!(f, "{n}"),
            Amount::Percent(p) => write!(f, "{p}%"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Amount::Count(n) => s.serialize_u32(*n),
            Amount::Percent(_) => s.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(d)? {
            Written::Number(n) => n.to_string(),
            Written::Text(t) => t,
        };
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "a number of nodes above 0, or a percentage of them",
            "examples": [1, "25%"],
            "description": "A number of nodes above 0, or a percentage of them",
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^([1-9][0-9]?|100)%$|^[1-9][0-9]*$"}]
        })
    }
}

/// What a build is known by: SHA-256 over its full locked set of artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The hexadecimal part alone, fit for a directory name.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for b in self.0 {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{b:02x}");
        }
        hex
    }
    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        Self(digest)
    }
    /// From a bare hexadecimal text, as directory names and node files have it.
    pub fn from_hex(hex: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Digest(hex.to_owned());
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(digest))
    }
}

impl FromStr for Digest {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        s.strip_prefix("sha256:")
            .ok_or_else(|| ValueError::Digest(s.to_owned()))
            .and_then(Self::from_hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}
text_value!(
    Digest,
    "Digest",
    "^sha256:[0-9a-f]{64}$",
    "SHA-256 over the full locked set of a build's artifacts",
    "a digest",
    ["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
);

/// An amount of processors or bytes as Kubernetes writes it: `500m`, `2`, `64Mi`, `1.5Gi`, `1e3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    thousandths: u128,
}

impl Quantity {
    /// In thousandths, rounded up.
    #[must_use]
    pub fn thousandths(&self) -> u128 {
        self.thousandths
    }
}

impl FromStr for Quantity {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Quantity(s.to_owned());
        let end = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
        let (number, suffix) = s.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(bad());
        }
        // Billionths, as the smallest unit that Kubernetes has.
        let (unit, divisor): (u128, u128) = match suffix {
            "n" => (1, 1),
            "u" => (1_000, 1),
            "m" => (1_000_000, 1),
            "" => (1_000_000_000, 1),
            "k" => (10_u128.pow(12), 1),
            "M" => (10_u128.pow(15), 1),
            "G" => (10_u128.pow(18), 1),
            "T" => (10_u128.pow(21), 1),
            "P" => (10_u128.pow(24), 1),
            "E" => (10_u128.pow(27), 1),
            "Ki" => (1_000_000_000 << 10, 1),
            "Mi" => (1_000_000_000 << 20, 1),
            "Gi" => (1_000_000_000 << 30, 1),
            "Ti" => (1_000_000_000 << 40, 1),
            "Pi" => (1_000_000_000 << 50, 1),
            "Ei" => (1_000_000_000 << 60, 1),
            exponent => {
                let power = exponent.strip_prefix(['e', 'E']).ok_or_else(bad)?;
                let power: i32 = power.parse().map_err(|_| bad())?;
                let ten = 10_u128.checked_pow(power.unsigned_abs()).ok_or_else(bad)?;
                if power < 0 {
                    (1_000_000_000, ten)
                } else {
                    (ten.checked_mul(1_000_000_000).ok_or_else(bad)?, 1)
                }
            }
        };
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
        let places = u32::try_from(fraction.len()).map_err(|_| bad())?;
        let divisor = 10_u128
            .checked_pow(places)
            .and_then(|ten| divisor.checked_mul(ten))
            .and_then(|all| all.checked_mul(1_000_000))
            .ok_or_else(bad)?;
        let billionths = digits.checked_mul(unit).ok_or_else(bad)?;
        Ok(Self {
            text: s.to_owned(),
            thousandths: billionths.div_ceil(divisor),
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
text_value!(
    Quantity,
    "Quantity",
    "^([0-9]+|[0-9]*[.][0-9]+|[0-9]+[.])([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$",
    "An amount of processors or bytes as Kubernetes writes it, as 500m, 2 or 64Mi",
    "a quantity",
    ["500m", "2", "64Mi"]
);

/// A range of versions, as `<1.0` or `>=1.0,<2` (PEP 440 specifiers); empty means every version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildRange(VersionSpecifiers);

impl BuildRange {
    /// Whether it contains this version; a text that is no PEP 440 version is in the full range only.
    #[must_use]
    pub fn contains(&self, version: &str) -> bool {
        self.0.is_empty() || Version::from_str(version).is_ok_and(|v| self.0.contains(&v))
    }

    /// Whether some version lies in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let ranges = |range: &Self| pep440_rs::release_specifiers_to_ranges(range.0.clone());
        !ranges(self).is_disjoint(&ranges(other))
    }
}

impl FromStr for BuildRange {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        VersionSpecifiers::from_str(s)
            .map(Self)
            .map_err(|e| ValueError::Range(s.to_owned(), e.to_string()))
    }
}

impl fmt::Display for BuildRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
text_value!(
    BuildRange,
    "BuildRange",
    "^[<>=!~0-9.,*a-zA-Z+ -]*$",
    "A range of versions, as <1.0 or >=1.0,<2",
    "a range of versions",
    ["<1.0", ">=1.0,<2"]
);

/// How a service names its sessions, such as `COMPONENT/NODE/VERSION`: words in capitals stand for what is there, everything
/// else for itself.
#[derive(Debug, Clone)]
pub struct NamePattern {
    text: String,
    regex: Regex,
}

impl NamePattern {
    /// The node that a name says it is of; `None` when the name is none of these.
    #[must_use]
    pub fn node_in<'a>(&self, name: &'a str) -> Option<&'a str> {
        Some(self.regex.captures(name)?.name("node")?.as_str())
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl FromStr for NamePattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = || ValueError::NamePattern(text.to_owned());
        let mut pattern = regex::escape(text);
        for (word, group) in [
            ("COMPONENT", "(?<component>.+?)"),
            ("NODE", "(?<node>.+?)"),
            ("VERSION", "(?<version>.+?)"),
        ] {
            let times = pattern.matches(word).count();
            if times > 1 || (word == "NODE" && times == 0) {
                return Err(refuse());
            }
            pattern = pattern.replace(word, group);
        }
        let regex = Regex::new(&format!("^{pattern}$")).map_err(|_| refuse())?;
        Ok(Self {
            text: text.to_owned(),
            regex,
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
text_value!(
    NamePattern,
    "NamePattern",
    "NODE",
    "How a service names its sessions, as COMPONENT/NODE/VERSION: the words in capitals stand for what is there",
    "a pattern of names with NODE in it",
    ["COMPONENT/NODE/VERSION"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_pattern_finds_the_node_and_must_name_it() {
        let pattern: NamePattern = "COMPONENT/NODE/VERSION".parse().expect("a pattern");
        for (name, node) in [
            ("service/node2/1.0", Some("node2")),
            ("service/node2", None),
            ("psql", None),
        ] {
            assert_eq!(pattern.node_in(name), node, "{name}");
        }
        for bad in ["COMPONENT", "NODE/NODE", ""] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(text.parse(), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "5 m",
            "-1s",
            "1w",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        assert_eq!(Duration::from_millis(5_400_250).to_string(), "1h30m250ms");
    }

    #[test]
    fn a_percentage_of_nodes_rounds_down_but_never_to_none() {
        for (text, total, nodes) in [("25%", 3, 1), ("50%", 3, 1), ("70%", 3, 2), ("100%", 3, 3), ("2", 9, 2)] {
            assert_eq!(
                text.parse::<Amount>().map(|a| a.of(total)),
                Ok(nodes),
                "{text} of {total}"
            );
        }
        for text in ["0", "0%", "101%", "-1", "x", ""] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_prints_as_it_was_written() {
        for text in ["2%", "0.5%", "99.99%", "0.01%"] {
            assert_eq!(text.parse::<Share>().map(|s| s.to_string()), Ok(text.to_owned()));
        }
        for text in ["0%", "100%", "2", "-1%", "NaN%", "%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_is_sha256_in_lower_case() {
        let d = Digest::of(b"abc");
        assert_eq!(
            d.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(d.to_string().parse(), Ok(d));
        assert!("sha256:ABC".parse::<Digest>().is_err());
    }

    #[test]
    fn a_quantity_is_read_as_kubernetes_reads_it() {
        for (text, thousandths) in [
            ("500m", 500),
            ("2", 2_000),
            ("0.5", 500),
            (".5", 500),
            ("1n", 1),
            ("1500u", 2),
            ("1e3", 1_000_000),
            ("5e-1", 500),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("1.5Gi", 3 * 512 * 1024 * 1024 * 1000),
            ("1k", 1_000_000),
            ("15E", 15 * 10_u128.pow(21)),
        ] {
            assert_eq!(
                text.parse::<Quantity>().map(|q| q.thousandths()),
                Ok(thousandths),
                "{text}"
            );
        }
        for text in ["", "m", "-1", "1.2.3", "1 Gi", "1KiB", "1e99", "."] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn builds_choose_their_probe_by_range() {
        let old: BuildRange = "<1.0".parse().expect("a range");
        assert!(old.contains("0.9.2") && !old.contains("1.0.0") && !old.contains("not-a-version"));
        assert!(BuildRange::default().contains("not-a-version"));
    }
}
