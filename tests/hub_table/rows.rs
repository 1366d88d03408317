//! The rows of a table of `iot-hub.md`.
//!
//! Invariant: a case names a row that the table has, and no row is left without a case.

use std::collections::BTreeSet;

/// The rows of one section, those marked UNSURE left out.
pub(crate) struct Rows {
    section: &'static str,
    all: BTreeSet<&'static str>,
    left: BTreeSet<&'static str>,
}

impl Rows {
    /// The rows by their first column.
    pub(crate) fn of(section: &'static str, rows: &[&'static str]) -> Self {
        let all: BTreeSet<_> = rows.iter().copied().collect();
        assert_eq!(all.len(), rows.len(), "{section}: a row is there twice");
        Self { section, left: all.clone(), all }
    }

    /// Notes that a case is about this row.
    pub(crate) fn walk(&mut self, row: &str) {
        assert!(self.all.contains(row), "{} has no row {row:?}", self.section);
        self.left.remove(row);
    }

    /// Every row had a case.
    pub(crate) fn finish(self) {
        assert!(self.left.is_empty(), "{}: no case for {:?}", self.section, self.left);
    }
}
