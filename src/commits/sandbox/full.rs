//! A full run of one commit: the native rules over what is new in it, every hook of the base's configuration over all of its
//! files, each in a sandbox of its own, and the tracker's word on the issues that messages name.
//!
//! Each hook gets its own sandbox and its own copy of the commit: so it cannot change what the next one sees, its output and
//! its end are its own, and prek's exit code speaks of it alone. What cannot be told ends as `NotProven`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use git2::Oid;
use jiff::Timestamp;

use super::blame;
use super::bubblewrap::{Mount, Network, Room, Sandbox, SandboxError};
use super::checkout::{self, Checkout, CheckoutError};
use super::environments::{self, CONFIG, EnvironmentError, Wanted, last_words};
use super::scratch::Scratch;
use crate::commits::base::{self, BaseError};
use crate::commits::examine::{Bounds, Brought, Cut, Examiner, Report};
use crate::commits::finding::{Finding, Level, Rule};
use crate::commits::hooks::{self, Code, Ended, How, Planned};
use crate::commits::message::{Branch, Identity};
use crate::commits::policy::{self, Unavailable};
use crate::commits::prek::{self, PrekError};
use crate::commits::proof::statement::MOST_ISSUES;
use crate::commits::proof::{self, HookRun, Outcome, Passed, Subject, Verdict, question};
use crate::commits::repository::{Repository, RepositoryError};
use crate::commits::tracker::{IssueCheck, IssueResult, Named, Trackers, issues};
use crate::model::values::Digest;
use crate::process::{self, ProcessError};

/// All hooks together: whoever waits for a verdict waits no longer, and the next run gets its turn.
const WHOLE: Duration = Duration::from_mins(45);
/// What is read of one hook's output: half from its begin, where prek says how it ended, half from its end.
const OUTPUT_BYTES: usize = 1 << 20;
/// Who a process inside is, for programs that ask.
const PASSWD: &str = "hook:x:USER:USER:hook:/tmp:/bin/sh\n";
const GROUP: &str = "hook:x:USER:\n";
/// The work tree belongs to whoever made the sandbox, and git would ask whether that is meant so.
const GIT_CONFIG: &str = "[safe]\n\tdirectory = *\n";

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The repository's directory.
    pub repository: PathBuf,
    /// The commit.
    pub commit: Oid,
    /// By which policy.
    pub base: Base,
}

/// The protected branch before the commit came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its full name, if there is one.
    pub branch: Option<String>,
    /// Where it was; none before the first push.
    pub tip: Option<Oid>,
    /// What the policy's text was then. Another one is not what was asked for.
    pub policy: Option<Digest>,
}

/// Why there is no verdict at all.
#[derive(Debug, thiserror::Error)]
pub enum FullRunError {
    /// git could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The base's policy could not be read.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The base has another policy than was asked for.
    #[error("the policy of the base is {found} and {asked} was asked for; ask again")]
    Policy {
        /// What was asked for.
        asked: Digest,
        /// What is there.
        found: Digest,
    },
}

/// Why hooks did not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Prek(#[from] PrekError),
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    #[error("cannot make room for a run: {0}")]
    Scratch(#[from] std::io::Error),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("the base's hooks cannot be read: {0}")]
    Config(String),
    #[error("prek did not say how the hook {hook} ended (exit code {code}): {said}")]
    Untold { hook: String, code: String, said: String },
    #[error("the hooks did not end within {} min; {hook} and what comes after it did not run", WHOLE.as_secs() / 60)]
    TooLong { hook: String },
}

/// What a run needs beside the commit.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// The state directory, where prek and hooks' environments are.
    pub state: &'a Path,
    /// Where issues are looked up.
    pub trackers: &'a Trackers,
}

/// What the native rules came to.
pub struct Looked<'a> {
    /// Them.
    pub examiner: Examiner<'a>,
    /// Why it cannot be a pass, whatever was found.
    pub gap: Option<String>,
    /// When it was begun.
    pub started_at: Timestamp,
}

/// A verdict that does not say yet whose fault it is.
pub struct Judged {
    repository: Repository,
    base: base::Base,
    completed: Completed,
}

