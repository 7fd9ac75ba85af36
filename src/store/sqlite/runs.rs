//! The queue of full runs. A row waits, is taken by one process at a time, and ends with a verdict.

use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::{Fault, SqliteStore, decode, encode, signed, time, unsigned};
use crate::commits::proof::{Outcome, Verdict};
use crate::store::runs::{
    Attempt, Claimed, Enqueued, KEEP_DONE_RUNS, MOST_ATTEMPTS, MOST_WAITING_RUNS, Run, RunAsk, RunKey, RunPhase,
};
use crate::store::{Holder, Liveness, StoreError};

const COLUMNS: &str = "id, repository, commit_id, policy, engine, reference, base_branch, base_tip, state, attempts, \
                       queued_us, not_before_us, started_us, holder, verdict, last_error";

impl SqliteStore {
    /// Asks for a run. What is asked already is not asked twice; what proved nothing is begun anew.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] when too many wait.
    pub fn enqueue_run(&self, ask: &RunAsk, now: Timestamp) -> Result<Enqueued, StoreError> {
        self.write("ask for a run of hooks", |tx| enqueue(tx, ask, now))
    }

    /// Takes the next run: the oldest that waits, or one whose process is dead. One that was begun too often ends instead; a next
    /// look finds the one after it.
    pub fn claim_run(
        &self,
        holder: &Holder,
        now: Timestamp,
        judge: &dyn Fn(&Holder) -> Liveness,
    ) -> Result<Option<Claimed>, StoreError> {
        // Most looks find nothing; those must not take the right to write from a driver.
        let waiting = self.read("look for runs of hooks", |tx| {
            let any: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM commit_runs WHERE state <> 'done')")?
                .query_row([], |row| row.get(0))?;
            Ok(any)
        })?;
        if !waiting {
            return Ok(None);
        }
        self.write("take a run of hooks", |tx| claim(tx, holder, now, judge))
    }

    /// Says how an attempt ended. Without effect when another process has taken the run meanwhile.
    pub fn end_run(&self, id: u64, holder: &Holder, how: Attempt<'_>) -> Result<(), StoreError> {
        self.write("note how a run of hooks ended", |tx| end(tx, id, holder, how))
    }

    /// Keeps a verdict that was come to outside of the queue, in the place of one that was asked for by the same key.
    pub fn put_verdict(&self, ask: &RunAsk, verdict: &Verdict, now: Timestamp) -> Result<(), StoreError> {
        self.write("keep a verdict", |tx| {
            let known = known(tx, &ask.key)?;
            let proves = !matches!(verdict.outcome, Outcome::NotProven { .. });
            if known.is_some_and(|known| known.proves_something()) && !proves {
                return Ok(());
            }
            tx.execute(
                "INSERT INTO commit_runs (repository, commit_id, policy, engine, reference, base_branch, base_tip, state,
                                          attempts, queued_us, verdict)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'done', 1, ?8, ?9)
                 ON CONFLICT (repository, commit_id, policy, engine)
                 DO UPDATE SET state = 'done', verdict = excluded.verdict, holder = NULL, last_error = NULL",
                params![
                    ask.key.repository,
                    ask.key.commit,
                    ask.key.policy,
                    ask.key.engine,
                    ask.reference,
                    ask.base_branch,
                    ask.base_tip,
                    now.as_microsecond(),
                    encode("a verdict", verdict)?,
                ],
            )?;
            Ok(())
        })
    }

    /// How many runs wait or are under way, and since when the oldest of them does.
    pub fn waiting_runs(&self) -> Result<(u64, Option<Timestamp>), StoreError> {
        self.read("count the runs of hooks", |tx| {
            let of_row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?));
            let (count, oldest) = tx
                .prepare_cached("SELECT count(*), min(queued_us) FROM commit_runs WHERE state <> 'done'")?
                .query_row([], of_row)?;
            Ok((unsigned(count), oldest.map(time)))
        })
    }

    /// How many of those that are kept ended without a verdict.
    pub fn given_up_runs(&self) -> Result<u64, StoreError> {
        self.read("count the runs of hooks", |tx| {
            let count: i64 = tx
                .prepare_cached("SELECT count(*) FROM commit_runs WHERE state = 'done' AND last_error IS NOT NULL")?
                .query_row([], |row| row.get(0))?;
            Ok(unsigned(count))
        })
    }

    /// The last runs, of one commit or of all, the oldest first.
    pub fn runs(&self, commit: Option<&str>, last: u32) -> Result<Vec<Run>, StoreError> {
        self.read("list runs of hooks", |tx| {
            let mut runs = tx
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM commit_runs WHERE ?1 IS NULL OR commit_id = ?1 ORDER BY id DESC LIMIT ?2"
                ))?
                .query_and_then(params![commit, last], run_of)?
                .collect::<Result<Vec<_>, Fault>>()?;
            runs.reverse();
            Ok(runs)
        })
    }
}

