//! Who leads, of several controllers: one at a time, by a `Lease` of the API server. Pure: what was read, when, and what to do.
//!
//! The clocks of two machines are never compared. A holder has lost its lease when *we* have seen its record unchanged for as long
//! as the lease is good for; a leader stops by itself well before that ([`RENEW_DEADLINE`]). So two never lead at once, as long as no
//! clock runs faster than another by more than the quotient of the two times, a half.

use std::time::Duration;

/// A record that stays the same for this long has no holder any more: as other controllers of Kubernetes have it.
pub const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not say for this long that it lives leads no more: two thirds of [`DURATION`].
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts to have it, or to keep it: five fit into the deadline.
pub const RETRY: Duration = Duration::from_secs(2);

/// A lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who has it; nobody after it was given back.
    pub holder: Option<String>,
    /// Changes with every write.
    pub version: String,
    /// How long it is good for, as its holder says.
    pub duration: Duration,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It is free, or its holder is gone: write ourselves into it.
    Take,
    /// It is ours: say so again.
    Renew,
    /// Another has it.
    Wait,
}

/// Who would lead. Times are of its own clock, which only goes forward.
#[derive(Debug, Clone)]
pub struct Candidate {
    me: String,
    seen: Option<(Record, Duration)>,
    renewed_at: Option<Duration>,
}

