//! Rows of texts: a page of a query that asks for a few named columns, without a tree of values for each row.
//!
//! Invariant: a page holds the same rows as [`QueryPage`](super::QueryPage) would, in three pieces of memory whatever
//! their number. Sweeps read a row a twin of the fleet; a map of values a row would cost them more than all the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Continuation;
use crate::twin::Value;

/// One page of a query, as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPage {
    /// The rows.
    pub rows: TextRows,
    /// Present exactly while more remains.
    pub next: Option<Continuation>,
}

/// What stands in one column of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Nothing, or null.
    Absent,
    /// A text.
    Text(&'a str),
    /// Anything else.
    Other,
}

impl<'a> Cell<'a> {
    /// The text, if it is one.
    #[must_use]
    pub fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Other => None,
        }
    }
}

/// Rows with a fixed number of columns; what else a row holds is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRows {
    width: usize,
    texts: String,
    cells: Vec<Slot>,
    body_size: usize,
}

/// A [`Cell`], with the place of its text in the page's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Absent,
    Text { start: u32, end: u32 },
    Other,
}

/// Why a body is no page of rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not an array of objects: {0}")]
pub struct RowsError(String);

impl TextRows {
    /// The rows that the JSON array `body` holds, with these columns.
    ///
    /// # Errors
    /// [`RowsError`] when it is not JSON, not an array, or holds a row that is no object.
    pub fn from_body(body: &[u8], columns: &[&str]) -> Result<Self, RowsError> {
        let text = std::str::from_utf8(body).map_err(|error| RowsError(error.to_string()))?;
        let mut rows = Self::new(columns.len(), body.len());
        let mut json = serde_json::Deserializer::from_str(text);
        let page = PageSeed { columns, rows: &mut rows };
        page.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| RowsError(error.to_string()))?;
        Ok(rows)
    }

    /// The same of rows that are values already; `body_size` is about what they take on the wire, in bytes.
    #[must_use]
    pub fn from_values(values: &[Value], columns: &[&str], body_size: usize) -> Self {
        let mut rows = Self::new(columns.len(), body_size);
        for value in values {
            for column in columns {
                let slot = match value.get([*column]) {
                    None | Some(Value::Null) => Slot::Absent,
                    Some(Value::String(text)) => rows.keep(text),
                    Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Slot::Other,
                };
                rows.cells.push(slot);
            }
        }
        rows
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len() / self.width
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// About the bytes of the page on the wire.
    #[must_use]
    pub const fn body_size(&self) -> usize {
        self.body_size
    }

    /// What stands in `column` of `row`; nothing outside the page.
    #[must_use]
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        match self.cells.get(row * self.width + column) {
            None | Some(Slot::Absent) => Cell::Absent,
            Some(Slot::Other) => Cell::Other,
            Some(Slot::Text { start, end }) => Cell::Text(&self.texts[*start as usize..*end as usize]),
        }
    }

    fn new(width: usize, body_size: usize) -> Self {
        // Every text of the body, at most: then nothing is moved while it grows.
        let (texts, cells) = (String::with_capacity(body_size), Vec::new());
        Self { width: width.max(1), texts, cells, body_size }
    }

    fn keep(&mut self, text: &str) -> Slot {
        let place = |at: usize| u32::try_from(at).expect("a body has at most 8 MiB");
        let start = place(self.texts.len());
        self.texts.push_str(text);
        Slot::Text { start, end: place(self.texts.len()) }
    }
}

struct PageSeed<'a> {
    columns: &'a [&'a str],
    rows: &'a mut TextRows,
}

impl<'de> DeserializeSeed<'de> for PageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(RowSeed { columns: self.columns, rows: self.rows })?.is_some() {}
        Ok(())
    }
}

