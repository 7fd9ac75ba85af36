//! When something recurs, or is once: the windows in which builds may move, and the freezes in which they may not. What of it
//! holds at a moment says [`crate::promotion::calendar`].

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::system::Finding;
use super::text::path::Part;
use super::values::{Duration, ValueError, text_value};

/// Moments that recur, by a pattern of cron with five fields: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
}

impl Cron {
    /// The pattern, ready to be asked.
    #[must_use]
    pub fn pattern(&self) -> &croner::Cron {
        &self.pattern
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl FromStr for Cron {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let pattern = parser
            .parse(text)
            .map_err(|why| ValueError::Cron(text.to_owned(), why.to_string()))?;
        let text = text.to_owned();
        Ok(Self { text, pattern })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
text_value!(
    Cron,
    "Cron",
    "^ *[^ ]+( +[^ ]+){4} *$",
    "Moments that recur: minute, hour, day of the month, month, day of the week, as cron has them",
    "a pattern of cron with five fields",
    ["0 16 * * FRI", "30 8 1 * *"]
);

/// A time zone, by its name in the IANA database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of no summer and no place.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = ValueError;
    fn from_str(name: &str) -> Result<Self, ValueError> {
        let found = TimeZone::get(name);
        found.map(Self).map_err(|_| ValueError::Zone(name.to_owned()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}
text_value!(
    Zone,
    "Zone",
    "^[A-Za-z0-9_+/-]+$",
    "A time zone by its name in the IANA database, as Europe/Zurich",
    "a time zone",
    ["Europe/Zurich", "UTC"]
);

/// One moment. Its text is kept: it says in which zone its author thought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    text: String,
    at: Timestamp,
}

impl Moment {
    /// When it is.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        let text = format!("{at:.0}");
        Self { text, at }
    }
}

impl FromStr for Moment {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let zoned = || Some(text.parse::<Zoned>().ok()?.timestamp());
        let at = text.parse::<Timestamp>().ok().or_else(zoned);
        let at = at.ok_or_else(|| ValueError::Moment(text.to_owned()))?;
        let text = text.to_owned();
        Ok(Self { text, at })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
text_value!(
    Moment,
    "Moment",
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]+",
    "One moment, with its offset or its time zone, as 2026-12-18T16:00+01:00 or 2026-12-18T16:00[Europe/Zurich]",
    "a moment",
    ["2026-12-18T15:00:00Z", "2026-12-18T16:00[Europe/Zurich]"]
);

/// Stretches of time: exactly one kind is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Span {
    /// Again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurring: Option<Recurring>,
    /// One time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
}

/// A stretch that recurs by the clock on the wall of a place: from each `from` to the next `until`, or for as long as `for` is on
/// that clock, so that on the days when summer begins or ends it is an hour shorter or longer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recurring {
    /// When each begins.
    pub from: Cron,
    /// When each ends: at the first of these after its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Cron>,
    /// How long each lasts, by the clock on the wall.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Duration>,
    /// Whose clock; UTC without it.
    #[serde(default = "Zone::utc")]
    pub time_zone: Zone,
}

/// A stretch that is there one time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Once {
    /// When it begins; without it, it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Moment>,
    /// When it ends; without it, it lasts until it is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}

impl Span {
    /// From one moment to another.
    #[must_use]
    pub fn once(from: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        Self {
            recurring: None,
            once: Some(Once {
                from: from.map(Moment::from),
                until: until.map(Moment::from),
            }),
        }
    }

    /// What is wrong with it, at `path`.
    #[must_use]
    pub fn findings(&self, path: &[Part]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut say = |message: &str, hint: &str| {
            findings.push(Finding {
                path: path.to_vec(),
                message: message.to_owned(),
                hint: Some(hint.to_owned()),
            });
        };
        match (&self.recurring, &self.once) {
            (Some(_), Some(_)) | (None, None) => say(
                "a stretch of time is of exactly one kind",
                "give one of `recurring` and `once`",
            ),
            (Some(recurring), None) => match (&recurring.until, &recurring.lasting) {
                (Some(_), Some(_)) | (None, None) => say(
                    "a stretch that recurs has exactly one end",
                    "give one of `until` (a pattern of cron) and `for` (a duration)",
                ),
                (None, Some(lasting)) if lasting.0.is_zero() => say("it lasts for no time", "give it a length, as 62h"),
                (Some(_), None) | (None, Some(_)) => {}
            },
            (None, Some(Once { from, until })) => {
                if let (Some(from), Some(until)) = (from, until)
                    && from.at() >= until.at()
                {
                    say("it ends before it begins", "swap `from` and `until`");
                }
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_with_an_offset_or_a_zone_and_nothing_else() {
        let at = |text: &str| text.parse::<Moment>().map(|moment| moment.at().to_string());
        let four = Ok("2026-12-18T15:00:00Z".to_owned());
        for text in [
            "2026-12-18T15:00:00Z",
            "2026-12-18T16:00+01:00",
            "2026-12-18T16:00[Europe/Zurich]",
            "2026-12-18T16:00+01:00[Europe/Zurich]",
        ] {
            assert_eq!(at(text), four, "{text}");
        }
        for text in [
            "2026-12-18T16:00",
            "2026-12-18",
            "tomorrow",
            "2026-12-18T16:00[Europe/Zuerich]",
            "",
        ] {
            assert_eq!(at(text), Err(ValueError::Moment(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_pattern_has_five_fields_that_mean_something() {
        for text in ["0 16 * * FRI", "*/15 8-18 * * MON-FRI", "0 0 1 1 *"] {
            assert_eq!(text.parse::<Cron>().map(|cron| cron.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "* * * *",
            "0 0 16 * * FRI",
            "61 * * * *",
            "0 25 * * *",
            "0 16 * * FRI 2027",
        ] {
            assert!(text.parse::<Cron>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_zone_is_one_that_there_is() {
        assert_eq!(
            "Europe/Zurich".parse::<Zone>().map(|zone| zone.to_string()),
            Ok("Europe/Zurich".to_owned())
        );
        assert_eq!("UTC".parse::<Zone>().map(|zone| zone.to_string()), Ok("UTC".to_owned()));
        assert_eq!("CERN".parse::<Zone>(), Err(ValueError::Zone("CERN".to_owned())));
    }
}
