//! Rows to groups: COUNT, AVG, SUM, MIN and MAX, with GROUP BY or over everything (`iot-hub.md` 5.1 and 5.5).
//!
//! Invariant: groups come out in the order of their keys, whatever the order of the rows was, and there are at most
//! [`GROUPS_MAX`]. Without GROUP BY there is exactly one group, also over no rows.

use std::collections::BTreeMap;

use super::ast::{Aggregate, Attribute, Column, Query, Select};
use super::eval::Row;
use crate::twin::{Number, Object, Value};

/// The most groups of one query; what a hub does with more is unproven.
pub const GROUPS_MAX: usize = 100_000;
/// How the column of an aggregate without an alias is called, before its place among the columns; unproven.
const UNNAMED: &str = "$";

/// A query's groups reached [`GROUPS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a GROUP BY gives at most {GROUPS_MAX} groups; group by something with fewer values")]
pub struct TooManyGroups;

/// The groups of a query, built row by row.
#[derive(Debug)]
pub struct Groups {
    group_by: Vec<Attribute>,
    columns: Vec<Column>,
    groups: BTreeMap<Key, Vec<Total>>,
}

/// The values of GROUP BY as JSON text, so that they have an order; `None` is undefined.
type Key = Vec<Option<String>>;

/// What was seen so far of one column.
#[derive(Debug, Clone)]
enum Total {
    /// A column of the group itself.
    Common(Option<Value>),
    Count(i64),
    Sum(Sum),
    Average(Sum),
    Minimum(Option<Number>),
    Maximum(Option<Number>),
}

/// A sum, exact as long as there are only integers.
#[derive(Debug, Clone, Default)]
struct Sum {
    count: u32,
    integers: i128,
    floats: Option<f64>,
}

impl Groups {
    /// No rows yet. `None` when the query has no groups.
    #[must_use]
    pub fn of(query: &Query) -> Option<Self> {
        let Select::Groups(columns) = &query.select else { return None };
        let mut groups = BTreeMap::new();
        if query.group_by.is_empty() {
            groups.insert(Key::new(), columns.iter().map(|column| Total::of(column, &Object::new())).collect());
        }
        Some(Self { group_by: query.group_by.clone(), columns: columns.clone(), groups })
    }

