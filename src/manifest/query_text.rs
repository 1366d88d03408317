//! What can be said of a query's text without its grammar; the hub and the query language judge the rest.

/// The longest query a hub takes, in characters (`metrics.md` 1.1).
const QUERY_LENGTH_MAX: usize = 8192;

/// What a query's text shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueryShape {
    /// It reads whole rows.
    pub(super) is_star: bool,
    /// It aggregates everything into one row: `COUNT()` and the like, without `GROUP BY`.
    pub(super) is_one_row: bool,
    /// Projected expressions without `AS`, other than `*`.
    pub(super) without_alias: Vec<String>,
    /// The names of the columns, where each has one by `AS`.
    pub(super) aliases: Option<Vec<String>>,
}

/// The shape of `query`, or why it is refused: a rule and a message.
pub(super) fn shape_of(query: &str) -> Result<QueryShape, (&'static str, String)> {
    let length = query.chars().count();
    if length > QUERY_LENGTH_MAX {
        return Err((
            "query-length",
            format!("a query has at most {QUERY_LENGTH_MAX} characters, this one has {length}"),
        ));
    }
    // Upper case and without literals, byte for byte as long as the query.
    let plain = without_literals(query).to_ascii_uppercase();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let begins = plain.trim_start().strip_prefix("SELECT");
    if begins.is_none_or(|rest| rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')) {
        return Err(("query-select", "a query begins with SELECT".to_owned()));
    }
    if plain.contains("DEVICES.JOBS") {
        return Err(("query-jobs", "devices.jobs cannot be queried here; query devices or devices.modules".to_owned()));
    }
    let start = plain.find("SELECT").map_or(0, |start| start + "SELECT".len());
    let items = projection(query, &plain, start);
    let is_aggregate = |item: &str| {
        let item = item.to_ascii_uppercase();
        ["COUNT(", "SUM(", "AVG(", "MIN(", "MAX("].iter().any(|function| item.starts_with(function))
    };
    let groups = words.windows(2).any(|pair| pair == ["GROUP", "BY"]);
    let alias = |item: &str| {
        let mut words = item.split_whitespace().rev();
        let name = words.next()?;
        words.next()?.eq_ignore_ascii_case("as").then(|| name.to_owned())
    };
    Ok(QueryShape {
        is_star: items.contains(&"*"),
        is_one_row: !groups && items.iter().any(|item| is_aggregate(item)),
        without_alias: items
            .iter()
            .filter(|item| **item != "*" && alias(item).is_none())
            .map(|item| (*item).to_owned())
            .collect(),
        aliases: items.iter().map(|item| alias(item)).collect(),
    })
}

/// `query` with the contents of its quoted texts blanked, byte for byte as long.
fn without_literals(query: &str) -> String {
    let mut quoted = false;
    let blank = |character: char| {
        if character == '\'' {
            quoted = !quoted;
        }
        if quoted { " ".repeat(character.len_utf8()) } else { character.to_string() }
    };
    query.chars().map(blank).collect()
}

/// The projected expressions between `SELECT` and `FROM`, split at commas outside parentheses.
fn projection<'q>(query: &'q str, plain: &str, start: usize) -> Vec<&'q str> {
    let (mut items, mut depth, mut item_start, mut end) = (Vec::new(), 0_usize, start, plain.len());
    for (offset, character) in plain[start..].char_indices().map(|(offset, character)| (start + offset, character)) {
        let ends_word = |rest: &str| rest.starts_with(|next: char| next.is_whitespace());
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                items.push(query[item_start..offset].trim());
                item_start = offset + 1;
            }
            'F' if depth == 0
                && plain[..offset].ends_with(|before: char| before.is_whitespace())
                && plain[offset..].strip_prefix("FROM").is_some_and(ends_word) =>
            {
                end = offset;
                break;
            }
            _ => {}
        }
    }
    items.push(query[item_start..end].trim());
    items.retain(|item| !item.is_empty());
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_query_is_seen_through_case_texts_and_parentheses() {
        let star = "SELECT * FROM devices WHERE tags.location.plant = 'GROUP BY, devices.jobs'";
        assert_eq!(
            shape_of(star),
            Ok(QueryShape { is_star: true, is_one_row: false, without_alias: vec![], aliases: None })
        );
        let count = "select count() as n, f(a, b) FROM devices";
        let shape =
            QueryShape { is_star: false, is_one_row: true, without_alias: vec!["f(a, b)".to_owned()], aliases: None };
        assert_eq!(shape_of(count), Ok(shape));
        let grouped = "SELECT\n properties.reported.fromage AS x, tags.ü\n, COUNT() AS n FROM devices GROUP  BY tags.ü";
        let without_alias = vec!["tags.ü".to_owned()];
        let shape = QueryShape { is_star: false, is_one_row: false, without_alias, aliases: None };
        assert_eq!(shape_of(grouped), Ok(shape));
        let named = shape_of("SELECT tags.a AS plant, COUNT() as n FROM devices GROUP BY tags.a").unwrap();
        assert_eq!(named.aliases, Some(vec!["plant".to_owned(), "n".to_owned()]));
        assert_eq!(shape_of("SELECT COUNT() FROM devices").unwrap().without_alias, ["COUNT()"]);
    }

    #[test]
    fn what_cannot_be_a_query_is_refused() {
        let rule = |query: &str| shape_of(query).map_err(|(rule, _)| rule);
        assert_eq!(rule("SELECTED FROM devices"), Err("query-select"));
        assert_eq!(rule("UPDATE devices"), Err("query-select"));
        assert_eq!(rule(""), Err("query-select"));
        assert_eq!(rule("SELECT * FROM Devices.Jobs"), Err("query-jobs"));
        assert_eq!(rule(&format!("SELECT * FROM devices WHERE a = '{}'", "x".repeat(8192))), Err("query-length"));
        assert!(rule(&format!("SELECT '{}'", "ü".repeat(8183))).is_ok());
    }
}
