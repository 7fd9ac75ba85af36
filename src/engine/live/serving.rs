//! Whether a node answers: consecutive probes since its service started.

use std::collections::BTreeMap;

use crate::model::environment::Probe;
use crate::model::sample::Sample;
use crate::rollout::Serving;

/// The probes of one node, counted since its present service was first seen.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Process and start of the service that is counted for.
    service: Option<(u32, i64)>,
    /// Probes sent before we saw it say nothing about it.
    since_us: i64,
    probes: BTreeMap<String, Run>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Run {
    good: u32,
    bad: u32,
    state: Serving,
}

impl Answers {
    /// Takes note of the service that runs now; another one than before starts the count anew.
    pub(super) fn service(&mut self, service: Option<(u32, i64)>, now_us: i64) {
        if self.service != service {
            self.service = service;
            self.since_us = now_us;
            self.probes.clear();
        }
    }

    /// Counts one probe. True when it changed what the node is taken for.
    pub(super) fn count(&mut self, probe: &Probe, sample: &Sample) -> bool {
        if self.service.is_none() || sample.intended_us < self.since_us {
            return false;
        }
        let run = self.probes.entry(probe.name.clone()).or_default();
        let before = run.state;
        if sample.outcome.is_ok() {
            run.good += 1;
            run.bad = 0;
            if run.good >= probe.success_threshold {
                run.state = Serving::Yes;
            }
        } else {
            run.bad += 1;
            run.good = 0;
            if run.bad >= probe.failure_threshold {
                run.state = Serving::No;
            }
        }
        run.state != before
    }

    /// What the node is taken for. A node without a service does not serve; one whose component has no probe is
    /// believed when its process lives.
    pub(super) fn serving<'a>(&self, mut probes: impl Iterator<Item = &'a str>) -> Serving {
        if self.service.is_none() {
            return Serving::No;
        }
        let mut all = Serving::Yes;
        for name in probes.by_ref() {
            match self.probes.get(name).map_or(Serving::Unknown, |run| run.state) {
                Serving::No => return Serving::No,
                Serving::Unknown => all = Serving::Unknown,
                Serving::Yes => {}
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::Outcome;

    fn probe() -> Probe {
        serde_json::from_value(serde_json::json!({
            "name": "alive", "http": {"url": "http://x/"}, "failureThreshold": 2, "successThreshold": 1
        }))
        .expect("a probe")
    }

    fn sample(at: i64, outcome: Outcome) -> Sample {
        Sample {
            signal: "probe/alive".into(),
            seq: 0,
            node: "n".into(),
            build: String::new(),
            intended_us: at,
            resolved_us: at,
            outcome,
        }
    }

    #[test]
    fn a_restarted_service_must_answer_anew_and_one_bad_probe_is_not_a_sick_node() {
        let probe = probe();
        let mut answers = Answers::default();
        let serving = |answers: &Answers| answers.serving(["alive"].into_iter());
        assert_eq!(serving(&answers), Serving::No, "no service");
        answers.service(Some((7, 1)), 100);
        assert_eq!(serving(&answers), Serving::Unknown);
        assert!(
            !answers.count(&probe, &sample(99, Outcome::Ok)),
            "sent before we saw it"
        );
        assert!(answers.count(&probe, &sample(101, Outcome::Ok)));
        assert_eq!(serving(&answers), Serving::Yes);
        answers.count(&probe, &sample(102, Outcome::Late));
        assert_eq!(serving(&answers), Serving::Yes);
        answers.count(&probe, &sample(103, Outcome::Late));
        assert_eq!(serving(&answers), Serving::No);
        answers.service(Some((8, 2)), 200);
        assert_eq!(serving(&answers), Serving::Unknown);
        answers.service(None, 300);
        assert_eq!(serving(&answers), Serving::No);
    }
}
