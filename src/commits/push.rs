//! The server's side of a push: every ref that it moves, and every commit that is new by it.
//!
//! The policy is the protected base's as it is before the push. What a push brings is read from its quarantine; nothing is
//! written, no program is started, and over the bounds it is refused as a whole.

use std::collections::BTreeMap;

use git2::Oid;

use super::base::Base;
use super::content::without_tokens;
use super::examine::{Cut, Examiner, spared_by};
use super::finding::{Finding, Level, Rule, shown};
use super::message::{Branch, Identity};
use super::policy::{self, TrustFor};
use super::proof::{self, Keyring, Question, judge, notes, question};
use super::repository::{Object, Repository, RepositoryError, short};

/// Refs that one push may move. `git push --mirror` of a large repository has some hundred.
const MOST_UPDATES: usize = 1_000;
/// What git writes for so many refs of 900 bytes; names are of 30.
const MOST_INPUT_BYTES: u64 = 1 << 20;
/// Tags of tags of tags that are followed; git itself makes one.
const MOST_TAGS_DEEP: usize = 8;

/// Where branches are.
const BRANCHES: &str = "refs/heads/";
/// Where tags are.
const TAGS: &str = "refs/tags/";
/// Where notes are. What they reach was looked at for its content alone.
pub const NOTES: &str = "refs/notes/";

/// A ref that a push moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// What it names now; none if it is new.
    pub old: Option<Oid>,
    /// What it will name; none if it is deleted.
    pub new: Option<Oid>,
    /// Its full name.
    pub name: String,
}

/// What git hands over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Not as githooks(5) says.
    #[error("line {line} is no `OLD NEW REF` as git writes it to pre-receive: `{text}`")]
    Line {
        /// Which.
        line: usize,
        /// As it is.
        text: String,
    },
    /// More than are looked at. What was not read must not be let in with what was.
    #[error("the push moves more than {MOST_UPDATES} refs, or their names have more than 1 MiB; push them in parts")]
    TooMany,
    /// Not a ref.
    #[error(
        "standard input names no ref, and git runs no hook without one: something that ran before has read it; \
         hand it on, as by `tee` into a file"
    )]
    Nothing,
    /// The pipe from git broke, or has what is no text.
    #[error("cannot read which refs are pushed, which git writes to standard input: {0}")]
    Unreadable(std::io::Error),
    /// The newer object format.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Reads what git writes to the standard input of pre-receive and post-receive, to its end.
///
/// # Errors
/// As [`updates`]; and there is more than is looked at.
pub fn read(input: impl std::io::Read) -> Result<Vec<Update>, PushError> {
    use std::io::Read as _;
    let mut text = String::new();
    let mut bounded = input.take(MOST_INPUT_BYTES + 1);
    match bounded.read_to_string(&mut text) {
        // The bound may cut a character in two; that there is too much is what has to be said.
        _ if bounded.limit() == 0 => Err(PushError::TooMany),
        // A script before ours that reads its input leaves none for us, and then all would be let in unseen.
        Ok(0) => Err(PushError::Nothing),
        Ok(_) => updates(&text),
        Err(why) => Err(PushError::Unreadable(why)),
    }
}

/// Reads what git writes to pre-receive's standard input.
///
/// # Errors
/// A line that git does not write, or an object name of the newer format.
pub fn updates(input: &str) -> Result<Vec<Update>, PushError> {
    let mut updates = Vec::new();
    for (line, text) in (1..).zip(input.lines()) {
        let bad = || PushError::Line {
            line,
            text: shown(text.as_bytes()),
        };
        let mut words = text.splitn(3, ' ');
        let (old, new, name) = (words.next(), words.next(), words.next());
        let (Some(old), Some(new), Some(name)) = (old, new, name) else {
            return Err(bad());
        };
        if old.len() == 64 && new.len() == 64 {
            return Err(RepositoryError::Sha256.into());
        }
        let id = |text: &str| {
            let hex = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
            let id = hex.then(|| Oid::from_str(text).ok()).flatten().ok_or_else(bad)?;
            Ok::<_, PushError>((!id.is_zero()).then_some(id))
        };
        let update = Update {
            old: id(old)?,
            new: id(new)?,
            name: name.to_owned(),
        };
        if name.is_empty() || (update.old.is_none() && update.new.is_none()) {
            return Err(bad());
        }
        if line > MOST_UPDATES {
            return Err(PushError::TooMany);
        }
        updates.push(update);
    }
    Ok(updates)
}

