//! A hub that counts and times what is asked of it.
//!
//! Invariant: a decorator. It answers what the hub inside answers, adds no request and retries nothing; a future that
//! is dropped counts as no request ended, and is in flight no more.

use std::time::{Instant, SystemTime};

use super::{Continuation, HubError, QueryPage, ReadTwins, RestHub, TextPage, WriteTwins};
use crate::metrics::{ClientHub, Code, Operation};
use crate::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef, TwinTrace};

/// Counts and times the requests of the hub inside.
#[derive(Debug, Clone)]
pub struct Observed<H> {
    inner: H,
    metrics: ClientHub,
}

impl<H> Observed<H> {
    /// Wraps a hub; its requests are told to `metrics`.
    #[must_use]
    pub const fn new(inner: H, metrics: ClientHub) -> Self {
        Self { inner, metrics }
    }

    /// The hub inside.
    #[must_use]
    pub const fn inner(&self) -> &H {
        &self.inner
    }

    async fn observe<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, HubError>>,
    ) -> Result<T, HubError>
    where
        H: ReadTwins,
    {
        let in_flight = self.metrics.started();
        let start = clock();
        let answer = request.await;
        let took = clock().duration_since(start);
        drop(in_flight);
        self.metrics.set_credential_expiry(self.inner.credential_ends());
        let error = answer.as_ref().err();
        self.metrics.finished(operation, error.map_or(Code::of_status(200), code), took);
        if let Some(up) = error.map_or(Some(true), |error| up_after(operation, error)) {
            self.metrics.set_up(up);
        }
        answer
    }
}

impl Observed<RestHub> {
    /// Wraps the client of a hub; its requests for tokens are told to `metrics`, too.
    #[must_use]
    pub fn with_tokens(inner: RestHub, metrics: ClientHub) -> Self {
        let told = metrics.clone();
        inner.watch_tokens(move |status, took| told.token_asked(status.map_or(Code::NONE, Code::of_status), took));
        Self::new(inner, metrics)
    }
}

#[expect(clippy::disallowed_methods, reason = "measures durations and decides nothing")]
fn clock() -> Instant {
    Instant::now()
}

/// The HTTP status behind an error.
const fn code(error: &HubError) -> Code {
    match error {
        HubError::PreconditionFailed => Code::of_status(412),
        HubError::NotFound(_) => Code::of_status(404),
        HubError::AlreadyExists(_) => Code::of_status(409),
        HubError::Throttled { .. } => Code::of_status(429),
        HubError::Quota => Code::of_status(403),
        HubError::Unauthorized { .. } => Code::of_status(401),
        HubError::Rejected { status, .. } | HubError::Server { status: Some(status), .. } => Code::of_status(*status),
        // Without a status the answer was good but made no sense; the hub's code says good.
        HubError::Server { status: None, .. } => Code::of_status(200),
        HubError::QuotaShare | HubError::Transport { .. } => Code::NONE,
    }
}

/// Whether the hub is there and takes our credentials, as far as an error tells. Only a refused query says that the
/// credentials are bad: the hub answers 401 to module operations for a bad module, too (`DESIGN.md` 4.2).
const fn up_after(operation: Operation, error: &HubError) -> Option<bool> {
    match error {
        HubError::PreconditionFailed
        | HubError::NotFound(_)
        | HubError::AlreadyExists(_)
        | HubError::Throttled { .. }
        | HubError::Quota
        | HubError::Rejected { .. } => Some(true),
        HubError::Unauthorized { .. } => match operation {
            Operation::Query => Some(false),
            Operation::Get | Operation::Patch | Operation::Create => None,
        },
        // Nothing was asked.
        HubError::QuotaShare => None,
        HubError::Server { .. } | HubError::Transport { .. } => Some(false),
    }
}

impl<H: ReadTwins> ReadTwins for Observed<H> {
    fn credential_ends(&self) -> Option<SystemTime> {
        self.inner.credential_ends()
    }

    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.observe(Operation::Get, self.inner.get_twin(twin)).await
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        self.observe(Operation::Query, self.inner.query_page(query, page_size, from)).await
    }

    async fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<TextPage, HubError> {
        self.observe(Operation::Query, self.inner.text_page(query, columns, page_size, from)).await
    }
}

