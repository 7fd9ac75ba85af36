//! Findings as SARIF 2.1.0, the form in which code scanners hand results to forges and editors.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::finding::{Finding, Level, Rule, plain};

/// One run.
#[must_use]
pub fn log(findings: &[Finding]) -> Value {
    let rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| json!({"id": rule.name(), "shortDescription": {"text": rule.about()}}))
        .collect();
    let results: Vec<Value> = findings.iter().map(result).collect();
    json!({
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{
            "tool": {"driver": {
                "name": "stagegate",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "results": results,
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let level = match finding.level {
        Level::Refused => "error",
        Level::Warned => "warning",
    };
    let mut text = plain(&finding.message);
    if !finding.fix.is_empty() {
        text = format!("{text}; {}", plain(&finding.fix));
    }
    let mut result = json!({
        "ruleId": finding.rule.name(),
        "ruleIndex": finding.rule as usize,
        "level": level,
        "message": {"text": text},
    });
    if let Some(commit) = &finding.commit {
        result["properties"] = json!({"commit": commit});
    }
    if let Some(path) = &finding.path {
        let mut physical = json!({"artifactLocation": {"uri": uri(path)}});
        if finding.line > 0 {
            physical["region"] = json!({"startLine": finding.line});
            if finding.column > 0 {
                physical["region"]["startColumn"] = json!(finding.column);
            }
        }
        result["locations"] = json!([{"physicalLocation": physical}]);
    }
    result
}

/// A path as a relative reference (RFC 3986).
fn uri(path: &[u8]) -> String {
    let mut uri = String::new();
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_result_with_its_place_in_the_file() {
        let finding = Finding {
            rule: Rule::PrivateKey,
            level: Level::Refused,
            commit: Some("0123456789".to_owned()),
            path: Some(b"a b/\xff.pem".to_vec()),
            line: 2,
            column: 5,
            message: "a private key".to_owned(),
            fix: "replace it".to_owned(),
        };
        let log = log(&[finding]);
        let result = &log["runs"][0]["results"][0];
        assert_eq!(result["level"], "error");
        assert_eq!(result["message"]["text"], "a private key; replace it");
        let physical = &result["locations"][0]["physicalLocation"];
        assert_eq!(physical["artifactLocation"]["uri"], "a%20b/%FF.pem");
        assert_eq!(physical["region"], json!({"startLine": 2, "startColumn": 5}));
        let rules = &log["runs"][0]["tool"]["driver"]["rules"];
        assert_eq!(result["ruleIndex"], Rule::PrivateKey as usize);
        assert_eq!(rules[Rule::PrivateKey as usize]["id"], "private-key");
    }
}
