//! The schedule in virtual time: what a scripted node answers, and when, is known to the microsecond.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use tokio::time::{advance, sleep};

use super::*;
use crate::signals::{Observations, feed};

/// A node that answers each call after the same delay, or never.
#[derive(Debug, Clone)]
struct Scripted {
    delay: Option<Duration>,
    answer: Result<Answer, String>,
    prepared_after: Result<Duration, String>,
    effect: Result<Effect, String>,
    effect_after: Duration,
    sent_at: Arc<Mutex<Vec<Instant>>>,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            delay: Some(Duration::from_millis(20)),
            answer: Ok(Answer::Right),
            prepared_after: Ok(Duration::ZERO),
            effect: Ok(Effect::Seen),
            effect_after: Duration::ZERO,
            sent_at: Arc::default(),
        }
    }
}

impl Call for Scripted {
    fn prepare(&self, _: CallId) -> BoxFuture<'_, Result<(), String>> {
        async {
            sleep(self.prepared_after.clone()?).await;
            Ok(())
        }
        .boxed()
    }
    fn send(&self, _: CallId) -> BoxFuture<'_, Result<Answer, String>> {
        async {
            lock(&self.sent_at).push(Instant::now());
            match self.delay {
                Some(delay) => sleep(delay).await,
                None => std::future::pending().await,
            }
            self.answer.clone()
        }
        .boxed()
    }
    fn effect(&self, _: CallId) -> BoxFuture<'_, Result<Effect, String>> {
        async {
            sleep(self.effect_after).await;
            self.effect.clone()
        }
        .boxed()
    }
}

fn plan() -> TrafficPlan {
    TrafficPlan {
        signal: "traffic/t".to_owned(),
        rate_per_s: 5.0,
        concurrency: 1000,
        age: Duration::from_secs(5),
        timeout: Duration::from_mins(1),
        lead: PREPARE_LEAD,
    }
}

fn start(plan: TrafficPlan, node: &Scripted) -> (TrafficHandle, Observations) {
    let (feed, observations) = feed(10_000);
    let traffic = TrafficHandle::start(plan, feed).expect("a plan of a test");
    traffic.set_target("node1", Some(target(node)));
    (traffic, observations)
}

fn target(node: &Scripted) -> Target {
    Target {
        build: "b1".to_owned(),
        call: Arc::new(node.clone()),
    }
}

fn samples(observed: &[Observed]) -> Vec<&Sample> {
    observed
        .iter()
        .filter_map(|one| match one {
            Observed::Sample(sample) => Some(sample),
            Observed::Afterwards(_) | Observed::Trouble(_) => None,
        })
        .collect()
}