impl<H: WriteTwins> WriteTwins for Observed<H> {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.observe(Operation::Patch, self.inner.patch_twin(twin, patch, etag)).await
    }

    async fn patch_twin_for_trace(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
        tag: &str,
    ) -> Result<TwinTrace, HubError> {
        self.observe(Operation::Patch, self.inner.patch_twin_for_trace(twin, patch, etag, tag)).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.observe(Operation::Create, self.inner.create_device(device)).await
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;
    use crate::metrics::Metrics;

    /// Fails every request with one error.
    struct Failing(HubError);

    impl ReadTwins for Failing {
        async fn get_twin(&self, _: &TwinRef) -> Result<Twin, HubError> {
            Err(self.0.clone())
        }

        async fn query_page(&self, _: &str, _: usize, _: Option<&Continuation>) -> Result<QueryPage, HubError> {
            Err(self.0.clone())
        }
    }

    impl WriteTwins for Failing {
        async fn patch_twin(&self, _: &TwinRef, _: &MergePatch, _: &ETag) -> Result<Twin, HubError> {
            Err(self.0.clone())
        }

        async fn create_device(&self, _: &DeviceId) -> Result<(), HubError> {
            Ok(())
        }
    }

    fn device() -> DeviceId {
        DeviceId::new("myDevice").unwrap()
    }

    fn line(registry: &Registry, line: &str) {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.lines().any(|found| found == line), "no line {line}");
    }

    #[tokio::test]
    async fn every_error_has_its_code_and_says_whether_the_hub_is_up() {
        let message = || "words".to_owned();
        let rejected = |status| HubError::Rejected { status, code: message(), message: message() };
        let server = |status| HubError::Server { status, message: message() };
        let transport = |timeout| HubError::Transport { message: message(), timeout };
        for (error, code, up) in [
            (HubError::PreconditionFailed, "412", 1),
            (HubError::NotFound(TwinRef::device(device())), "404", 1),
            (HubError::AlreadyExists(device()), "409", 1),
            (HubError::Throttled { code: message(), retry_after: None }, "429", 1),
            (HubError::Quota, "403", 1),
            (HubError::Unauthorized { message: message() }, "401", 0),
            (rejected(400), "400", 1),
            (server(Some(503)), "503", 0),
            (server(None), "200", 0),
            (transport(true), "none", 0),
            (transport(false), "none", 0),
        ] {
            let registry = Registry::new();
            let metrics = Metrics::register(&registry, &["prod"]).unwrap().client.hub("prod");
            metrics.set_up(up == 0);
            let hub = Observed::new(Failing(error.clone()), metrics);
            assert_eq!(hub.query_page("SELECT * FROM devices", 1, None).await, Err(error));
            line(&registry, &format!(r#"geminid_hub_requests_total{{code="{code}",hub="prod",operation="query"}} 1"#));
            line(&registry, &format!(r#"geminid_hub_up{{hub="prod"}} {up}"#));
            line(&registry, r#"geminid_hub_request_duration_seconds_count{hub="prod",operation="query"} 1"#);
            line(&registry, r#"geminid_hub_requests_in_flight{hub="prod"} 0"#);
        }
    }

    #[tokio::test]
    async fn a_refused_twin_says_nothing_about_the_hub() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &["prod"]).unwrap().client.hub("prod");
        let hub = Observed::new(Failing(HubError::Unauthorized { message: "words".to_owned() }), metrics.clone());
        for up in [false, true] {
            metrics.set_up(up);
            assert!(hub.get_twin(&TwinRef::device(device())).await.is_err());
            line(&registry, &format!(r#"geminid_hub_up{{hub="prod"}} {}"#, u8::from(up)));
        }
    }

    #[tokio::test]
    async fn each_operation_counts_for_itself() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &["prod"]).unwrap().client.hub("prod");
        let hub = Observed::new(Failing(HubError::PreconditionFailed), metrics);
        let twin = TwinRef::device(device());
        let etag = ETag::new("AAAA").unwrap();
        assert_eq!(hub.create_device(&device()).await, Ok(()));
        assert!(hub.patch_twin(&twin, &MergePatch::default(), &etag).await.is_err());
        assert!(hub.query_page("SELECT * FROM devices", 1, None).await.is_err());
        for (code, operation) in [("200", "create"), ("412", "patch"), ("412", "query")] {
            line(
                &registry,
                &format!(r#"geminid_hub_requests_total{{code="{code}",hub="prod",operation="{operation}"}} 1"#),
            );
        }
        line(&registry, r#"geminid_hub_requests_total{code="412",hub="prod",operation="get"} 0"#);
    }

    #[tokio::test]
    async fn a_dropped_request_is_in_flight_no_more() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &["prod"]).unwrap().client.hub("prod");
        let hub = Observed::new(Failing(HubError::Quota), metrics);
        let mut request = Box::pin(hub.observe(Operation::Get, std::future::pending::<Result<(), HubError>>()));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(request.as_mut().poll(context))).await.is_pending()
        );
        line(&registry, r#"geminid_hub_requests_in_flight{hub="prod"} 1"#);
        drop(request);
        line(&registry, r#"geminid_hub_requests_in_flight{hub="prod"} 0"#);
        line(&registry, r#"geminid_hub_requests_total{code="none",hub="prod",operation="get"} 0"#);
    }
}
