//! Whose words count for a promotion, and whether they are enough.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::model::approval::{Admitted, Bound, Verb};
use crate::model::pipeline::{ApprovalRule, PipelineSpec, Role};

/// Clocks of people's machines differ; a word from further ahead is not believed to be of now.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A word whose signature was verified, or that an API server has vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// Who: the principal of the key that signed, or the user of a cluster.
    pub who: String,
    /// The roles that they are in.
    pub roles: BTreeSet<String>,
    /// What is said.
    pub verb: Verb,
    /// What it is bound to.
    pub bound: Bound,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// Of a glass that is broken: until when.
    pub until: Option<Timestamp>,
}

impl Admitted {
    /// Whose voice it is, by what a pipeline states of its roles now.
    #[must_use]
    pub fn voice(&self, pipeline: &PipelineSpec) -> Voice {
        let Self { word, user, groups } = self;
        let is_in = |role: &Role| role.users.contains(user) || role.groups.iter().any(|group| groups.contains(group));
        let roles = pipeline.roles.iter().filter(|(_, role)| is_in(role));
        Voice {
            who: user.clone(),
            roles: roles.map(|(name, _)| name.clone()).collect(),
            verb: word.decision,
            bound: word.bound,
            at: word.at,
            reason: word.reason.clone(),
            until: word.until,
        }
    }
}

/// Every word on a promotion, the last of each person alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Voices {
    last: BTreeMap<String, Voice>,
    authors: BTreeSet<String>,
    /// Somebody has proven that they ask for it, or it is asked for by itself.
    asked: bool,
}

/// How far the approvals of one rule are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The role.
    pub role: String,
    /// How many are needed.
    pub needed: u8,
    /// Who has approved, and counts.
    pub by: Vec<String>,
    /// Who has approved and does not count, with why.
    pub not: Vec<(String, Discounted)>,
    /// When the first of those that count expires, where all are there.
    pub good_until: Option<Timestamp>,
}

/// Why an approval does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discounted {
    /// Its author is the promotion's, or the build's.
    Author,
    /// It was given for another build, another plan or other evidence.
    Unbound,
    /// It is too old.
    Expired,
    /// It is of a time that has not come.
    Early,
}

impl std::fmt::Display for Discounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Discounted::Author => "is an author of it",
            Discounted::Unbound => "approved of another build, plan or evidence than there is now",
            Discounted::Expired => "approved too long ago",
            Discounted::Early => "approved at a time that has not come",
        })
    }
}

impl Tally {
    /// Whether it is enough.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.by.len() >= usize::from(self.needed)
    }
}

impl Voices {
    /// Those of these words that stand: of two of one person the later, and of two of one moment the one that approves of less. Who
    /// asked for the promotion is one of its authors; `authors` are those of what the build is of, by whatever name: to keep
    /// somebody from approving, a name that proves nothing is enough.
    #[must_use]
    pub fn new(said: impl IntoIterator<Item = Voice>, mut authors: BTreeSet<String>) -> Self {
        let mut last: BTreeMap<String, Voice> = BTreeMap::new();
        let mut asked = false;
        for voice in said {
            if voice.verb == Verb::Request {
                asked = true;
                authors.insert(voice.who);
                continue;
            }
            let rank = |voice: &Voice| (voice.at, voice.verb.restraint());
            match last.get(&voice.who) {
                Some(before) if rank(before) >= rank(&voice) => {}
                Some(_) | None => {
                    last.insert(voice.who.clone(), voice);
                }
            }
        }
        Self { last, authors, asked }
    }

    /// The same of what is asked for by itself: there is nobody who would have to be told from those who approve.
    #[must_use]
    pub fn asked_by_itself(self) -> Self {
        Self { asked: true, ..self }
    }

    /// Whether it is known who asks for it.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Who rejects it: somebody of a role that may approve, whatever they said it of.
    #[must_use]
    pub fn rejected_by(&self, rules: &[ApprovalRule]) -> Option<&Voice> {
        let mut all = self.last.values();
        all.find(|voice| voice.verb == Verb::Reject && rules.iter().any(|rule| voice.roles.contains(&rule.role)))
    }

    /// How far the approvals of a rule are. A person in two roles counts for both.
    #[must_use]
    pub fn tally(&self, rule: &ApprovalRule, bound: &Bound, now: Timestamp) -> Tally {
        let mut tally = Tally {
            role: rule.role.clone(),
            needed: rule.count,
            by: Vec::new(),
            not: Vec::new(),
            good_until: None,
        };
        let mut ends = Vec::new();
        for voice in self.of_role(&rule.role, Verb::Approve) {
            if let Some(why) = self.discounted(voice, bound, rule.expires.signed(), now) {
                tally.not.push((voice.who.clone(), why));
            } else {
                tally.by.push(voice.who.clone());
                ends.push(voice.at.saturating_add(rule.expires.signed()).unwrap_or(Timestamp::MAX));
            }
        }
        // As many as are needed have to stay: the latest of them.
        ends.sort_unstable_by(|a, b| b.cmp(a));
        tally.good_until = usize::from(rule.count)
            .checked_sub(1)
            .and_then(|last| ends.get(last).copied());
        tally
    }

