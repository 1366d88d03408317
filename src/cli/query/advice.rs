//! `query --explain`: what a query costs, and what is odd about it.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Context as _;

use crate::cli::output::{Output, Style, counted};
use crate::hub::{Allowance, PAGE_SIZE_MAX, ReadTwins};
use crate::query::{Attribute, Column, Comparator, Expr, Item, Operand, Query, Select, Source};
use crate::twin::{Number, Value};

/// The bytes of one message of the daily quota (`iot-hub.md` 6.2).
const MESSAGE_SIZE: u64 = 4096;
/// Bytes of a row: of some columns, and of a whole twin (`iot-hub.md` 6.5).
const ROW_SIZE: u64 = 200;
const TWIN_SIZE: u64 = 3000;
/// The column of the count.
const COLUMN_COUNT: &str = "n";

/// Counts the rows with one query, says what reading them costs, and warns.
pub(super) async fn explain<H: ReadTwins, W: Write>(
    hub: &H,
    allowance: &Allowance,
    query: &Query,
    out: &mut Output<W>,
) -> anyhow::Result<u8> {
    out.styled(Style::Heading, &query.to_string());
    let rows = count(hub, query).await?;
    match rows {
        Some(rows) => {
            let page = u64::try_from(PAGE_SIZE_MAX).unwrap_or(u64::MAX);
            let row = if query.select == Select::All { TWIN_SIZE } else { ROW_SIZE };
            let pages = rows.div_ceil(page).max(1);
            let messages = (rows * row).div_ceil(MESSAGE_SIZE).max(pages);
            out.line(&format!("rows       {rows}, counted now with one query"));
            out.line(&format!("pages      {pages}, each one query of at most {PAGE_SIZE_MAX} rows"));
            out.line(&format!("time       {}", time(pages, allowance.queries_per_second)));
            out.line(&format!("messages   about {messages} of the daily quota, at {row} bytes a row"));
        }
        None => out.line("pages      1 or more: groups cannot be counted without asking; each page is one query"),
    }
    let warnings = warnings(query);
    for warning in &warnings {
        out.styled(Style::Trouble, &format!("warning    {warning}"));
    }
    if warnings.is_empty() {
        out.line("warnings   none");
    } else {
        out.line(&counted(warnings.len(), "warning"));
    }
    Ok(0)
}

/// How long the pages take at the budget's pace.
#[expect(clippy::cast_precision_loss, reason = "pages are few, and the time is shown in whole seconds")]
fn time(pages: u64, per_second: Option<f64>) -> String {
    let Some(rate) = per_second.filter(|rate| *rate > 0.0) else {
        return "no limit: the settings name no tier for this hub".to_owned();
    };
    let seconds = (pages.saturating_sub(1) as f64 / rate).ceil();
    let per_minute = rate * 60.0;
    match seconds {
        1.0..120.0 => format!("{seconds:.0} s at the budget of {per_minute:.1} queries a minute"),
        120.0.. => format!("{:.0} min at the budget of {per_minute:.1} queries a minute", (seconds / 60.0).ceil()),
        _ => format!("at once, within the budget of {per_minute:.1} queries a minute"),
    }
}

/// How many rows the query has; `None` for groups, and for jobs, whose rows cannot be counted.
async fn count<H: ReadTwins>(hub: &H, query: &Query) -> anyhow::Result<Option<u64>> {
    if matches!(query.select, Select::Groups(_)) || query.source == Source::Jobs || query.source == Source::Modules {
        return Ok(None);
    }
    let condition = query.filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE {filter}"));
    let counting = format!("SELECT COUNT() AS {COLUMN_COUNT} FROM {}{condition}", query.source.as_str());
    let page = hub.query_page(&counting, 1, None).await.context("cannot count the rows")?;
    let counted = match page.rows.first().and_then(|row| row.get([COLUMN_COUNT])) {
        Some(Value::Number(Number::Integer(count))) => u64::try_from(*count).unwrap_or_default(),
        Some(_) | None => 0,
    };
    Ok(Some(query.top.map_or(counted, |top| top.min(counted))))
}