fn enqueue(tx: &Transaction<'_>, ask: &RunAsk, now: Timestamp) -> Result<Enqueued, Fault> {
    let waiting: i64 = tx.query_row("SELECT count(*) FROM commit_runs WHERE state <> 'done'", [], |row| {
        row.get(0)
    })?;
    let RunAsk {
        key,
        reference,
        base_branch,
        base_tip,
    } = ask;
    if let Some(known) = known(tx, key)? {
        if known.phase != RunPhase::Done || known.proves_something() {
            return Ok(Enqueued::Known);
        }
        tx.execute(
            "UPDATE commit_runs SET state = 'queued', attempts = 0, queued_us = ?2, not_before_us = 0 WHERE id = ?1",
            params![signed(known.id), now.as_microsecond()],
        )?;
        return Ok(Enqueued::Again);
    }
    if unsigned(waiting) >= MOST_WAITING_RUNS {
        return Err(Fault::Refused(StoreError::TooMany {
            what: "runs of hooks".to_owned(),
            most: MOST_WAITING_RUNS,
        }));
    }
    tx.execute(
        "INSERT INTO commit_runs (repository, commit_id, policy, engine, reference, base_branch, base_tip, state, queued_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'queued', ?8)",
        params![
            key.repository,
            key.commit,
            key.policy,
            key.engine,
            reference,
            base_branch,
            base_tip,
            now.as_microsecond(),
        ],
    )?;
    Ok(Enqueued::New)
}

fn known(tx: &Transaction<'_>, key: &RunKey) -> Result<Option<Run>, Fault> {
    tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM commit_runs WHERE repository = ?1 AND commit_id = ?2 AND policy = ?3 AND engine = ?4"
    ))?
    .query_and_then(params![key.repository, key.commit, key.policy, key.engine], run_of)?
    .next()
    .transpose()
}

fn claim(
    tx: &Transaction<'_>,
    holder: &Holder,
    now: Timestamp,
    judge: &dyn Fn(&Holder) -> Liveness,
) -> Result<Option<Claimed>, Fault> {
    let open = tx
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM commit_runs WHERE state <> 'done' ORDER BY id"
        ))?
        .query_and_then([], run_of)?
        .collect::<Result<Vec<_>, Fault>>()?;
    for mut run in open {
        let free = match &run.phase {
            RunPhase::Queued { not_before } => *not_before <= now,
            // One process has the home's seat, so one that is not seen to live is not one that works.
            RunPhase::Running { by, .. } => by == holder || judge(by) != Liveness::Alive,
            RunPhase::Done => false,
        };
        if !free {
            continue;
        }
        if run.attempts >= MOST_ATTEMPTS {
            let why = format!("it was begun {MOST_ATTEMPTS} times and its server did not live to its end");
            tx.execute(
                "UPDATE commit_runs SET state = 'done', holder = NULL, last_error = ?2 WHERE id = ?1",
                params![signed(run.id), why],
            )?;
            run.phase = RunPhase::Done;
            run.last_error = Some(why);
            return Ok(Some(Claimed::GivenUp(run)));
        }
        run.attempts += 1;
        run.phase = RunPhase::Running {
            since: now,
            by: holder.clone(),
        };
        tx.execute(
            "UPDATE commit_runs SET state = 'running', attempts = ?2, started_us = ?3, holder = ?4 WHERE id = ?1",
            params![
                signed(run.id),
                run.attempts,
                now.as_microsecond(),
                encode("who runs hooks", holder)?
            ],
        )?;
        return Ok(Some(Claimed::Begun(run)));
    }
    Ok(None)
}

