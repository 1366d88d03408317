//! One sweep: page through what we have sealed and nominate what somebody may have touched.
//!
//! Invariant: a sweep counts only when its last page arrived; a row is never taken for absence, so what is declared
//! and has no row is nominated for a read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::context::Context;
use super::marks::Marks;
use crate::hub::{
    AlongColumns, Cell, Lane, PAGE_SIZE_MAX, Paced, PageError, Pages, ReadTwins, SweepNews, TextRows, column_name,
};
use crate::plan::{
    Declaration, DeclaredHash, DeclaredHashes, DeclaredState, DeclaredTwins, Members, ProfileTarget, RowVerdict,
    SWEEP_COLUMNS, SweepMode, SweepRow, Verified, declare, declare_presumed, judge_row, row_twin, sweep_query,
    verify_is_due,
};
use crate::twin::{Near, Number, TwinMap, TwinRef, Value};

/// Pages of one sweep: a million twins at a hundred a page, and as much again for short pages.
const PAGES_MAX: usize = 20_000;

/// The column of the module's id in a row.
const MODULE_COLUMN: usize = 1;

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
#[derive(Debug)]
pub(super) struct Swept {
    /// How it was found.
    pub(super) mode: SweepMode,
    /// Devices of the hub, whoever declares them; `None` when they were not counted.
    pub(super) devices: Option<usize>,
    /// Twins to read, in order.
    pub(super) nominated: TwinMap<()>,
    /// Twins that nobody touched since we sealed them, known without a read.
    pub(super) untouched: Untouched,
    /// Twins that carry our seal.
    pub(super) sealed: usize,
    /// Whether modules are among them.
    pub(super) modules: bool,
    /// Who is in each profile with a condition, as its nominating query's rows say.
    pub(super) members: Members,
    /// The nominating queries that were answered to the end, by profile.
    pub(super) queries: BTreeMap<String, String>,
    /// Pages read.
    pub(super) pages: usize,
    /// Whether it was known what is declared for every twin: only then removals can be judged by it.
    pub(super) is_whole: bool,
}

/// Twins that need no read: marks on the declared ones, and the names of others.
#[derive(Debug, Default)]
pub(super) struct Untouched {
    declared: DeclaredTwins,
    marks: Marks,
    others: Vec<TwinRef>,
}

impl Untouched {
    /// Each of them; the declared ones in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TwinRef> {
        let marked = self.declared.keys().enumerate().filter(|(number, _)| self.marks.contains(*number));
        marked.map(|(_, twin)| twin).chain(&self.others)
    }
}

impl Swept {
    fn new(mode: SweepMode, is_whole: bool) -> Self {
        Self {
            mode,
            devices: None,
            nominated: TwinMap::default(),
            untouched: Untouched::default(),
            sealed: 0,
            modules: false,
            members: Members::new(),
            queries: BTreeMap::new(),
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
        let named = state.twins.keys().chain(state.frozen.held.keys());
        swept.nominated.extend(named.map(|twin| (twin.clone(), ())));
        return Ok(swept);
    }
    for (profile, condition) in state.conditional() {
        let query = condition.nominating_query(profile.target);
        let mut pages = Pages::new(&hub, &query, PAGE_SIZE_MAX, PAGES_MAX);
        let members = swept.members.entry(profile.name.clone()).or_default();
        while let Some(page) = pages.next().await {
            swept.pages += 1;
            members.extend(page?.iter().filter_map(row_twin));
        }
        swept.queries.insert(profile.name.clone(), query);
    }
    let mut round = Round::new(context, options, &state, swept);
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
        let along = columns.as_ref().map(|_| target);
        while let Some(read) = round.read_page(&mut pages, along).await {
            if let Err(error) = read {
                round.give_back();
                return Err(error);
            }
        }
    }
    let mut swept = round.finish();
    swept.devices = if options.count { count_devices(&hub).await } else { None };
    Ok(swept)
}

/// One sweep under way.
struct Round<'a, H> {
    context: &'a Context<H>,
    options: SweepOptions,
    state: &'a DeclaredState,
    hashes: DeclaredHashes,
    /// Where the last row's twin stands in the declared state, and in the memory.
    near: Near,
    near_known: Near,
    /// Declared twins that have a row.
    seen: Marks,
    /// Others that have one.
    seen_others: BTreeSet<TwinRef>,
    /// Those of the declared ones that nobody touched.
    untouched: Marks,
    swept: Swept,
}

