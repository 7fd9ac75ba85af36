//! Full runs of commits' hooks: one at a time, from the queue in the store, on a thread of their own.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::commits::proof::{Outcome, Verdict};
use crate::commits::sandbox::{self, Ask, AskedBase, Judged, Means, Sandbox};
use crate::commits::tracker::Trackers;
use crate::engine::interrupt::Interrupt;
use crate::home::Home;
use crate::report::Lines;
use crate::settings;
use crate::store::lease::local_liveness;
use crate::store::runs::{Attempt, Claimed, MOST_ATTEMPTS, Run, RunKey};
use crate::store::{Holder, StoreError};
use crate::workspace::Workspace;

/// Between two looks for runs: who pushed looks for the verdict in seconds at the earliest, and a look is one small query.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What proved nothing is tried again after this: a package index that did not answer is back in minutes.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// Commits of a push that are named in the log; `stagegate verdict show` has all.
const MOST_TOLD: usize = 20;

/// Told each verdict once it is stored: where signing goes.
pub type OnVerdict = Arc<dyn Fn(&Verdict) + Send + Sync>;

/// What runs hooks for a server.
pub(super) struct HookRuns {
    pub(super) home: Home,
    pub(super) workspace: Workspace,
    pub(super) interrupt: Interrupt,
    pub(super) lines: Arc<dyn Lines>,
    pub(super) on_verdict: OnVerdict,
}

impl HookRuns {
    /// Runs hooks until interrupted. Blocks: bwrap ends its sandbox when the thread that began it ends, and reading a
    /// repository takes its time.
    pub(super) fn work(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let holder = Holder::current(settings::user());
        match (runtime, holder) {
            (Ok(runtime), Ok(holder)) => runtime.block_on(self.until_interrupted(&holder)),
            (Err(why), _) | (_, Err(why)) => tracing::warn!(%why, "no hooks of commits are run"),
        }
    }

    async fn until_interrupted(&self, holder: &Holder) {
        if let Err(why) = Sandbox::find().await {
            self.tell(&format!("hooks of commits cannot be proven here: {why}"));
        }
        while !self.interrupt.is_set() {
            match self.home.store().claim_run(holder, Timestamp::now(), &local_liveness) {
                Ok(Some(Claimed::GivenUp(run))) => {
                    self.tell(&format!("ALERT: {}", given_up(&run)));
                    continue;
                }
                Ok(Some(Claimed::Begun(run))) => {
                    if let Err(why) = self.one(&run, holder).await {
                        tracing::warn!(%why, commit = run.ask.key.commit, "what came of a run of hooks is not kept");
                    }
                    continue;
                }
                Ok(None) => {}
                Err(why) => tracing::warn!(%why, "cannot look for runs of hooks"),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.interrupt.wait() => {}
            }
        }
    }

    async fn one(&self, run: &Run, holder: &Holder) -> Result<(), StoreError> {
        let store = self.home.store();
        let (id, name) = (
            run.id,
            format!("{} of {}", short(&run.ask.key.commit), run.ask.key.repository),
        );
        self.tell(&format!("running the hooks of {name}"));
        let trackers = Trackers::of(&self.home, &self.workspace);
        let means = Means {
            state: self.home.root(),
            trackers: &trackers,
        };
        let judged = tokio::select! {
            judged = judge(means, run) => judged,
            () = self.interrupt.wait() => {
                self.tell(&format!("the hooks of {name} are broken off, and begun anew by the next server"));
                return store.end_run(id, holder, Attempt::BrokenOff);
            }
        };
        let again = Timestamp::now().saturating_add(AGAIN_AFTER).unwrap_or(Timestamp::MAX);
        let verdict = match judged {
            Ok(judged) => judged.blamed(means, self.interrupt.wait()).await,
            Err(why) => {
                self.tell(&format!("the hooks of {name} did not run: {why}"));
                store.end_run(id, holder, Attempt::Failed(&why, again))?;
                if run.attempts >= MOST_ATTEMPTS {
                    let last_error = Some(why);
                    let run = Run {
                        last_error,
                        ..run.clone()
                    };
                    self.tell(&format!("ALERT: {}", given_up(&run)));
                }
                return Ok(());
            }
        };
        let (word, attempt) = match &verdict.outcome {
            Outcome::Passed => ("passed".to_owned(), Attempt::Done(&verdict)),
            Outcome::Failed => (
                format!("failed (findings: {})", verdict.findings.len()),
                Attempt::Done(&verdict),
            ),
            Outcome::NotProven { why } => (format!("are not proven: {why}"), Attempt::NotProven(&verdict, again)),
        };
        store.end_run(id, holder, attempt)?;
        self.tell(&format!("the hooks of {name} {word}"));
        for blame in verdict.blames.iter().take(MOST_TOLD) {
            self.tell(&format!("  {blame}"));
        }
        (self.on_verdict)(&verdict);
        Ok(())
    }