/// What a ref is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Branch(Branch),
    Tag,
    Notes,
    Other,
}

/// How commits are looked at that arrive on a ref. All that arrive the same way are walked together: a walk reads every other ref
/// first, and of both there may be thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Protected,
    Topic,
    Notes,
}

impl Kind {
    fn way(self) -> Way {
        match self {
            Kind::Branch(Branch::Protected) => Way::Protected,
            Kind::Branch(Branch::Topic) | Kind::Tag | Kind::Other => Way::Topic,
            Kind::Notes => Way::Notes,
        }
    }
}

/// Looks at a whole push.
///
/// # Errors
/// Something could not be looked at: the push must be refused.
pub fn examine(
    repository: &Repository,
    base: &Base,
    updates: &[Update],
    pusher: &Identity,
    examiner: &mut Examiner,
) -> Result<(), Cut> {
    // An owner may have made a ref another name of a branch: git moves what it stands for, and it is protected by either name.
    let mut also: BTreeMap<String, String> = BTreeMap::new();
    let mut real = Vec::new();
    for update in updates {
        let name = repository.real_name(&update.name);
        if name != update.name {
            also.insert(name.clone(), update.name.clone());
        }
        real.push(Update { name, ..update.clone() });
    }
    let updates = real.as_slice();
    let protects = |name: &str| base.protects(name) || also.get(name).is_some_and(|other| base.protects(other));
    let refs = repository.refs()?;
    let since = spared_by(repository, &base.policy);
    // What a server keeps elsewhere (a request to merge, from another repository) came by no push, and was never looked at.
    let is_looked_at = |name: &str| {
        let tag_or_branch = name.starts_with(BRANCHES) || name.starts_with(TAGS);
        tag_or_branch || base.policy.allowed_refs.is_match(name)
    };
    let those = |which: &dyn Fn(&str) -> bool| -> Vec<Oid> {
        refs.iter().filter(|(name, _)| which(name)).map(|(_, id)| *id).collect()
    };
    let all_but_notes = those(&|name| is_looked_at(name) && !name.starts_with(NOTES));
    let all = those(&|name| is_looked_at(name) || name.starts_with(NOTES));
    let protected = those(&protects);
    let push = Push {
        repository,
        base,
        pusher,
        hidden: with(all_but_notes, since),
        hidden_of_notes: with(all, since),
        hidden_of_protected: with(protected, since),
        also,
        vouchers: Vouchers::of(repository, base, updates),
    };
    // Bounds and names of all refs come before the first file is read.
    let mut named = Vec::new();
    for update in updates {
        if let Some(kind) = push.name(update, examiner) {
            named.push((update, kind));
        }
    }
    let mut arriving: BTreeMap<Way, Vec<Oid>> = BTreeMap::new();
    for (update, kind) in named {
        if let Some(tip) = push.update(update, kind, examiner)? {
            arriving.entry(kind.way()).or_default().push(tip);
        }
    }
    for (way, tips) in arriving {
        push.commits(&tips, way, examiner)?;
    }
    push.policy_of(updates, examiner)
}

fn with(mut ids: Vec<Oid>, more: Option<Oid>) -> Vec<Oid> {
    ids.extend(more);
    ids
}

struct Push<'a> {
    repository: &'a Repository,
    base: &'a Base,
    pusher: &'a Identity,
    /// What was checked before: all that some branch or tag reaches, or a ref that may be pushed. Messages below notes were never
    /// looked at, so a commit that only they reach is new when it arrives on a branch or a tag.
    hidden: Vec<Oid>,
    /// The same for notes: all that any of these reaches, or notes.
    hidden_of_notes: Vec<Oid>,
    /// The same for protected branches: what a topic branch was allowed (a `fixup!`) is looked at again when it arrives.
    hidden_of_protected: Vec<Oid>,
    /// What refs that are moved are also called here.
    also: BTreeMap<String, String>,
    /// Who may vouch for files.
    vouchers: Option<Vouchers<'a>>,
}

