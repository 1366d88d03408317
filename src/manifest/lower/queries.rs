//! Queries of a source: duplicates, and metrics that cannot be exposed together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Claim, DeclaredQuery, Lowering};
use crate::manifest::metric_schema::{collision_message, may_share_name};
use crate::plan::FileSpan;
use crate::series::MetricSpec;

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
        for (name, candidate) in &candidates {
            let file = self.next.entry(candidate.file.clone()).or_default();
            file.queries.insert((*name).to_owned(), Arc::clone(&candidate.query));
        }
        candidates.into_values().map(|candidate| candidate.query.as_ref().clone()).collect()
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