impl Judged {
    /// The verdict with whose fault it is, as far as that is found out before `enough` ends.
    pub async fn blamed(self, means: Means<'_>, enough: impl Future<Output = ()>) -> Verdict {
        let Self {
            repository,
            base,
            completed,
        } = self;
        completed.blamed(means, &repository, &base, enough).await.verdict
    }
}

/// Runs everything and says what came of it. Dropped before its end, it leaves nothing that runs.
///
/// # Errors
/// There is nothing to give a verdict on, or no policy to give it by.
pub async fn run(means: Means<'_>, ask: &Ask) -> Result<Judged, FullRunError> {
    let started_at = Timestamp::now();
    let repository = Repository::open_at(&ask.repository)?;
    let base = base::Base::at(&repository, ask.base.branch.as_deref(), ask.base.tip)?;
    let found = &base.policy.digest;
    if let Some(asked) = ask.base.policy.as_ref().filter(|asked| *asked != found) {
        return Err(FullRunError::Policy {
            asked: *asked,
            found: *found,
        });
    }
    let subject = question::subject(&repository, &base, ask.commit)?;
    let mut examiner = Examiner::new(&repository, &base.policy, Bounds::of_whole(&base.policy));
    // What a push would be asked, and every file.
    let brought = Brought::Beyond(ask.base.tip.into_iter().collect());
    // What is signed speaks of every rule of the protected branch, wherever the commit is now.
    let gap = match examiner.whole(ask.commit, brought, Branch::Protected, |_| Identity::Unknown) {
        Ok(()) => None,
        Err(Cut::Over(why)) => Some(why),
        Err(Cut::Repository(why)) => return Err(why.into()),
    };
    let looked = Looked {
        examiner,
        gap,
        started_at,
    };
    let completed = complete(means, &repository, &base, subject, looked).await?;
    Ok(Judged {
        repository,
        base,
        completed,
    })
}

/// Why a run proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// Something of the check itself: there is too much, a hook cannot run.
    Check(String),
    /// The tracker could not be asked, and may be soon.
    Tracker(String),
}

/// A verdict, and what it waits for.
#[derive(Debug, Clone)]
pub struct Completed {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not proven, where it is not.
    pub gap: Option<Gap>,
    /// The commits that rules of ours refuse, as [`Report::refused`] has them.
    pub refused: Vec<(Oid, Vec<Rule>)>,
}

impl Completed {
    /// Adds whose fault it is, as far as that is found out before `enough` ends: what is judged is not lost because who asked
    /// has no more time.
    pub async fn blamed(
        mut self,
        means: Means<'_>,
        repository: &Repository,
        base: &base::Base,
        enough: impl Future<Output = ()>,
    ) -> Self {
        let Self { verdict, refused, .. } = &mut self;
        if verdict.outcome == Outcome::Failed {
            verdict.blames = blame::of(means, repository, base, verdict, refused, enough).await;
            verdict.finished_at = Timestamp::now();
        }
        self
    }
}

/// Runs the base's hooks over the subject, has its issues looked up, and gives a verdict on all of it.
///
/// # Errors
/// The base or the commit cannot be read.
pub async fn complete(
    means: Means<'_>,
    repository: &Repository,
    base: &base::Base,
    subject: Subject,
    looked: Looked<'_>,
) -> Result<Completed, RepositoryError> {
    let Looked {
        examiner,
        gap,
        started_at,
    } = looked;
    let mut run = Run {
        means,
        repository,
        base,
        commit: repository.named_commit(&subject.commit)?,
        examiner,
        hooks: Vec::new(),
        issues: Vec::new(),
        gap: gap.map(Gap::Check),
    };
    run.hooks().await?;
    run.issues().await;
    let Run {
        examiner,
        hooks,
        issues,
        gap,
        ..
    } = run;
    let report: Report = examiner.report();
    let gap = gap.filter(|_| !report.findings.refuse());
    let outcome = match &gap {
        _ if report.findings.refuse() => Outcome::Failed,
        Some(Gap::Check(why) | Gap::Tracker(why)) => Outcome::NotProven { why: why.clone() },
        None => Outcome::Passed,
    };
    let verdict = Verdict {
        subject,
        policy: base.policy.digest,
        engine: proof::engine(),
        hooks,
        outcome,
        findings: report.findings.kept().iter().map(Finding::to_json).collect(),
        issues,
        blames: Vec::new(),
        started_at,
        finished_at: Timestamp::now(),
    };
    Ok(Completed {
        verdict,
        gap,
        refused: report.refused,
    })
}

