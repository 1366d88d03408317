//! The status API: `/api/v1`.
//!
//! ```text
//!   request -> door: Host, token -> handler -> Commands of the hub's loop -> JSON with formatVersion
//! ```
//!
//! Invariants: what may be read and done is decided in `door` alone, before a handler runs. Handlers ask the loops and
//! change nothing themselves. Every route is in the OpenAPI document, because the document is made of the routes.

mod actions;
mod door;
mod problem;
mod read;
mod twins;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{LicenseBuilder, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::router::is_api;
use crate::controller::{Commands, Journal};
use crate::metrics::{Code, Handler, OpsMetrics};
use crate::plan::DeclaredState;
use problem::Problem;

/// The largest body of a request, in bytes.
const BODY_SIZE_MAX: usize = 64 * 1024;
/// The longest a request may take, its body included.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// One hub as the API asks it.
#[derive(Debug, Clone)]
pub struct HubHandle {
    /// The host, without port.
    pub host: String,
    /// The line to its loop.
    pub commands: Commands,
    /// The state that its loop follows.
    pub declared: watch::Receiver<Arc<DeclaredState>>,
    /// What happened lately.
    pub journal: Journal,
}

/// What the API needs to know.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// The names of all hubs of the settings.
    pub hubs: Vec<String>,
    /// The file with the bearer token; without it there are no actions.
    pub token_file: Option<PathBuf>,
    /// Whether the port is reached from other machines: then reads need the token too.
    pub remote: bool,
    /// The wall clock.
    pub now: fn() -> SystemTime,
    /// Where requests are counted.
    pub metrics: OpsMetrics,
}

/// The API of this process. Clones share the hubs.
#[derive(Debug, Clone)]
pub struct Api {
    options: Arc<ApiOptions>,
    hubs: Arc<Mutex<BTreeMap<String, Option<HubHandle>>>>,
    tokens: Arc<AtomicU64>,
}

impl Api {
    /// An API whose hubs have not loaded their manifests yet.
    #[must_use]
    pub fn new(options: ApiOptions) -> Self {
        let hubs = options.hubs.iter().map(|hub| (hub.clone(), None)).collect();
        Self { options: Arc::new(options), hubs: Arc::new(Mutex::new(hubs)), tokens: Arc::default() }
    }

    /// The loop of `hub` runs from now on.
    pub fn started(&self, hub: &str, handle: HubHandle) {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner).insert(hub.to_owned(), Some(handle));
    }

    /// The routes beneath `/api/v1`.
    ///
    /// # Panics
    /// When the document of the routes cannot be printed: it is made of texts and always can.
    pub fn router(self) -> Router {
        let (router, document) = routes_and_document();
        let json = document.to_pretty_json().expect("the document is made of texts");
        let serve_document = move || async move { ([(axum::http::header::CONTENT_TYPE, "application/json")], json) };
        router
            .route("/api/v1/openapi.json", get(serve_document))
            .layer(DefaultBodyLimit::max(BODY_SIZE_MAX))
            .layer(middleware::from_fn_with_state(self.clone(), door::keep))
            .layer(middleware::from_fn(limit_time))
            .layer(middleware::from_fn_with_state(self.clone(), count))
            .with_state(self)
    }

    /// A name for a request, unique in this process and, by the time, over restarts.
    fn new_token(&self) -> String {
        let now = (self.options.now)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{:x}-{}", now.as_millis(), self.tokens.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The hubs by name, all or the one asked for; `None` for one that has not loaded its manifests yet.
    fn hubs(&self, only: Option<&str>) -> Result<Vec<(String, Option<HubHandle>)>, Problem> {
        let hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = only else { return Ok(hubs.iter().map(|(name, hub)| (name.clone(), hub.clone())).collect()) };
        let Some(hub) = hubs.get(name) else {
            let known = hubs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Problem::not_found(format!("no hub {name} is configured; there are {known}")));
        };
        Ok(vec![(name.to_owned(), hub.clone())])
    }

    /// One hub whose loop runs.
    fn hub(&self, name: &str) -> Result<HubHandle, Problem> {
        let hub = self.hubs(Some(name))?.pop().and_then(|(_, hub)| hub);
        hub.ok_or_else(|| Problem::not_yet(format!("hub {name} has not loaded its manifests yet; try again soon")))
    }
}

/// Why the bearer token in the file at `path` cannot be used, if it cannot: until it can, actions are refused.
#[must_use]
pub fn token_problem(path: &Path) -> Option<String> {
    door::token_problem(path)
}

/// The OpenAPI document of the routes, as it is checked in.
///
/// # Panics
/// As [`Api::router`].
#[must_use]
pub fn openapi_json() -> String {
    let json = routes_and_document().1.to_pretty_json().expect("the document is made of texts");
    format!("{json}\n")
}

fn routes_and_document() -> (Router<Api>, OpenApi) {
    let (router, mut document) = OpenApiRouter::<Api>::new()
        .routes(routes!(read::version))
        .routes(routes!(read::hubs))
        .routes(routes!(read::events))
        .routes(routes!(twins::list))
        .routes(routes!(twins::one))
        .routes(routes!(read::request))
        .routes(routes!(actions::reconcile))
        .routes(routes!(actions::approve))
        .routes(routes!(actions::suspend))
        .routes(routes!(actions::resume))
        .split_for_parts();
    document.info.title = "geminid".to_owned();
    document.info.description = Some(
        "How declared and live twins stand, and what may be asked of a running daemon. Times are RFC 3339 in UTC. \
         Sensitive values are salted hashes. Actions need the bearer token of `api_token_file`; off loopback, reads \
         need it too."
            .to_owned(),
    );
    document.info.version = "v1".to_owned();
    document.info.contact = None;
    document.info.license = Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build());
    document.servers = None;
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    document.components.get_or_insert_default().add_security_scheme("token", bearer);
    (router, document)
}

/// Counts a request, the refused ones too. Served on a port of its own, the API is asked for other paths as well.
async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let handler = if is_api(request.uri().path()) { Handler::Api } else { Handler::Unknown };
    let response = next.run(request).await;
    api.options.metrics.answered(handler, Code::of_status(response.status().as_u16()));
    response
}

/// Ends a request that takes too long, so that a client that sends half a body keeps no worker.
async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::slow(REQUEST_TIME_MAX).into_response(),
    }
}

#[cfg(test)]
mod tests;
