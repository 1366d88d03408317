//! The twin query language (`iot-hub.md` section 5): text to syntax tree, tree to text, tree over a row.
//!
//! Invariant: floor 1. Nothing here does I/O, logs or reads a clock; no text panics, and every tree that [`parse`]
//! gives prints to a text that parses to the same tree. What a hub is not known to take (most functions, comments,
//! aggregates over modules) is an error that names it; [`Dialect::Permissive`] lets the documented functions in.

mod aggregate;
mod ast;
mod error;
mod eval;
mod function;
mod lexer;
mod parser;
mod print;

pub use aggregate::{GROUPS_MAX, Groups, TooManyGroups};
pub use ast::{
    Aggregate, Attribute, Call, Column, Comparator, Expr, Item, Literal, Operand, Operator, Query, Select, Source,
};
pub use error::{ParseError, ParseErrorKind, Span, Unsupported};
pub use eval::{Row, Tri, eval, project};
pub use function::{Dialect, Function};
pub use parser::{DEPTH_MAX, LENGTH_MAX, parse, parse_as, parse_condition};