struct Run<'a> {
    means: Means<'a>,
    repository: &'a Repository,
    base: &'a base::Base,
    commit: Oid,
    examiner: Examiner<'a>,
    hooks: Vec<HookRun>,
    issues: Vec<IssueCheck>,
    /// Why it cannot be a pass, whatever was found.
    gap: Option<Gap>,
}

/// How a hook ended.
pub(super) enum End {
    Content,
    /// It is not one that looks at files.
    NotAsked,
    Found(Vec<Finding>),
}

impl Run<'_> {
    fn gap(&mut self, gap: Gap) {
        self.gap.get_or_insert(gap);
    }

    /// Every hook that the base's configuration has.
    async fn hooks(&mut self) -> Result<(), RepositoryError> {
        let Some(level) = self.base.policy.level(Rule::Hook) else {
            return Ok(());
        };
        let ran = match planned(self.repository, self.base) {
            Ok(planned) => self.each(planned, level).await,
            Err(Obstacle::Repository(why)) => return Err(why),
            Err(why) => Err(why),
        };
        if let Err(why) = ran {
            match level {
                Level::Refused => self.gap(Gap::Check(why.to_string())),
                Level::Warned => self.examiner.found(said(level, "hooks", why.to_string(), "")),
            }
        }
        Ok(())
    }

    /// Has the issues looked up that commits name.
    async fn issues(&mut self) {
        let policy = &self.base.policy;
        let spec = &policy.spec.message.issue;
        let (Some(level), Some(tracker)) = (policy.level(Rule::Issue), &spec.tracker) else {
            return;
        };
        let found = |commit: Option<String>, message: String, fix: &str| Finding {
            rule: Rule::Issue,
            level,
            commit,
            path: None,
            line: 0,
            column: 0,
            message,
            fix: fix.to_owned(),
        };
        let mut named = self.examiner.issues().to_vec();
        if named.is_empty() {
            return;
        }
        if named.len() > MOST_ISSUES {
            let why = format!("more than {MOST_ISSUES} issues were to be looked up");
            match level {
                Level::Refused => self.gap(Gap::Check(why)),
                Level::Warned => self.examiner.found(found(None, why, "the first of them were")),
            }
            named.truncate(MOST_ISSUES);
        }
        let answers = self.means.trackers.ask(policy, &issues::keys_of(&named)).await;
        for Named { commit, keys } in named {
            let result = issues::judge(policy, &keys, &answers);
            let of_commit = Some(commit.clone());
            match (&result, level, spec.unavailable) {
                (IssueResult::Wrong { why }, ..) => {
                    let fix = "name an issue that is what the policy asks, or bring the issue there";
                    self.examiner.found(found(of_commit, format!("{tracker}: {why}"), fix));
                }
                (IssueResult::Unavailable { why }, Level::Warned, _) => {
                    let message = format!("{tracker}: {} could not be looked up: {why}", keys.join(" or "));
                    let fix = "it is only suggested, and not asked again";
                    self.examiner.found(found(of_commit, message, fix));
                }
                (IssueResult::Unavailable { why }, Level::Refused, Unavailable::Refuse) => {
                    self.gap(Gap::Tracker(format!(
                        "{tracker}: {} could not be looked up: {why}",
                        keys.join(" or ")
                    )));
                }
                (IssueResult::Right { .. }, ..)
                | (IssueResult::Unavailable { .. }, Level::Refused, Unavailable::Defer) => {}
            }
            if level == Level::Refused {
                self.issues.push(IssueCheck { commit, keys, result });
            }
        }
    }

    async fn each(&mut self, planned: Vec<Planned>, level: Level) -> Result<(), Obstacle> {
        let until = Instant::now() + WHOLE;
        let mut bench = None;
        for Planned { id, revision, how } in planned {
            let (native, end) = match how {
                How::Native(rule) => (true, self.of_rule(rule)),
                How::Prek { config, stage, code } => {
                    if Instant::now() > until {
                        return Err(Obstacle::TooLong { hook: id });
                    }
                    let moved = movable(&code, &id, level);
                    let refuses = moved.as_ref().is_some_and(|f| f.level == Level::Refused);
                    if let Some(finding) = moved {
                        self.examiner.found(finding);
                    }
                    if refuses {
                        (false, End::Found(Vec::new()))
                    } else {
                        if bench.is_none() {
                            bench = Some(Bench::set_up(self.repository, self.commit, self.means.state).await?);
                        }
                        // Set just above.
                        let Some(bench) = &bench else { continue };
                        let timeout = Duration::from_secs(self.base.policy.spec.hooks.timeout_s);
                        (false, bench.run(&id, &config, stage, &code, timeout, level).await?)
                    }
                }
            };
            let passed = match end {
                End::NotAsked => continue,
                End::Content => Passed::Yes,
                End::Found(findings) => {
                    for finding in findings {
                        self.examiner.found(finding);
                    }
                    Passed::No
                }
            };
            self.hooks.push(HookRun {
                id,
                revision,
                native,
                passed,
            });
        }
        Ok(())
    }

    /// What a rule has found already.
    fn of_rule(&self, rule: Rule) -> End {
        if self.examiner.has_refused(rule) {
            End::Found(Vec::new())
        } else {
            End::Content
        }
    }
}

