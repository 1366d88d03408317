//! How far long work is: a bar on a terminal, a log line now and then elsewhere.
//!
//! Invariants: nothing of a bar is written where standard error is no terminal, and a log line never lands inside one.
//! Work that ends soon shows nothing.

use std::io::{self, Write, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use crate::hub::{Continuation, HubError, QueryPage, ReadTwins, TextPage};
use crate::metrics::SweepHandle;
use crate::twin::{Twin, TwinRef};

/// How often work that counts by itself is looked at.
const LOOKED_EVERY: Duration = Duration::from_millis(200);
/// Work that has lasted less shows nothing.
const SHOWN_AFTER: Duration = Duration::from_millis(500);
/// How often a bar is drawn, however fast the work goes.
const DRAWN_EVERY: Duration = Duration::from_millis(100);
/// How often a log line tells of work where no bar does.
const SAID_EVERY: Duration = Duration::from_secs(30);
/// Bar, what it is, how much of it, and when it ends.
const TEMPLATE: &str = "{prefix} [{bar:30}] {msg}";

/// Where bars are drawn, and log lines written around them. Clones are the same place.
#[derive(Debug, Clone)]
pub struct Progress(MultiProgress);

impl Progress {
    /// Bars on standard error, if that is a terminal.
    #[must_use]
    pub fn stderr() -> Self {
        Self(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
    }

    /// No bar: something else writes to the same terminal.
    #[must_use]
    pub fn hidden() -> Self {
        Self(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()))
    }

    /// Work called `what` on about `total` twins.
    #[must_use]
    pub fn work(&self, what: &str, total: usize) -> Work {
        let state = WorkState { meter: Meter::new(total, now()), bar: None, said: Duration::ZERO };
        Work { what: what.to_owned(), progress: self.clone(), done: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// Shows what remains of the sweeps of a hub and of the work they found, until cancelled. Log lines of these are
    /// the loop's own.
    pub(super) async fn follow(&self, hub: &str, sweeps: &SweepHandle, until: CancellationToken) {
        if self.0.is_hidden() {
            return;
        }
        let mut looks = tokio::time::interval(LOOKED_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work: Option<Work> = None;
        while until.run_until_cancelled(looks.tick()).await.is_some() {
            let remaining = sweeps.remaining();
            if remaining == 0 {
                work = None;
                continue;
            }
            work.get_or_insert_with(|| self.work(hub, remaining)).remains(remaining);
        }
    }
}

/// The present time, for work that runs in real time.
#[expect(clippy::disallowed_methods, reason = "the one clock of bars; the meter below takes ages")]
fn now() -> Instant {
    Instant::now()
}

/// One piece of work under way. Its bar goes when it is dropped.
#[derive(Debug)]
pub struct Work {
    what: String,
    progress: Progress,
    done: AtomicUsize,
    state: Mutex<WorkState>,
}

#[derive(Debug)]
struct WorkState {
    meter: Meter,
    bar: Option<ProgressBar>,
    /// How long the work had lasted when a line told of it last, or the bar was drawn.
    said: Duration,
}

impl Work {
    /// One more twin is done.
    pub fn one(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.show(|meter| meter.set(done));
    }

    /// A reader of twins whose reads are the work.
    pub fn reading<H>(self, hub: H) -> Counted<H> {
        Counted { hub, work: Arc::new(self) }
    }

    fn remains(&self, remaining: usize) {
        self.show(|meter| meter.remains(remaining));
    }

    fn show(&self, change: impl FnOnce(&mut Meter)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.meter);
        let elapsed = now() - state.meter.begun;
        let seen = state.meter.seen(elapsed);
        if self.progress.0.is_hidden() {
            if elapsed - state.said >= SAID_EVERY {
                state.said = elapsed;
                let (what, done, of) = (&self.what, seen.done, seen.of);
                tracing::info!(done, of, eta_s = seen.eta.map(|eta| eta.as_secs()), "{what} under way");
            }
            return;
        }
        if elapsed < SHOWN_AFTER || elapsed - state.said < DRAWN_EVERY {
            return;
        }
        state.said = elapsed;
        let bar = state.bar.get_or_insert_with(|| {
            let bar = self.progress.0.add(ProgressBar::no_length());
            let style = ProgressStyle::with_template(TEMPLATE).expect("the template is well-formed");
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix(self.what.clone());
            bar
        });
        bar.set_message(seen.to_string());
        bar.set_length(seen.of as u64);
        bar.set_position(seen.done as u64);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
            self.progress.0.remove(&bar);
        }
    }
}

/// What is done of how much.
#[derive(Debug, Clone, Copy)]
struct Meter {
    begun: Instant,
    done: usize,
    of: usize,
}

/// What a person is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    done: usize,
    of: usize,
    /// The time until the end at the pace so far; `None` as long as there is none.
    eta: Option<Duration>,
}

impl Meter {
    const fn new(of: usize, begun: Instant) -> Self {
        Self { begun, done: 0, of }
    }

    fn set(&mut self, done: usize) {
        self.done = done;
        self.of = self.of.max(done);
    }

    /// More than before is work that was found on the way.
    fn remains(&mut self, remaining: usize) {
        self.of = self.of.max(self.done + remaining);
        self.done = self.of - remaining;
    }

    #[expect(clippy::cast_precision_loss, reason = "a fleet has far fewer than 2^52 twins")]
    fn seen(&self, elapsed: Duration) -> Seen {
        let left = (self.of - self.done) as f64;
        let eta = (self.done > 0).then(|| elapsed.mul_f64(left / self.done as f64));
        Seen { done: self.done, of: self.of, eta }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} twins", self.done, self.of)?;
        match self.eta {
            Some(eta) => write!(f, ", {} left", HumanDuration(Duration::from_secs(eta.as_secs().max(1)))),
            None => Ok(()),
        }
    }
}

