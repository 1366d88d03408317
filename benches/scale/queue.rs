//! The queue's memory: what a first sync or a change of a profile puts into it.

use std::time::Duration;

use geminid::controller::{Lane, Queue};

use super::{fleet, measure};

/// The argument of the process that fills a queue.
pub(crate) const CHILD: &str = "--queue";

/// Prints what a queue of `count` twins takes.
pub(crate) fn memory(count: usize) {
    let [all_due, waiting, left] = measure::figures(&[CHILD, &count.to_string()], None);
    let per_twin = |bytes: f64| bytes / count as f64;
    println!("\nqueue of {count} twins, names apart");
    for (what, bytes) in
        [("nominated by a sweep", all_due), ("waiting for retries of their own times", waiting), ("empty again", left)]
    {
        println!("  {what:<40} {:6.0} MB   {:5.0} B a twin", bytes / 1e6, per_twin(bytes));
    }
}

/// Prints what is resident more with a queue of twins that are all due, of twins that wait, and after them.
pub(crate) fn child(count: usize) {
    let mut twins: Vec<_> = (0..count).map(fleet::twin).collect();
    twins.sort_unstable();
    let base = measure::resident();
    let more = || measure::resident().saturating_sub(base);
    let mut queue = Queue::default();
    let now = Duration::from_secs(1);
    queue.depth(now);
    for twin in &twins {
        queue.nominate(twin, Lane::Sweep, now);
    }
    assert_eq!(queue.depth(now), count);
    let all_due = more();
    let mut rng = fastrand::Rng::with_seed(7);
    while let Some(taken) = queue.take(now) {
        queue.done(&taken.twin);
    }
    for twin in &twins {
        queue.add(twin, Lane::Retry, now + Duration::from_millis(rng.u64(1..3_600_000)));
    }
    let waiting = more();
    let end = now + Duration::from_secs(3600);
    let mut last = Duration::ZERO;
    while let Some(taken) = queue.take(end) {
        let due = end - taken.waited;
        assert!(due >= last, "the longest due goes first");
        last = due;
        queue.done(&taken.twin);
    }
    assert!(queue.is_idle());
    println!("{all_due} {waiting} {}", more());
}
