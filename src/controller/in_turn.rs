//! Work on many twins, a bounded number of them at one time.
//!
//! Invariant: every item has its answer, in the order of the twins, however the pieces end.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::twin::TwinRef;

/// Pieces of work under way at one time.
const WORK_MAX: usize = 16;

/// Runs `work` for each of `items`.
pub(super) async fn in_turn<I, T, F>(items: impl IntoIterator<Item = I>, work: impl Fn(I) -> F) -> BTreeMap<TwinRef, T>
where
    T: Send + 'static,
    F: Future<Output = (TwinRef, T)> + Send + 'static,
{
    let (mut tasks, mut results) = (JoinSet::new(), BTreeMap::new());
    for item in items {
        if tasks.len() == WORK_MAX {
            results.extend(next(&mut tasks).await);
        }
        tasks.spawn(work(item));
    }
    while !tasks.is_empty() {
        results.extend(next(&mut tasks).await);
    }
    results
}

async fn next<T: 'static>(tasks: &mut JoinSet<T>) -> Option<T> {
    match tasks.join_next().await? {
        Ok(ended) => Some(ended),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}