/// A hub whose reads of twins are counted.
#[derive(Debug, Clone)]
pub struct Counted<H> {
    hub: H,
    work: Arc<Work>,
}

impl<H: ReadTwins> ReadTwins for Counted<H> {
    fn credential_ends(&self) -> Option<SystemTime> {
        self.hub.credential_ends()
    }

    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        let answer = self.hub.get_twin(twin).await;
        self.work.one();
        answer
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        self.hub.query_page(query, page_size, from).await
    }

    async fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<TextPage, HubError> {
        self.hub.text_page(query, columns, page_size, from).await
    }
}

/// Standard error with the bars out of the way.
#[derive(Debug)]
pub struct LogWriter(Progress);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.suspend(|| stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

impl MakeWriter<'_> for Progress {
    type Writer = LogWriter;

    fn make_writer(&self) -> LogWriter {
        LogWriter(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that keeps what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn put(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
    }

    impl indicatif::TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.put(text)?;
            self.put("\n")
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.put(text)
        }

        fn clear_line(&self) -> io::Result<()> {
            self.put("<clear>")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_remains_and_what_is_done_tell_the_same_and_when_it_ends() {
        let mut meter = Meter::new(100, now());
        assert_eq!(meter.seen(at(5)), Seen { done: 0, of: 100, eta: None });
        assert_eq!(meter.seen(at(5)).to_string(), "0 of 100 twins");
        meter.set(25);
        assert_eq!(meter.seen(at(10)), Seen { done: 25, of: 100, eta: Some(at(30)) });
        assert_eq!(meter.seen(at(10)).to_string(), "25 of 100 twins, 30 seconds left");
        meter.remains(50);
        assert_eq!(meter.seen(at(20)), Seen { done: 50, of: 100, eta: Some(at(20)) });
        meter.remains(150);
        assert_eq!(meter.seen(at(20)), Seen { done: 50, of: 200, eta: Some(at(60)) }, "work found on the way");
        meter.set(250);
        assert_eq!(meter.seen(at(20)), Seen { done: 250, of: 250, eta: Some(at(0)) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_bar_is_drawn_for_work_that_lasts_and_goes_with_it() {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let progress = Progress(MultiProgress::with_draw_target(target));
        let work = progress.work("hub prod", 4);
        work.one();
        assert_eq!(*screen.0.lock().unwrap(), "", "it may end soon");
        tokio::time::advance(SHOWN_AFTER * 2).await;
        work.one();
        let drawn = screen.0.lock().unwrap().clone();
        assert!(drawn.contains("hub prod [===============>              ] 2 of 4 twins, 1 second left"), "{drawn}");
        screen.0.lock().unwrap().clear();
        drop(work);
        let after = screen.0.lock().unwrap().clone();
        assert!(after.contains("<clear>") && !after.contains("twins"), "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_terminal_nothing_is_drawn() {
        let work = Progress::hidden().work("plan", 4);
        tokio::time::advance(at(1)).await;
        work.one();
        assert!(work.state.lock().unwrap().bar.is_none());
        tokio::time::advance(SAID_EVERY).await;
        work.one();
        assert_eq!(work.state.lock().unwrap().said, at(1) + SAID_EVERY, "a line told of it");
    }
}
