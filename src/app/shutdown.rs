//! Signals: the first asks everything to end in good order, the second ends at once.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal, as shells write an interrupt.
const ABORTED: i32 = 130;

/// Cancels `cancel` at the first SIGINT or SIGTERM and ends the process at the second. Returns when `ended` is
/// cancelled.
///
/// # Errors
/// When the system does not let signals be caught.
pub async fn stop_signal(cancel: CancellationToken, ended: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    if ended.run_until_cancelled(either(&mut interrupt, &mut terminate)).await.is_none() {
        return Ok(());
    }
    tracing::info!("stopping; press Ctrl-C again to stop at once");
    cancel.cancel();
    if ended.run_until_cancelled(either(&mut interrupt, &mut terminate)).await.is_some() {
        tracing::warn!("stopped at once; the next start finds out what was written");
        std::process::exit(ABORTED);
    }
    Ok(())
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
