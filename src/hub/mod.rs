//! The hub as the rest of geminid sees it: two traits, one error, no HTTP.
//!
//! Invariants: there is no unguarded write: [`WriteTwins::patch_twin`] takes an etag and
//! [`WriteTwins::create_device`] is create-only, so nothing can ask for `If-Match: *`. Who holds only a
//! [`ReadTwins`] cannot write. No implementation retries, one renewal of an expired credential excepted.

mod address;
mod along;
mod budget;
mod certificate;
mod entra;
#[cfg(test)]
pub(crate) mod fake;
mod login;
mod observe;
mod pages;
mod refusal;
mod rest;
mod sas;
mod texts;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use address::{AddressError, HubAddress};
pub use along::{AlongColumns, SweepAlong, SweepNews, column_name};
pub use budget::{Allowance, BudgetOptions, Budgeted, HubBudget, LANES, Lane, Paced, Tier, Turns};
pub use entra::{EntraCredential, EntraOptions, EntraTransport};
pub use login::{Login, LoginError, SecretText};
pub use observe::Observed;
pub use pages::{PageError, Pages};
pub use rest::{ProxyOptions, RestHub, RestOptions, SetupError};
pub use sas::{Clock, ConnectionString, ConnectionStringError, SignatureError};
pub use texts::{Cell, RowsError, TextPage, TextRows};
#[cfg(fuzzing)]
pub use wire::probe_answers;

use crate::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef, TwinTrace, Value};

/// Rows asked for in one page; the hub's own maximum (`iot-hub.md` 2.7).
pub const PAGE_SIZE_MAX: usize = 100;

/// Where the next page of a query begins. Opaque; only ever sent back with the same query and page size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation(pub String);

/// One page of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryPage {
    /// The rows, each an object. A page may be short or empty and still not be the last one (`iot-hub.md` 2.7).
    pub rows: Vec<Value>,
    /// Present exactly while more remains.
    pub next: Option<Continuation>,
}

/// Reading twins.
pub trait ReadTwins: Send + Sync {
    /// When the credential ends for good; `None` when it does not, when nobody knows, or when it renews itself.
    fn credential_ends(&self) -> Option<SystemTime> {
        None
    }

    /// Reads one twin. The only base of a write and the only proof of absence.
    ///
    /// # Errors
    /// [`HubError::NotFound`] when the hub says that the device or module does not exist; else what stopped the read.
    fn get_twin(&self, twin: &TwinRef) -> impl Future<Output = Result<Twin, HubError>> + Send;

    /// Reads one page of a query, at most `page_size` rows. Rows lag by seconds to minutes and deleted devices linger
    /// (`iot-hub.md` 5.6): they nominate, they prove nothing.
    ///
    /// # Errors
    /// [`HubError::Rejected`] when the hub does not take the query; else what stopped the read.
    fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> impl Future<Output = Result<QueryPage, HubError>> + Send;

    /// Reads one page of a query whose columns are texts, with these of them: cheaper than [`query_page`] where rows
    /// are many.
    ///
    /// [`query_page`]: Self::query_page
    ///
    /// # Errors
    /// As for [`query_page`](Self::query_page).
    fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        page_size: usize,
        from: Option<&Continuation>,
    ) -> impl Future<Output = Result<TextPage, HubError>> + Send {
        async move {
            let page = self.query_page(query, page_size, from).await?;
            let rows = TextRows::from_values(&page.rows, columns, budget::rows_size(&page.rows));
            Ok(TextPage { rows, next: page.next })
        }
    }
}

/// Writing twins, guarded.
pub trait WriteTwins: ReadTwins {
    /// Merges `patch` into the twin if its etag still is `etag`, and answers the twin after the write.
    ///
    /// # Errors
    /// [`HubError::PreconditionFailed`] when somebody else wrote in between; nothing was written then. After
    /// [`HubError::Transport`] or [`HubError::Server`] the write may or may not have happened.
    fn patch_twin(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
    ) -> impl Future<Output = Result<Twin, HubError>> + Send;

