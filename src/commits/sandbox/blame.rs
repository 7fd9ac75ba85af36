//! Which commit of those that were checked together is refused. Hooks run once, at the tip; who pushes nine good commits with
//! somebody's bad one must not hear that all are bad, and who wrote the bad one, with `--no-verify`, must.

use std::future::Future;
use std::time::Duration;

use git2::Oid;

use super::full::{Bench, End, Means, Obstacle, movable, planned};
use crate::commits::base::Base;
use crate::commits::content::without_tokens;
use crate::commits::examine::spared_by;
use crate::commits::finding::{Level, Rule};
use crate::commits::hooks::{How, Planned};
use crate::commits::policy::Policy;
use crate::commits::proof::{Blame, HookRun, Passed, Since, Verdict};
use crate::commits::repository::{Repository, RepositoryError, TooMany};

/// All that is run to find out. Of 2,000 commits eleven are run a hook, of seconds each. The verdict stands without it and is
/// not kept before, and the next run waits.
const LONGEST: Duration = Duration::from_mins(1);

/// Whose the findings of a verdict are; what cannot be told in time, or before who asks has `enough`, is nobody's.
pub(super) async fn of(
    means: Means<'_>,
    repository: &Repository,
    base: &Base,
    verdict: &Verdict,
    refused: &[(Oid, Vec<Rule>)],
    enough: impl Future<Output = ()>,
) -> Vec<Blame> {
    let mut blames = Blames {
        repository,
        policy: &base.policy,
        found: Vec::new(),
    };
    for (id, rules) in refused {
        for rule in rules {
            blames.add(*id, Since::ThisCommit, rule.name().to_owned());
        }
    }
    for finding in &verdict.findings {
        // The tracker was asked after the commits were looked at.
        if finding["rule"] == Rule::Issue.name()
            && finding["level"] == "refused"
            && let Some(id) = finding["commit"]
                .as_str()
                .and_then(|name| repository.named_commit(name).ok())
        {
            blames.add(id, Since::ThisCommit, Rule::Issue.name().to_owned());
        }
    }
    // What a hook only suggests refuses nobody.
    if base.policy.level(Rule::Hook) == Some(Level::Refused) {
        let search = Search {
            means,
            repository,
            base,
        };
        let searched = async {
            for hook in &verdict.hooks {
                if hook.native || hook.passed == Passed::Yes {
                    continue;
                }
                let since = match repository.named_commit(&verdict.subject.commit) {
                    Ok(commit) => search.since(hook, commit).await,
                    Err(why) => Err(why.into()),
                };
                match since {
                    Ok(Some((id, since))) => blames.add(id, since, format!("hook {}", hook.id)),
                    Ok(None) => {}
                    Err(why) => tracing::warn!(%why, hook = hook.id, "cannot tell which commit a hook refuses"),
                }
            }
        };
        tokio::select! {
            () = searched => {}
            () = tokio::time::sleep(LONGEST) => tracing::warn!(commit = verdict.subject.commit, "no time to tell which commits the hooks refuse"),
            () = enough => {}
        }
    }
    blames.found
}

struct Blames<'a> {
    repository: &'a Repository,
    policy: &'a Policy,
    found: Vec<Blame>,
}

impl Blames<'_> {
    fn add(&mut self, id: Oid, since: Since, rule: String) {
        let commit = id.to_string();
        let known = self.found.iter_mut().find(|b| b.commit == commit && b.since == since);
        match known {
            Some(blame) if blame.rules.contains(&rule) => {}
            Some(blame) => blame.rules.push(rule),
            None => self.found.push(Blame {
                commit,
                author: self.author(id),
                rules: vec![rule],
                since,
            }),
        }
    }
}

impl Blames<'_> {
    /// Who wrote a commit, with no more of a token in the name than of one in a file.
    fn author(&self, id: Oid) -> String {
        let author = self.repository.author(id);
        String::from_utf8_lossy(&without_tokens(self.policy, author.as_bytes())).into_owned()
    }
}

struct Search<'a> {
    means: Means<'a>,
    repository: &'a Repository,
    base: &'a Base,
}

impl Search<'_> {
    /// Since which commit a hook is not content. None if it was not run at all, or nothing is new, or too much.
    async fn since(&self, hook: &HookRun, commit: Oid) -> Result<Option<(Oid, Since)>, Obstacle> {
        let planned = planned(self.repository, self.base)?;
        let Some(planned) = planned
            .into_iter()
            .find(|p| p.id == hook.id && p.revision == hook.revision)
        else {
            return Ok(None);
        };
        let mut content: Vec<Oid> = spared_by(self.repository, &self.base.policy).into_iter().collect();
        if let Some(tip) = self.base.tip {
            if self.repository.is_ancestor(commit, tip) {
                return Ok(None);
            }
            match self.refuses(&planned, tip).await? {
                None => return Ok(None),
                Some(true) => return Ok(Some((tip, Since::Before))),
                Some(false) => content.push(tip),
            }
        }
        let mut refused = commit;
        loop {
            let middle = match self.middle(refused, &content)? {
                Ok(Some(middle)) => middle,
                Ok(None) => return Ok(Some((refused, Since::ThisCommit))),
                Err(TooMany) => return Ok(None),
            };
            match self.refuses(&planned, middle).await? {
                None => return Ok(None),
                Some(true) => refused = middle,
                Some(false) => content.push(middle),
            }
        }
    }

    /// A commit that a refused one has and none that is content has, and that halves them as far as an order can: so
    /// `git bisect` goes.
    fn middle(&self, refused: Oid, content: &[Oid]) -> Result<Result<Option<Oid>, TooMany>, RepositoryError> {
        let most = self.base.policy.spec.bounds.commits;
        let between = self.repository.between(&[refused], content, most)?;
        Ok(between.map(|ids| {
            // The refused one comes last.
            let others = ids.len().saturating_sub(1);
            (others > 0).then(|| ids[(others - 1) / 2])
        }))
    }

    /// Whether a hook refuses a commit; none where it must not be run.
    async fn refuses(&self, Planned { id, how, .. }: &Planned, commit: Oid) -> Result<Option<bool>, Obstacle> {
        let How::Prek { config, stage, code } = how else {
            return Ok(None);
        };
        if movable(code, id, Level::Refused).is_some() {
            return Ok(None);
        }
        let bench = Bench::set_up(self.repository, commit, self.means.state).await?;
        let timeout = Duration::from_secs(self.base.policy.spec.hooks.timeout_s);
        let end = bench.run(id, config, stage, code, timeout, Level::Refused).await?;
        Ok(Some(match end {
            End::Found(_) => true,
            End::Content | End::NotAsked => false,
        }))
    }
}
