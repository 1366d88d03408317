//! Twins: lists of them, and one leaf by leaf.
//!
//! Invariant: a list asks a loop for bounded pages and looks through at most [`PAGES_MAX`] of them for one answer; where
//! it stopped is in `continue`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::Problem;
use super::wire::{
    ExplainedView, FORMAT_VERSION, LeafView, ProblemView, TwinListView, TwinQuery, TwinView, TwinsQuery, timestamp,
};
use super::{Api, HubHandle};
use crate::controller::{Event, Page, REPORTS_MAX, TwinReport};
use crate::plan::{DeclaredState, DeviceGlobs, TwinState};
use crate::twin::{DeviceId, ModuleId, TwinRef};

const LIMIT_DEFAULT: usize = 100;
/// Twins in one answer.
const LIMIT_MAX: usize = 500;
/// Pages of a loop looked through for one answer: a filter that nothing passes ends in time.
const PAGES_MAX: usize = 20;
/// Events looked at for the last write of each leaf.
const WRITES_MAX: usize = 100;

/// The twins, by hub and name
#[utoipa::path(
    get, path = "/api/v1/twins", tag = "status", params(TwinsQuery),
    responses((status = 200, body = TwinListView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<TwinsQuery>, QueryRejection>,
) -> Result<Json<TwinListView>, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit is 1 to {LIMIT_MAX}")));
    }
    let filter = Filter::of(&query)?;
    let start = query.r#continue.as_deref().map(Place::parse).transpose()?;
    let mut listing = Listing { items: Vec::new(), limit, pages: PAGES_MAX, filter, now: (api.options.now)() };
    for (name, hub) in api.hubs(query.hub.as_deref())? {
        let after = match &start {
            Some(place) if name < place.hub => continue,
            Some(place) if name == place.hub => place.after.clone(),
            Some(_) | None => None,
        };
        let Some(hub) = hub else { continue };
        if let Some(after) = listing.take_from(&name, &hub, after).await? {
            let place = Place { hub: name, after: Some(after) };
            return Ok(Json(listing.answer(Some(&place))));
        }
    }
    Ok(Json(listing.answer(None)))
}

/// One twin, leaf by leaf, read at the hub for this answer
#[utoipa::path(
    get, path = "/api/v1/hubs/{hub}/twins/{device}", tag = "status",
    params(("hub" = String, Path), ("device" = String, Path), TwinQuery),
    responses((status = 200, body = ExplainedView), (status = "4XX", body = ProblemView), (status = "5XX", body = ProblemView))
)]
pub(super) async fn one(
    State(api): State<Api>,
    Path((hub_name, device)): Path<(String, String)>,
    query: Result<Query<TwinQuery>, QueryRejection>,
) -> Result<Json<ExplainedView>, Problem> {
    let Query(query) = query?;
    let device =
        DeviceId::new(&device).map_err(|error| Problem::invalid(format!("{device:?} is no device: {error}")))?;
    let module = query.module.as_deref().map(ModuleId::new).transpose();
    let module = module.map_err(|error| Problem::invalid(format!("module: {error}")))?;
    let twin = TwinRef { device, module };
    let hub = api.hub(&hub_name)?;
    let mut overview = hub.commands.overview(Page { only: Some(twin.clone()), ..Page::default() }).await?;
    let Some(report) = overview.twins.pop() else {
        return Err(Problem::not_found(format!("{twin} is not managed on hub {hub_name}; see geminid get")));
    };
    let now = (api.options.now)();
    let labels = labels_of(&hub.declared.borrow().clone(), &twin);
    let mut view = ExplainedView {
        format_version: FORMAT_VERSION,
        twin: TwinView::of(&hub_name, &overview.revision, labels, &report, now),
        read_at: None,
        read_error: None,
        etag: None,
        version: None,
        source: None,
        held: Vec::new(),
        leaves: Vec::new(),
        last_write: None,
        last_handled_reconcile: overview.handled,
    };
    let writes = hub.journal.recent(Some(&twin), WRITES_MAX);
    view.last_write = writes.iter().find(|event| event.reason == "Written").map(|event| timestamp(event.time));
    if query.live == Some(false) {
        return Ok(Json(view));
    }
    match hub.commands.explain(twin).await?? {
        Ok(explained) => {
            let last_write = |path: &str| {
                let wrote = |event: &&Event| event.leaves.contains(path);
                writes.iter().find(wrote).map(|event| timestamp(event.time))
            };
            view.read_at = Some(timestamp((api.options.now)()));
            (view.etag, view.version, view.source) = (explained.etag, explained.version, explained.source);
            view.held = explained.held;
            view.leaves = explained.leaves.iter().map(|leaf| LeafView::of(leaf, last_write(&leaf.path))).collect();
        }
        Err(error) => view.read_error = Some(error),
    }
    Ok(Json(view))
}

