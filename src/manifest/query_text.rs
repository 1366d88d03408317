//! What a query's text shows: the grammar is the query language's, the rest of what can be said without a hub is here.

use crate::query::{
    Column, Dialect, Item, ParseError, ParseErrorKind, Query, Select, Source, Unsupported, parse, parse_as,
};

/// What a query's text shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueryShape {
    /// It reads whole rows.
    pub(super) is_star: bool,
    /// It aggregates everything into one row: `COUNT()` and the like, without `GROUP BY`.
    pub(super) is_one_row: bool,
    /// Projected expressions without a name of their own, other than `*`.
    pub(super) without_alias: Vec<String>,
    /// The names of the columns, where each has one.
    pub(super) aliases: Option<Vec<String>>,
    /// A function that a hub is not known to take, and what to say of it.
    pub(super) doubt: Option<ParseError>,
}

/// Why a query is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) rule: &'static str,
    pub(super) message: String,
    /// The byte of the text that it is about.
    pub(super) at: usize,
}

impl From<ParseError> for Refused {
    fn from(error: ParseError) -> Self {
        let of_jobs = matches!(error.kind, ParseErrorKind::NotInSource { source_collection: Source::Jobs, .. });
        let rule = match (of_jobs, matches!(error.kind, ParseErrorKind::TooLong(_))) {
            (true, _) => "query-jobs",
            (_, true) => "query-length",
            (false, false) => "query-syntax",
        };
        Self { rule, message: error.to_string(), at: error.span.start }
    }
}

/// The shape of `query`, or why it is refused.
pub(super) fn shape_of(query: &str) -> Result<QueryShape, Refused> {
    let (parsed, doubt) = match parse(query) {
        Ok(parsed) => (parsed, None),
        // Hubs may take more functions than is known, so the hub judges.
        Err(error) if matches!(error.kind, ParseErrorKind::Unsupported(Unsupported::Function(_))) => {
            (parse_as(query, Dialect::Permissive)?, Some(error))
        }
        Err(error) => return Err(error.into()),
    };
    if parsed.source == Source::Jobs {
        let message = "devices.jobs cannot be queried here; query devices or devices.modules".to_owned();
        return Err(Refused { rule: "query-jobs", message, at: 0 });
    }
    let columns = columns(&parsed);
    Ok(QueryShape {
        is_star: parsed.select == Select::All,
        is_one_row: matches!(parsed.select, Select::Groups(_)) && parsed.group_by.is_empty(),
        without_alias: columns.iter().filter(|(_, alias)| alias.is_none()).map(|(text, _)| text.clone()).collect(),
        aliases: match parsed.select {
            Select::All => None,
            Select::Items(_) | Select::Groups(_) => columns.into_iter().map(|(_, alias)| alias).collect(),
        },
        doubt,
    })
}

/// What is projected, each with its own name if it has one.
fn columns(query: &Query) -> Vec<(String, Option<String>)> {
    match &query.select {
        Select::All => Vec::new(),
        Select::Items(items) => items.iter().map(|item| (item.attribute.to_string(), own_name(item))).collect(),
        Select::Groups(columns) => columns
            .iter()
            .map(|column| match column {
                Column::Item(item) => (item.attribute.to_string(), item.alias.clone()),
                Column::Aggregate { aggregate, alias } => (aggregate.to_string(), alias.clone()),
            })
            .collect(),
    }
}

/// What the hub calls the column: its alias, or its one name, which comes back as it is (`iot-hub.md` 5.5).
fn own_name(item: &Item) -> Option<String> {
    let only = || match item.attribute.path() {
        [name] => Some(name.clone()),
        _ => None,
    };
    item.alias.clone().or_else(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_query_is_that_of_its_tree() {
        let of = |query: &str| {
            let shape = shape_of(query).unwrap();
            (shape.is_star, shape.is_one_row, shape.without_alias.join(", "), shape.aliases.map(|all| all.join(", ")))
        };
        let named = |text: &str| Some(text.to_owned());
        let nothing = String::new;
        let star = "SELECT * FROM devices WHERE tags.location.plant = 'GROUP BY, devices.jobs'";
        assert_eq!(of(star), (true, false, nothing(), None));
        assert_eq!(of("select count() as n FROM devices"), (false, true, nothing(), named("n")));
        let grouped = "SELECT\n tags.[[ü]]\n, COUNT() AS n FROM devices GROUP  BY tags.[[ü]]";
        assert_eq!(of(grouped), (false, false, "tags.[[ü]]".to_owned(), None));
        let both = "SELECT tags.a AS plant, COUNT() as n FROM devices GROUP BY tags.a";
        assert_eq!(of(both), (false, false, nothing(), named("plant, n")));
        assert_eq!(of("SELECT COUNT() FROM devices"), (false, true, "COUNT()".to_owned(), None));
        assert_eq!(of("SELECT DEVICEID, tags.a FROM devices"), (false, false, "tags.a".to_owned(), None));
        assert_eq!(of("SELECT deviceid, status FROM devices"), (false, false, nothing(), named("deviceId, status")));
        assert_eq!(of("SELECT deviceId d, moduleId m FROM devices.modules"), (false, false, nothing(), named("d, m")));
    }

    #[test]
    fn what_cannot_be_a_query_is_refused_and_what_a_hub_might_take_is_doubted() {
        let refused = |query: &str| shape_of(query).map_err(|refused| (refused.rule, refused.at));
        assert_eq!(refused("SELECTED FROM devices"), Err(("query-syntax", 0)));
        assert_eq!(refused("SELECT * FROM devicez"), Err(("query-syntax", 14)));
        assert_eq!(refused(""), Err(("query-syntax", 0)));
        assert_eq!(refused("SELECT * FROM Devices.Jobs"), Err(("query-jobs", 0)));
        assert_eq!(refused("SELECT deviceId FROM devices.jobs"), Err(("query-jobs", 7)));
        let long = format!("SELECT * FROM devices WHERE a = '{}'", "x".repeat(8192));
        assert_eq!(refused(&long), Err(("query-length", 0)));
        let doubt = |query: &str| shape_of(query).unwrap().doubt.map(|error| error.span.start);
        assert_eq!(doubt("SELECT * FROM devices WHERE CONTAINS(tags.a, 'x')"), Some(28));
        assert_eq!(doubt("SELECT * FROM devices WHERE STARTSWITH(tags.a, 'x')"), None);
        assert_eq!(refused("SELECT * FROM devices WHERE CONTAINS(tags.a)"), Err(("query-syntax", 28)));
    }
}
