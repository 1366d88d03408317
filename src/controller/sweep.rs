//! One sweep: page through what we have sealed and nominate what somebody may have touched.
//!
//! Invariant: a sweep counts only when its last page arrived; a row is never taken for absence, so what is declared
//! and has no row is nominated for a read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::reconcile::Context;
use crate::hub::{AlongColumns, Lane, PAGE_SIZE_MAX, Paced, PageError, Pages, ReadTwins, SweepNews, column_name};
use crate::plan::{
    Declaration, DeclaredHash, DeclaredState, Members, ProfileTarget, RowVerdict, SweepMode, SweepRow, declare,
    declare_presumed, judge_row, row_twin, sweep_query, verify_is_due,
};
use crate::twin::{Number, TwinRef, Value};

/// Pages of one sweep: a million twins at a hundred a page, and as much again for short pages.
const PAGES_MAX: usize = 20_000;

/// What says how many devices there are.
const COUNT_QUERY: &str = "SELECT COUNT() AS n FROM devices";

/// How sweeps judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SweepOptions {
    /// How what needs work is found.
    pub(super) mode: SweepMode,
    /// Every sealed twin is read again within this time, whatever its row says.
    pub(super) verify: Duration,
    /// Whether the hub's etags come out as foretold.
    pub(super) trust_seals: bool,
    /// Whether modules may carry our seal though none is declared: nobody has looked yet, or the last sweep found some.
    pub(super) modules: bool,
    /// Whether the devices of the hub are counted.
    pub(super) count: bool,
    /// The time from this sweep to the next, for who reads along.
    pub(super) interval: Duration,
}

/// What a complete sweep found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Swept {
    /// How it was found.
    pub(super) mode: SweepMode,
    /// Devices of the hub, whoever declares them; `None` when they were not counted.
    pub(super) devices: Option<usize>,
    /// Twins to read, in order.
    pub(super) nominated: BTreeSet<TwinRef>,
    /// Twins that nobody touched since we sealed them, known without a read.
    pub(super) untouched: Vec<TwinRef>,
    /// Twins that carry our seal.
    pub(super) sealed: usize,
    /// Whether modules are among them.
    pub(super) modules: bool,
    /// Who is in each profile with a condition, as its nominating query's rows say.
    pub(super) members: Members,
    /// The nominating queries that were answered to the end.
    pub(super) queries: BTreeSet<String>,
    /// Pages read.
    pub(super) pages: usize,
    /// Whether it was known what is declared for every twin: only then removals can be judged by it.
    pub(super) is_whole: bool,
}

impl Swept {
    fn new(mode: SweepMode, is_whole: bool) -> Self {
        Self {
            mode,
            devices: None,
            nominated: BTreeSet::new(),
            untouched: Vec::new(),
            sealed: 0,
            modules: false,
            members: Members::new(),
            queries: BTreeSet::new(),
            pages: 0,
            is_whole,
        }
    }
}

/// Sweeps once, and tells who reads along.
///
/// # Errors
/// What stopped it; nothing that it found until then counts.
pub(super) async fn sweep_and_tell<H: ReadTwins + Paced>(
    context: &Context<H>,
    options: SweepOptions,
) -> Result<Swept, PageError> {
    let columns = context.along();
    if columns.is_empty() || options.mode == SweepMode::Read {
        return sweep(context, options, &AlongColumns::default()).await;
    }
    context.tell(SweepNews::Began { columns: Arc::clone(&columns), interval: options.interval }).await;
    let swept = sweep(context, options, &columns).await;
    let news = swept.as_ref().map_or_else(|error| SweepNews::Failed(error.clone()), |_| SweepNews::Complete);
    context.tell(news).await;
    swept
}

