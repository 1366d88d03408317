//! Signals: the first asks everything to end in good order, the second ends at once.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal, as shells write an interrupt.
const ABORTED: i32 = 130;

/// The signals that end the process, caught from the moment this is made.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Catches SIGINT and SIGTERM. A signal that comes before anybody waits is kept.
    ///
    /// # Errors
    /// When the system does not let signals be caught.
    pub fn catch() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    /// Cancels `cancel` at the first signal and ends the process at the second. Returns when `ended` is cancelled.
    pub async fn obey(mut self, cancel: CancellationToken, ended: CancellationToken) {
        if ended.run_until_cancelled(self.next()).await.is_none() {
            return;
        }
        tracing::info!("stopping; press Ctrl-C again to stop at once");
        cancel.cancel();
        if ended.run_until_cancelled(self.next()).await.is_some() {
            tracing::warn!("stopped at once; the next start finds out what was written");
            std::process::exit(ABORTED);
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
