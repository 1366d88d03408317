//! The fault matrix: the real `geminid run` against the real `geminid hub`, and everything that can go wrong between,
//! beneath and around them. `cargo test --test faults`; `just kills MINUTES` for longer lives and deaths.
//!
//! Invariants: after each case every twin is as declared, no write went without its guard, the etags account for every
//! write, memory and descriptors are back where they were, and the log has told what happened once.
//!
//! | what goes wrong | cases |
//! |---|---|
//! | the hub, or what stands between: silence, resets, garbage, floods, redirects, half pages, loops | [`wire`] |
//! | the disk, for the audit log and for the hub's folder | [`disk`] |
//! | descriptors run out, of the daemon and of the hub | [`descriptors`] |
//! | ten thousand manifests, replaced again and again | [`flood`] |
//! | slow and hostile clients on each port | [`clients`] |
//! | `kill -9` of the daemon or of the hub, at random | [`kills`] |
//!
//! A wall clock that jumps, both ways, is in the histories of `tests/simulation`: the daemon waits by the steady clock.
//! Around the real process it jumps in `tests/clock/run.sh`, which needs libfaketime.

#![expect(clippy::unwrap_used, reason = "a test unwraps, and so do its helpers")]

mod between;
mod clients;
mod descriptors;
mod disk;
mod fleet;
mod flood;
mod health;
mod kills;
mod limits;
#[expect(dead_code, reason = "the other tests of the real binary need more of it")]
#[path = "../e2e/support.rs"]
mod support;
mod wire;

/// A table of cases, one test each, under its name.
macro_rules! cases {
    ($run:path: $($name:ident => $case:expr,)*) => {
        $(#[tokio::test]
        async fn $name() {
            $run($case).await;
        })*
    };
}
pub(crate) use cases;