    /// Who breaks the glass now: with a reason, for a time that is not over, of this very build, plan and evidence. In the order of their words.
    #[must_use]
    pub fn breaking(&self, bound: &Bound, now: Timestamp) -> Vec<&Voice> {
        let counts = |voice: &&Voice| {
            voice.verb == Verb::BreakGlass
                && voice.bound == *bound
                && voice.until.is_some_and(|until| until > now)
                && now.duration_since(voice.at) >= -SKEW
                && !voice.reason.trim().is_empty()
        };
        let mut all: Vec<&Voice> = self.last.values().filter(counts).collect();
        all.sort_by_key(|voice| voice.at);
        all
    }

    /// Whether somebody is an author of it.
    #[must_use]
    pub fn is_author(&self, who: &str) -> bool {
        self.authors.contains(who)
    }

    fn of_role(&self, role: &str, verb: Verb) -> impl Iterator<Item = &Voice> {
        let all = self.last.values();
        all.filter(move |voice| voice.verb == verb && voice.roles.contains(role))
    }

    fn discounted(&self, voice: &Voice, bound: &Bound, expires: SignedDuration, now: Timestamp) -> Option<Discounted> {
        let age = now.duration_since(voice.at);
        if self.authors.contains(&voice.who) {
            Some(Discounted::Author)
        } else if voice.bound != *bound {
            Some(Discounted::Unbound)
        } else if age > expires {
            Some(Discounted::Expired)
        } else if age < -SKEW {
            Some(Discounted::Early)
        } else {
            None
        }
    }
}