/// Attestations in notes, by keys that the policy trusts for content. The policy alone says which: a hook opens no state, so a
/// key is revoked for the server by taking it out of the policy.
struct Vouchers<'a> {
    repository: &'a Repository,
    base: &'a Base,
    ring: Keyring,
    /// The notes: those that the push brings, else those that are there.
    notes: Oid,
}

impl<'a> Vouchers<'a> {
    fn of(repository: &'a Repository, base: &'a Base, updates: &[Update]) -> Option<Self> {
        let mut ring = Keyring::default();
        let for_content = base
            .policy
            .trusted
            .iter()
            .filter(|(_, what)| what.contains(&TrustFor::Content));
        let mut anybody = false;
        for (key, what) in for_content {
            ring.add_trusted(*key, what);
            anybody = true;
        }
        if !anybody {
            return None;
        }
        let brought = updates
            .iter()
            .find(|update| update.name == notes::REF)
            .and_then(|update| update.new);
        let there = || repository.resolved(notes::REF).map(|(_, id)| id);
        Some(Self {
            repository,
            base,
            ring,
            notes: brought.or_else(there)?,
        })
    }

    /// Whether a commit's files were looked at by this policy and this version of the rules.
    fn vouch_for(&self, commit: Oid) -> Result<bool, RepositoryError> {
        // Notes that cannot be read vouch for nothing; whether they may be pushed is judged elsewhere.
        let noted = notes::read_at(self.repository, self.notes, commit).unwrap_or_default();
        if noted.is_empty() {
            return Ok(false);
        }
        let question = Question {
            subject: question::subject(self.repository, self.base, commit)?,
            policy: self.base.policy.digest,
            // Rules of content are asked for, not hooks.
            hooks: Vec::new(),
            trust: TrustFor::Content,
        };
        Ok(noted.iter().any(|line| {
            let judged = judge(line.as_bytes(), &self.ring, &question);
            judged.proves() && judged.verdict.is_some_and(|verdict| verdict.engine == proof::engine())
        }))
    }
}

