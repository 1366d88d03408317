//! Work that Ctrl-C ends in good order.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::StopSignals;

/// Does `work`, which ends early when its token is cancelled by a signal; a second signal ends the process. Answers
/// what the work gave and whether it was stopped.
pub(super) async fn until_stopped<T>(work: impl AsyncFnOnce(CancellationToken) -> T) -> anyhow::Result<(T, bool)> {
    let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
    let mut obeying = JoinSet::new();
    obeying.spawn(StopSignals::catch()?.obey(cancel.clone(), ended.clone()));
    let result = work(cancel.clone()).await;
    ended.cancel();
    while obeying.join_next().await.is_some() {}
    Ok((result, cancel.is_cancelled()))
}
