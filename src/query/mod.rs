//! The twin query language (`iot-hub.md` section 5): text to syntax tree, tree to text, tree over a row.
//!
//! Invariant: floor 1. Nothing here does I/O, logs or reads a clock; no text panics, and every tree that [`parse`]
//! gives prints to a text that parses to the same tree. What the hub takes and this module does not yet (GROUP BY,
//! aggregates other than COUNT, functions other than `IS_DEFINED`, arithmetic) is an error that says so.

mod ast;
mod error;
mod eval;
mod lexer;
mod parser;

pub use ast::{Attribute, Comparator, Expr, Item, Literal, Operand, Query, Select, Source};
pub use error::{ParseError, ParseErrorKind, Span, Unsupported};
pub use eval::{Row, Tri, eval, project};
pub use parser::{DEPTH_MAX, LENGTH_MAX, parse};
