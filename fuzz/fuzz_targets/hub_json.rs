//! Any bytes as the body of a hub's answer, read by the client: never a panic, and whatever is taken can guard a write.

#![no_main]

use geminid::hub::{Cell, TextRows, probe_answers};
use libfuzzer_sys::fuzz_target;

/// The columns of a sweep, and one that no row has.
const COLUMNS: [&str; 4] = ["d", "e", "h", "nowhere-at-all"];

fuzz_target!(|body: &[u8]| {
    probe_answers(body);
    let Ok(rows) = TextRows::from_body(body, &COLUMNS) else { return };
    for row in 0..rows.len() {
        for column in 0..COLUMNS.len() {
            assert!(rows.cell(row, column).text().is_none_or(|text| text.len() <= body.len()));
        }
        assert_eq!(rows.cell(row, 3), Cell::Absent);
    }
});
