//! Commands as the loop follows them.
//!
//! Invariant: an approval is taken only for what is held at this moment, at this revision, in at most this number.

use super::command::{Approved, Command, Overview, Page, REPORTS_MAX, Refused, TwinReport};
use super::queue::Lane;
use super::run::Controller;
use super::status::TwinStatus;
use crate::hub::{Paced, WriteTwins};
use crate::plan::{APPROVAL_LIFE, Approval};
use crate::twin::TwinRef;

impl<H: WriteTwins + Paced + 'static> Controller<H> {
    /// Follows one command. Whoever asked and did not wait for the answer gets none.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Approve { approval, reply } => drop(reply.send(self.approve(&approval))),
            Command::Reconcile { twin, reply } => drop(reply.send(self.nudge(twin.as_ref()))),
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

    fn nudge(&mut self, twin: Option<&TwinRef>) -> Result<(), Refused> {
        let now = self.now();
        match twin {
            None => {
                self.sweep_soon();
                Ok(())
            }
            Some(twin) if self.statuses.get(twin).is_some() => {
                self.add(twin, Lane::Git, now);
                Ok(())
            }
            Some(twin) => Err(Refused(format!("{twin} is not managed on hub {}", self.options.hub))),
        }
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