async fn sweep<H: ReadTwins + Paced>(
    context: &Context<H>,
    options: SweepOptions,
    along: &AlongColumns,
) -> Result<Swept, PageError> {
    let state = context.state();
    let hub = context.hub.in_lane(Lane::Sweep);
    let mut swept = Swept::new(options.mode, state.frozen.hides_nothing());
    if options.mode == SweepMode::Read {
        swept.nominated.extend(state.twins.keys().chain(state.frozen.held.keys()).cloned());
        return Ok(swept);
    }
    let mut seen = BTreeSet::new();
    for (profile, condition) in state.conditional() {
        let query = condition.nominating_query(profile.target);
        let mut pages = Pages::new(&hub, &query, PAGE_SIZE_MAX, PAGES_MAX);
        let members = swept.members.entry(profile.name.clone()).or_default();
        while let Some(page) = pages.next().await {
            swept.pages += 1;
            members.extend(page?.iter().filter_map(row_twin));
        }
        swept.queries.insert(query);
    }
    for target in ProfileTarget::ALL {
        let columns = match target {
            ProfileTarget::Devices => &along.devices,
            ProfileTarget::Modules => &along.modules,
        };
        let modules_wanted = options.modules || columns.is_some() || declares_modules(&state);
        if target == ProfileTarget::Modules && !modules_wanted {
            continue;
        }
        let more: Vec<(String, String)> =
            columns.iter().flatten().enumerate().map(|(index, column)| (column.clone(), column_name(index))).collect();
        let query = sweep_query(&context.scope, target, &more);
        let mut pages = Pages::new(&hub, &query, PAGE_SIZE_MAX, PAGES_MAX);
        while let Some(page) = pages.next().await {
            swept.pages += 1;
            let page = page?;
            context.rows_swept.fetch_add(page.len(), Ordering::Relaxed);
            for row in page.iter().filter_map(SweepRow::from_value) {
                if !context.scope.seals && declare_presumed(&state, &row.twin, &swept.members) == Declaration::Absent {
                    // Without seals every twin of the hub has a row.
                    continue;
                }
                judge(context, options, &state, &row, &mut swept);
                swept.modules |= row.twin.module.is_some();
                seen.insert(row.twin);
            }
            if columns.is_some() {
                context.tell(SweepNews::Page { modules: target == ProfileTarget::Modules, rows: page }).await;
            }
        }
    }
    swept.sealed = seen.len();
    swept.devices = if options.count { count_devices(&hub).await } else { None };
    let named = state.twins.keys().chain(state.frozen.held.keys());
    let unseen = named.filter(|twin| !seen.contains(*twin));
    let known = |twin: &TwinRef| context.memory().contains_key(twin);
    let nominated = unseen.filter(|twin| !(known(twin) && is_held(&declare(&state, twin, None))));
    swept.nominated.extend(nominated.cloned());
    // Members that nobody names; one with a row of its own was judged by that.
    let nameless =
        swept.members.values().flatten().filter(|twin| !seen.contains(*twin) && !state.twins.contains_key(twin));
    let nameless: Vec<TwinRef> = nameless.cloned().collect();
    swept.nominated.extend(nameless);
    Ok(swept)
}

/// The devices of the hub. Nobody waits for it: a count that fails is left out.
async fn count_devices<H: ReadTwins>(hub: &H) -> Option<usize> {
    let page = hub.query_page(COUNT_QUERY, 1, None).await.ok()?;
    match page.rows.first()?.get(["n"])? {
        Value::Number(Number::Integer(count)) => usize::try_from(*count).ok(),
        Value::Number(Number::Float(_))
        | Value::Null
        | Value::Bool(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => None,
    }
}

/// Whether any module is declared, or may be by a condition.
fn declares_modules(state: &DeclaredState) -> bool {
    if state.conditional().any(|(profile, _)| profile.target == ProfileTarget::Modules) {
        return true;
    }
    state.twins.keys().chain(state.frozen.held.keys()).any(|twin| twin.module.is_some())
}

/// Puts the twin of a row where it belongs.
fn judge<H>(context: &Context<H>, options: SweepOptions, state: &DeclaredState, row: &SweepRow, swept: &mut Swept) {
    if state.suspension(&row.twin, context.unix_now()).is_some() {
        swept.nominated.insert(row.twin.clone());
        return;
    }
    let declaration = declare_presumed(state, &row.twin, &swept.members);
    let hash = declaration.declared().map(|declared| DeclaredHash::of(&context.scope, &row.twin, declared));
    let now = context.now();
    let waits = context.gate().holds_removal(&row.twin);
    let memory = context.memory();
    let known = memory.get(&row.twin);
    let unix = |at: Duration| context.started_unix.saturating_add(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
    let last = known.map(|known| unix(known.at));
    let overdue = verify_is_due(&row.twin, options.verify, last, context.started_unix, unix(now));
    let verdict = judge_row(row, hash.as_ref(), known, options.trust_seals, now);
    // Whoever lifts the hold asks for these; until then a read would find them as they are known.
    let holds = (waits || is_held(&declaration)) && known.is_some_and(|known| known.is_shown_by(row));
    drop(memory);
    match verdict {
        RowVerdict::Older => {}
        RowVerdict::MemoryMatches if !overdue => {}
        RowVerdict::Read if holds && !overdue => {}
        RowVerdict::SealMatches if !overdue && matches!(declaration, Declaration::Declared(_)) => {
            swept.untouched.push(row.twin.clone());
        }
        RowVerdict::SealMatches | RowVerdict::MemoryMatches | RowVerdict::Read => {
            swept.nominated.insert(row.twin.clone());
        }
    }
}

/// Whether nothing may be written to the twin, whatever it holds.
fn is_held(declaration: &Declaration) -> bool {
    declaration.hold().is_some()
}
