//! The check against schemas that schemars derives, as the resource types will have them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;

use super::*;
use crate::model::text::{Ink, Sources, decode_at, tree};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "read by serde only")]
struct Component {
    /// How other components refer to it
    #[schemars(regex(pattern = "^[a-z0-9-]+$"), length(min = 1, max = 12))]
    name: String,
    /// How many nodes may be out of service at once. For whatever reason.
    max_unavailable: Option<u32>,
    #[serde(default)]
    after: BTreeSet<String>,
    /// Where the log goes
    log: Option<LogTarget>,
    traffic: Option<Traffic>,
    when: Option<When>,
    mode: Option<Mode>,
    #[serde(default)]
    #[schemars(length(max = 2))]
    ports: BTreeMap<String, u16>,
    #[serde(default)]
    vars: BTreeMap<String, Scalar>,
    share: Option<Share>,
    pair: Option<(u8, String)>,
    proxied: Option<bool>,
}

/// Externally tagged, with a variant that has no content.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "read by serde only")]
enum LogTarget {
    Discard,
    File { path: String },
    Webhook(Webhook),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by serde only")]
struct Webhook {
    /// Where to post
    url: String,
}

/// Internally tagged, one variant with fields of its own and one with a type's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
#[expect(dead_code, reason = "read by serde only")]
enum Traffic {
    Steady { rate: f64 },
    Burst(Burst),
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "read by serde only")]
struct Burst {
    calls: u32,
}

/// Adjacently tagged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "is", content = "of", rename_all = "camelCase")]
#[expect(dead_code, reason = "read by serde only")]
enum When {
    Always,
    Days(Vec<String>),
}

/// Words only, one with a description of its own (schemars writes `oneOf` then).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Mode {
    Rolling,
    /// Takes all nodes down
    Recreate,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "read by serde only")]
enum Scalar {
    Text(String),
    Number(f64),
    Choice { one: String, other: String },
    Limit { least: i64 },
    Names(Vec<String>),
    Numbers(Vec<i64>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "read by serde only")]
