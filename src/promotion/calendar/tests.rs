use jiff::ToSpan as _;
use proptest::prelude::*;

use super::*;

fn moment(text: &str) -> Timestamp {
    text.parse::<Moment>().expect("a moment").at()
}

fn recurring(from: &str, until: Option<&str>, lasting: Option<&str>, zone: &str) -> Span {
    Span {
        recurring: Some(Recurring {
            from: from.parse().expect("a pattern"),
            until: until.map(|until| until.parse().expect("a pattern")),
            lasting: lasting.map(|lasting| lasting.parse().expect("a duration")),
            time_zone: zone.parse().expect("a zone"),
        }),
        once: None,
    }
}

/// What a span holds at a time, in the words of its place.
fn said(span: &Span, zone: &str, at: &str) -> String {
    let show = |at: Option<Timestamp>| match at {
        Some(at) => at
            .in_tz(zone)
            .expect("a zone")
            .strftime("%a %Y-%m-%d %H:%M%:z")
            .to_string(),
        None => "never".to_owned(),
    };
    match cover(std::slice::from_ref(span), moment(at)) {
        Cover::Within { until } => format!("within, until {}", show(until)),
        Cover::Outside { next } => format!("outside, next {}", show(next)),
    }
}

#[test]
fn a_weekend_ends_by_the_clock_on_the_wall_also_when_summer_begins_and_ends() {
    let zone = "Europe/Zurich";
    let by_pattern = recurring("0 16 * * FRI", Some("0 8 * * MON"), None, zone);
    // 64 h on the wall, whatever that is in truth.
    let by_length = recurring("0 16 * * FRI", None, Some("64h"), zone);
    for (at, expected) in [
        // A weekend as any other.
        ("2026-11-20T15:59+01:00", "outside, next Fri 2026-11-20 16:00+01:00"),
        ("2026-11-20T16:00+01:00", "within, until Mon 2026-11-23 08:00+01:00"),
        ("2026-11-23T07:59:59+01:00", "within, until Mon 2026-11-23 08:00+01:00"),
        ("2026-11-23T08:00+01:00", "outside, next Fri 2026-11-27 16:00+01:00"),
        // Summer begins on Sunday: it is an hour shorter.
        ("2026-03-28T12:00+01:00", "within, until Mon 2026-03-30 08:00+02:00"),
        ("2026-03-30T07:59+02:00", "within, until Mon 2026-03-30 08:00+02:00"),
        ("2026-03-30T08:00+02:00", "outside, next Fri 2026-04-03 16:00+02:00"),
        // It ends: an hour longer.
        ("2026-10-24T12:00+02:00", "within, until Mon 2026-10-26 08:00+01:00"),
        ("2026-10-26T07:59+01:00", "within, until Mon 2026-10-26 08:00+01:00"),
        ("2026-10-26T08:00+01:00", "outside, next Fri 2026-10-30 16:00+01:00"),
    ] {
        assert_eq!(said(&by_pattern, zone, at), expected, "{at}");
        assert_eq!(said(&by_length, zone, at), expected, "{at}");
    }
}

#[test]
fn a_time_that_a_clock_skips_or_shows_twice_is_one_instant() {
    let zone = "Europe/Zurich";
    // 02:30 is not there on 29 March and there twice on 25 October.
    let early = recurring("30 2 * * *", None, Some("1h"), zone);
    for (at, expected) in [
        ("2026-03-29T01:59+01:00", "outside, next Sun 2026-03-29 03:00+02:00"),
        ("2026-03-29T03:00+02:00", "within, until Sun 2026-03-29 03:30+02:00"),
        ("2026-03-29T03:30+02:00", "outside, next Mon 2026-03-30 02:30+02:00"),
        ("2026-10-25T02:29+02:00", "outside, next Sun 2026-10-25 02:30+02:00"),
        ("2026-10-25T02:30+02:00", "within, until Sun 2026-10-25 03:30+01:00"),
        // The clock was put back to before the beginning, which has passed.
        ("2026-10-25T02:10+01:00", "within, until Sun 2026-10-25 03:30+01:00"),
        ("2026-10-25T02:45+01:00", "within, until Sun 2026-10-25 03:30+01:00"),
        ("2026-10-25T03:30+01:00", "outside, next Mon 2026-10-26 02:30+01:00"),
    ] {
        assert_eq!(said(&early, zone, at), expected, "{at}");
    }
    // What lies in the skipped hour as a whole is not there that day.
    let skipped = recurring("30 2 * * *", Some("0 3 * * *"), None, zone);
    let expected = "outside, next Mon 2026-03-30 02:30+02:00";
    assert_eq!(said(&skipped, zone, "2026-03-28T03:00+01:00"), expected);
    // What begins again while the clock shows an hour twice does not begin twice.
    let quarters = recurring("*/15 2 25 10 *", None, Some("5m"), zone);
    for (at, expected) in [
        ("2026-10-25T02:46+02:00", "within, until Sun 2026-10-25 02:50+02:00"),
        ("2026-10-25T02:01+01:00", "outside, next Mon 2027-10-25 02:00+02:00"),
    ] {
        assert_eq!(said(&quarters, zone, at), expected, "{at}");
    }
}