/// What is odd about a query, in the order of its text.
fn warnings(query: &Query) -> Vec<String> {
    let mut found = Vec::new();
    column_warnings(query, &mut found);
    if let Some(filter) = &query.filter {
        let mut skipping = BTreeSet::new();
        collect_skipping(filter, &mut skipping);
        found.extend(skipping.into_iter().map(|attribute| {
            format!("a comparison leaves out rows without {attribute}, also with != and NOT; add OR NOT IS_DEFINED({attribute}) to have them")
        }));
        let late =
            |attribute: &&Attribute| matches!(attribute.path()[0].as_str(), "connectionState" | "lastActivityTime");
        if let Some(attribute) = filter.attributes().iter().find(|attribute| late(attribute)) {
            found.push(format!("{attribute} lags behind the device; do not take it for its state of this moment"));
        }
    }
    found
}

fn column_warnings(query: &Query, found: &mut Vec<String>) {
    let items: Vec<&Item> = match &query.select {
        Select::All => {
            found.push("SELECT * answers whole twins; name the columns, pages and messages get fewer".to_owned());
            Vec::new()
        }
        Select::Items(items) => items.iter().collect(),
        Select::Groups(columns) => columns
            .iter()
            .filter_map(|column| match column {
                Column::Item(item) => Some(item),
                Column::Aggregate { aggregate, alias } => {
                    if alias.is_none() {
                        found.push(format!("{} has no alias; add AS and a name", aggregate.as_str()));
                    }
                    None
                }
            })
            .collect(),
    };
    let mut names = BTreeSet::new();
    for item in items {
        if !names.insert(item.key()) {
            found.push(format!("two columns are called {}; give one of them another name with AS", item.key()));
        } else if item.alias.is_none() && item.attribute.path().len() > 1 {
            found.push(format!("{} has no alias and comes back as {}; add AS and a name", item.attribute, item.key()));
        }
    }
}

/// Attributes whose absence makes a `!=`, a `NIN` or a NOT undefined, which leaves the row out.
fn collect_skipping<'a>(expr: &'a Expr, found: &mut BTreeSet<&'a Attribute>) {
    match expr {
        Expr::Or(parts) | Expr::And(parts) => parts.iter().for_each(|part| collect_skipping(part, found)),
        Expr::Not(inner) => match &**inner {
            Expr::Compare { .. } | Expr::In { .. } => found.extend(inner.attributes()),
            Expr::Or(_) | Expr::And(_) | Expr::Not(_) | Expr::Call(_) => collect_skipping(inner, found),
        },
        Expr::Compare { left, comparator: Comparator::NotEqual, right } => {
            for operand in [left, right] {
                if let Operand::Attribute(attribute) = operand {
                    found.insert(attribute);
                }
            }
        }
        Expr::In { operand: Operand::Attribute(attribute), negated: true, .. } => {
            found.insert(attribute);
        }
        Expr::Compare { .. } | Expr::In { .. } | Expr::Call(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;

    #[test]
    fn pages_take_the_time_that_the_budget_gives_them() {
        for (pages, rate, expected) in [
            (1, Some(1.0 / 6.0), "at once, within the budget of 10.0 queries a minute"),
            (3, Some(1.0 / 6.0), "12 s at the budget of 10.0 queries a minute"),
            (10_000, Some(1.0 / 6.0), "1000 min at the budget of 10.0 queries a minute"),
            (5, None, "no limit: the settings name no tier for this hub"),
        ] {
            assert_eq!(time(pages, rate), expected);
        }
    }

    #[test]
    fn what_is_odd_is_said_and_nothing_else() {
        for (query, expected) in [
            ("SELECT deviceId FROM devices WHERE tags.a = 1", &[][..]),
            ("SELECT deviceId, tags.plant AS plant FROM devices", &[]),
            ("SELECT * FROM devices", &["SELECT * answers whole twins"]),
            ("SELECT tags.plant FROM devices", &["tags.plant has no alias and comes back as plant"]),
            ("SELECT tags.a AS x, tags.b AS x FROM devices", &["two columns are called x"]),
            ("SELECT COUNT() FROM devices", &["COUNT has no alias"]),
            ("SELECT deviceId FROM devices WHERE tags.a != 1", &["rows without tags.a"]),
            ("SELECT deviceId FROM devices WHERE tags.a NIN ['x']", &["rows without tags.a"]),
            ("SELECT deviceId FROM devices WHERE NOT (tags.a = 1 )", &["rows without tags.a"]),
            ("SELECT deviceId FROM devices WHERE connectionState = 'Connected'", &["connectionState lags"]),
        ] {
            let found = warnings(&parse(query).unwrap());
            assert_eq!(found.len(), expected.len(), "{query}: {found:?}");
            assert!(found.iter().zip(expected).all(|(found, part)| found.contains(part)), "{query}: {found:?}");
        }
    }
}
