//! Queries answered from the rows of a sweep.
//!
//! Invariant: nothing is asked of the hub. A run begins and ends with a sweep, all or nothing; a page's rows are mapped
//! and dropped before the next page is taken. A query that wants columns which this sweep does not have waits for the
//! next one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::time::Instant;

use super::read::{Progress, RunFailure};
use super::rendered::Rendered;
use super::state::RunId;
use crate::hub::{AlongColumns, PageError, column_name};
use crate::series::{Evaluate, LocalQuery, LocalRun, QuerySpec};
use crate::twin::Value;

/// The columns that these queries want of each twin that a sweep reads.
#[must_use]
pub fn wanted_columns(specs: &[QuerySpec]) -> AlongColumns {
    let queries = || specs.iter().filter(|spec| !spec.suspend).filter_map(swept_query);
    let of = |modules: bool| {
        let mut queries = queries().filter(|query| query.is_about_modules() == modules).peekable();
        queries.peek()?;
        let columns: BTreeSet<String> = queries.flat_map(LocalQuery::columns).collect();
        Some(columns.into_iter().collect())
    };
    AlongColumns { devices: of(false), modules: of(true) }
}

/// The query of a spec that sweeps answer.
pub(super) fn swept_query(spec: &QuerySpec) -> Option<&LocalQuery> {
    match &spec.evaluate {
        Evaluate::Hub => None,
        Evaluate::Sweep { query, .. } => Some(query),
    }
}

/// The runs of the present sweep.
#[derive(Debug)]
pub(super) struct SweptRuns<S = Arc<QuerySpec>> {
    columns: Arc<AlongColumns>,
    runs: BTreeMap<RunId, SweptRun<S>>,
    /// When the sweep began.
    pub(super) began: Instant,
}

#[derive(Debug)]
struct SweptRun<S> {
    modules: bool,
    run: Result<LocalRun<S>, RunFailure>,
}

impl<S: Deref<Target = QuerySpec> + Clone> SweptRuns<S> {
    pub(super) fn new(columns: Arc<AlongColumns>, began: Instant) -> Self {
        Self { columns, runs: BTreeMap::new(), began }
    }

    /// Whether the rows of this sweep say all that `query` reads.
    pub(super) fn can_answer(&self, query: &LocalQuery) -> bool {
        let columns = self.columns(query.is_about_modules());
        columns.is_some_and(|columns| query.columns().all(|column| columns.contains(&column)))
    }

    /// Begins a run of `spec`, which [can be answered](Self::can_answer).
    pub(super) fn start(&mut self, id: RunId, spec: &S) {
        let Some(query) = swept_query(spec) else { return };
        let modules = query.is_about_modules();
        let columns = self.columns(modules).unwrap_or_default().iter().enumerate();
        let names = columns.map(|(index, column)| (column.clone(), column_name(index))).collect();
        if let Some(run) = LocalRun::new(spec.clone(), query, &names).transpose() {
            self.runs.insert(id, SweptRun { modules, run: run.map_err(RunFailure::from) });
        }
    }

    /// Takes one page of twins. A run that panics gives nothing and costs the others nothing; how many did.
    pub(super) fn page(&mut self, modules: bool, rows: &[Value]) -> usize {
        let mut panics = 0;
        for swept in self.runs.values_mut().filter(|swept| swept.modules == modules) {
            let Ok(run) = &mut swept.run else { continue };
            if catch_unwind(AssertUnwindSafe(|| rows.iter().for_each(|row| run.push(row)))).is_err() {
                swept.run = Err(RunFailure::Panic);
                panics += 1;
            }
        }
        panics
    }

    /// The runs, each with what gives its answer; for many rows that takes a while, so it belongs on a thread that may
    /// block.
    pub(super) fn finish(
        self,
        hub: &str,
    ) -> impl Iterator<Item = (RunId, impl FnOnce() -> (Progress, Result<Rendered, RunFailure>) + use<S>)> {
        let hub: Arc<str> = hub.into();
        self.runs.into_iter().map(move |(id, SweptRun { run, .. })| {
            let hub = Arc::clone(&hub);
            (id, move || {
                let mapped = run.and_then(|run| run.finish().map_err(RunFailure::from));
                let rows = mapped.as_ref().map_or(0, |mapped| mapped.rows);
                let progress = Progress { rows, ..Progress::default() };
                (progress, mapped.and_then(|mapped| Rendered::new(mapped, &hub)))
            })
        })
    }

    /// The runs of a sweep that did not end well, each with why it gives nothing.
    pub(super) fn fail(self, failure: &RunFailure) -> impl Iterator<Item = (RunId, RunFailure)> {
        self.runs.into_keys().map(|id| (id, failure.clone()))
    }

    fn columns(&self, modules: bool) -> Option<&[String]> {
        let columns = if modules { &self.columns.modules } else { &self.columns.devices };
        columns.as_deref()
    }
}

/// Why the queries give nothing when the sweep ended by this.
pub(super) fn failure_of(error: PageError) -> RunFailure {
    match error {
        PageError::Hub(error) => RunFailure::Hub(error),
        PageError::TooMany(pages) => RunFailure::Pages(pages),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::series::fixtures::{column, counting, query};

    /// A query that cannot be looked at while its trap is set.
    #[derive(Clone)]
    struct Trapped {
        spec: Arc<QuerySpec>,
        trap: Arc<AtomicBool>,
    }

    impl Deref for Trapped {
        type Target = QuerySpec;

        fn deref(&self) -> &QuerySpec {
            assert!(!self.trap.load(Ordering::Relaxed), "the trap");
            &self.spec
        }
    }

    fn swept(name: &str) -> Arc<QuerySpec> {
        let text = "SELECT tags.plant AS plant FROM devices WHERE IS_DEFINED(tags.geminid.[[demo]])";
        let metrics = vec![counting(&format!("twinquery_{name}"), &[("plant", column("plant"))])];
        let local = LocalQuery::new(text, &metrics).unwrap();
        let evaluate = Evaluate::Sweep { query: Box::new(local), stale_after: None };
        Arc::new(QuerySpec { evaluate, ..query(name, metrics) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_panics_gives_nothing_and_costs_the_others_nothing() {
        let specs = ["before", "trapped", "after"].map(swept);
        let owned: Vec<QuerySpec> = specs.iter().map(|spec| (**spec).clone()).collect();
        let columns = Arc::new(wanted_columns(&owned));
        let mut runs = SweptRuns::new(columns, crate::exporter::run::now());
        let trap = Arc::new(AtomicBool::new(false));
        for (id, spec) in (0..).zip(specs) {
            let trap = if spec.name == "trapped" { Arc::clone(&trap) } else { Arc::default() };
            runs.start(id, &Trapped { spec, trap });
        }
        let row = Value::parse_json(&format!(r#"{{"{}":"Redmond43"}}"#, column_name(0))).unwrap();
        let page = [row.clone(), row];
        assert_eq!(runs.page(false, &page), 0);
        trap.store(true, Ordering::Relaxed);
        assert_eq!(runs.page(false, &page), 1, "the panic is counted");
        trap.store(false, Ordering::Relaxed);
        assert_eq!(runs.page(false, &page), 0, "once, and the run takes nothing more");
        let ended: Vec<_> = runs.finish("prod").map(|(_, finish)| finish()).collect();
        let rows: Vec<_> = ended.iter().map(|(progress, result)| (progress.rows, result.as_ref().err())).collect();
        assert_eq!(rows, [(6, None), (0, Some(&RunFailure::Panic)), (6, None)]);
    }
}