fn end(tx: &Transaction<'_>, id: u64, holder: &Holder, how: Attempt<'_>) -> Result<(), Fault> {
    let (verdict, error, again) = match how {
        Attempt::Done(verdict) => (Some(verdict), None, None),
        Attempt::NotProven(verdict, at) => (Some(verdict), None, Some(at)),
        Attempt::Failed(why, at) => (None, Some(why), Some(at)),
        Attempt::BrokenOff => {
            tx.execute(
                "UPDATE commit_runs SET state = 'queued', holder = NULL, attempts = attempts - 1
                 WHERE id = ?1 AND state = 'running' AND holder = ?2",
                params![signed(id), encode("who runs hooks", holder)?],
            )?;
            return Ok(());
        }
    };
    let verdict = verdict.map(|verdict| encode("a verdict", verdict)).transpose()?;
    let again_us = again.map(Timestamp::as_microsecond);
    tx.execute(
        "UPDATE commit_runs
         SET state = CASE WHEN ?5 IS NOT NULL AND attempts < ?6 THEN 'queued' ELSE 'done' END,
             not_before_us = coalesce(?5, 0), holder = NULL, verdict = coalesce(?3, verdict), last_error = ?4
         WHERE id = ?1 AND state = 'running' AND holder = ?2",
        params![
            signed(id),
            encode("who runs hooks", holder)?,
            verdict,
            error,
            again_us,
            MOST_ATTEMPTS
        ],
    )?;
    Ok(())
}