/// The hooks of the base's list; the commit's own is not asked.
pub(super) fn planned(repository: &Repository, base: &base::Base) -> Result<Vec<Planned>, Obstacle> {
    let config = &base.policy.spec.hooks.config;
    let text = match base.tip {
        Some(tip) => repository.file(tip, config)?,
        None => None,
    };
    let Some(text) = text else { return Ok(Vec::new()) };
    let text = String::from_utf8(text).map_err(|_| Obstacle::Config("it is not UTF-8".to_owned()))?;
    hooks::plan(config, &text, &base.policy).map_err(Obstacle::Config)
}

/// A hook whose code may be another tomorrow: tags have been moved to hostile commits (tj-actions 2025, trivy-action 2026).
pub(super) fn movable(code: &Code, hook: &str, level: Level) -> Option<Finding> {
    let Code::Movable { repo, revision } = code else {
        return None;
    };
    let message = format!("is installed from {repo} at `{revision}`, a name that can be moved");
    let fix = "write the 40 digits of the commit as `rev` (`prek update --freeze` does)";
    Some(said(level, hook, message, fix))
}

fn said(level: Level, hook: &str, message: String, fix: &str) -> Finding {
    Finding {
        rule: Rule::Hook,
        level,
        commit: Some(format!("hook {hook}")),
        path: None,
        line: 0,
        column: 0,
        message,
        fix: fix.to_owned(),
    }
}

/// What all hooks of a run need.
pub(super) struct Bench<'a> {
    state: &'a Path,
    sandbox: Sandbox,
    scratch: Scratch,
    checkout: Checkout,
    common: Vec<Mount>,
}

impl<'a> Bench<'a> {
    pub(super) async fn set_up(repository: &Repository, commit: Oid, state: &'a Path) -> Result<Self, Obstacle> {
        let sandbox = Sandbox::find().await?;
        let prek = prek::fetch(state)?;
        let scratch = Scratch::make(state, checkout::MOST_BYTES)?;
        let checkout = checkout::write(repository, commit, scratch.path())?;
        let mut common = vec![Mount::read_only(prek, "/run/prek")];
        for (name, text) in [("passwd", PASSWD), ("group", GROUP), ("gitconfig", GIT_CONFIG)] {
            let file = scratch.path().join(name);
            std::fs::write(&file, text.replace("USER", &sandbox.user().to_string()))?;
            readable(&file)?;
            common.push(Mount::read_only(file, format!("/etc/{name}")));
        }
        Ok(Self {
            state,
            sandbox,
            scratch,
            checkout,
            common,
        })
    }

