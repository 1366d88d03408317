//! Commands as the loop follows them.
//!
//! Invariant: an approval is taken only for what is held at this moment, at this revision, in at most this number.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::command::{Approved, Command, Overview, Page, REPORTS_MAX, Refused, TwinReport};
use super::explain::{EXPLAINED_MAX, Explained, explain};
use super::queue::Lane;
use super::run::Controller;
use super::status::TwinStatus;
use crate::hub::WriteTwins;
use crate::plan::{APPROVAL_LIFE, Approval, Removals, TwinState};
use crate::twin::TwinRef;

impl<H: WriteTwins + 'static> Controller<H> {
    /// Follows one command. Whoever asked and did not wait for the answer gets none.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Approve { approval, reply } => drop(reply.send(self.approve(&approval))),
            Command::Reconcile { twin, token, reply } => drop(reply.send(self.nudge(twin.as_ref(), token))),
            Command::Request { token, reply } => drop(reply.send(self.asked.get(&token).cloned())),
            Command::Explain { twin, reply } => self.explain(twin, reply),
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
        let until = (self.options.wall_clock)() + APPROVAL_LIFE;
        Ok(Approved { guard: approval.guard, count: approval.count, until })
    }

    fn nudge(&mut self, twin: Option<&TwinRef>, token: String) -> Result<(), Refused> {
        let now = self.now();
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
            let explained = explain(&context, &twin, &removals).await;
            drop(reply.send(Ok(explained.map_err(|error| error.to_string()))));
        });
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
        Some(TwinReport {
            twin: twin.clone(),
            condition: status.outcome.condition()?,
            message: status.message.clone(),
            observed: self.context.memory().get(twin).and_then(|known| known.declared.clone()),
            last_transition: wall_now.checked_sub(ago).unwrap_or(wall_now),
            failures: status.failures,
            next_try: self.queue.due_of(twin).map(|due| due.saturating_sub(now)),
        })
    }
}