/// Drops the oldest that are done beyond the bound.
pub(super) fn prune(tx: &Transaction<'_>) -> Result<u64, Fault> {
    let gone = tx.execute(
        "DELETE FROM commit_runs WHERE state = 'done' AND id <=
           (SELECT id FROM commit_runs WHERE state = 'done' ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        [signed(KEEP_DONE_RUNS)],
    )?;
    Ok(gone as u64)
}

fn run_of(row: &Row<'_>) -> Result<Run, Fault> {
    let id = unsigned(row.get("id")?);
    let what = format!("run {id}");
    let state: String = row.get("state")?;
    let holder: Option<String> = row.get("holder")?;
    let verdict: Option<String> = row.get("verdict")?;
    let phase = match (state.as_str(), holder) {
        ("done", _) => RunPhase::Done,
        ("running", Some(holder)) => RunPhase::Running {
            since: time(row.get::<_, Option<i64>>("started_us")?.unwrap_or_default()),
            by: decode(&what, &holder)?,
        },
        // A running one without who runs it is nobody's.
        (_, _) => RunPhase::Queued {
            not_before: time(row.get("not_before_us")?),
        },
    };
    Ok(Run {
        id,
        ask: RunAsk {
            key: RunKey {
                repository: row.get("repository")?,
                commit: row.get("commit_id")?,
                policy: row.get("policy")?,
                engine: row.get("engine")?,
            },
            reference: row.get("reference")?,
            base_branch: row.get("base_branch")?,
            base_tip: row.get("base_tip")?,
        },
        phase,
        attempts: row.get("attempts")?,
        queued_at: time(row.get("queued_us")?),
        verdict: verdict.map(|text| decode(&what, &text)).transpose()?,
        last_error: row.get("last_error")?,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::commits::proof::{Engine, Subject};
    use crate::model::values::Digest;

    fn ask(commit: &str) -> RunAsk {
        RunAsk {
            key: RunKey {
                repository: "/srv/a.git".to_owned(),
                commit: commit.to_owned(),
                policy: Digest::of(b"").to_string(),
                engine: "1".to_owned(),
            },
            reference: Some("refs/heads/main".to_owned()),
            base_branch: None,
            base_tip: None,
        }
    }

    fn holder(pid: u32) -> Holder {
        Holder {
            user: "git".to_owned(),
            host: "here".to_owned(),
            pid,
            start_ticks: 1,
            boot_id: "b".to_owned(),
            pid_namespace: "p".to_owned(),
        }
    }

    fn verdict(outcome: Outcome) -> Verdict {
        Verdict {
            subject: Subject {
                repository: "/srv/a.git".to_owned(),
                commit: "c".to_owned(),
                tree: "t".to_owned(),
            },
            policy: Digest::of(b""),
            engine: Engine {
                name: "stagegate".to_owned(),
                version: "1".to_owned(),
            },
            hooks: Vec::new(),
            outcome,
            findings: Vec::new(),
            issues: Vec::new(),
            blames: Vec::new(),
            started_at: at(0),
            finished_at: at(1),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[track_caller]
    fn taken(store: &SqliteStore, by: u32, now: Timestamp, judge: &dyn Fn(&Holder) -> Liveness) -> Run {
        match store.claim_run(&holder(by), now, judge).expect("looked") {
            Some(Claimed::Begun(run)) => run,
            other => panic!("{other:?}"),
        }
    }

    fn not_proven() -> Verdict {
        verdict(Outcome::NotProven { why: "no".to_owned() })
    }

    #[test]
    fn what_is_asked_twice_is_run_once_in_the_order_it_was_asked() {
        let store = SqliteStore::in_memory("h").expect("a store");
        let alive = |_: &Holder| Liveness::Alive;
        for (commit, expected) in [("a", Enqueued::New), ("b", Enqueued::New), ("a", Enqueued::Known)] {
            assert_eq!(store.enqueue_run(&ask(commit), at(1)).expect("asked"), expected);
        }
        let first = taken(&store, 1, at(2), &alive);
        assert_eq!((first.ask.key.commit.as_str(), first.attempts), ("a", 1));
        let second = taken(&store, 2, at(2), &alive);
        assert_eq!(second.ask.key.commit, "b");
        assert_eq!(store.claim_run(&holder(3), at(2), &alive).expect("looked"), None);
        store
            .end_run(first.id, &holder(1), Attempt::Done(&verdict(Outcome::Failed)))
            .expect("ended");
        assert_eq!(store.enqueue_run(&ask("a"), at(3)).expect("asked"), Enqueued::Known);
        let known = &store.runs(Some("a"), 9).expect("listed")[0];
        assert_eq!(
            (known.phase.clone(), known.verdict.clone()),
            (RunPhase::Done, Some(verdict(Outcome::Failed)))
        );
    }

    #[test]
    fn a_dead_servers_run_is_taken_again_and_its_late_word_does_not_count() {
        let store = SqliteStore::in_memory("h").expect("a store");
        store.enqueue_run(&ask("a"), at(1)).expect("asked");
        let living = Cell::new(Liveness::Alive);
        let judge = |_: &Holder| living.get();
        let first = taken(&store, 1, at(2), &judge);
        assert_eq!(store.claim_run(&holder(2), at(2), &judge).expect("looked"), None);
        living.set(Liveness::Dead);
        let again = taken(&store, 2, at(3), &judge);
        assert_eq!((again.id, again.attempts), (first.id, 2));
        store
            .end_run(first.id, &holder(1), Attempt::Done(&verdict(Outcome::Passed)))
            .expect("no error");
        assert!(store.runs(None, 9).expect("listed")[0].verdict.is_none());
        // Broken off is not held against it; killed is, and the fourth time nobody begins it.
        store.end_run(again.id, &holder(2), Attempt::BrokenOff).expect("ended");
        for attempt in [2, 3] {
            let run = taken(&store, 2, at(4), &judge);
            assert_eq!(run.attempts, attempt);
        }
        assert_eq!(store.given_up_runs().expect("counted"), 0);
        let given_up = store.claim_run(&holder(2), at(5), &judge).expect("looked");
        let ended = &store.runs(None, 9).expect("listed")[0];
        assert_eq!(given_up, Some(Claimed::GivenUp(ended.clone())), "it is said once");
        assert_eq!(store.claim_run(&holder(2), at(5), &judge).expect("looked"), None);
        assert_eq!(store.given_up_runs().expect("counted"), 1);
        assert_eq!(ended.phase, RunPhase::Done);
        assert!(
            ended
                .last_error
                .as_deref()
                .is_some_and(|why| why.contains("begun 3 times")),
            "{ended:?}"
        );
        assert!(!ended.proves_something());
        assert_eq!(store.enqueue_run(&ask("a"), at(6)).expect("asked"), Enqueued::Again);
    }

    #[test]
    fn what_proves_nothing_is_tried_again_later_and_not_for_ever() {
        let store = SqliteStore::in_memory("h").expect("a store");
        store.enqueue_run(&ask("a"), at(1)).expect("asked");
        let alive = |_: &Holder| Liveness::Alive;
        for attempt in 1..=MOST_ATTEMPTS {
            let now = at(10 * i64::from(attempt));
            let run = taken(&store, 1, now, &alive);
            let later = at(10 * i64::from(attempt) + 5);
            store
                .end_run(run.id, &holder(1), Attempt::NotProven(&not_proven(), later))
                .expect("ended");
            assert_eq!(store.claim_run(&holder(1), now, &alive).expect("looked"), None);
        }
        let ended = &store.runs(None, 9).expect("listed")[0];
        assert_eq!(
            (ended.phase.clone(), ended.verdict.clone()),
            (RunPhase::Done, Some(not_proven()))
        );
        store
            .put_verdict(&ask("a"), &verdict(Outcome::Passed), at(99))
            .expect("kept");
        assert!(store.runs(None, 9).expect("listed")[0].proves_something());
    }
}
