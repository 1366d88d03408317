//! Queries of a source: duplicates, and metrics that cannot be exposed together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Claim, DeclaredQuery, Lowering};
use crate::manifest::metric_schema::{collision_message, may_share_name};
use crate::plan::FileSpan;
use crate::series::{Evaluate, LocalQuery, MetricSpec};

/// The characters that the queries of the sweep may add to its own query; 8,192 is what a hub takes (`metrics.md` 1.1).
const SWEEP_COLUMNS_LENGTH_MAX: usize = 7000;
/// The characters of a comma, AS and a name.
const COLUMN_NAME_LENGTH: usize = 10;

/// A query in question while metric names are compared.
struct Candidate<'a> {
    query: Arc<DeclaredQuery>,
    /// The places of the metrics of a query that is good so far; a frozen one has none.
    good: Option<&'a [FileSpan]>,
    file: Arc<str>,
}

impl<'a> Lowering<'a> {
    pub(super) fn resolve_queries(
        &mut self,
        claims: &BTreeMap<&'a str, Vec<Claim<'a, DeclaredQuery>>>,
    ) -> Vec<DeclaredQuery> {
        let mut candidates = BTreeMap::new();
        for (name, claims) in claims {
            self.refuse_duplicates(&format!("the query {name}"), claims.iter().map(Claim::places));
            let Some(first) = claims.first() else { continue };
            let file = Arc::clone(first.file.name());
            let candidate = match (&first.good, self.last_queries.get(name)) {
                (Some(good), _) if claims.len() == 1 => {
                    Some(Candidate { query: Arc::clone(good), good: Some(first.metrics), file })
                }
                (_, Some(last)) => Some(Candidate { query: Arc::clone(last), good: None, file }),
                (_, None) => None,
            };
            candidates.extend(candidate.map(|candidate| (*name, candidate)));
        }
        for name in self.incomplete.keys() {
            for (query, declared) in self.remembered_for(name).into_iter().flat_map(|file| &file.queries) {
                if !claims.contains_key(query.as_str()) && !candidates.contains_key(query.as_str()) {
                    let file = Arc::clone(name);
                    candidates.insert(query, Candidate { query: Arc::clone(declared), good: None, file });
                }
            }
        }
        while self.freeze_one_collision(&mut candidates) {}
        self.refuse_long_sweeps(&mut candidates);
        for (name, candidate) in &candidates {
            let file = self.next.entry(candidate.file.clone()).or_default();
            file.queries.insert((*name).to_owned(), Arc::clone(&candidate.query));
        }
        candidates.into_values().map(|candidate| candidate.query.as_ref().clone()).collect()
    }

    /// Refuses queries whose columns would make the query of the sweep longer than a hub takes; the first in name stay.
    fn refuse_long_sweeps(&mut self, candidates: &mut BTreeMap<&'a str, Candidate<'a>>) {
        let mut columns = BTreeMap::new();
        let mut refused = Vec::new();
        for (name, candidate) in &*candidates {
            let Evaluate::Sweep { query, .. } = &candidate.query.spec.evaluate else { continue };
            if !has_room(query, &mut columns) {
                refused.push((*name, candidate.query.source.clone()));
            }
        }
        for (name, place) in refused {
            let message = format!(
                "the columns of all queries with evaluate: sweep have more than {SWEEP_COLUMNS_LENGTH_MAX} characters \
                 together, more than one query of a hub holds; read fewer columns, or evaluate: hub"
            );
            self.report(&place, "spec.evaluate".to_owned(), "evaluate-size", message);
            self.frozen.broken.insert(place);
            candidates.remove(name);
        }
    }

    /// Finds one pair of queries whose metrics collide, reports it at those that are good, and freezes these at their
    /// last good state. Of two frozen ones the later in name goes. Each round takes a good query or a query away, so
    /// repeating it ends.
    fn freeze_one_collision(&mut self, candidates: &mut BTreeMap<&'a str, Candidate<'a>>) -> bool {
        let Some((one, other)) = find_collision(candidates) else { return false };
        let mut reports = Vec::new();
        for ((name, index), (rival_name, rival_index)) in [(one, other), (other, one)] {
            let (Some(candidate), Some(rival)) = (candidates.get(name), candidates.get(rival_name)) else { continue };
            let Some(span) = candidate.good.and_then(|spans| spans.get(index)) else { continue };
            let place = match rival.good.and_then(|spans| spans.get(rival_index)) {
                Some(rival_span) => format!("by query {rival_name} at {rival_span}"),
                None => format!("by the last good state of query {rival_name}"),
            };
            let metric = &candidate.query.spec.metrics[index].name;
            let path = format!("spec.metrics[{index}].name");
            reports.push((name, span.clone(), path, collision_message(metric, &place)));
        }
        if reports.is_empty() {
            candidates.remove(other.0);
        }
        for (name, span, path, message) in reports {
            self.report(&span, path, "metric-collision", message);
            let Some(candidate) = candidates.remove(name) else { continue };
            self.frozen.broken.insert(candidate.query.source.clone());
            if let Some(last) = self.last_queries.get(name) {
                let frozen = Candidate { query: Arc::clone(last), good: None, file: candidate.file };
                candidates.insert(name, frozen);
            }
        }
        true
    }
}

/// How much longer a query makes the query of its sweep, whose columns so far are `columns`, by whether it is about
/// modules. Takes its own columns in when there is room.
fn has_room(query: &LocalQuery, columns: &mut BTreeMap<bool, BTreeSet<String>>) -> bool {
    let known = columns.entry(query.is_about_modules()).or_default();
    let all: BTreeSet<String> = known.iter().cloned().chain(query.columns()).collect();
    let length: usize = all.iter().map(|column| column.chars().count() + COLUMN_NAME_LENGTH).sum();
    let has_room = length <= SWEEP_COLUMNS_LENGTH_MAX;
    if has_room {
        *known = all;
    }
    has_room
}

type MetricPlace<'a> = (&'a str, usize);

/// The first two metrics of different queries that cannot be exposed together.
fn find_collision<'a>(candidates: &BTreeMap<&'a str, Candidate<'a>>) -> Option<(MetricPlace<'a>, MetricPlace<'a>)> {
    let mut seen: BTreeMap<&str, Vec<(MetricPlace<'a>, &MetricSpec)>> = BTreeMap::new();
    for (query, candidate) in candidates {
        for (index, metric) in candidate.query.spec.metrics.iter().enumerate() {
            let same_name = seen.entry(&metric.name).or_default();
            let rival = same_name.iter().find(|(place, other)| place.0 != *query && !may_share_name(other, metric));
            if let Some((place, _)) = rival {
                return Some((*place, (*query, index)));
            }
            same_name.push(((*query, index), metric));
        }
    }
    None
}