impl<'a, H> Round<'a, H> {
    fn new(context: &'a Context<H>, options: SweepOptions, state: &'a DeclaredState, swept: Swept) -> Self {
        let mut hashes = std::mem::take(&mut *context.hashes());
        hashes.follow(&context.scope, state);
        let (near, near_known) = (Near::default(), Near::default());
        let (seen, untouched) = (Marks::new(hashes.len()), Marks::new(hashes.len()));
        let seen_others = BTreeSet::new();
        Self { context, options, state, hashes, near, near_known, seen, seen_others, untouched, swept }
    }

    /// Reads the next page, if there is one, and tells who reads `along` with these.
    async fn read_page<R: ReadTwins>(
        &mut self,
        pages: &mut Pages<'_, R>,
        along: Option<ProfileTarget>,
    ) -> Option<Result<(), PageError>> {
        let Some(target) = along else {
            return Some(pages.next_texts(&SWEEP_COLUMNS).await?.map(|page| self.take_page(&page)));
        };
        let rows = match pages.next().await? {
            Ok(rows) => rows,
            Err(error) => return Some(Err(error)),
        };
        self.take_page(&TextRows::from_values(&rows, &SWEEP_COLUMNS, 0));
        self.context.tell(SweepNews::Page { modules: target == ProfileTarget::Modules, rows }).await;
        Some(Ok(()))
    }

    fn take_page(&mut self, page: &TextRows) {
        self.swept.pages += 1;
        self.context.rows_swept.fetch_add(page.len(), Ordering::Relaxed);
        let moment = Moment::of(self.context);
        let memory = self.context.memory();
        for row in 0..page.len() {
            if page.cell(row, MODULE_COLUMN) == Cell::Other {
                // No module has such an id.
                continue;
            }
            let texts = std::array::from_fn(|column| page.cell(row, column).text());
            if let Some(row) = SweepRow::new(texts) {
                self.take_row(&row, &memory, moment);
            }
        }
    }

    /// Puts the twin of a row where it belongs.
    fn take_row(&mut self, row: &SweepRow<'_>, memory: &TwinMap<Verified>, moment: Moment) {
        let place = self.hashes.find(&mut self.near, row.device, row.module);
        let known = memory.find_near(&mut self.near_known, row.device, row.module);
        let known = known.and_then(|place| memory.at(place)).map(|(_, known)| known);
        let state = self.state;
        let Some((place, (twin, _))) = place.and_then(|place| Some((place, state.twins.at(place)?))) else {
            return self.take_other(row, known, moment);
        };
        let number = self.hashes.number(place);
        self.seen.mark(number);
        self.swept.modules |= row.module.is_some();
        let suspended = self.hashes.may_be_suspended(place) && state.suspension(twin, moment.unix).is_some();
        if suspended {
            self.swept.nominated.insert(twin.clone(), ());
            return;
        }
        let verdict = if self.is_plain(twin) {
            let hash = self.hashes.hash(state, place);
            let found = Found { is_held: hash.is_none(), is_kept: false, hash };
            judge(self.context, self.options, found, twin, row, known, moment)
        } else {
            let declaration = declare_presumed(state, twin, &self.swept.members);
            let hash = declared_hash(self.context, twin, &declaration);
            let found = Found::of(&declaration, hash.as_ref());
            judge(self.context, self.options, found, twin, row, known, moment)
        };
        match verdict {
            Verdict::Skip => {}
            Verdict::Untouched => {
                self.untouched.mark(number);
            }
            Verdict::Read => {
                self.swept.nominated.insert(twin.clone(), ());
            }
        }
    }

    /// The same for a twin that has no manifest.
    fn take_other(&mut self, row: &SweepRow<'_>, known: Option<&Verified>, moment: Moment) {
        let Some(twin) = row.twin() else { return };
        let declaration = declare_presumed(self.state, &twin, &self.swept.members);
        if !self.context.scope.seals && declaration == Declaration::Absent {
            // Without seals every twin of the hub has a row.
            return;
        }
        let hash = declared_hash(self.context, &twin, &declaration);
        let found = Found::of(&declaration, hash.as_ref());
        match judge(self.context, self.options, found, &twin, row, known, moment) {
            Verdict::Skip => {}
            Verdict::Untouched => self.swept.untouched.others.push(twin.clone()),
            Verdict::Read => {
                self.swept.nominated.insert(twin.clone(), ());
            }
        }
        self.swept.modules |= row.module.is_some();
        self.seen_others.insert(twin);
    }