impl Verb {
    /// Of two words of one moment the one that lets less happen stands.
    fn restraint(self) -> u8 {
        match self {
            Verb::Request => 0,
            Verb::BreakGlass => 1,
            Verb::Approve => 2,
            Verb::Withdraw => 3,
            Verb::Reject => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::values::{Digest, Duration};

    fn bound(of: &str) -> Bound {
        Bound {
            digest: Digest::of(of.as_bytes()),
            plan: Digest::of(b"plan"),
            evidence: Digest::of(b"evidence"),
        }
    }

    fn at(hour: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour)
    }

    fn voice(who: &str, verb: Verb, hour: i64) -> Voice {
        Voice {
            who: who.to_owned(),
            roles: BTreeSet::from(["managers".to_owned()]),
            verb,
            bound: bound("1"),
            at: at(hour),
            reason: String::new(),
            until: None,
        }
    }

    fn rule(count: u8) -> ApprovalRule {
        ApprovalRule {
            role: "managers".to_owned(),
            count,
            expires: Duration::from_secs(24 * 60 * 60),
        }
    }

    fn counts(said: Vec<Voice>, count: u8, now: i64) -> (bool, Vec<String>, Vec<(String, Discounted)>) {
        let voices = Voices::new(said, BTreeSet::from(["committer".to_owned()]));
        let tally = voices.tally(&rule(count), &bound("1"), at(now));
        (tally.is_enough(), tally.by, tally.not)
    }

    /// What is looked at, what was said, whether it is enough for two, who counts, and who does not.
    type Row = (
        &'static str,
        Vec<Voice>,
        bool,
        &'static [&'static str],
        Vec<(&'static str, Discounted)>,
    );

    #[test]
    #[expect(clippy::too_many_lines, reason = "one row a rule")]
    fn n_of_m_who_are_no_authors_and_meant_this_very_thing() {
        use Verb::{Approve, Reject, Request, Withdraw};
        let other_build = Voice {
            bound: bound("2"),
            ..voice("cleo", Approve, 10)
        };
        let no_member = Voice {
            roles: BTreeSet::from(["developers".to_owned()]),
            ..voice("dan", Approve, 10)
        };
        let rows: Vec<Row> = vec![
            ("nobody", vec![], false, &[], vec![]),
            ("one", vec![voice("ann", Approve, 10)], false, &["ann"], vec![]),
            (
                "two",
                vec![voice("ann", Approve, 10), voice("bob", Approve, 10)],
                true,
                &["ann", "bob"],
                vec![],
            ),
            (
                "one of them twice",
                vec![voice("ann", Approve, 9), voice("ann", Approve, 10)],
                false,
                &["ann"],
                vec![],
            ),
            (
                "its author",
                vec![voice("ann", Approve, 10), voice("ann", Request, 9)],
                false,
                &[],
                vec![("ann", Discounted::Author)],
            ),
            (
                "the build's author",
                vec![voice("committer", Approve, 10)],
                false,
                &[],
                vec![("committer", Discounted::Author)],
            ),
            (
                "of another build",
                vec![other_build],
                false,
                &[],
                vec![("cleo", Discounted::Unbound)],
            ),
            ("no member", vec![no_member], false, &[], vec![]),
            (
                "taken back",
                vec![voice("ann", Approve, 9), voice("ann", Withdraw, 10)],
                false,
                &[],
                vec![],
            ),
            (
                "taken back, whichever is heard first",
                vec![voice("ann", Withdraw, 10), voice("ann", Approve, 9)],
                false,
                &[],
                vec![],
            ),
            (
                "taken back at the same moment",
                vec![voice("ann", Withdraw, 10), voice("ann", Approve, 10)],
                false,
                &[],
                vec![],
            ),
            (
                "given again",
                vec![voice("ann", Withdraw, 9), voice("ann", Approve, 10)],
                false,
                &["ann"],
                vec![],
            ),
            (
                "rejected",
                vec![voice("ann", Approve, 9), voice("ann", Reject, 10)],
                false,
                &[],
                vec![],
            ),
            (
                "too old",
                vec![voice("ann", Approve, -15)],
                false,
                &[],
                vec![("ann", Discounted::Expired)],
            ),
            (
                "just not too old",
                vec![voice("ann", Approve, -14)],
                false,
                &["ann"],
                vec![],
            ),
            (
                "of tomorrow",
                vec![voice("ann", Approve, 12)],
                false,
                &[],
                vec![("ann", Discounted::Early)],
            ),
        ];
        for (what, said, enough, by, not) in rows {
            let not: Vec<_> = not.into_iter().map(|(who, why)| (who.to_owned(), why)).collect();
            let by: Vec<_> = by.iter().map(|who| (*who).to_owned()).collect();
            assert_eq!(counts(said, 2, 10), (enough, by, not), "{what}");
        }
    }

    #[test]
    fn it_is_good_for_as_long_as_enough_are_left() {
        let said = [("ann", 1), ("bob", 5), ("cleo", 3)].map(|(who, hour)| voice(who, Verb::Approve, hour));
        let voices = Voices::new(said, BTreeSet::new());
        let until = |count| voices.tally(&rule(count), &bound("1"), at(6)).good_until;
        assert_eq!(until(1), Some(at(29)));
        assert_eq!(until(2), Some(at(27)));
        assert_eq!(until(3), Some(at(25)));
        assert_eq!(until(4), None);
    }

    #[test]
    fn a_rejection_of_a_member_counts_whatever_it_was_said_of() {
        let rejected = |voice: Voice| Voices::new([voice], BTreeSet::new()).rejected_by(&[rule(1)]).is_some();
        assert!(rejected(voice("ann", Verb::Reject, 1)));
        assert!(rejected(Voice {
            bound: bound("2"),
            ..voice("ann", Verb::Reject, 1)
        }));
        assert!(!rejected(Voice {
            roles: BTreeSet::new(),
            ..voice("ann", Verb::Reject, 1)
        }));
    }

    proptest! {
        /// The order in which words are heard means nothing, and who said something last has said nothing else.
        #[test]
        fn what_stands_does_not_depend_on_the_order(
            said in prop::collection::vec((0..4_usize, 0..5_usize, 0..6_i64), 0..12),
            seed in any::<u64>(),
        ) {
            let verbs = [Verb::Request, Verb::Approve, Verb::Withdraw, Verb::Reject, Verb::BreakGlass];
            let words: Vec<_> = said
                .iter()
                .map(|(who, verb, hour)| voice(["ann", "bob", "cleo", "dan"][*who], verbs[*verb], *hour))
                .collect();
            let mut shuffled = words.clone();
            let n = shuffled.len().max(1);
            shuffled.rotate_left(usize::try_from(seed).unwrap_or(0) % n);
            shuffled.reverse();
            let of = |said: Vec<Voice>| Voices::new(said, BTreeSet::new());
            prop_assert_eq!(of(words.clone()), of(shuffled));
            let tally = of(words.clone()).tally(&rule(1), &bound("1"), at(6));
            for who in tally.by {
                prop_assert!(!words.iter().any(|word| word.who == who && word.verb == Verb::Request));
                let last = words.iter().filter(|word| word.who == who).max_by_key(|word| (word.at, word.verb.restraint()));
                prop_assert_eq!(last.map(|word| word.verb), Some(Verb::Approve));
            }
        }
    }

    #[test]
    fn clocks_that_differ_a_little_are_believed() {
        let ahead = |minutes: i64| Voice {
            at: at(10) + SignedDuration::from_mins(minutes),
            ..voice("ann", Verb::Approve, 10)
        };
        assert!(counts(vec![ahead(4)], 1, 10).0);
        assert!(!counts(vec![ahead(6)], 1, 10).0);
    }
}
