//! Manifests: YAML text to declared state, with every problem at its line and column.
//!
//! ```text
//!   text --yaml--> Node tree --schema--> TwinManifest | QuerySpec --lower--> DeclaredState + queries
//!                     \__________________ Diagnostic _________________/
//! ```
//!
//! Invariant: floor 3, pure. Content never fails a call: what is wrong comes back as [`Diagnostic`]s beside what could
//! be read, and what could not be read is frozen at its last good state, never simply missing (DESIGN section 2).

mod amend;
mod count;
mod cut;
mod diagnostic;
mod evaluate_schema;
mod export;
mod json_schema;
mod label_schema;
mod lower;
mod metric_schema;
mod names;
mod parse;
mod print;
mod probe;
mod profile_schema;
mod query_budget;
mod query_schema;
#[cfg(test)]
mod query_tests;
mod query_text;
mod rules;
mod scalar;
mod schema;
mod secrets;
mod shape;
mod slips;
#[cfg(test)]
mod tests;
mod tree;
mod twin_schema;
mod value_schema;
mod wanted_schema;
mod yaml;

pub use amend::amend;
pub use count::{Counted, ManifestCounts};
pub use diagnostic::{Diagnostic, Severity};
pub use export::{ExportedProfile, ExportedTwin, can_be_declared, factor_profiles};
pub use json_schema::{json_schema, kind_names};
pub use lower::{DeclaredQuery, LastGood, Lowered, lower};
pub use parse::{ParsedFile, parse_file, parse_file_within};
pub use print::to_yaml;
pub use query_budget::{PageBudget, check_pages};
pub use rules::{MetricPrefix, Rules, Seals};