struct RowSeed<'a> {
    columns: &'a [&'a str],
    rows: &'a mut TextRows,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let first = self.rows.cells.len();
        self.rows.cells.resize(first + self.columns.len(), Slot::Absent);
        while let Some(column) = row.next_key_seed(ColumnSeed(self.columns))? {
            match column {
                None => drop(row.next_value::<IgnoredAny>()?),
                Some(column) => {
                    let slot = row.next_value_seed(CellSeed(self.rows))?;
                    self.rows.cells[first + column] = slot;
                }
            }
        }
        Ok(())
    }
}

/// The index of a column by its name.
struct ColumnSeed<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_identifier(self)
    }
}

impl Visitor<'_> for ColumnSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a column")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|column| *column == name))
    }
}

struct CellSeed<'a>(&'a mut TextRows);

impl<'de> DeserializeSeed<'de> for CellSeed<'_> {
    type Value = Slot;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Slot, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed<'_> {
    type Value = Slot;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Slot, E> {
        // A body is bounded by the client; a page of another maker may not be.
        if u32::try_from(self.0.texts.len() + text.len()).is_err() {
            return Err(E::custom("the page is too large"));
        }
        Ok(self.0.keep(text))
    }

    fn visit_unit<E>(self) -> Result<Slot, E> {
        Ok(Slot::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Slot, E> {
        Ok(Slot::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Slot, E> {
        Ok(Slot::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Slot, E> {
        Ok(Slot::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Slot, E> {
        Ok(Slot::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Slot, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Slot::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Slot, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Slot::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 3] = ["d", "m", "h"];

    fn values(body: &str) -> Vec<Value> {
        match Value::parse_json(body).unwrap() {
            Value::Array(rows) => rows,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => panic!("{body}"),
        }
    }

    #[test]
    fn a_body_and_its_values_give_the_same_rows() {
        let body = r#"[{"d":"a\"\u00e4","h":"x"}, {"x":{"d":"no"},"d":"b","m":null,"h":[1,{"a":2}]},
                       {}, {"d":"old","d":"new","m":1.5,"h":true}, {"m":{"d":"no"},"d":-1}]"#;
        let rows = TextRows::from_body(body.as_bytes(), &COLUMNS).unwrap();
        let of_values = TextRows::from_values(&values(body), &COLUMNS, body.len());
        let cells = |rows: &TextRows| -> Vec<String> {
            let show = |row| format!("{:?}", [0, 1, 2].map(|column| rows.cell(row, column)));
            (0..rows.len()).map(show).collect()
        };
        assert_eq!(cells(&rows), cells(&of_values));
        let shown: Vec<[Cell<'_>; 3]> =
            (0..rows.len()).map(|row| [0, 1, 2].map(|column| rows.cell(row, column))).collect();
        let (absent, other, text) = (Cell::Absent, Cell::Other, Cell::Text);
        let expected = [
            [text("a\"ä"), absent, text("x")],
            [text("b"), absent, other],
            [absent; 3],
            [text("new"), other, other],
            [other, other, absent],
        ];
        assert_eq!(shown, expected);
        assert_eq!((rows.cell(9, 0), rows.body_size()), (absent, body.len()));
        assert!(TextRows::from_body(b" [] ", &COLUMNS).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_array_of_objects_is_refused_with_its_place() {
        for (body, reason) in [
            (&b"{}"[..], "expected an array of rows"),
            (b"[1]", "expected a row, which is an object"),
            (b"[{}", "EOF while parsing a list at line 1 column 3"),
            (b"[{}] x", "trailing characters at line 1 column 6"),
            (b"[{\"d\":\"\xff\"}]", "invalid utf-8"),
            (b"", "EOF while parsing a value"),
        ] {
            let error = TextRows::from_body(body, &COLUMNS).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        // Depth costs no stack: what is no text is passed over.
        let deep = format!("[{{\"d\":{}{}}}]", "[".repeat(10_000), "]".repeat(10_000));
        let rows = TextRows::from_body(deep.as_bytes(), &COLUMNS);
        assert_eq!(rows.map(|rows| rows.cell(0, 0) == Cell::Text("")), Ok(false));
    }
}
