//! Nodes that stop serving by themselves while they wait for their turn: the operators are told, once, and once more when
//! they are back. No batch depends on it: [`Draft::is_out`] counts them already.

use super::blame::TIME_TO_COME_BACK;
use super::decide::Draft;
use super::plan::{Look, Serving};
use crate::model::upgrade::{Loss, Lost, NodePhase, Phase, Severity};
use crate::model::values::Duration;

/// A connection that was cut is made anew within this; a host that says nothing for longer is worth a call.
const TIME_TO_BE_REACHED: Duration = Duration::from_secs(30);

impl Draft<'_> {
    pub(super) fn note_lost(&mut self) {
        let phase = self.status.phase;
        let watched = matches!(
            phase,
            Phase::Baseline | Phase::Rolling | Phase::Soak | Phase::RollingBack
        );
        if !watched {
            return;
        }
        for i in 0..self.plan.nodes.len() {
            if *self.look(i) == Look::NotYet {
                // What the driver before saw is no news.
                continue;
            }
            if self.signals(i).serving == Serving::Yes && !self.node(i).served {
                self.node_mut(i).served = true;
            }
            // On the way back a node that has strayed is started again, and its end is told.
            let ours_to_mend = phase == Phase::RollingBack || !self.is_untouched(i);
            match self.loss(i) {
                Some(how) if !ours_to_mend => self.note_loss(i, how),
                Some(_) => {}
                None => self.note_return(i),
            }
        }
    }

    /// On the build that it ran before, and not in our hands: what it does, it does by itself.
    fn is_untouched(&self, i: usize) -> bool {
        let node = self.node(i);
        let waits = match node.phase {
            NodePhase::Waiting | NodePhase::Checked | NodePhase::Install => true,
            NodePhase::Done => !self.under_test(i),
            NodePhase::Drain
            | NodePhase::Activate
            | NodePhase::Restart
            | NodePhase::Warm
            | NodePhase::Probe
            | NodePhase::Analyse
            | NodePhase::Admit
            | NodePhase::Removing
            | NodePhase::OutOfService => false,
        };
        // One that did not serve when the upgrade began has nothing to lose, and one that the upgrade before left out was told
        // then.
        waits && !node.drained && node.served
    }

    fn loss(&self, i: usize) -> Option<Loss> {
        match self.look(i) {
            Look::Unreachable { .. } => Some(Loss::Unreachable),
            Look::Seen(seen) if seen.running.is_none() => Some(Loss::NotRunning),
            Look::Seen(_) if self.signals(i).serving == Serving::No => Some(Loss::Mute),
            Look::NotYet | Look::Foreign { .. } | Look::Seen(_) => None,
        }
    }

    fn note_loss(&mut self, i: usize, how: Loss) {
        let now = self.now();
        let lost = self.node_mut(i).lost.get_or_insert(Lost {
            since: now,
            how,
            told_at: None,
        });
        lost.how = how;
        let (since, told) = (lost.since, lost.told_at.is_some());
        let patience = match how {
            Loss::NotRunning | Loss::Mute => TIME_TO_COME_BACK,
            Loss::Unreachable => TIME_TO_BE_REACHED,
        };
        if told || !self.passed(since, patience) {
            return;
        }
        let seen = match self.look(i) {
            Look::Unreachable { why, .. } => format!("{how}: {why}"),
            Look::NotYet | Look::Foreign { .. } | Look::Seen(_) => how.to_string(),
        };
        let reason = match how {
            Loss::NotRunning | Loss::Mute => "NodeLost",
            Loss::Unreachable => "NodeUnreachable",
        };
        let message = format!(
            "{} went out by itself, on the build it ran before {}@{}: {seen}, for {patience}",
            self.plan.nodes[i], self.plan.component, self.plan.version
        );
        self.tell(Severity::Alert, reason, Some(i), message);
        if let Some(lost) = &mut self.node_mut(i).lost {
            lost.told_at = Some(now);
        }
    }

    /// Nobody is told of one that was out for a moment. One that its batch has in hand is back when the batch says so.
    fn note_return(&mut self, i: usize) {
        let node = self.node(i);
        let Some(lost) = node.lost.clone() else {
            return;
        };
        let settled = self.is_untouched(i) || node.phase == NodePhase::Done;
        if !settled || self.signals(i).serving != Serving::Yes {
            return;
        }
        self.node_mut(i).lost = None;
        if lost.told_at.is_some() {
            let message = format!(
                "{} is back, and was out since {}",
                self.plan.nodes[i],
                lost.since.strftime("%H:%M:%SZ")
            );
            self.tell(Severity::Alert, "NodeBack", Some(i), message);
        }
    }
}