fn labels_of(state: &DeclaredState, twin: &TwinRef) -> BTreeMap<String, String> {
    let labels = state.twins.get(twin).map(|manifest| manifest.labels.clone()).unwrap_or_default();
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Twins being collected.
struct Listing {
    items: Vec<TwinView>,
    limit: usize,
    pages: usize,
    filter: Filter,
    now: SystemTime,
}

impl Listing {
    /// Takes what passes the filter from `hub`. Answers the twin after which to go on, when it stopped before the end.
    async fn take_from(
        &mut self,
        name: &str,
        hub: &HubHandle,
        mut after: Option<TwinRef>,
    ) -> Result<Option<TwinRef>, Problem> {
        loop {
            // Without a filter no more is asked for than is answered, and one more that tells whether there are more.
            let ask = if self.filter.is_open() { self.limit - self.items.len() + 1 } else { REPORTS_MAX };
            let page = Page { after: after.clone(), only: None, limit: ask };
            let overview = hub.commands.overview(page).await?;
            self.pages = self.pages.saturating_sub(1);
            let declared = hub.declared.borrow().clone();
            let is_last = overview.twins.len() < ask;
            for report in &overview.twins {
                if self.items.len() == self.limit {
                    return Ok(after);
                }
                after = Some(report.twin.clone());
                let labels = labels_of(&declared, &report.twin);
                if self.filter.passes(report, &labels) {
                    self.items.push(TwinView::of(name, &overview.revision, labels, report, self.now));
                }
            }
            if is_last {
                return Ok(None);
            }
            if self.pages == 0 {
                return Ok(after);
            }
        }
    }

    fn answer(self, place: Option<&Place>) -> TwinListView {
        TwinListView { format_version: FORMAT_VERSION, items: self.items, r#continue: place.map(Place::text) }
    }
}

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    hub: String,
    after: Option<TwinRef>,
}

impl Place {
    fn text(&self) -> String {
        let twin = self.after.as_ref().map(ToString::to_string).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(format!("{} {twin}", self.hub))
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let parsed = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let (hub, twin) = text.split_once(' ')?;
            let after = if twin.is_empty() { None } else { Some(TwinRef::parse(twin).ok()?) };
            Some(Self { hub: hub.to_owned(), after })
        };
        parsed().ok_or_else(|| Problem::invalid("continue is not one of ours; ask again without it"))
    }
}

/// What passes into a list.
struct Filter {
    state: Option<TwinState>,
    reason: Option<String>,
    name: Option<DeviceGlobs>,
    labels: BTreeMap<String, String>,
}

impl Filter {
    fn of(query: &TwinsQuery) -> Result<Self, Problem> {
        let state = |word: &str| {
            let found = TwinState::ALL.into_iter().find(|state| state.as_str() == word);
            let known = || TwinState::ALL.map(TwinState::as_str).join(", ");
            found.ok_or_else(|| Problem::invalid(format!("{word:?} is no state; there are {}", known())))
        };
        let glob = |text: &str| {
            let parsed = DeviceGlobs::new(vec![text.to_owned()]);
            parsed.map_err(|error| Problem::invalid(format!("name: {error}")))
        };
        let label = |text: &str| {
            let pair = text.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
            pair.ok_or_else(|| Problem::invalid(format!("{text:?} is no label; write key=value")))
        };
        let labels = query.labels.as_deref().unwrap_or_default();
        Ok(Self {
            state: query.state.as_deref().map(state).transpose()?,
            reason: query.reason.clone(),
            name: query.name.as_deref().map(glob).transpose()?,
            labels: labels.split(',').filter(|text| !text.trim().is_empty()).map(label).collect::<Result<_, _>>()?,
        })
    }

    fn is_open(&self) -> bool {
        self.state.is_none() && self.reason.is_none() && self.name.is_none() && self.labels.is_empty()
    }

    fn passes(&self, report: &TwinReport, labels: &BTreeMap<String, String>) -> bool {
        self.state.is_none_or(|state| state == report.condition.state)
            && self.reason.as_deref().is_none_or(|reason| reason == report.condition.reason)
            && self.name.as_ref().is_none_or(|globs| globs.matches(report.twin.device.as_str()))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::parse_twin;
    use super::*;

    #[test]
    fn a_place_reads_back_and_nothing_else_does() {
        for (hub, twin) in [("prod", "a b"), ("prod", ""), ("eu-west", "edge 01")] {
            let after = parse_twin(&twin.replace(' ', "/")).ok();
            let place = Place { hub: hub.to_owned(), after };
            assert_eq!(Place::parse(&place.text()), Ok(place));
        }
        for text in ["", "%", "AAAA", &URL_SAFE_NO_PAD.encode("prod a/b/c"), &URL_SAFE_NO_PAD.encode("prod")] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