    /// Whether what is declared for a twin with a manifest is what its hash is of: nothing of it is frozen, and no
    /// condition concerns it.
    fn is_plain(&self, twin: &TwinRef) -> bool {
        let frozen = &self.state.frozen;
        let whole = frozen.unknown.is_empty() && frozen.kept_profiles.is_empty();
        whole
            && !frozen.kept.contains_key(twin)
            && !frozen.held.contains_key(twin)
            && !self.swept.members.values().any(|members| members.contains(twin))
    }

    /// What no row said.
    fn finish(mut self) -> Swept {
        let (state, memory) = (self.state, self.context.memory());
        let waits = |twin: &TwinRef| memory.contains_key(twin) && is_held(&declare(state, twin, None));
        let unseen = self.hashes.numbered().filter(|(number, _)| !self.seen.contains(*number)).map(|(_, twin)| twin);
        let held = state.frozen.held.keys().filter(|twin| !self.seen_others.contains(*twin));
        let nominated = unseen.chain(held).filter(|twin| !waits(twin));
        self.swept.nominated.extend(nominated.map(|twin| (twin.clone(), ())));
        // Members that nobody names; one with a row of its own was judged by that.
        let nameless = self.swept.members.values().flatten();
        let nameless = nameless.filter(|twin| !self.seen_others.contains(*twin) && !state.twins.contains_key(twin));
        self.swept.nominated.extend(nameless.map(|twin| (twin.clone(), ())));
        self.swept.sealed = self.seen.count() + self.seen_others.len();
        self.swept.untouched.declared = state.twins.clone();
        self.swept.untouched.marks = std::mem::take(&mut self.untouched);
        drop(memory);
        self.give_back();
        self.swept
    }

    /// Leaves the hashes to the next sweep.
    fn give_back(&mut self) {
        *self.context.hashes() = std::mem::take(&mut self.hashes);
    }
}

/// The time, as rows of one page are judged by it.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// The age of the process.
    age: Duration,
    /// Seconds since 1970 by the wall clock, for suspensions that end.
    unix: i64,
}

impl Moment {
    fn of<H>(context: &Context<H>) -> Self {
        Self { age: context.now(), unix: context.unix_now() }
    }
}

/// What is declared for the twin of a row.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    hash: Option<&'a DeclaredHash>,
    /// Nothing may be written to it.
    is_held: bool,
    /// It is kept as its last good manifest says.
    is_kept: bool,
}

impl<'a> Found<'a> {
    fn of(declaration: &Declaration, hash: Option<&'a DeclaredHash>) -> Self {
        Self { hash, is_held: is_held(declaration), is_kept: !matches!(declaration, Declaration::Declared(_)) }
    }
}

/// What becomes of the twin of a row.
enum Verdict {
    /// Nothing: the row says nothing new.
    Skip,
    /// It is in sync, without a read.
    Untouched,
    Read,
}

fn judge<H>(
    context: &Context<H>,
    options: SweepOptions,
    found: Found<'_>,
    twin: &TwinRef,
    row: &SweepRow<'_>,
    known: Option<&Verified>,
    moment: Moment,
) -> Verdict {
    let unix = |at: Duration| context.started_unix.saturating_add(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
    let overdue = || {
        let last = known.map(|known| unix(known.at));
        verify_is_due(twin, options.verify, last, context.started_unix, unix(moment.age))
    };
    match judge_row(row, found.hash, known, options.trust_seals, moment.age) {
        RowVerdict::Older => Verdict::Skip,
        RowVerdict::MemoryMatches if !overdue() => Verdict::Skip,
        // Whoever lifts the hold asks for these; until then a read would find them as they are known.
        RowVerdict::Read
            if known.is_some_and(|known| known.is_shown_by(row))
                && (found.is_held || context.gate().holds_removal(twin))
                && !overdue() =>
        {
            Verdict::Skip
        }
        RowVerdict::SealMatches if !found.is_kept && !overdue() => Verdict::Untouched,
        RowVerdict::SealMatches | RowVerdict::MemoryMatches | RowVerdict::Read => Verdict::Read,
    }
}

fn declared_hash<H>(context: &Context<H>, twin: &TwinRef, declaration: &Declaration) -> Option<DeclaredHash> {
    declaration.declared().map(|declared| DeclaredHash::of(&context.scope, twin, declared))
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

/// Whether nothing may be written to the twin, whatever it holds.
fn is_held(declaration: &Declaration) -> bool {
    declaration.hold().is_some()
}
