//! Commands as the loop follows them.
//!
//! Invariant: an approval is taken only for what is held at this moment, at this revision, in at most this number.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::access::Access;
use super::answer::{Approved, Overview, Page, REPORTS_MAX, Refused, TwinReport};
use super::command::Command;
use super::explain::{EXPLAINED_MAX, Explained, explain};
use super::loop_state::Controller;
use super::queue::Lane;
use super::reconcile::Reconciled;
use super::report::Report;
use super::status::TwinStatus;
use super::wish::{PendingWish, Reply};
use crate::plan::{APPROVAL_LIFE, Approval, Removals, Synced, TwinState};
use crate::twin::TwinRef;

/// The longest reason of a suspension, in bytes: it takes room in the tags.
const REASON_SIZE_MAX: usize = 256;

fn is_reason(text: &str) -> bool {
    (1..=REASON_SIZE_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl<H: Access> Controller<H> {
    /// Follows one command. Whoever asked and did not wait for the answer gets none.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Approve { approval, reply } => drop(reply.send(self.approve(&approval))),
            Command::Reconcile { twin, token, reply } => drop(reply.send(self.nudge(twin.as_ref(), token))),
            Command::Request { token, reply } => drop(reply.send(self.asked.get(&token).cloned())),
            Command::Explain { twin, reply } => self.explain(twin, reply),
            Command::Suspend { twin, reason, reply } => self.suspend(&twin, reason, reply),
            Command::Overview { page, reply } => drop(reply.send(self.overview(&page))),
        }
    }

    fn approve(&mut self, approval: &Approval) -> Result<Approved, Refused> {
        let now = self.now();
        if approval.hub != self.options.hub {
            return Err(Refused(format!("this is hub {}, not {}", self.options.hub, approval.hub)));
        }
        if approval.revision != self.state.revision {
            let (seen, revision) = (&approval.revision, &self.state.revision);
            return Err(Refused(format!("the manifests are at {revision} by now, not at {seen}; look again")));
        }
        self.context.gate().approve(approval, now)?;
        self.report.approved(approval);
        self.check_guards();
        if let Some(twin) = &approval.twin {
            self.add(twin, Lane::Git, now);
        }
        let until = (self.options.wall_clock)() + APPROVAL_LIFE;
        Ok(Approved { guard: approval.guard, count: approval.count, until })
    }

    fn nudge(&mut self, twin: Option<&TwinRef>, token: String) -> Result<(), Refused> {
        let now = self.now();
        if let Some(reason) = &self.options.policy.suspend {
            return Err(Refused(format!("hub {} is suspended: {reason}", self.options.hub)));
        }
        match twin {
            None => {
                self.asked.add(token, None);
                self.sweep_asked = self.sweep_running();
                self.sweep_soon();
                Ok(())
            }
            Some(twin) if self.statuses.get(twin).is_some() => {
                self.asked.add(token, Some(twin.clone()));
                self.add(twin, Lane::Git, now);
                Ok(())
            }
            Some(twin) => Err(Refused(format!("{twin} is not managed on hub {}", self.options.hub))),
        }
    }

    /// Answers from a task of its own: the loop waits for no hub.
    fn explain(&mut self, twin: TwinRef, reply: oneshot::Sender<Result<Result<Explained, String>, Refused>>) {
        if self.explaining.len() >= EXPLAINED_MAX {
            drop(
                reply.send(Err(Refused(format!("{EXPLAINED_MAX} twins are being explained already; try again soon")))),
            );
            return;
        }
        let removals = self.context.gate().hold(self.now()).map_or(Removals::Go, Removals::Held);
        let context = Arc::clone(&self.context);
        self.explaining.spawn(async move {
            let explained = explain(&context, &twin, removals).await;
            drop(reply.send(Ok(explained.map_err(|error| error.to_string()))));
        });
    }

    /// Has the suspension of a twin, or its end, written into the seal by the next worker.
    fn suspend(&mut self, twin: &TwinRef, reason: Option<String>, reply: Reply) {
        let refusal = if let Some(reason) = &self.options.policy.suspend {
            Some(format!("hub {} is suspended: {reason}", self.options.hub))
        } else if !self.context.scope.seals {
            Some("without seals nothing can be recorded; suspend the twin by an annotation of its manifest".to_owned())
        } else if self.statuses.get(twin).is_none() {
            Some(format!("{twin} is not managed on hub {}", self.options.hub))
        } else if reason.as_ref().is_some_and(|reason| !is_reason(reason)) {
            Some(format!("a reason has 1 to {REASON_SIZE_MAX} bytes and no control characters"))
        } else if self.wishes.contains_key(twin) {
            Some(format!("another suspension of {twin} is under way; try again"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return drop(reply.send(Err(Refused(refusal))));
        }
        self.wishes.insert(twin.clone(), PendingWish { reason, begun: false, reply });
        let now = self.now();
        self.add(twin, Lane::Git, now);
    }

    /// Tells whoever wanted a suspension, or its end, what became of it.
    pub(super) fn wished(&mut self, result: &Reconciled) {
        let now = self.now();
        if !self.wishes.get(&result.twin).is_some_and(|wish| wish.begun) {
            return;
        }
        let Some(wish) = self.wishes.remove(&result.twin) else { return };
        let answer = match (result.sealed, self.context.hub.writer()) {
            (true, _) => Ok(()),
            (false, None) => Err(Refused("mode observe writes nothing".to_owned())),
            (false, Some(_)) => {
                let reason = result.outcome.condition().map_or("Released", |condition| condition.reason);
                Err(Refused(format!("{} could not be written: {reason}: {}", result.twin, Report::message(result))))
            }
        };
        self.add(&result.twin, Lane::Git, now);
        drop(wish.reply.send(answer));
    }

    fn overview(&mut self, page: &Page) -> Overview {
        let now = self.now();
        let holds = self.context.gate().holds(now);
        let limit = page.limit.min(REPORTS_MAX);
        let twins = match &page.only {
            Some(twin) => {
                self.statuses.get(twin).and_then(|status| self.twin_report(twin, status)).into_iter().collect()
            }
            None => self
                .statuses
                .after(page.after.as_ref())
                .filter_map(|(twin, status)| self.twin_report(twin, status))
                .take(limit)
                .collect(),
        };
        Overview {
            hub: self.options.hub.clone(),
            revision: self.state.revision.clone(),
            up: !self.health.is_down(),
            allowance: self.context.hub.allowance(),
            holds,
            total: self.statuses.len(),
            states: TwinState::ALL
                .into_iter()
                .map(|state| (state, self.statuses.count(state)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            queue: self.queue.len(),
            last_sweep: self.last_sweep,
            next_sweep: self.next_sweep.map(|at| at.saturating_sub(now)),
            handled: self.asked.last_done(page.only.as_ref()).map(|request| request.token.clone()),
            twins,
        }
    }

    fn twin_report(&self, twin: &TwinRef, status: &TwinStatus) -> Option<TwinReport> {
        let now = self.now();
        let ago = now.saturating_sub(status.since);
        let wall_now = (self.options.wall_clock)();
        let condition = status.outcome.condition()?;
        let known = self.context.memory().get(twin).and_then(|known| known.declared.clone());
        Some(TwinReport {
            twin: twin.clone(),
            condition,
            message: status.message.clone(),
            observed: known.filter(|_| condition.synced == Synced::True),
            last_transition: wall_now.checked_sub(ago).unwrap_or(wall_now),
            failures: status.failures,
            next_try: self.queue.due_of(twin).map(|due| due.saturating_sub(now)),
        })
    }
}
