//! Whether the schedules of all queries fit what a hub lets them ask (`metrics.md` section 2.10).
//!
//! Invariant: a warning is certain: it counts one page a run, the least that there is.

use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use super::lower::DeclaredQuery;
use crate::series::{Evaluate, QuerySpec};

/// The pages that the queries of a hub may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct PageBudget {
    /// Pages a minute.
    pub pages_per_minute: f64,
    /// Where that comes from, for people.
    pub words: String,
}

/// Warns at the most frequent query when all together ask for more pages than there are.
#[must_use]
pub fn check_pages(queries: &[DeclaredQuery], budget: &PageBudget) -> Option<Diagnostic> {
    let asking = || queries.iter().filter(|query| !query.spec.suspend && query.spec.evaluate == Evaluate::Hub);
    let least: f64 = asking().map(|query| runs_per_minute(&query.spec)).sum();
    if least <= budget.pages_per_minute {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a query has at most 10,000 pages")]
    let most: f64 = asking().map(|query| runs_per_minute(&query.spec) * query.spec.limits.max_pages as f64).sum();
    // The first of the most frequent ones.
    let DeclaredQuery { spec, source } = asking().min_by_key(|query| query.spec.interval)?;
    let message = format!(
        "the {} queries of this hub ask for at least {least:.1} pages a minute, and for {most:.0} by their limits.maxPages; \
         {:.1} are theirs ({}); lengthen intervals (this one runs every {} s), put questions into one query, let the sweep \
         answer (evaluate: sweep), or raise budget or units",
        asking().count(),
        budget.pages_per_minute,
        budget.words,
        spec.interval.as_secs(),
    );
    Some(Diagnostic {
        file: Arc::clone(&source.file),
        line: source.line,
        column: source.column,
        severity: Severity::Warning,
        path: "spec.interval".to_owned(),
        rule: "query-budget",
        message,
    })
}

fn runs_per_minute(spec: &QuerySpec) -> f64 {
    60.0 / spec.interval.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::FileSpan;
    use crate::series::fixtures::query;

    fn every(name: &str, seconds: u64) -> DeclaredQuery {
        let mut spec = query(name, Vec::new());
        spec.interval = Duration::from_secs(seconds);
        DeclaredQuery { spec, source: FileSpan { file: "q.yaml".into(), line: 3, column: 1 } }
    }

    #[test]
    fn schedules_that_ask_for_more_than_there_is_are_told_with_the_figures() {
        let budget = PageBudget { pages_per_minute: 5.0, words: "half of 20 a minute x 0.5".to_owned() };
        let found = |queries: &[DeclaredQuery]| check_pages(queries, &budget).map(|found| found.to_string());
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[every("a", 30), every("b", 20)]), None, "five a minute are just there");
        let text = found(&[every("a", 30), every("b", 20), every("c", 600)]).unwrap();
        assert_eq!(
            text,
            "q.yaml:3:1: warning: the 3 queries of this hub ask for at least 5.1 pages a minute, and for 255 by their \
             limits.maxPages; 5.0 are theirs (half of 20 a minute x 0.5); lengthen intervals (this one runs every 20 s), \
             put questions into one query, let the sweep answer (evaluate: sweep), or raise budget or units (spec.interval)"
        );
        let mut suspended = every("a", 5);
        suspended.spec.suspend = true;
        assert_eq!(found(&[suspended, every("b", 20)]), None);
    }
}
