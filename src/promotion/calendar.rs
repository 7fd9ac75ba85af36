//! What stretches of time hold at a moment, by the clocks on the walls of their places.
//!
//! # Summer time
//! A time on the wall is the first instant at which that clock shows it or more. One that a clock skips when summer begins is the
//! instant of the skip, and one that it shows twice when summer ends is its first showing. So what is later on the wall is never
//! earlier in truth, and each stretch has one beginning and one end.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::model::schedule::{Moment, Once, Recurring, Span};

/// No clock was ever put back by more at once (24 h, when a place moved across the date line); beginnings on the wall are looked
/// for so far ahead of a moment.
const LONGEST_FOLD: SignedDuration = SignedDuration::from_hours(25);
/// Stretches that follow one another without a gap are one; after so many, a year of one a day, it is as good as for ever.
const MOST_IN_A_ROW: usize = 400;
/// Beginnings that are looked at for one that lies ahead: at most those of a day, one a minute, are shown twice or skipped.
const MOST_PASSED: usize = 2_000;

/// What stretches of time hold at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// It lies in one of them.
    Within {
        /// Until then; none if no end is in sight.
        until: Option<Timestamp>,
    },
    /// It lies in none.
    Outside {
        /// When the next one begins; none if none does.
        next: Option<Timestamp>,
    },
}

impl Cover {
    /// Whether it lies in one.
    #[must_use]
    pub fn is_within(self) -> bool {
        matches!(self, Cover::Within { .. })
    }
}

/// What several stretches hold at a moment, taken together.
#[must_use]
pub fn cover(spans: &[Span], now: Timestamp) -> Cover {
    let mut end = now;
    for _ in 0..MOST_IN_A_ROW {
        let mut goes_on = false;
        for span in spans {
            match at(span, end) {
                Cover::Within { until: None } => return Cover::Within { until: None },
                Cover::Within { until: Some(until) } => {
                    end = end.max(until);
                    goes_on = true;
                }
                Cover::Outside { .. } => {}
            }
        }
        if !goes_on {
            return if end > now {
                Cover::Within { until: Some(end) }
            } else {
                Cover::Outside {
                    next: spans.iter().filter_map(|span| next(span, now)).min(),
                }
            };
        }
    }
    Cover::Within { until: None }
}

fn next(span: &Span, now: Timestamp) -> Option<Timestamp> {
    match at(span, now) {
        Cover::Outside { next } => next,
        Cover::Within { .. } => None,
    }
}

/// What one holds. Nothing, where it is of no kind: a file that states such a one is refused.
fn at(span: &Span, now: Timestamp) -> Cover {
    match span {
        Span {
            recurring: Some(recurring),
            ..
        } => recurring_at(recurring, now),
        Span { once: Some(once), .. } => once_at(once, now),
        Span {
            recurring: None,
            once: None,
        } => Cover::Outside { next: None },
    }
}

fn once_at(Once { from, until }: &Once, now: Timestamp) -> Cover {
    let until = until.as_ref().map(Moment::at);
    match from.as_ref().map(Moment::at) {
        _ if until.is_some_and(|until| until <= now) => Cover::Outside { next: None },
        Some(from) if from > now => Cover::Outside { next: Some(from) },
        Some(_) | None => Cover::Within { until },
    }
}

fn recurring_at(recurring: &Recurring, now: Timestamp) -> Cover {
    let zone = recurring.time_zone.rules();
    if let Some(begun) = last_begun(recurring, zone, now)
        && let Some(until) = end_of(recurring, zone, begun)
        && until > now
    {
        return Cover::Within { until: Some(until) };
    }
    Cover::Outside {
        next: next_begin(recurring, zone, now),
    }
}

/// The last time on the wall at or before this moment at which a stretch begins.
fn last_begun(recurring: &Recurring, zone: &TimeZone, now: Timestamp) -> Option<DateTime> {
    let wall = zone.to_datetime(now);
    let latest = wall.checked_add(LONGEST_FOLD).ok()?;
    // What lies ahead on the wall has passed already where the clock was put back since. By far the most often nothing has: it is
    // looked for from the wall's time first.
    let is_put_back = |wall: DateTime| instant(zone, wall).is_some_and(|at| at <= now);
    let ahead = recurring.from.pattern().find_next_occurrence(&wall, false).ok();
    if ahead.is_none_or(|ahead| !is_put_back(ahead)) {
        let found = recurring.from.pattern().find_previous_occurrence(&wall, true).ok()?;
        return is_put_back(found).then_some(found);
    }
    let mut found = latest;
    loop {
        found = recurring.from.pattern().find_previous_occurrence(&found, false).ok()?;
        if is_put_back(found) {
            return Some(found);
        }
    }
}

fn end_of(recurring: &Recurring, zone: &TimeZone, begun: DateTime) -> Option<Timestamp> {
    let end = match (&recurring.until, &recurring.lasting) {
        (Some(until), _) => until.pattern().find_next_occurrence(&begun, false).ok()?,
        (None, Some(lasting)) => begun.checked_add(lasting.signed()).ok()?,
        (None, None) => return None,
    };
    instant(zone, end)
}

fn next_begin(recurring: &Recurring, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let mut wall = zone.to_datetime(now);
    for _ in 0..MOST_PASSED {
        wall = recurring.from.pattern().find_next_occurrence(&wall, false).ok()?;
        // One that the clock shows for the second time has passed; and what lies in a time that it skips as a whole lasts no time.
        let at = instant(zone, wall)?;
        if at > now && end_of(recurring, zone, wall)? > at {
            return Some(at);
        }
    }
    None
}

/// The first instant at which a clock shows this time or more.
fn instant(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { before, .. } => {
            // By the offset from before the skip, this time would lie behind it.
            let behind = before.to_timestamp(wall).ok()?;
            let skips = zone.preceding(behind).next();
            skips.map(|skip| skip.timestamp())
        }
    }
}

#[cfg(test)]
mod tests;