    /// The same write, for who wants no more of the twin after it than its trace, with this one of its tags: cheaper than
    /// [`patch_twin`](Self::patch_twin), as the rest of the answer is not taken in.
    ///
    /// # Errors
    /// As for [`patch_twin`](Self::patch_twin).
    fn patch_twin_for_trace(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
        tag: &str,
    ) -> impl Future<Output = Result<TwinTrace, HubError>> + Send {
        async move { self.patch_twin(twin, patch, etag).await.map(|after| TwinTrace::of(after, tag)) }
    }

    /// Registers a device (SAS, keys made by the hub). Create-only: an existing device is never changed.
    ///
    /// # Errors
    /// [`HubError::AlreadyExists`] when the device exists by now; else what stopped the write.
    fn create_device(&self, device: &DeviceId) -> impl Future<Output = Result<(), HubError>> + Send;
}

impl<H: ReadTwins> ReadTwins for Arc<H> {
    fn credential_ends(&self) -> Option<SystemTime> {
        H::credential_ends(self)
    }

    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        H::get_twin(self, twin).await
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        H::query_page(self, query, page_size, from).await
    }

    async fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<TextPage, HubError> {
        H::text_page(self, query, columns, page_size, from).await
    }
}

impl<H: WriteTwins> WriteTwins for Arc<H> {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        H::patch_twin(self, twin, patch, etag).await
    }

    async fn patch_twin_for_trace(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
        tag: &str,
    ) -> Result<TwinTrace, HubError> {
        H::patch_twin_for_trace(self, twin, patch, etag, tag).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        H::create_device(self, device).await
    }
}

/// Why the hub did not do what was asked, shaped by what the caller does next. Texts from the hub are cut to 512
/// bytes and hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// 412: the etag is not the live one. Read again, plan again.
    #[error("the twin changed since it was read")]
    PreconditionFailed,
    /// 404 with `DeviceNotFound` or `ModuleNotFound`.
    #[error("{0} is not registered")]
    NotFound(TwinRef),
    /// 409 on create.
    #[error("device {0} is already registered")]
    AlreadyExists(DeviceId),
    /// 429: back off.
    #[error("throttled by the hub ({code})")]
    Throttled {
        /// The hub's code, such as `ThrottlingBacklogTimeout`.
        code: String,
        /// The hub's hint, which no live hub was seen to send (`iot-hub.md` 3.2).
        retry_after: Option<Duration>,
    },
    /// 403002: the daily message quota is used up until 00:00 UTC (`iot-hub.md` 3.2).
    #[error("the hub's daily message quota is used up until 00:00 UTC")]
    Quota,
    /// Not sent: what is ours of the day's messages is used up until 00:00 UTC.
    #[error("our share of the hub's daily messages is used up until 00:00 UTC; raise quota_share or the hub's units")]
    QuotaShare,
    /// 401, or 403 other than the quota. The message names hub and policy, never a key.
    #[error("{message}")]
    Unauthorized {
        /// Hub, policy, the hub's code and what to check.
        message: String,
    },
    /// Any other 4xx: repeating the request cannot help until manifest or twin changes.
    #[error("refused by the hub: {status} {code}: {message}")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// The hub's code, such as `ArgumentInvalid`.
        code: String,
        /// The hub's words.
        message: String,
    },
    /// 5xx, or an answer that makes no sense.
    #[error("the hub failed: {message}")]
    Server {
        /// HTTP status; `None` when the status was good but the answer was not understandable.
        status: Option<u16>,
        /// Status, code and the hub's words, or what was wrong with the answer.
        message: String,
    },
    /// No answer: name, connection, TLS or time-out. Whether a write happened is unknown.
    #[error("cannot reach the hub: {message}")]
    Transport {
        /// What went wrong, with the address.
        message: String,
        /// Whether it was a time-out.
        timeout: bool,
    },
}

impl HubError {
    /// The metric label and log field of the error (`metrics.md` section 7, `reason`).
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::PreconditionFailed | Self::AlreadyExists(_) => "conflict",
            Self::NotFound(_) => "not_found",
            Self::Throttled { .. } => "throttled",
            Self::Quota | Self::QuotaShare => "quota",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Rejected { .. } => "invalid",
            Self::Server { .. } => "server",
            Self::Transport { timeout: true, .. } => "timeout",
            Self::Transport { timeout: false, .. } => "network",
        }
    }
}
