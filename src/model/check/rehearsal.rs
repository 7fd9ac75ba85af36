//! What a rehearsal refers to.

use super::key;
use crate::model::environment::EnvironmentSpec;
use crate::model::rehearsal::{Disturbance, RehearsalSpec, Run};
use crate::model::system::Finding;
use crate::model::text::did_you_mean;
use crate::model::text::path::Part as Step;

/// Everything that is wrong with a rehearsal by itself and, where that is known, on its environment.
pub(in crate::model) fn findings(spec: &RehearsalSpec, environment: Option<&EnvironmentSpec>) -> Vec<Finding> {
    let mut checker = Checker {
        environment,
        findings: Vec::new(),
    };
    for (i, disturbance) in spec.disturbances.iter().enumerate() {
        checker.disturbance(&[key("disturbances"), Step::Index(i)], disturbance);
    }
    if let Some(build) = &spec.start_from {
        checker.build(&[key("startFrom")], build);
    }
    if spec.runs.is_empty() {
        checker.say(
            &[key("runs")],
            "a rehearsal without runs shows nothing".to_owned(),
            None,
        );
    }
    for (i, run) in spec.runs.iter().enumerate() {
        checker.run(&[key("runs"), Step::Index(i)], run);
    }
    checker.findings
}

struct Checker<'a> {
    environment: Option<&'a EnvironmentSpec>,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn say(&mut self, path: &[Step], message: String, hint: Option<String>) {
        self.findings.push(Finding {
            path: path.to_vec(),
            message,
            hint,
        });
    }

    fn disturbance(&mut self, at: &[Step], disturbance: &Disturbance) {
        let Disturbance {
            name,
            hold_row,
            restart_component,
            kill_node,
            fill_disk,
        } = disturbance;
        let given = [
            hold_row.is_some(),
            restart_component.is_some(),
            kill_node.is_some(),
            fill_disk.is_some(),
        ];
        let n = given.iter().filter(|g| **g).count();
        if n != 1 {
            self.say(
                at,
                format!("disturbance `{name}` is of {n} kinds, and must be of exactly one"),
                Some("give one of `holdRow`, `restartComponent`, `killNode` and `fillDisk`".to_owned()),
            );
        }
        let Some(environment) = self.environment else { return };
        let components = environment.components.iter();
        if let Some(hold) = hold_row {
            let there: Vec<&str> = environment.databases.iter().map(|d| d.name.as_str()).collect();
            self.refers(at, ["holdRow", "database"], "database", &hold.database, &there);
        }
        if let Some(restart) = restart_component {
            let there: Vec<&str> = components.clone().map(|c| c.name.as_str()).collect();
            self.refers(
                at,
                ["restartComponent", "component"],
                "component",
                &restart.component,
                &there,
            );
        }
        let local = components.flat_map(|c| &c.nodes).filter(|n| n.host.is_none());
        let local: Vec<&str> = local.map(|n| n.name.as_str()).collect();
        if let Some(kill) = kill_node {
            self.refers(at, ["killNode", "node"], "node of this machine", &kill.node, &local);
        }
        if let Some(fill) = fill_disk {
            self.refers(at, ["fillDisk", "node"], "node of this machine", &fill.node, &local);
        }
    }

    fn build(&mut self, at: &[Step], build: &str) {
        let named = build.split_once('=').filter(|(c, v)| !c.is_empty() && !v.is_empty());
        match (named, self.environment) {
            (None, _) => self.say(
                at,
                format!("`{build}` does not name a build"),
                Some("write COMPONENT=VERSION".to_owned()),
            ),
            (Some((component, _)), Some(environment)) => {
                // Builds of pods may be objects that somebody has made.
                let upgraded = environment
                    .components
                    .iter()
                    .filter(|c| c.source.is_some() || c.pods().is_some());
                let there: Vec<&str> = upgraded.map(|c| c.name.as_str()).collect();
                self.refers(at, [], "component with a `source`", component, &there);
            }
            (Some(_), None) => {}
        }
    }

    fn run(&mut self, at: &[Step], run: &Run) {
        self.build(&super::below(at, &[key("build")]), &run.build);
        if let Some(pattern) = &run.expect.blocker_statement
            && let Err(why) = regex::Regex::new(pattern)
        {
            self.say(
                &super::below(at, &[key("expect"), key("blockerStatement")]),
                format!("`{pattern}` is no regular expression: {why}"),
                None,
            );
        }
    }

    fn refers<const N: usize>(&mut self, at: &[Step], keys: [&str; N], what: &str, name: &str, there: &[&str]) {
        if there.contains(&name) {
            return;
        }
        let hint = match did_you_mean(name, there.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "it has {}",
                if there.is_empty() {
                    "none".to_owned()
                } else {
                    there.join(", ")
                }
            ),
        };
        self.say(
            &super::below(at, &keys.map(key)),
            format!("the environment has no {what} `{name}`"),
            Some(hint),
        );
    }
}