fn troubles(observed: &[Observed]) -> Vec<&str> {
    observed
        .iter()
        .filter_map(|one| match one {
            Observed::Trouble(trouble) => Some(trouble.why.as_str()),
            Observed::Sample(_) | Observed::Afterwards(_) => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_schedule_goes_on_while_the_node_hangs() {
    let node = Scripted {
        delay: None,
        ..Scripted::default()
    };
    let begin = Instant::now();
    let (_traffic, _observations) = start(plan(), &node);
    sleep(Duration::from_secs(11)).await;
    let sent: Vec<u128> = lock(&node.sent_at).iter().map(|at| (*at - begin).as_millis()).collect();
    // The timer wheel counts whole milliseconds and rounds up.
    let due: Vec<u128> = (500..=11_000).step_by(200).collect();
    assert_eq!(sent.len(), due.len());
    for (sent, due) in sent.iter().zip(&due) {
        assert!((*due..=due + 2).contains(sent), "sent at {sent} ms, due at {due} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_late_at_its_age_not_at_its_end_and_counts_once() {
    let node = Scripted {
        delay: Some(Duration::from_millis(13_800)),
        ..Scripted::default()
    };
    let one_call = TrafficPlan {
        rate_per_s: 0.001,
        ..plan()
    };
    let (traffic, mut observations) = start(one_call, &node);
    sleep(Duration::from_millis(5_600)).await;
    let observed = observations.take();
    let [Observed::Sample(sample)] = observed.as_slice() else {
        panic!("{observed:?}");
    };
    assert_eq!((&sample.outcome, sample.latency_ms().round()), (&Outcome::Late, 5000.0));
    assert_eq!(traffic.in_flight("node1"), 1, "it is still on its way");
    assert!(traffic.take_acknowledged().is_empty());
    sleep(Duration::from_secs(10)).await;
    let observed = observations.take();
    let [Observed::Afterwards(after)] = observed.as_slice() else {
        panic!("no second sample: {observed:?}");
    };
    assert_eq!((after.seq, &after.end), (sample.seq, &LateEnd::Answered(Outcome::Ok)));
    assert!((13_800.0..13_810.0).contains(&after.after_ms), "{}", after.after_ms);
    assert_eq!(traffic.in_flight("node1"), 0);
    assert_eq!(traffic.take_acknowledged().len(), 1, "late, but acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_given_up_at_its_timeout() {
    let node = Scripted {
        delay: None,
        ..Scripted::default()
    };
    let one_call = TrafficPlan {
        rate_per_s: 0.001,
        timeout: Duration::from_secs(8),
        ..plan()
    };
    let (traffic, mut observations) = start(one_call, &node);
    sleep(Duration::from_secs(9)).await;
    let observed = observations.take();
    assert!(
        matches!(observed.as_slice(), [Observed::Sample(_), Observed::Afterwards(after)] if after.end == LateEnd::GivenUp),
        "{observed:?}"
    );
    assert_eq!(traffic.in_flight("node1"), 0);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_calls_are_shed_at_their_moment_and_not_sent() {
    let node = Scripted {
        delay: None,
        ..Scripted::default()
    };
    let bounded = TrafficPlan {
        concurrency: 3,
        ..plan()
    };
    let (_traffic, mut observations) = start(bounded, &node);
    // Ten moments: 0.5 s, 0.7 s … 2.3 s.
    sleep(Duration::from_millis(2_400)).await;
    let observed = observations.take();
    let shed: Vec<(u64, f64)> = samples(&observed)
        .iter()
        .filter(|sample| sample.outcome == Outcome::Shed)
        .map(|sample| (sample.seq, sample.latency_ms()))
        .collect();
    assert_eq!(shed, (3..10).map(|seq| (seq, 0.0)).collect::<Vec<_>>());
    assert_eq!(observed.len(), 7, "the three that hang have said nothing yet");
    assert_eq!(lock(&node.sent_at).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn each_answer_has_its_outcome_and_what_is_ours_has_none() {
    let wrong = || Answer::Wrong { why: "w".to_owned() };
    let refused = || Answer::Refused { why: "r".to_owned() };
    let missing = || Effect::Missing { why: "m".to_owned() };
    let ours = || "ours".to_owned();
    let ok = Scripted::default;
    let rows: [(&str, Scripted, Result<Outcome, &str>, usize); 7] = [
        ("right", ok(), Ok(Outcome::Ok), 1),
        (
            "wrong",
            Scripted {
                answer: Ok(wrong()),
                ..ok()
            },
            Ok(Outcome::Wrong { why: "w".to_owned() }),
            0,
        ),
        (
            "refused",
            Scripted {
                answer: Ok(refused()),
                ..ok()
            },
            Ok(Outcome::Refused { why: "r".to_owned() }),
            0,
        ),
        (
            "lost",
            Scripted {
                effect: Ok(missing()),
                ..ok()
            },
            Ok(Outcome::Lost { why: "m".to_owned() }),
            1,
        ),
        (
            "not prepared",
            Scripted {
                prepared_after: Err(ours()),
                ..ok()
            },
            Err("ours"),
            0,
        ),
        (
            "not sent",
            Scripted {
                answer: Err(ours()),
                ..ok()
            },
            Err("ours"),
            0,
        ),
        (
            "not checked",
            Scripted {
                effect: Err(ours()),
                ..ok()
            },
            Err("ours"),
            1,
        ),
    ];
    for (name, node, expected, acknowledged) in rows {
        let one_call = TrafficPlan {
            rate_per_s: 0.001,
            ..plan()
        };
        let (traffic, mut observations) = start(one_call, &node);
        sleep(Duration::from_secs(1)).await;
        let observed = observations.take();
        assert_eq!(observed.len(), 1, "{name}: {observed:?}");
        match expected {
            Ok(outcome) => assert_eq!(samples(&observed)[0].outcome, outcome, "{name}"),
            Err(why) => assert_eq!(troubles(&observed), [why], "{name}"),
        }
        assert_eq!(traffic.take_acknowledged().len(), acknowledged, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_database_never_counts_as_the_nodes_latency() {
    let node = Scripted {
        prepared_after: Ok(Duration::from_secs(3)),
        effect_after: Duration::from_secs(20),
        ..Scripted::default()
    };
    let one_call = TrafficPlan {
        rate_per_s: 0.001,
        ..plan()
    };
    let (traffic, mut observations) = start(one_call, &node);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(traffic.in_flight("node1"), 0, "the node has answered; we are reading");
    sleep(Duration::from_secs(20)).await;
    let observed = observations.take();
    let sample = samples(&observed)[0];
    assert_eq!(sample.outcome, Outcome::Ok);
    assert!((20.0..25.0).contains(&sample.latency_ms()), "{}", sample.latency_ms());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_held_us_up_blames_nobody() {
    let node = Scripted {
        delay: None,
        ..Scripted::default()
    };
    let (_traffic, mut observations) = start(plan(), &node);
    sleep(Duration::from_millis(1_050)).await;
    let before = lock(&node.sent_at).len();
    // All clocks jump at once, as after SIGSTOP: neither the calls in flight nor the ones missed can be judged.
    advance(Duration::from_secs(100)).await;
    sleep(Duration::from_millis(1)).await;
    let observed = observations.take();
    assert_eq!(samples(&observed).len(), 0, "{observed:?}");
    // Three in flight, three prepared, and one word for all those that were skipped.
    assert!(troubles(&observed).iter().all(|why| why.contains("held us up")));
    assert!(troubles(&observed).iter().any(|why| why.contains("were not sent")));
    assert_eq!(lock(&node.sent_at).len(), before, "no burst");
    // The schedule goes on where it should be now.
    sleep(Duration::from_millis(1_300)).await;
    assert!(lock(&node.sent_at).len() > before + 2);
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_gets_no_call_not_even_a_prepared_one_and_keeps_its_count() {
    let node = Scripted::default();
    let (traffic, mut observations) = start(plan(), &node);
    sleep(Duration::from_millis(1_050)).await;
    traffic.set_target("node1", None);
    let sent = lock(&node.sent_at).len();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(lock(&node.sent_at).len(), sent);
    assert_eq!(traffic.in_flight("node1"), 0);
    assert_eq!(samples(&observations.take()).len(), sent);
    let mut next = target(&node);
    next.build = "b2".to_owned();
    traffic.set_target("node1", Some(next));
    sleep(Duration::from_secs(2)).await;
    let observed = observations.take();
    let seqs: BTreeSet<u64> = samples(&observed).iter().map(|sample| sample.seq).collect();
    assert!(samples(&observed).iter().all(|sample| sample.build == "b2"));
    assert_eq!(seqs.len(), samples(&observed).len());
    assert!(seqs.first() >= Some(&(sent as u64)), "numbers never repeat: {seqs:?}");
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_what_is_in_flight_within_its_patience() {
    for (delay, patience_s, expected) in [
        (Some(Duration::from_secs(3)), 10, Stopped::Clean),
        (None, 10, Stopped::Dropped(3)),
    ] {
        let node = Scripted {
            delay,
            ..Scripted::default()
        };
        let (traffic, mut observations) = start(plan(), &node);
        sleep(Duration::from_millis(1_050)).await;
        let begin = Instant::now();
        assert_eq!(traffic.stop(Duration::from_secs(patience_s)).await, expected);
        assert!(begin.elapsed() <= Duration::from_millis(patience_s * 1000 + 5));
        assert_eq!(samples(&observations.take()).len(), 3, "late or answered, each counted");
        drop(traffic);
        assert_eq!(observations.next().await, None, "nothing runs any more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_looks_away_does_not_slow_the_calls() {
    let node = Scripted::default();
    let (to_nobody, mut observations) = feed(1);
    let traffic = TrafficHandle::start(plan(), to_nobody).expect("a plan of a test");
    traffic.set_target("node1", Some(target(&node)));
    sleep(Duration::from_millis(10_600)).await;
    assert_eq!(lock(&node.sent_at).len(), 51);
    assert_eq!(observations.take().len(), 1);
    assert_eq!(observations.take_dropped(), 50);
}

#[test]
fn call_ids_are_positive_below_2_to_the_53_and_never_repeat() {
    let ids: Vec<CallId> = (0..10_000).map(|_| next_call_id()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(ids[0] > 0 && *ids.last().expect("some") < 1 << 53);
}

#[test]
fn plans_that_cannot_be_carried_out_are_refused() {
    let (feed, _observations) = feed(1);
    for bad in [
        TrafficPlan {
            rate_per_s: 0.0,
            ..plan()
        },
        TrafficPlan {
            rate_per_s: f64::NAN,
            ..plan()
        },
        TrafficPlan {
            rate_per_s: 1e9,
            ..plan()
        },
        TrafficPlan {
            concurrency: 0,
            ..plan()
        },
        TrafficPlan {
            age: Duration::ZERO,
            ..plan()
        },
        TrafficPlan {
            timeout: Duration::from_secs(1),
            ..plan()
        },
    ] {
        assert!(TrafficHandle::start(bad.clone(), feed.clone()).is_err(), "{bad:?}");
    }
    let periodic = TrafficPlan::periodic(
        "probe/p".to_owned(),
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(5),
    );
    assert_eq!(periodic.concurrency, 7);
    assert!(TrafficHandle::start(periodic, feed).is_ok());
}