impl Push<'_> {
    /// What a ref is for, if it may be pushed at all.
    fn name(&self, update: &Update, examiner: &mut Examiner) -> Option<Kind> {
        let name = update.name.as_str();
        // One that has a secret in its name may be deleted.
        if update.new.is_some() {
            examiner.secrets_of_ref(name);
        }
        if update.new.is_some() && self.base.would_be.contains(&update.name) {
            let why = format!(
                "would be the branch that the policy comes from, in the place of {}",
                self.base.branch.as_deref().unwrap_or_default()
            );
            let fix = "who owns the server says which it is: `git symbolic-ref HEAD refs/heads/NAME`";
            examiner.found(self.refused(Rule::RefName, name, &why, fix));
        }
        let kind = if name.starts_with(BRANCHES) {
            Kind::Branch(if self.protects(name) {
                Branch::Protected
            } else {
                Branch::Topic
            })
        } else if name.starts_with(TAGS) {
            Kind::Tag
        } else if name.starts_with(NOTES) {
            Kind::Notes
        } else if self.base.policy.allowed_refs.is_match(name) && !name.starts_with("refs/replace/") {
            Kind::Other
        } else {
            let (why, fix) = if name.starts_with("refs/replace/") {
                ("replaces objects for all who fetch it", "commit the change instead")
            } else {
                (
                    "is no branch, tag or note",
                    "push to refs/heads/ or refs/tags/; an owner adds others to `refs.allow`",
                )
            };
            examiner.found(self.refused(Rule::RefName, name, why, fix));
            return None;
        };
        Some(kind)
    }

    /// Looks at a ref, and gives the commit that it leads to, if it does.
    fn update(&self, update: &Update, kind: Kind, examiner: &mut Examiner) -> Result<Option<Oid>, Cut> {
        let Update { old, new, name } = update;
        // Refs that bring nothing new take time, too, where there are thousands of others.
        examiner.in_time()?;
        if let Some(finding) = self.moved(update, kind) {
            examiner.found(finding);
        }
        let Some(new) = new.filter(|new| *old != Some(*new)) else {
            return Ok(None);
        };
        let tip = self.peeled(new, examiner)?;
        match (kind, self.repository.object(tip)?) {
            (_, Object::Commit) => return Ok(Some(tip)),
            (Kind::Branch(_) | Kind::Notes, _) => {
                let fix = "a branch names a commit; push the object as a tag if it must travel";
                examiner.found(self.refused(Rule::RefName, name, "names no commit", fix));
            }
            (_, Object::Tree) => {
                let shown = short(tip);
                for change in self.repository.files_of_tree(tip)? {
                    examiner.file(Some(&shown), &change)?;
                }
            }
            (_, Object::Blob | Object::Tag { .. }) => {
                let change = super::repository::Change {
                    path: name.as_bytes().to_vec(),
                    mode: super::content::Mode::Regular,
                    id: tip,
                };
                examiner.file(Some(&short(tip)), &change)?;
            }
        }
        Ok(None)
    }

    /// What is wrong with where a ref goes.
    fn moved(&self, update: &Update, kind: Kind) -> Option<Finding> {
        let Update { old, new, name } = update;
        let binding = matches!(kind, Kind::Branch(Branch::Protected) | Kind::Tag);
        let also = self.also.get(name);
        if !binding || self.base.may_rewind(name) && also.is_none_or(|other| self.base.may_rewind(other)) {
            return None;
        }
        let fix = "an owner allows it by `refs.mayRewind` in the policy";
        match (*old, *new) {
            (Some(_), None) => Some(self.refused(Rule::RefDelete, name, "would be deleted", fix)),
            (Some(old), Some(new)) if old == new => None,
            (Some(_), Some(_)) if kind == Kind::Tag => {
                let what = "would name something else than those have who fetched it";
                Some(self.refused(Rule::RefRewind, name, what, "give the new tag a name of its own"))
            }
            (Some(old), Some(new)) if !self.repository.is_ancestor(old, new) => {
                let what = format!("would lose {}", short(old));
                Some(self.refused(Rule::RefRewind, name, &what, "rebase onto it, or revert what is wrong"))
            }
            _ => None,
        }
    }

    fn protects(&self, name: &str) -> bool {
        self.base.protects(name) || self.also.get(name).is_some_and(|other| self.base.protects(other))
    }

    /// Says that the policy that is gone by from now on is another, also where no single commit has changed it: one that goes
    /// back to what was before takes it from there.
    fn policy_of(&self, updates: &[Update], examiner: &mut Examiner) -> Result<(), Cut> {
        let of_base = |update: &&Update| Some(&update.name) == self.base.branch.as_ref();
        let Some(Update {
            old: Some(old),
            new: Some(new),
            ..
        }) = updates.iter().find(of_base)
        else {
            return Ok(());
        };
        let tip = self.peeled(*new, examiner)?;
        if self.repository.object(tip)? == Object::Commit && !examiner.has_warned(Rule::PolicyFile) {
            let fate = self.repository.fate_between(*old, tip, policy::PATH)?;
            examiner.policy_meets(Some(&short(tip)), fate);
        }
        Ok(())
    }

    /// What a tag leads to in the end; what the tags on the way say is looked at.
    fn peeled(&self, id: Oid, examiner: &mut Examiner) -> Result<Oid, Cut> {
        let mut id = id;
        for _ in 0..MOST_TAGS_DEEP {
            match self.repository.object(id)? {
                Object::Tag { text, target } => {
                    examiner.secrets_of_text(&short(id), "tag", &text);
                    id = target;
                }
                Object::Commit | Object::Tree | Object::Blob => return Ok(id),
            }
        }
        Err(Cut::Over(format!("{MOST_TAGS_DEEP} tags name one another")))
    }

    fn refused(&self, rule: Rule, name: &str, message: &str, fix: &str) -> Finding {
        let name = without_tokens(&self.base.policy, name.as_bytes());
        Finding {
            rule,
            level: Level::Refused,
            commit: Some(String::from_utf8_lossy(&name).into_owned()),
            path: None,
            line: 0,
            column: 0,
            message: message.to_owned(),
            fix: fix.to_owned(),
        }
    }

    fn commits(&self, tips: &[Oid], way: Way, examiner: &mut Examiner) -> Result<(), Cut> {
        let (branch, hidden) = match way {
            Way::Protected => (Branch::Protected, &self.hidden_of_protected),
            Way::Topic => (Branch::Topic, &self.hidden),
            Way::Notes => (Branch::Topic, &self.hidden_of_notes),
        };
        // A branch from where another is has nothing new, and needs no walk.
        if tips.iter().all(|tip| hidden.contains(tip)) {
            return Ok(());
        }
        let left = examiner.commits_left();
        let Ok(new) = self.repository.between(tips, hidden, left)? else {
            return Err(Cut::Over(format!("more than {left} commits are new")));
        };
        for id in new {
            if let Some(vouchers) = &self.vouchers
                && way != Way::Notes
                && vouchers.vouch_for(id)?
            {
                examiner.vouch(id);
            }
            if way == Way::Notes {
                // git writes the messages of notes itself.
                examiner.content_of(id)?;
            } else {
                examiner.commit(id, branch, self.pusher)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_writes_is_read_and_nothing_else_is() {
        let (zero, one) = ("0".repeat(40), "1".repeat(40));
        let read = updates(&format!("{zero} {one} refs/heads/a b\n{one} {zero} refs/tags/v1\n")).expect("read");
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].old, read[0].name.as_str()), (None, "refs/heads/a b"));
        assert_eq!(read[1].new, None);
        assert_eq!(updates("").expect("read"), []);
        for text in [
            "x",
            &format!("{zero} {zero} refs/heads/a"),
            &format!("{zero} {one}"),
            &format!("{zero} {one} "),
            &format!("{zero} {} refs/heads/a", "g".repeat(40)),
            &format!("{zero} {} refs/heads/a", "1".repeat(39)),
        ] {
            assert!(matches!(updates(text), Err(PushError::Line { .. })), "{text}");
        }
        let sha256 = format!("{} {} refs/heads/a", "0".repeat(64), "1".repeat(64));
        assert!(matches!(
            updates(&sha256),
            Err(PushError::Repository(RepositoryError::Sha256))
        ));
    }

    #[test]
    fn refs_beyond_the_bounds_are_not_let_in_unseen() {
        let line = |name: &str| format!("{} {} {name}\n", "0".repeat(40), "1".repeat(40));
        let many = |count: usize, name: &str| line(name).repeat(count);
        let long = format!("refs/heads/{}", "x/".repeat(600));
        assert_eq!(
            read(many(MOST_UPDATES, "refs/heads/a").as_bytes()).expect("read").len(),
            MOST_UPDATES
        );
        // The second ends a line just where the bound is, so that what is read is well-formed.
        let upto = usize::try_from(MOST_INPUT_BYTES).expect("fits");
        let mut exact = many(upto / line(&long).len() - 1, &long);
        let left = upto - exact.len() - line("").len();
        exact.push_str(&line(&"y".repeat(left)));
        assert_eq!(exact.len(), upto);
        assert!(read(exact.as_bytes()).is_ok());
        for input in [
            many(MOST_UPDATES + 1, "refs/heads/a"),
            exact + &line("refs/heads/main"),
            many(990, &long),
        ] {
            assert!(
                matches!(read(input.as_bytes()), Err(PushError::TooMany)),
                "{}",
                input.len()
            );
        }
        assert!(matches!(read(&b""[..]), Err(PushError::Nothing)));
        let no_text = [line("refs/heads/").trim_end().as_bytes(), b"\xff\n"].concat();
        assert!(matches!(read(no_text.as_slice()), Err(PushError::Unreadable(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_input_is_updates_or_an_error(text in "(?s).{0,200}") {
            let _ = updates(&text);
        }
    }
}
