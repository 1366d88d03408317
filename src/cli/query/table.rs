//! Rows as columns and as comma-separated values, a page at a time.
//!
//! Invariant: the columns are those of the query, in its order, whatever a row holds; the first page sets the widths.

use std::io::Write;

use crate::cli::output::{Output, Style, counted};
use crate::query::{Column, Query, Select, Source};
use crate::twin::Value;

/// The widest column of a table, in characters.
const WIDTH_MAX: usize = 60;

/// What stands in each column: its heading and where its value is in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns(Vec<(String, Vec<String>)>);

impl Columns {
    /// The columns of a query; of whole rows those that people look for first.
    pub(super) fn of(query: &Query) -> Self {
        let key = |key: &str| (key.to_owned(), vec![key.to_owned()]);
        Self(match &query.select {
            Select::Items(items) => items.iter().map(|item| key(item.key())).collect(),
            Select::Groups(columns) => columns
                .iter()
                .enumerate()
                .map(|(index, column)| match column {
                    Column::Item(item) => key(item.key()),
                    Column::Aggregate { alias: Some(alias), .. } => key(alias),
                    // The hub numbers columns without a name, from 1.
                    Column::Aggregate { alias: None, .. } => key(&format!("${}", index + 1)),
                })
                .collect(),
            Select::All => match query.source {
                Source::Devices => vec![key("deviceId"), key("status"), key("connectionState"), key("tags"), desired()],
                Source::Modules => {
                    vec![key("deviceId"), key("moduleId"), key("connectionState"), key("tags"), desired()]
                }
                Source::Jobs => {
                    ["jobId", "deviceId", "jobType", "status", "startTimeUtc", "endTimeUtc"].map(key).into()
                }
            },
        })
    }

    fn cells(&self, row: &Value) -> Vec<String> {
        let cell = |(_, path): &(String, Vec<String>)| match row.get(path.iter().map(String::as_str)) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(object)) => {
                let own = object.iter().filter(|(key, _)| !key.starts_with('$'));
                Value::Object(own.map(|(key, value)| (key.clone(), value.clone())).collect()).to_string()
            }
            Some(value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_))) => value.to_string(),
        };
        self.0.iter().map(cell).collect()
    }

    fn headings(&self) -> Vec<String> {
        self.0.iter().map(|(heading, _)| heading.clone()).collect()
    }
}

fn desired() -> (String, Vec<String>) {
    ("properties.desired".to_owned(), vec!["properties".to_owned(), "desired".to_owned()])
}

/// Writes a table.
#[derive(Debug)]
pub(super) struct TableWriter {
    columns: Columns,
    widths: Option<Vec<usize>>,
    rows: usize,
}

impl TableWriter {
    pub(super) const fn new(columns: Columns) -> Self {
        Self { columns, widths: None, rows: 0 }
    }

    pub(super) fn page<W: Write>(&mut self, page: &[Value], out: &mut Output<W>) {
        if page.is_empty() {
            return;
        }
        let rows: Vec<Vec<String>> = page.iter().map(|row| shortened(self.columns.cells(row))).collect();
        if self.widths.is_none() {
            let headings = self.columns.headings();
            let width = |index: usize| {
                let cells = rows.iter().map(|row| row[index].chars().count());
                cells.chain([headings[index].chars().count()]).max().unwrap_or_default()
            };
            let widths: Vec<usize> = (0..headings.len()).map(width).collect();
            out.styled(Style::Heading, &aligned(&headings, &widths));
            self.widths = Some(widths);
        }
        let widths = self.widths.as_deref().unwrap_or_default();
        rows.iter().for_each(|row| out.line(&aligned(row, widths)));
        self.rows += rows.len();
    }

    pub(super) fn finish<W: Write>(&self, out: &mut Output<W>) {
        out.line(&counted(self.rows, "row"));
    }
}

fn shortened(cells: Vec<String>) -> Vec<String> {
    let short = |cell: String| {
        // Line breaks and the like are shown as what they are, so that a row stays a line.
        let cell: String =
            cell.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
        match cell.char_indices().nth(WIDTH_MAX) {
            Some(_) => cell.chars().take(WIDTH_MAX - 3).collect::<String>() + "...",
            None => cell,
        }
    };
    cells.into_iter().map(short).collect()
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Writes comma-separated values.
#[derive(Debug)]
pub(super) struct CsvWriter {
    columns: Columns,
}

impl CsvWriter {
    pub(super) fn new<W: Write>(columns: Columns, out: &mut Output<W>) -> Self {
        out.line(&csv_line(&columns.headings()));
        Self { columns }
    }

    pub(super) fn page<W: Write>(&self, page: &[Value], out: &mut Output<W>) {
        page.iter().for_each(|row| out.line(&csv_line(&self.columns.cells(row))));
    }
}

fn csv_line(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        let plain = !cell.contains(['"', ',', '\n', '\r']) && cell.trim() == cell;
        if plain { cell.clone() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;

    fn columns(query: &str) -> Columns {
        Columns::of(&parse(query).unwrap())
    }

    fn value(json: &str) -> Value {
        Value::parse_json(json).unwrap()
    }

    #[test]
    fn columns_are_those_of_the_query_in_its_order() {
        for (query, headings) in [
            ("SELECT tags.plant, deviceId AS d FROM devices", "plant d"),
            ("SELECT COUNT() AS n, tags.plant FROM devices GROUP BY tags.plant", "n plant"),
            ("SELECT * FROM devices", "deviceId status connectionState tags properties.desired"),
        ] {
            assert_eq!(columns(query).headings().join(" "), headings);
        }
        let row = value(r#"{"d":"x","plant":{"a":1,"$version":3}}"#);
        assert_eq!(
            columns("SELECT tags.plant, deviceId AS d, tags.none FROM devices").cells(&row),
            [r#"{"a":1}"#, "x", ""]
        );
    }

    #[test]
    fn a_value_cannot_break_out_of_its_cell() {
        assert_eq!(
            csv_line(&["a,b".into(), "say \"x\"".into(), "l\nm".into(), " s".into(), "p".into()]),
            "\"a,b\",\"say \"\"x\"\"\",\"l\nm\",\" s\",p"
        );
        let long = shortened(vec!["x".repeat(61), "a\nb\u{1b}".into(), "ü".repeat(60)]);
        assert_eq!(long, ["x".repeat(57) + "...", "a\\nb\\u{1b}".to_owned(), "ü".repeat(60)]);
        assert_eq!(aligned(&["a".into(), "ü".into(), "c".into()], &[3, 2, 5]), "a    ü   c");
    }
}