impl Candidate {
    /// One of this name, which no other has or ever had.
    #[must_use]
    pub fn new(me: String) -> Self {
        Self {
            me,
            seen: None,
            renewed_at: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.me
    }

    /// What to do about the lease, which was read just now; `None` when there is none.
    pub fn look(&mut self, record: Option<&Record>, now: Duration) -> Move {
        match (record, &self.seen) {
            (None, _) => self.seen = None,
            (Some(record), Some((before, _))) if before == record => {}
            (Some(record), _) => self.seen = Some((record.clone(), now)),
        }
        evaluate(self.seen.as_ref().map(|(record, at)| (record, *at)), &self.me, now)
    }

    /// It was written with us as its holder, which was asked for at this time.
    pub fn holds_since(&mut self, asked_at: Duration) {
        self.renewed_at = Some(asked_at);
    }

    /// It was seen to be somebody else's, or was given back.
    pub fn holds_no_more(&mut self) {
        self.renewed_at = None;
    }

    /// Whether it may act as the leader.
    #[must_use]
    pub fn leads(&self, now: Duration) -> bool {
        self.leads_for(now).is_some()
    }

    /// How long it still may, if it does.
    #[must_use]
    pub fn leads_for(&self, now: Duration) -> Option<Duration> {
        let since = now.saturating_sub(self.renewed_at?);
        RENEW_DEADLINE.checked_sub(since).filter(|left| !left.is_zero())
    }
}

/// What to do about a lease that was first seen as it is at `observed_at`, by the clock that `now` is of.
#[must_use]
pub fn evaluate(lease: Option<(&Record, Duration)>, me: &str, now: Duration) -> Move {
    let Some((record, observed_at)) = lease else {
        return Move::Take;
    };
    match &record.holder {
        None => Move::Take,
        Some(holder) if holder == me => Move::Renew,
        Some(_) if now.saturating_sub(observed_at) > record.duration => Move::Take,
        Some(_) => Move::Wait,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The API server's side: a write names the version that it was read with.
    #[derive(Default)]
    struct Server {
        lease: Option<Record>,
        writes: u64,
    }

    impl Server {
        fn write(&mut self, holder: Option<&str>, read: Option<&str>) -> bool {
            if self.lease.as_ref().map(|l| l.version.as_str()) != read {
                return false;
            }
            self.writes += 1;
            self.lease = Some(Record {
                holder: holder.map(str::to_owned),
                version: self.writes.to_string(),
                duration: DURATION,
            });
            true
        }
    }

    /// A candidate whose clock runs at so many thousandths, and what it has read and not written yet.
    struct Runs {
        candidate: Candidate,
        rate: u64,
        read: Option<(Move, Option<String>, Duration)>,
    }

    impl Runs {
        fn now(&self, world_ms: u64) -> Duration {
            Duration::from_micros(world_ms * self.rate)
        }

        fn read(&mut self, server: &Server, world_ms: u64) {
            let now = self.now(world_ms);
            let moves = self.candidate.look(server.lease.as_ref(), now);
            if moves == Move::Wait {
                self.candidate.holds_no_more();
            }
            self.read = Some((moves, server.lease.as_ref().map(|l| l.version.clone()), now));
        }

        fn write(&mut self, server: &mut Server) {
            if let Some((Move::Take | Move::Renew, version, asked_at)) = self.read.take()
                && server.write(Some(self.candidate.name()), version.as_deref())
            {
                self.candidate.holds_since(asked_at);
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Read(usize),
        Write(usize),
        GiveBack(usize),
        Pass(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0..3_usize).prop_map(Act::Read),
            4 => (0..3_usize).prop_map(Act::Write),
            1 => (0..3_usize).prop_map(Act::GiveBack),
            4 => (1..4_000_u64).prop_map(Act::Pass),
            1 => (9_000..20_000_u64).prop_map(Act::Pass),
        ]
    }

    proptest! {
        #[test]
        fn two_never_lead_and_in_the_end_one_does(
            rates in proptest::array::uniform3(850..1_150_u64),
            acts in proptest::collection::vec(act(), 0..200),
        ) {
            let mut server = Server::default();
            let mut all: Vec<Runs> = rates
                .iter()
                .zip(["a", "b", "c"])
                .map(|(rate, name)| Runs { candidate: Candidate::new(name.to_owned()), rate: *rate, read: None })
                .collect();
            let leaders = |all: &[Runs], at: u64| all.iter().filter(|r| r.candidate.leads(r.now(at))).count();
            let mut at = 0;
            for act in acts {
                match act {
                    Act::Read(who) => all[who].read(&server, at),
                    Act::Write(who) => all[who].write(&mut server),
                    Act::GiveBack(who) => {
                        let leads = all[who].candidate.leads(all[who].now(at));
                        let version = server.lease.as_ref().map(|l| l.version.clone());
                        let ours = server.lease.as_ref().is_some_and(|l| l.holder.as_deref() == Some(all[who].candidate.name()));
                        if leads && ours {
                            all[who].candidate.holds_no_more();
                            all[who].read = None;
                            server.write(None, version.as_deref());
                        }
                    }
                    Act::Pass(ms) => at += ms,
                }
                prop_assert!(leaders(&all, at) <= 1, "at {} ms", at);
            }
            // From here on all do as they should.
            for _ in 0..30 {
                at += 2_000;
                for runs in &mut all {
                    runs.read(&server, at);
                    runs.write(&mut server);
                }
                prop_assert!(leaders(&all, at) <= 1, "at {} ms", at);
            }
            prop_assert_eq!(leaders(&all, at), 1);
        }
    }

    #[test]
    fn a_holder_is_judged_by_how_long_its_record_was_seen_unchanged() {
        let record = |holder: Option<&str>| Record {
            holder: holder.map(str::to_owned),
            version: "1".to_owned(),
            duration: DURATION,
        };
        let s = Duration::from_secs;
        for (holder, seen, now, expected) in [
            (Some("other"), 100, 101, Move::Wait),
            (Some("other"), 100, 115, Move::Wait),
            (Some("other"), 100, 116, Move::Take),
            (Some("me"), 100, 200, Move::Renew),
            (None, 100, 100, Move::Take),
        ] {
            let record = record(holder);
            assert_eq!(
                evaluate(Some((&record, s(seen))), "me", s(now)),
                expected,
                "{holder:?} {seen} {now}"
            );
        }
        assert_eq!(evaluate(None, "me", s(0)), Move::Take);
    }
}
