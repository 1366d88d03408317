//! A query over rows that a sweep has read: what the hub would answer, without asking it.
//!
//! Invariant: over the same data the result is the one that the hub's answer would give. A sweep reads only twins that
//! carry our seal, so a query is taken only when its own condition says that it is about these; what would depend on
//! the order of rows is refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use super::mapping::{Aggregator, MapFailure, Mapped, columns_of};
use super::{MetricSpec, QuerySpec, Reduce, ValueSource};
use crate::query::{
    Attribute, Call, Column, Expr, Function, Groups, Operand, Query, Row, Select, Source, Tri, eval, parse, project,
};
use crate::twin::{Object, Value};

/// The tag that holds the seals of all owners.
const SEALS: [&str; 2] = ["tags", "geminid"];
/// What a metric may read of a whole twin; of anything else it is not known how the hub writes it there.
const WHOLE_TWIN: [&str; 10] = [
    "deviceId",
    "moduleId",
    "etag",
    "deviceEtag",
    "status",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "authenticationType",
    "version",
];

/// A query that can be answered from the rows of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalQuery {
    /// Without the condition that every row of a sweep fulfils.
    query: Query,
    owner: String,
    columns: BTreeSet<Attribute>,
}

impl LocalQuery {
    /// Takes the query `text`, of which `metrics` are made.
    ///
    /// # Errors
    /// Why it cannot be answered from a sweep, and the remedy, in one sentence.
    pub fn new(text: &str, metrics: &[MetricSpec]) -> Result<Self, String> {
        let mut query = parse(text).map_err(|error| error.to_string())?;
        if query.source == Source::Jobs {
            return Err("a sweep reads no jobs; query devices or devices.modules".to_owned());
        }
        if query.top.is_some() {
            return Err("which rows TOP takes is the hub's own choice; leave TOP out, or evaluate: hub".to_owned());
        }
        if metrics.iter().any(is_by_order) {
            return Err(
                "which row is the first is the hub's own choice; use another reduce, or evaluate: hub".to_owned()
            );
        }
        let mut owner = None;
        query.filter = query.filter.take().and_then(|filter| without_seal(filter, &mut owner));
        let Some(owner) = owner else {
            return Err("a sweep reads only twins that carry our seal, the hub asks all; add AND \
                        IS_DEFINED(tags.geminid.[[OWNER]]) to the condition, with this instance's owner, or evaluate: hub"
                .to_owned());
        };
        let columns = columns(&query, metrics)?;
        Ok(Self { query, owner, columns })
    }

    /// Whose seal the rows carry.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether it is about modules; else it is about devices.
    #[must_use]
    pub fn is_about_modules(&self) -> bool {
        self.query.source == Source::Modules
    }

    /// What it reads of each twin, as texts for SELECT.
    pub fn columns(&self) -> impl Iterator<Item = String> {
        self.columns.iter().map(ToString::to_string)
    }
}

/// One run over the rows of one sweep.
#[derive(Debug)]
pub struct LocalRun<S = Arc<QuerySpec>> {
    query: LocalQuery,
    /// How the row calls what the query reads.
    names: BTreeMap<Attribute, String>,
    /// The columns that the metrics read of a whole twin.
    metric_columns: BTreeSet<Vec<String>>,
    aggregator: Aggregator<S>,
    groups: Option<Groups>,
    failure: Option<MapFailure>,
}

impl<S: Deref<Target = QuerySpec> + Clone> LocalRun<S> {
    /// A run of `query`, which stands in `spec`, over rows whose columns have these texts and names. `None` when a
    /// column is not among them.
    ///
    /// # Errors
    /// As [`Aggregator::new`].
    pub fn new(spec: S, query: &LocalQuery, columns: &BTreeMap<String, String>) -> Result<Option<Self>, MapFailure> {
        let name = |attribute: &Attribute| Some((attribute.clone(), columns.get(&attribute.to_string())?.clone()));
        let names: Option<BTreeMap<Attribute, String>> = query.columns.iter().map(name).collect();
        let Some(names) = names else { return Ok(None) };
        let metric_columns = spec.metrics.iter().flat_map(columns_of).map(<[String]>::to_vec).collect();
        let groups = Groups::of(&query.query);
        let query = query.clone();
        Ok(Some(Self { query, names, metric_columns, aggregator: Aggregator::new(spec)?, groups, failure: None }))
    }

    /// Takes one row of the sweep. After a failure nothing more is taken.
    pub fn push(&mut self, row: &Value) {
        if self.failure.is_none() {
            self.failure = self.take(row).err();
        }
    }