struct Share(#[schemars(range(min = 0.0, max = 0.9))] f64);

/// Problems of a component's text as people see them; what the check lets through must be what serde reads.
fn shown(text: &str) -> String {
    let mut sources = Sources::new();
    let id = sources.add("c.yaml", text);
    let mut problems = Problems::new();
    let node = tree::parse(&sources, id, &mut problems).remove(0);
    assert!(problems.is_empty(), "{problems}");
    match decode_at::<Component>(&node, &Path::root()) {
        Ok(_) => "fine".to_owned(),
        Err(problems) => problems.render(&sources, Ink::Plain),
    }
}

#[test]
fn every_keyword_that_schemars_writes_is_known() {
    assert_eq!(unsupported_keywords(&schema_for!(Component)), Vec::<String>::new());
}

#[test]
fn a_keyword_that_is_not_checked_is_reported_with_its_place() {
    let schema = schemars::json_schema!({
        "properties": {"a": {"items": {"contains": {}}}, "default": {"type": 3}},
        "default": {"contains": 1},
        "$defs": {"b": {"anyOf": [{"pattern": "("}, {"$ref": "#/$defs/nowhere"}], "not": {}}},
    });
    let mut found = unsupported_keywords(&schema);
    found.sort();
    let expected = [
        "#/$defs/b/anyOf/0/pattern",
        "#/$defs/b/anyOf/1/$ref",
        "#/$defs/b/not",
        "#/properties/a/items/contains",
        "#/properties/default/type",
    ];
    assert_eq!(found, expected);
}

#[test]
fn right_values_of_every_shape_pass() {
    for text in [
        "name: db",
        "name: db\nmaxUnavailable: 2\nafter: [x, y]\nports: {http: 80}\nshare: 0.5\npair: [1, x]\nproxied: true",
        "name: db\nmaxUnavailable:\nlog: ~\ntraffic: null\nmode: null\nshare: 0",
        "name: db\nlog: discard",
        "name: db\nlog: {file: {path: /x}}",
        "name: db\nlog: {webhook: {url: x}}",
        "name: db\ntraffic: {kind: steady, rate: 3}",
        "name: db\ntraffic: {kind: burst, calls: 3}",
        "name: db\ntraffic: {kind: none}",
        "name: db\nwhen: {is: always}",
        "name: db\nwhen: {is: days, of: [mon]}",
        "name: db\nmode: rolling",
        "name: db\nmode: recreate",
        "name: db\nvars: {a: x, b: 1.5, c: 2, d: {one: x, other: y}, e: {least: 3}, f: [x], g: [1], h: []}",
    ] {
        assert_eq!(shown(text), "fine", "{text}");
    }
}

#[test]
fn every_problem_of_a_text_is_shown_at_once() {
    insta::assert_snapshot!(shown("name: db\nmaxUnavialable: 1\nafter: [x, 3]\nreplicas: 2\nlog:\n  webhook:\n    uri: http://x\nproxied: yes\n"), @"
    error: unknown key `maxUnavialable`
     --> c.yaml:2:1
      |
    2 | maxUnavialable: 1
      | ^^^^^^^^^^^^^^ maxUnavialable
      |
      = help: did you mean `maxUnavailable`?

    error: expected a string, found the number `3`
     --> c.yaml:3:12
      |
    3 | after: [x, 3]
      |            ^ after[1]
      |
      = help: put it in quotes to make it a string

    error: unknown key `replicas`
     --> c.yaml:4:1
      |
    4 | replicas: 2
      | ^^^^^^^^ replicas
      |
      = help: known here: `name`, `maxUnavailable`, `after`, `log`, `traffic`, `when`, `mode`, `ports`, `vars`, `share`, `pair` or `proxied`

    error: unknown key `uri`
     --> c.yaml:7:5
      |
    7 |     uri: http://x
      |     ^^^ log.webhook.uri
      |
      = help: did you mean `url`?

    error: expected `true` or `false`, found the string `yes`
     --> c.yaml:8:10
      |
    8 | proxied: yes
      |          ^^^ proxied
      |
      = help: write `true`
    ");
}

#[test]
fn a_missing_key_points_at_its_parent() {
    insta::assert_snapshot!(shown("log:\n  webhook: {}\n"), @"
    error: the key `name` is missing
     --> c.yaml:1:1
      |
    1 | log:
      | ^^^^ name
      |
      = help: `name`: How other components refer to it

    error: the key `url` is missing
     --> c.yaml:2:3
      |
    2 |   webhook: {}
      |   ^^^^^^^ log.webhook.url
      |
      = help: `url`: Where to post
    ");
}

#[test]
fn a_wrong_type_says_what_it_should_mean() {
    insta::assert_snapshot!(shown("name: 12\nmaxUnavailable: abc\nafter: x\nports:\nshare: '0.5'\nmode: [rolling]\npair: {}\n"), @"
    error: expected a string, found the number `12`
     --> c.yaml:1:7
      |
    1 | name: 12
      |       ^^ name
      |
      = help: put it in quotes to make it a string

    error: expected a whole number, found the string `abc`
     --> c.yaml:2:17
      |
    2 | maxUnavailable: abc
      |                 ^^^ maxUnavailable
      |
      = help: write a whole number alone, without a unit, as 5; `maxUnavailable`: How many nodes may be out of service at once

    error: expected a list, found the string `x`
     --> c.yaml:3:8
      |
    3 | after: x
      |        ^ after
      |
      = help: a list has one `- ` line for each element

    error: expected a map, found no value
     --> c.yaml:4:1
      |
    4 | ports:
      | ^^^^^ ports

    error: expected a number, found the string `0.5`
     --> c.yaml:5:8
      |
    5 | share: '0.5'
      |        ^^^^^ share
      |
      = help: remove the quotes

    error: expected `rolling` or `recreate`, found a list
     --> c.yaml:6:7
      |
    6 | mode: [rolling]
      |       ^^^^^^^^^ mode
      |
      = help: `mode`: Words only, one with a description of its own (schemars writes `oneOf` then)

    error: expected a list, found a map
     --> c.yaml:7:7
      |
    7 | pair: {}
      |       ^^ pair
      |
      = help: a list has one `- ` line for each element
    ");
}

#[test]
fn values_out_of_bounds_are_problems() {
    insta::assert_snapshot!(shown("name: Green server nr 1\nmaxUnavailable: -1\nafter: [a, b, a]\nports: {a: 1, b: 2, c: 70000}\nshare: 1.0\npair: [1]\n"), @"
    error: has 17 characters, at most 12 allowed
     --> c.yaml:1:7
      |
    1 | name: Green server nr 1
      |       ^^^^^^^^^^^^^^^^^ name
      |
      = help: `name`: How other components refer to it

    error: `Green server nr 1` does not match the pattern ^[a-z0-9-]+$
     --> c.yaml:1:7
      |
    1 | name: Green server nr 1
      |       ^^^^^^^^^^^^^^^^^ name
      |
      = help: `name`: How other components refer to it

    error: -1 is less than 0
     --> c.yaml:2:17
      |
    2 | maxUnavailable: -1
      |                 ^^ maxUnavailable
      |
      = help: `maxUnavailable`: How many nodes may be out of service at once

    error: `a` is listed twice
     --> c.yaml:3:8
      |
    3 | after: [a, b, a]
      |        ^^^^^^^^^ after

    error: 70000 is more than 65535
     --> c.yaml:4:24
      |
    4 | ports: {a: 1, b: 2, c: 70000}
      |                        ^^^^^ ports.c

    error: 1.0 is more than 0.9
     --> c.yaml:5:8
      |
    5 | share: 1.0
      |        ^^^ share

    error: has 1 element, at least 2 needed
     --> c.yaml:6:7
      |
    6 | pair: [1]
      |       ^^^ pair
    ");
}

#[test]
fn a_word_out_of_a_set_lists_the_set() {
    insta::assert_snapshot!(shown("name: db\nmode: recrate\nlog: nowhere\n"), @"
    error: expected `rolling` or `recreate`, found the string `recrate`
     --> c.yaml:2:7
      |
    2 | mode: recrate
      |       ^^^^^^^ mode
      |
      = help: did you mean `recreate`?

    error: expected `discard`, `file: …` or `webhook: …`, found the string `nowhere`
     --> c.yaml:3:6
      |
    3 | log: nowhere
      |      ^^^^^^^ log
      |
      = help: `log`: Where the log goes
    ");
}

#[test]
fn externally_tagged_values_are_judged_by_the_key_they_have() {
    insta::assert_snapshot!(shown("name: db\nlog: {wehook: {url: x}}\n"), @"
    error: unknown key `wehook`
     --> c.yaml:2:7
      |
    2 | log: {wehook: {url: x}}
      |       ^^^^^^ log.wehook
      |
      = help: did you mean `webhook`?
    ");
    insta::assert_snapshot!(shown("name: db\nlog:\n  file: {path: x}\n  webhook: {url: x}\n"), @"
    error: `webhook` cannot stand beside `file`
     --> c.yaml:4:3
      |
    4 |   webhook: {url: x}
      |   ^^^^^^^ log.webhook
      |
      = help: keep exactly one of `file` or `webhook`
    ");
    insta::assert_snapshot!(shown("name: db\nlog: file\n"), @"
    error: expected `discard`, `file: …` or `webhook: …`, found the string `file`
     --> c.yaml:2:6
      |
    2 | log: file
      |      ^^^^ log
      |
      = help: did you mean `file: …`?
    ");
    insta::assert_snapshot!(shown("name: db\nlog: {}\n"), @"
    error: expected one of the keys `file` or `webhook`, found an empty map
     --> c.yaml:2:6
      |
    2 | log: {}
      |      ^^ log
      |
      = help: `log`: Where the log goes
    ");
    insta::assert_snapshot!(shown("name: db\nlog: {file: {path: 3, mode: 1}}\n"), @"
    error: expected a string, found the number `3`
     --> c.yaml:2:20
      |
    2 | log: {file: {path: 3, mode: 1}}
      |                    ^ log.file.path
      |
      = help: put it in quotes to make it a string

    error: unknown key `mode`
     --> c.yaml:2:23
      |
    2 | log: {file: {path: 3, mode: 1}}
      |                       ^^^^ log.file.mode
      |
      = help: known here: `path`
    ");
}

#[test]
fn tagged_values_are_judged_by_their_tag() {
    insta::assert_snapshot!(shown("name: db\ntraffic: {rate: 3}\n"), @"
    error: the key `kind` is missing
     --> c.yaml:2:10
      |
    2 | traffic: {rate: 3}
      |          ^^^^^^^^^ traffic
      |
      = help: it says which kind this is: `steady`, `burst` or `none`
    ");
    insta::assert_snapshot!(shown("name: db\ntraffic: {kind: bursts}\n"), @"
    error: expected `steady`, `burst` or `none`, found the string `bursts`
     --> c.yaml:2:17
      |
    2 | traffic: {kind: bursts}
      |                 ^^^^^^ traffic.kind
      |
      = help: did you mean `burst`?
    ");
    insta::assert_snapshot!(shown("name: db\ntraffic: {kind: burst, rate: 3}\nwhen: {is: days, of: mon}\n"), @"
    error: the key `calls` is missing
     --> c.yaml:2:1
      |
    2 | traffic: {kind: burst, rate: 3}
      | ^^^^^^^ traffic.calls

    error: unknown key `rate`
     --> c.yaml:2:24
      |
    2 | traffic: {kind: burst, rate: 3}
      |                        ^^^^ traffic.rate
      |
      = help: known here: `kind` or `calls`

    error: expected a list, found the string `mon`
     --> c.yaml:3:22
      |
    3 | when: {is: days, of: mon}
      |                      ^^^ when.of
      |
      = help: a list has one `- ` line for each element
    ");
}

#[test]
fn untagged_values_are_judged_by_the_shape_they_are_nearest_to() {
    insta::assert_snapshot!(shown("name: db\nvars: {a: true, b: {one: x}, c: {leest: 3}, d: [1, x]}\n"), @"
    error: expected a string, a number, a map or a list, found `true`
     --> c.yaml:2:11
      |
    2 | vars: {a: true, b: {one: x}, c: {leest: 3}, d: [1, x]}
      |           ^^^^ vars.a

    error: the key `other` is missing
     --> c.yaml:2:17
      |
    2 | vars: {a: true, b: {one: x}, c: {leest: 3}, d: [1, x]}
      |                 ^ vars.b.other

    error: unknown key `leest`
     --> c.yaml:2:34
      |
    2 | vars: {a: true, b: {one: x}, c: {leest: 3}, d: [1, x]}
      |                                  ^^^^^ vars.c.leest
      |
      = help: did you mean `least`?

    error: expected a whole number, found the string `x`
     --> c.yaml:2:52
      |
    2 | vars: {a: true, b: {one: x}, c: {leest: 3}, d: [1, x]}
      |                                                    ^ vars.d[1]
      |
      = help: write a whole number alone, without a unit, as 5
    ");
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Even;

impl TryFrom<String> for Even {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len().is_multiple_of(2) {
            Ok(Self)
        } else {
            Err(format!("`{text}` is odd; give an even number of letters"))
        }
    }
}

#[test]
fn what_only_the_type_can_check_is_shown_at_its_place() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "read by serde only")]
    struct Holder {
        list: Vec<Inner>,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "read by serde only")]
    struct Inner {
        #[schemars(with = "String")]
        even: Even,
    }
    let mut sources = Sources::new();
    let id = sources.add("h.yaml", "list:\n- even: ab\n- even: abc\n");
    let node = tree::parse(&sources, id, &mut Problems::new()).remove(0);
    let problems = decode_at::<Holder>(&node, &Path::root().key("spec")).unwrap_err();
    insta::assert_snapshot!(problems.render(&sources, Ink::Plain), @"
    error: `abc` is odd; give an even number of letters
     --> h.yaml:3:9
      |
    3 | - even: abc
      |         ^^^ spec.list[1].even
    ");
}
