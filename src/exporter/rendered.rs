//! A good run, rendered.
//!
//! Invariant: no series stands in it twice.

use std::collections::BTreeMap;

use super::published::Snapshot;
use super::read::RunFailure;
use crate::series::{Dropped, Mapped, first_duplicate, render};

/// What one good run gave.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) snapshot: Snapshot,
    pub(super) dropped: BTreeMap<Dropped, u64>,
    pub(super) series: usize,
}

impl Rendered {
    /// Renders what was mapped; for many series that takes a while, so it belongs on a thread that may block.
    pub(super) fn new(mapped: Mapped, hub: &str) -> Result<Self, RunFailure> {
        let snapshot: Snapshot = mapped.families.iter().map(|family| render(family, hub)).collect();
        match first_duplicate(snapshot.iter()) {
            Some(series) => Err(RunFailure::Duplicate(series)),
            None => Ok(Self { snapshot, dropped: mapped.dropped, series: mapped.series }),
        }
    }
}