    fn take(&mut self, row: &Value) -> Result<(), MapFailure> {
        let swept = SweptRow { row, names: &self.names };
        let passes = self.query.query.filter.as_ref().is_none_or(|filter| eval(filter, &swept) == Tri::True);
        if !passes {
            return Ok(());
        }
        match (&self.query.query.select, &mut self.groups) {
            (_, Some(groups)) => groups.add(&swept).map_err(|_| MapFailure::Groups),
            (Select::Items(items), None) => self.aggregator.push(&Value::Object(project(items, &swept))),
            (Select::All | Select::Groups(_), None) => {
                let mut twin = Object::new();
                for keys in &self.metric_columns {
                    let value = Attribute::new(keys).and_then(|attribute| swept.value(attribute.path()));
                    if let Some(value) = value {
                        put(&mut twin, keys, value.into_owned());
                    }
                }
                self.aggregator.push(&Value::Object(twin))
            }
        }
    }

    /// Rows of the answer so far; groups are rows at the end.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.aggregator.rows()
    }

    /// Ends the run, once the last row of the sweep was taken.
    ///
    /// # Errors
    /// What stopped it, and as [`Aggregator::finish`].
    pub fn finish(mut self) -> Result<Mapped, MapFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        for row in self.groups.map(Groups::rows).unwrap_or_default() {
            self.aggregator.push(&Value::Object(row))?;
        }
        self.aggregator.finish()
    }
}

/// A row of a sweep as the twin that it tells of.
struct SweptRow<'a> {
    row: &'a Value,
    names: &'a BTreeMap<Attribute, String>,
}

impl Row for SweptRow<'_> {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        let name = self.names.get(&Attribute::new(path)?)?;
        self.row.get([name.as_str()]).map(Cow::Borrowed)
    }
}

/// Puts a value beneath these keys. Outer keys come before inner ones, whose value they hold already.
fn put(object: &mut Object, keys: &[String], value: Value) {
    let Some((first, below)) = keys.split_first() else { return };
    if below.is_empty() {
        object.insert(first.clone(), value);
        return;
    }
    if let Value::Object(inner) = object.entry(first.clone()).or_insert_with(|| Value::Object(Object::new())) {
        put(inner, below, value);
    }
}

/// Whether the metric depends on the order of rows.
fn is_by_order(metric: &MetricSpec) -> bool {
    match &metric.value {
        ValueSource::Column(column) => column.reduce == Reduce::First,
        ValueSource::States(column) => column.reduce == Reduce::First,
        ValueSource::Count | ValueSource::Const(_) => false,
    }
}

/// The condition without its demand that the twin carry the seal of an owner, who is put into `owner`.
fn without_seal(filter: Expr, owner: &mut Option<String>) -> Option<Expr> {
    match filter {
        Expr::Call(call) => match sealing_owner(&call) {
            // Twins that two owners sealed are not what one of them sweeps; the second demand stays.
            Some(name) if owner.is_none() => {
                *owner = Some(name.to_owned());
                None
            }
            Some(_) | None => Some(Expr::Call(call)),
        },
        Expr::And(parts) => {
            let mut rest: Vec<Expr> = parts.into_iter().filter_map(|part| without_seal(part, owner)).collect();
            if rest.len() < 2 { rest.pop() } else { Some(Expr::And(rest)) }
        }
        Expr::Or(_) | Expr::Not(_) | Expr::Compare { .. } | Expr::In { .. } => Some(filter),
    }
}

/// The owner whose seal a call of `IS_DEFINED` asks for.
fn sealing_owner(call: &Call) -> Option<&str> {
    let (Function::IsDefined, [Operand::Attribute(attribute)]) = (call.function, call.arguments.as_slice()) else {
        return None;
    };
    match attribute.path() {
        [tags, geminid, owner] if [tags.as_str(), geminid.as_str()] == SEALS => Some(owner),
        _ => None,
    }
}

/// What the query, and the metrics where it answers whole twins, read of a twin.
fn columns(query: &Query, metrics: &[MetricSpec]) -> Result<BTreeSet<Attribute>, String> {
    let mut columns: BTreeSet<Attribute> = query.filter.iter().flat_map(Expr::attributes).cloned().collect();
    columns.extend(query.group_by.iter().cloned());
    match &query.select {
        Select::Items(items) => columns.extend(items.iter().map(|item| item.attribute.clone())),
        Select::Groups(groups) => columns.extend(groups.iter().filter_map(|column| match column {
            Column::Item(item) => Some(item.attribute.clone()),
            Column::Aggregate { aggregate, .. } => aggregate.attribute().cloned(),
        })),
        Select::All => {
            for keys in metrics.iter().flat_map(columns_of) {
                columns.insert(whole_twin_column(keys)?);
            }
        }
    }
    Ok(columns)
}

fn whole_twin_column(keys: &[String]) -> Result<Attribute, String> {
    let known = match keys {
        [first, _, ..] if first == "tags" => true,
        [first, section, _, ..] if first == "properties" => ["desired", "reported"].contains(&section.as_str()),
        [only] => WHOLE_TWIN.contains(&only.as_str()),
        _ => false,
    };
    Attribute::new(keys).filter(|_| known).ok_or_else(|| {
        format!("a sweep cannot read {} of SELECT *; name the column in the query, or evaluate: hub", keys.join("."))
    })
}
