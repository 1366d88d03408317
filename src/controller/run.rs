//! The reconcile loop of one hub: one `select!` over a closed set of events, everything else decided elsewhere.
//!
//! Invariants: at most the set number of workers; one per twin; tasks live in one `JoinSet` that is drained before
//! the loop ends; a panic in one reconcile is counted and costs that reconcile alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::{Access, ReadOnly, ReadWrite};
use super::command::{Command, Inputs};
use super::context::Task;
use super::loop_state::{Controller, Finished, Running};
use super::options::Options;
use super::queue::Taken;
use super::reconcile::reconcile;
use super::status::Statuses;
use super::wish::PendingWish;
use crate::hub::{Paced, ReadTwins, WriteTwins};
use crate::metrics::ControllerHub;

/// How long running writes may take to end once the loop is told to.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// How often what is under way is measured while nothing ends.
const WATCHED_EVERY: Duration = Duration::from_secs(5);

/// How a loop ended.
#[derive(Debug)]
pub struct Ended {
    /// Every twin as it stands.
    pub statuses: Statuses,
    /// Why a single pass could not be made at all.
    pub error: Option<String>,
}

/// Reconciles one hub until cancelled, or once. `inputs` holds a loaded state from the start.
pub async fn run<H: WriteTwins + Paced + 'static>(
    options: Options,
    hub: H,
    inputs: impl Into<Inputs>,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    run_loop(options, ReadWrite(hub), inputs.into(), metrics, cancel, rng).await
}

/// Looks at one hub until cancelled, or once, and says what differs. Nothing in it could write.
pub async fn observe<H: ReadTwins + Paced + 'static>(
    options: Options,
    hub: H,
    inputs: impl Into<Inputs>,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    run_loop(options, ReadOnly(hub), inputs.into(), metrics, cancel, rng).await
}

async fn run_loop<H: Access>(
    options: Options,
    hub: H,
    inputs: Inputs,
    metrics: ControllerHub,
    cancel: CancellationToken,
    rng: fastrand::Rng,
) -> Ended {
    let Inputs { mut declared, mut commands, along } = inputs;
    let mut controller = Controller::new(options, hub, along, metrics, rng);
    controller.take_state(Arc::clone(&declared.borrow_and_update()), true);
    let mut open = true;
    while !controller.is_over() {
        controller.start_tasks();
        let wake = controller.next_wake();
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            changed = declared.changed(), if open => match changed {
                Ok(()) => controller.take_state(Arc::clone(&declared.borrow_and_update()), false),
                Err(_) => open = false,
            },
            Some(command) = next_command(&mut commands) => controller.obey(command),
            Some(_) = controller.explaining.join_next() => {}
            Some(finished) = controller.tasks.join_next_with_id() => controller.finished(finished),
            () = sleep_until(wake) => {}
        }
    }
    controller.drain().await
}

/// The next command; never, once nobody can give one.
async fn next_command(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    let command = match commands {
        Some(line) => line.recv().await,
        None => std::future::pending().await,
    };
    if command.is_none() {
        *commands = None;
    }
    command
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl<H: Access> Controller<H> {
    /// Starts what is due and has a free worker.
    fn start_tasks(&mut self) {
        let now = self.now();
        let workers = self.health.workers(now, self.options.workers);
        let sweep_due = self.next_sweep.is_some_and(|at| at <= now);
        if sweep_due && !self.sweep_running() && workers > 0 {
            self.start_sweep(now);
            self.asked.began(None);
        }
        while self.workers_running() < workers {
            let Some(taken) = self.queue.take(now) else { break };
            self.start(taken, now);
        }
        let longest = self.running.iter().filter(|r| r.twin.is_some()).map(|r| now.saturating_sub(r.since));
        self.report.queue(self.queue.depth(now), self.workers_running(), longest);
        self.measure_progress(now);
    }

    fn start(&mut self, taken: Taken, now: Duration) {
        self.report.waited(taken.waited);
        self.asked.began(Some(&taken.twin));
        let task = Task {
            seen: self.seen.contains_key(&taken.twin),
            rejection: self.rejections.get(&taken.twin).cloned(),
            restraint: self.rivals.restraint(&taken.twin, now),
            wish: self.wishes.get_mut(&taken.twin).map(PendingWish::begin),
            twin: taken.twin.clone(),
            lane: taken.lane,
        };
        let context = Arc::clone(&self.context);
        // In a box of its own: a task that holds the future, which is kilobytes, moves it eleven times in its life.
        let work = Box::pin(async move { Finished::Twin(Box::new(reconcile(&context, &task).await)) });
        let handle = self.tasks.spawn(work);
        self.running.push(Running { id: handle.id(), twin: Some(taken.twin), since: now });
    }

    /// When something is due that no task's end will announce.
    fn next_wake(&self) -> Option<Instant> {
        let free = self.health.workers(Duration::MAX, self.options.workers) > self.workers_running();
        let twin = self.queue.next_due().filter(|_| free);
        let sweep = self.next_sweep.filter(|_| !self.sweep_running());
        let next = twin.into_iter().chain(sweep).min().map(|next| next.max(self.health.paused_until()));
        // Gauges of what is under way follow the time, also while nothing ends: that is when they matter.
        let watch = (!self.running.is_empty()).then(|| self.now() + WATCHED_EVERY);
        Some(self.context.started + next.into_iter().chain(watch).min()?)
    }

    /// A single pass is over when every twin is settled or given up; a daemon's loop never is.
    fn is_over(&self) -> bool {
        let judged = self.options.policy.suspend.is_some() || self.context.gate().is_judged();
        let settled = judged && self.queue.is_idle() && !self.sweep_running();
        self.options.single_pass && (settled || self.error.is_some())
    }

    /// Lets running reconciles end their writes, within bounds, and starts nothing more.
    async fn drain(mut self) -> Ended {
        if !self.running.is_empty() {
            self.report.draining(self.running.len());
        }
        let sweeping = self.running.iter().any(|running| running.twin.is_none());
        if sweeping && self.workers_running() == 0 {
            self.tasks.abort_all();
        }
        let ended = tokio::time::timeout(DRAIN_MAX, async {
            while let Some(finished) = self.tasks.join_next_with_id().await {
                match finished {
                    Err(error) if error.is_cancelled() => {}
                    finished => self.finished(finished),
                }
                if self.workers_running() == 0 {
                    self.tasks.abort_all();
                }
            }
        });
        if ended.await.is_err() {
            self.report.drain_incomplete(self.workers_running());
        }
        self.report.ended(&self.statuses);
        Ended { statuses: self.statuses, error: self.error }
    }
}