    /// Takes one row that passed the condition into its group.
    ///
    /// # Errors
    /// [`TooManyGroups`].
    pub fn add<R: Row + ?Sized>(&mut self, row: &R) -> Result<(), TooManyGroups> {
        let text = |value: &Value| normalised(value).to_string();
        let key = |names: &[String]| row.value(names).map(|value| text(&value));
        let key: Key = self.group_by.iter().map(|attribute| key(attribute.path())).collect();
        let room = self.groups.len() < GROUPS_MAX;
        let totals = match self.groups.entry(key) {
            std::collections::btree_map::Entry::Occupied(group) => group.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if !room => return Err(TooManyGroups),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(self.columns.iter().map(|column| Total::of(column, row)).collect())
            }
        };
        for (column, total) in self.columns.iter().zip(totals) {
            total.add(column, row);
        }
        Ok(())
    }

    /// Takes `count` rows that passed the condition without a look at them; `false` when that is not enough to know.
    pub fn add_unseen(&mut self, count: usize) -> bool {
        let counts = |column: &Column| matches!(column, Column::Aggregate { aggregate: Aggregate::Count, .. });
        let enough = self.group_by.is_empty() && self.columns.iter().all(counts);
        for total in self.groups.values_mut().flatten().filter(|_| enough) {
            if let Total::Count(seen) = total {
                *seen = seen.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        enough
    }

    /// One row for each group, in the order of the keys. What is missing is left out.
    #[must_use]
    pub fn rows(self) -> Vec<Object> {
        self.rows_by_key().into_iter().map(|(_, row)| row).collect()
    }

    /// The same with a text in front that names the group: the rows stand in the order of these texts.
    #[must_use]
    pub fn rows_by_key(self) -> Vec<(String, Object)> {
        let names: Vec<String> =
            self.columns.iter().enumerate().map(|(index, column)| name_of(column, index)).collect();
        let row = |(key, totals): (Key, Vec<Total>)| {
            let named = names.iter().zip(totals);
            (text_of(&key), named.filter_map(|(name, total)| Some((name.clone(), total.into_value()?))).collect())
        };
        self.groups.into_iter().map(row).collect()
    }
}

/// A text whose order is that of the keys: a part that is missing comes before all others, and JSON holds no control
/// character that could be taken for the end of a part.
fn text_of(key: &Key) -> String {
    let part = |part: &Option<String>| part.as_ref().map_or_else(String::new, |text| format!("={text}"));
    key.iter().map(part).collect::<Vec<_>>().join("\0")
}

fn name_of(column: &Column, index: usize) -> String {
    match column {
        Column::Item(item) => item.key().to_owned(),
        Column::Aggregate { alias: Some(alias), .. } => alias.clone(),
        Column::Aggregate { alias: None, .. } => format!("{UNNAMED}{}", index + 1),
    }
}

/// Equal numbers in one form, so that 1 and 1.0 are one group.
fn normalised(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(number.normalised()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => value.clone(),
    }
}

impl Total {
    fn of<R: Row + ?Sized>(column: &Column, row: &R) -> Self {
        match column {
            Column::Item(item) => Self::Common(row.value(item.attribute.path()).map(std::borrow::Cow::into_owned)),
            Column::Aggregate { aggregate, .. } => match aggregate {
                Aggregate::Count => Self::Count(0),
                Aggregate::Sum(_) => Self::Sum(Sum::default()),
                Aggregate::Average(_) => Self::Average(Sum::default()),
                Aggregate::Minimum(_) => Self::Minimum(None),
                Aggregate::Maximum(_) => Self::Maximum(None),
            },
        }
    }

    fn add<R: Row + ?Sized>(&mut self, column: &Column, row: &R) {
        let number = || {
            let Column::Aggregate { aggregate, .. } = column else { return None };
            super::function::number_of(&*row.value(aggregate.attribute()?.path())?)
        };
        match self {
            Self::Common(_) => {}
            Self::Count(count) => *count += 1,
            Self::Sum(sum) | Self::Average(sum) => {
                if let Some(number) = number() {
                    sum.add(number);
                }
            }
            Self::Minimum(least) => *least = [*least, number()].into_iter().flatten().min(),
            Self::Maximum(most) => *most = [*most, number()].into_iter().flatten().max(),
        }
    }

    fn into_value(self) -> Option<Value> {
        match self {
            Self::Common(value) => value,
            Self::Count(count) => Some(Value::from(count)),
            Self::Sum(sum) => sum.total(),
            Self::Average(sum) => sum.average(),
            Self::Minimum(number) | Self::Maximum(number) => number.map(Value::Number),
        }
    }
}

impl Sum {
    fn add(&mut self, number: Number) {
        self.count += 1;
        match number {
            // 2^32 rows of 64 bits fit.
            Number::Integer(value) => self.integers += i128::from(value),
            Number::Float(value) => *self.floats.get_or_insert(0.0) += value,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the sum of floats and integers is a float")]
    fn as_f64(&self) -> f64 {
        self.integers as f64 + self.floats.unwrap_or(0.0)
    }

    fn total(&self) -> Option<Value> {
        match (self.count, self.floats, i64::try_from(self.integers)) {
            (0, ..) => None,
            (_, None, Ok(exact)) => Some(Value::from(exact)),
            (..) => Number::from_f64(self.as_f64()).map(Value::Number),
        }
    }

    fn average(&self) -> Option<Value> {
        let mean = (self.count > 0).then(|| self.as_f64() / f64::from(self.count))?;
        Number::from_f64(mean).map(|mean| Value::Number(mean.normalised()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const ROWS: [&str; 5] = [
        r#"{"tags":{"rev":"b","n":1}}"#,
        r#"{"tags":{"rev":"a","n":2.5}}"#,
        r#"{"tags":{"rev":"a","n":"x"}}"#,
        r#"{"tags":{"n":4}}"#,
        r#"{"tags":{"rev":"b","n":1.0}}"#,
    ];

    fn rows(query: &str, rows: &[&str]) -> Vec<String> {
        let query = parse(query).unwrap();
        let mut groups = Groups::of(&query).unwrap();
        for row in rows {
            groups.add(&Value::parse_json(row).unwrap()).unwrap();
        }
        groups.rows().into_iter().map(|row| Value::Object(row).to_string()).collect()
    }

    #[test]
    fn the_texts_of_keys_have_the_order_of_the_keys() {
        let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let parts = ["", "\"\"", "\"a\"", "\"a b\"", "\"a!\"", "\"ab\"", "1", "10", "2", "true", "{\"a\":1}"];
        let mut keys: Vec<Key> =
            parts.iter().flat_map(|one| parts.iter().map(|other| vec![part(one), part(other)])).collect();
        keys.sort();
        let texts: Vec<String> = keys.iter().map(text_of).collect();
        let mut sorted = texts.clone();
        sorted.sort();
        assert_eq!(texts, sorted);
        sorted.dedup();
        assert_eq!(texts.len(), sorted.len(), "and each key its own text");
    }

    #[test]
    fn aggregates_go_over_everything_or_over_each_group() {
        for (query, expected) in [
            ("SELECT COUNT() AS n FROM devices", vec![r#"{"n":5}"#]),
            ("SELECT COUNT() FROM devices", vec![r#"{"$1":5}"#]),
            (
                "SELECT AVG(tags.n) AS a, SUM(tags.n) AS s, MIN(tags.n) AS l, MAX(tags.n) AS m FROM devices",
                vec![r#"{"a":2.125,"l":1,"m":4,"s":8.5}"#],
            ),
            ("SELECT SUM(tags.none) AS s, COUNT() AS n FROM devices", vec![r#"{"n":5}"#]),
            (
                "SELECT tags.rev AS rev, COUNT() AS n FROM devices GROUP BY tags.rev",
                vec![r#"{"n":1}"#, r#"{"n":2,"rev":"a"}"#, r#"{"n":2,"rev":"b"}"#],
            ),
            (
                // 1 and 1.0 are one group.
                "SELECT COUNT() AS c FROM devices GROUP BY tags.rev, tags.n",
                vec![r#"{"c":1}"#, r#"{"c":1}"#, r#"{"c":1}"#, r#"{"c":2}"#],
            ),
            ("SELECT tags.rev FROM devices GROUP BY tags.rev", vec!["{}", r#"{"rev":"a"}"#, r#"{"rev":"b"}"#]),
        ] {
            assert_eq!(rows(query, &ROWS), expected, "{query}");
        }
        assert_eq!(rows("SELECT COUNT() AS n FROM devices", &[]), [r#"{"n":0}"#]);
        assert_eq!(rows("SELECT COUNT() AS n FROM devices GROUP BY tags.a", &[]), Vec::<String>::new());
    }

    #[test]
    fn sums_are_exact_while_they_can_be() {
        let row = |n: &str| format!(r#"{{"tags":{{"n":{n}}}}}"#);
        let sum = |numbers: &[&str]| {
            let texts: Vec<String> = numbers.iter().map(|n| row(n)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            rows("SELECT SUM(tags.n) AS s FROM devices", &texts).remove(0)
        };
        assert_eq!(sum(&["9007199254740993", "1"]), r#"{"s":9007199254740994}"#);
        assert_eq!(sum(&["9223372036854775807", "1"]), r#"{"s":9.223372036854776e+18}"#);
        assert_eq!(sum(&["1e308", "1e308"]), "{}");
    }

    #[test]
    fn groups_are_bounded() {
        let query = parse("SELECT tags.n FROM devices GROUP BY tags.n").unwrap();
        let mut groups = Groups::of(&query).unwrap();
        let row = |n: i64| {
            Value::from(Object::from([("tags".to_owned(), Object::from([("n".to_owned(), n.into())]).into())]))
        };
        for n in 0..i64::try_from(GROUPS_MAX).unwrap() {
            groups.add(&row(n)).unwrap();
        }
        assert_eq!(groups.add(&row(-1)), Err(TooManyGroups));
        assert_eq!(groups.add(&row(7)), Ok(()));
    }
}