    fn tell(&self, line: &str) {
        // Nobody is there to be told that nobody reads.
        let _ = self.lines.line(line);
    }
}

/// Runs what a row asks for.
async fn judge(means: Means<'_>, run: &Run) -> Result<Judged, String> {
    let unreadable = |what: &str| format!("its row in the state names {what}, which cannot be read");
    let key = &run.ask.key;
    let tip = run.ask.base_tip.as_deref().map(git2::Oid::from_str).transpose();
    let ask = Ask {
        repository: key.repository.clone().into(),
        commit: git2::Oid::from_str(&key.commit).map_err(|_| unreadable(&key.commit))?,
        base: AskedBase {
            branch: run.ask.base_branch.clone(),
            tip: tip.map_err(|_| unreadable("the base"))?,
            policy: Some(key.policy.parse().map_err(|_| unreadable(&key.policy))?),
        },
    };
    sandbox::run(means, &ask).await.map_err(|why| why.to_string())
}

/// What is said of a run that nobody begins again by himself.
fn given_up(run: &Run) -> String {
    let RunKey { repository, commit, .. } = &run.ask.key;
    format!(
        "the hooks of {} of {repository} are given up after {} attempts, and the commit is not proven: {}; `stagegate verdict run \
         {commit} --repository {repository}` runs them by itself",
        short(commit),
        run.attempts,
        run.last_error.as_deref().unwrap_or("no attempt came to a verdict")
    )
}

fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::store::Liveness;
    use crate::store::runs::RunAsk;

    struct Heard(Mutex<Vec<String>>);

    impl Lines for Heard {
        fn line(&self, line: &str) -> std::io::Result<()> {
            let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push(line.to_owned());
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_run_that_cannot_be_made_is_given_up_aloud_after_its_last_attempt() {
        let place = tempfile::tempdir().expect("a directory");
        let home = Home::open(&place.path().join("state")).expect("a home");
        let ask = RunAsk {
            key: RunKey {
                repository: place.path().join("gone.git").display().to_string(),
                commit: "7".repeat(40),
                policy: crate::model::values::Digest::of(b"").to_string(),
                engine: "1".to_owned(),
            },
            reference: None,
            base_branch: None,
            base_tip: None,
        };
        home.store().enqueue_run(&ask, Timestamp::now()).expect("queued");
        let heard = Arc::new(Heard(Mutex::default()));
        let (_interrupter, interrupt) = Interrupt::new();
        let runs = HookRuns {
            home: home.clone(),
            workspace: Workspace::at(place.path().to_owned()),
            interrupt,
            lines: Arc::clone(&heard) as Arc<dyn Lines>,
            on_verdict: Arc::new(|_| {}),
        };
        let holder = Holder::current("tester".to_owned()).expect("it is known");
        for attempt in 1..=MOST_ATTEMPTS {
            // Each is put off by some minutes.
            let then = Timestamp::now() + AGAIN_AFTER * i32::try_from(attempt).expect("few");
            let claimed = home
                .store()
                .claim_run(&holder, then, &|_| Liveness::Alive)
                .expect("taken");
            let Some(Claimed::Begun(run)) = claimed else {
                panic!("{claimed:?}")
            };
            runs.one(&run, &holder).await.expect("kept");
            let alerts = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
            let alerts: Vec<&String> = alerts.iter().filter(|line| line.starts_with("ALERT: ")).collect();
            assert_eq!(alerts.len(), usize::from(attempt == MOST_ATTEMPTS), "{alerts:?}");
            assert!(
                alerts.iter().all(|line| line.contains("given up after 3 attempts")),
                "{alerts:?}"
            );
        }
        assert_eq!(home.store().given_up_runs().expect("counted"), 1);
    }
}
