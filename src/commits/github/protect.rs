//! The required check as code: a ruleset of ours at GitHub, and how what stands there differs from it.

use http::Method;
use serde_json::{Value, json};

use super::api::{Api, ApiError};

/// Our ruleset's name at GitHub.
const NAME: &str = "stagegate";

/// What `github protect` found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As it should be.
    Same,
    /// Something differs, a line each.
    Drift(Vec<String>),
}

/// The ruleset that makes our check required: nothing reaches the branches but by what has passed it, made by this App and no
/// other, and they neither go back nor away.
#[must_use]
pub fn ruleset(branches: &[String], check: &str, app: Option<u64>) -> Value {
    let mut required = json!({"context": check});
    if let Some(id) = app {
        required["integration_id"] = json!(id);
    }
    let names: Vec<String> = branches.iter().map(|b| format!("refs/heads/{b}")).collect();
    json!({
        "name": NAME,
        "target": "branch",
        "enforcement": "active",
        "conditions": {"ref_name": {"include": names, "exclude": []}},
        "rules": [
            {"type": "deletion"},
            {"type": "non_fast_forward"},
            {"type": "required_status_checks", "parameters": {
                "strict_required_status_checks_policy": false,
                "required_status_checks": [required],
            }},
        ],
    })
}

/// How `there` differs from `wanted`, a line each. What GitHub adds of its own (ids, times, links) is no matter; who may go
/// round the rules is: we state nobody.
#[must_use]
pub fn drift(wanted: &Value, there: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", wanted, there, &mut lines);
    let bypass = there["bypass_actors"].as_array().map_or(0, Vec::len);
    if bypass > 0 {
        lines.push(format!("bypass_actors: {bypass} may go round it, and nobody should"));
    }
    lines
}

fn compare(at: &str, wanted: &Value, there: &Value, lines: &mut Vec<String>) {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            for (key, value) in wanted {
                let at = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                compare(&at, value, there.get(key).unwrap_or(&Value::Null), lines);
            }
        }
        // Rules come in any order, each type once.
        (Value::Array(wanted), Value::Array(there)) if at == "rules" => {
            for rule in wanted {
                let kind = &rule["type"];
                let name = kind.as_str().unwrap_or_default();
                match there.iter().find(|r| r["type"] == *kind) {
                    Some(found) => compare(&format!("rules.{name}"), rule, found, lines),
                    None => lines.push(format!("rules.{name} is missing")),
                }
            }
        }
        (Value::Array(list), Value::Array(found)) => {
            if list.len() != found.len() {
                lines.push(format!("{at} is {there}, not {}", json!(list)));
                return;
            }
            for (i, (a, b)) in list.iter().zip(found).enumerate() {
                compare(&format!("{at}[{i}]"), a, b, lines);
            }
        }
        _ if wanted == there => {}
        _ => lines.push(format!("{at} is {there}, not {wanted}")),
    }
}

/// Looks how the repository's ruleset stands.
///
/// # Errors
/// GitHub cannot be asked.
pub async fn look(api: &Api, wanted: &Value) -> Result<(Standing, Option<u64>), ApiError> {
    let tried = "look at the rulesets";
    let all: Vec<Value> = api
        .call(tried, &Method::GET, &api.route("/rulesets?per_page=100"), None)
        .await?;
    let Some(id) = all.iter().find(|r| r["name"] == NAME).and_then(|r| r["id"].as_u64()) else {
        return Ok((Standing::Drift(vec![format!("there is no ruleset `{NAME}`")]), None));
    };
    let there: Value = api
        .call(tried, &Method::GET, &api.route(&format!("/rulesets/{id}")), None)
        .await?;
    let lines = drift(wanted, &there);
    let standing = if lines.is_empty() {
        Standing::Same
    } else {
        Standing::Drift(lines)
    };
    Ok((standing, Some(id)))
}

/// Makes the ruleset what it should be.
///
/// # Errors
/// GitHub does not take it.
pub async fn apply(api: &Api, wanted: &Value, id: Option<u64>) -> Result<(), ApiError> {
    let mut body = wanted.clone();
    body["bypass_actors"] = json!([]);
    let (method, route) = match id {
        Some(id) => (Method::PUT, api.route(&format!("/rulesets/{id}"))),
        None => (Method::POST, api.route("/rulesets")),
    };
    let _: Value = api.call("set the ruleset", &method, &route, Some(&body)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Value);

    #[test]
    fn what_weakens_the_rules_is_drift_and_what_github_adds_is_not() {
        let wanted = ruleset(&["main".to_owned()], "stagegate", Some(7));
        let mut there = wanted.clone();
        there["id"] = json!(1);
        there["_links"] = json!({});
        there["bypass_actors"] = json!([]);
        there["rules"].as_array_mut().expect("rules").reverse();
        assert_eq!(drift(&wanted, &there), [""; 0]);
        let weakenings: [(Change, &str); 5] = [
            (|r| r["enforcement"] = json!("disabled"), "enforcement is \"disabled\""),
            (|r| drop(r["rules"].as_array_mut().expect("rules").pop()), "is missing"),
            (
                |r| r["rules"][0]["parameters"]["required_status_checks"][0]["integration_id"] = json!(9),
                "integration_id is 9, not 7",
            ),
            (|r| r["bypass_actors"] = json!([{}]), "1 may go round it"),
            (|r| r["conditions"]["ref_name"]["exclude"] = json!(["x"]), "exclude"),
        ];
        for (change, expected) in weakenings {
            let mut changed = there.clone();
            change(&mut changed);
            let lines = drift(&wanted, &changed);
            assert!(lines.len() == 1 && lines[0].contains(expected), "{lines:?}");
        }
    }
}