    pub(super) async fn run(
        &self,
        hook: &str,
        config: &serde_json::Value,
        stage: &str,
        code: &Code,
        timeout: Duration,
        level: Level,
    ) -> Result<End, Obstacle> {
        let config_file = self.scratch.path().join("hook.yaml");
        // JSON is YAML.
        std::fs::write(&config_file, config.to_string())?;
        readable(&config_file)?;
        let mut mounts = self.common.clone();
        mounts.push(Mount::read_only(&config_file, CONFIG));
        mounts.push(Mount::read_only(&self.checkout.tree, "/run/tree"));
        mounts.push(Mount::read_only(&self.checkout.git, "/work/.git"));
        match code {
            Code::Here => {}
            Code::Pinned | Code::Movable { .. } => {
                let wanted = Wanted {
                    hook,
                    config,
                    config_file: &config_file,
                    common: &self.common,
                };
                let place = environments::ready(&self.sandbox, self.state, &wanted).await?;
                mounts.extend(environments::mounts(&place));
            }
        }
        if *code == Code::Here {
            mounts.push(Mount::Empty {
                to: super::bubblewrap::PREK_HOME.into(),
            });
        }
        let room = Room {
            mounts,
            variables: prek::OFFLINE.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            network: Network::None,
        };
        // The copy is made inside, where it counts against what a hook may fill.
        let script = format!(
            "cp -dR /run/tree/. . || exit 3\nexec /run/prek run -c {CONFIG} --all-files --stage {stage} --color never \
             --no-progress --log-file /tmp/prek.log 2>&1"
        );
        let bounds = process::Bounds {
            deadline: timeout,
            output_bytes: OUTPUT_BYTES,
        };
        match self.sandbox.run(&room, ["sh", "-c", &script], bounds).await {
            Ok(ended) => end_of(hook, ended.status.code(), &ended.stdout, &ended.stderr, level),
            Err(ProcessError::TooLong { deadline, .. }) => {
                let message = format!(
                    "did not end within {} s, and was ended with all that it had begun",
                    deadline.as_secs()
                );
                let fix = "see what it waits for; an owner raises `hooks.timeoutS` in the policy";
                Ok(End::Found(vec![said(level, hook, message, fix)]))
            }
            Err(why) => Err(why.into()),
        }
    }
}

/// Who looks at it in the sandbox is another user, whatever our own mask is.
fn readable(file: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

/// prek's exit code and its words must agree; anything else is no end that we know.
fn end_of(hook: &str, code: Option<i32>, stdout: &[u8], stderr: &[u8], level: Level) -> Result<End, Obstacle> {
    let output = String::from_utf8_lossy(stdout);
    match (code, hooks::ends(&output).as_slice()) {
        (Some(0), [Ended::Passed | Ended::Skipped]) => Ok(End::Content),
        // Its own manifest says that it is for messages, or to be run by hand.
        (Some(0), []) if output.trim().is_empty() => Ok(End::NotAsked),
        (Some(1), [Ended::Failed]) => Ok(End::Found(hooks::failures(&output, level))),
        (code, _) => Err(Obstacle::Untold {
            hook: hook.to_owned(),
            code: code.map_or("none".to_owned(), |code| code.to_string()),
            said: last_words(if stdout.trim_ascii().is_empty() { stderr } else { stdout }),
        }),
    }
}

/// The digest by which a verdict is asked for: of the policy that the base has at this commit.
///
/// # Errors
/// It cannot be read.
pub fn policy_digest(repository: &Repository, tip: Option<Oid>) -> Result<Digest, RepositoryError> {
    let text = match tip {
        Some(tip) => repository.file(tip, policy::PATH)?,
        None => None,
    };
    Ok(Digest::of(text.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_prek_says_in_code_and_words_is_an_end() {
        let end = |code, output: &str| match end_of("h", code, output.as_bytes(), b"", Level::Refused) {
            Ok(End::Content) => "content".to_owned(),
            Ok(End::NotAsked) => "not asked".to_owned(),
            Ok(End::Found(found)) => format!("found {}", found.len()),
            Err(_) => "untold".to_owned(),
        };
        let failed = "h......Failed\n- hook id: h\n- exit code: 1\n";
        for (code, output, expected) in [
            (Some(0), "h......Passed\n", "content"),
            (Some(0), "h......(no files to check)Skipped\n", "content"),
            (Some(0), "", "not asked"),
            (Some(0), "something else\n", "untold"),
            (Some(0), failed, "untold"),
            (Some(0), "h......Passed\nh......Passed\n", "untold"),
            (Some(1), failed, "found 1"),
            (Some(1), "h......Passed\n", "untold"),
            (Some(1), "", "untold"),
            (Some(2), failed, "untold"),
            (Some(3), "", "untold"),
            (Some(134), "", "untold"),
            (None, failed, "untold"),
        ] {
            assert_eq!(end(code, output), expected, "{code:?} {output}");
        }
    }
}