#[test]
fn what_is_once_begins_and_ends_or_does_not() {
    let span = |from: Option<&str>, until: Option<&str>| Span::once(from.map(moment), until.map(moment));
    let (four, eight) = ("2026-12-18T16:00Z", "2026-12-18T20:00Z");
    for (span, at, expected) in [
        (
            span(Some(four), Some(eight)),
            "2026-12-18T15:59Z",
            "outside, next Fri 2026-12-18 16:00+00:00",
        ),
        (
            span(Some(four), Some(eight)),
            four,
            "within, until Fri 2026-12-18 20:00+00:00",
        ),
        (span(Some(four), Some(eight)), eight, "outside, next never"),
        (span(Some(four), None), "2030-01-01T00:00Z", "within, until never"),
        (
            span(None, Some(eight)),
            "2020-01-01T00:00Z",
            "within, until Fri 2026-12-18 20:00+00:00",
        ),
        (span(None, None), eight, "within, until never"),
        (Span::default(), eight, "outside, next never"),
    ] {
        assert_eq!(said(&span, "UTC", at), expected, "{span:?} at {at}");
    }
}

#[test]
fn stretches_that_follow_one_another_are_one() {
    let now = moment("2026-11-20T12:00Z");
    let until = |spans: &[Span]| cover(spans, now);
    let one = Span::once(Some(now), Some(now + 1.hour()));
    let two = Span::once(Some(now + 1.hour()), Some(now + 2.hours()));
    let later = Span::once(Some(now + 3.hours()), Some(now + 4.hours()));
    let both = Cover::Within {
        until: Some(now + 2.hours()),
    };
    assert_eq!(until(&[two.clone(), later.clone(), one.clone()]), both);
    let next = Cover::Outside {
        next: Some(now + 1.hour()),
    };
    assert_eq!(until(&[later, two]), next);
    // Every day, for a day: without an end that anybody could name.
    let always = recurring("0 0 * * *", None, Some("24h"), "UTC");
    assert_eq!(until(&[always, one]), Cover::Within { until: None });
    assert_eq!(until(&[]), Cover::Outside { next: None });
}

fn zones() -> impl Strategy<Value = &'static str> {
    // By an hour, by half of one, never, far south, and where a day was left out (2011-12-30).
    prop::sample::select(vec![
        "Europe/Zurich",
        "Australia/Lord_Howe",
        "UTC",
        "America/Santiago",
        "Pacific/Apia",
    ])
}

fn spans() -> impl Strategy<Value = (Span, &'static str)> {
    let from = prop::sample::select(vec![
        "0 16 * * FRI",
        "30 2 * * *",
        "*/20 1-3 * * *",
        "0 0 1 * *",
        "59 23 * * SUN",
    ]);
    let end = prop_oneof![
        prop::sample::select(vec!["0 8 * * MON", "15 2 * * *", "0 3 * * *", "0 12 15 * *"])
            .prop_map(|until| (Some(until), None)),
        prop::sample::select(vec!["10m", "1h", "90m", "26h", "64h"]).prop_map(|lasting| (None, Some(lasting))),
    ];
    (from, end, zones()).prop_map(|(from, (until, lasting), zone)| (recurring(from, until, lasting, zone), zone))
}

proptest! {
    /// Minute by minute, from the definition: some time on the wall at which it begins has been shown, and the end of that not yet.
    #[test]
    fn it_is_what_a_look_at_every_minute_finds((span, zone) in spans(), hour in 0..24_i64 * 366, minute in 0..60_i64) {
        let rules = TimeZone::get(zone).expect("a zone");
        let now = moment("2026-01-01T00:00Z") + hour.hours() + minute.minutes();
        let of = span.recurring.as_ref().expect("it recurs");
        let wall = rules.to_datetime(now);
        let mut minutes = (wall - 40.days()).with().second(0).subsec_nanosecond(0).build().expect("a time");
        let mut is_within = false;
        while minutes <= wall + 2.hours() {
            if of.from.pattern().is_time_matching(&minutes).expect("a match")
                && instant(&rules, minutes).expect("an instant") <= now
                && end_of(of, &rules, minutes).expect("an end") > now
            {
                is_within = true;
            }
            minutes += 1.minute();
        }
        prop_assert_eq!(cover(&[span], now).is_within(), is_within);
    }

    #[test]
    fn what_is_said_of_an_end_and_of_a_beginning_comes_true((span, _) in spans(), second in 0..366_i64 * 86_400) {
        let now = moment("2026-01-01T00:00Z") + second.seconds();
        let spans = [span];
        match cover(&spans, now) {
            Cover::Within { until: Some(until) } => {
                prop_assert!(until > now);
                prop_assert!(cover(&spans, until - 1.second()).is_within());
                prop_assert!(!cover(&spans, until).is_within());
            }
            Cover::Outside { next: Some(next) } => {
                prop_assert!(next > now);
                prop_assert!(!cover(&spans, next - 1.second()).is_within());
                prop_assert!(cover(&spans, next).is_within());
            }
            // Each lasts until the next begins.
            Cover::Within { until: None } => prop_assert!(cover(&spans, now + (24 * 300).hours()).is_within()),
            Cover::Outside { next: None } => prop_assert!(false, "it recurs"),
        }
    }
}
