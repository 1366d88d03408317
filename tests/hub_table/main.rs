//! The tables of `iot-hub.md` 1.3, 2.3, 2.4, 4 and 5.5, row by row, and what 2.2 has and the hub has not, through the hub's HTTP
//! door. Each case names its row, and [`rows::Rows`] sees to it that none is left out; those that the reference marks
//! UNSURE are no rows here. Requests carry bearer tokens of a test issuer, whose roles (7.4) are tried too.

#![expect(clippy::unwrap_used, reason = "a test unwraps, and so do its helpers")]

mod counters;
mod if_match;
mod limits;
mod not_served;
mod rows;
mod twins;

use axum::body::Body;
use axum::http::Request;
use geminid::emulator::auth::{Gate, Policies};
use geminid::emulator::bearer::{Role, mint};
use geminid::emulator::error::Refusal;
use geminid::emulator::http::router;
use geminid::emulator::identity::SharedKey;
use geminid::emulator::{HubHandle, ServiceOptions, wire};
use geminid::twin::{DeviceId, ModuleId, TwinRef, Value};
use jiff::Timestamp;
use tower::ServiceExt;

const NOW: i64 = 1_700_000_000;

struct Hub {
    handle: HubHandle,
    router: axum::Router,
    issuer: SharedKey,
}

struct Answer {
    status: u16,
    code: String,
    /// `x-ms-item-type`.
    item_type: String,
    body: Value,
}

impl Answer {
    fn at(&self, keys: &[&str]) -> String {
        self.body.get(keys.iter().copied()).map(ToString::to_string).unwrap_or_default()
    }
}

impl Answer {
    /// The desired section without what the hub adds to it.
    fn desired(&self) -> Value {
        let mut desired =
            self.body.get(["properties", "desired"]).and_then(Value::as_object).cloned().unwrap_or_default();
        desired.retain(|key, _| !key.starts_with('$'));
        Value::Object(desired)
    }
}

impl Hub {
    fn new() -> Self {
        let mut rng = fastrand::Rng::with_seed(1);
        let policies = Policies::generate(&mut |bytes| rng.fill(bytes));
        let issuer = SharedKey::generate(&mut |bytes| rng.fill(bytes));
        let handle =
            HubHandle::ephemeral(Box::new(move |bytes| rng.fill(bytes)), || Timestamp::from_second(NOW).unwrap());
        let options = ServiceOptions { bearer_issuer: Some(issuer.clone()), ..ServiceOptions::default() };
        let router = router(handle.clone(), Gate::new(policies, "localhost", 443), options);
        Self { handle, router, issuer }
    }

    async fn with_device() -> Self {
        let hub = Self::new();
        assert_eq!(hub.send("PUT", "/devices/d", None, "{}").await.status, 200);
        hub
    }

    async fn send_as(&self, role: Role, method: &str, path: &str, if_match: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2021-04-12"))
            .header("authorization", mint(&self.issuer, role, NOW + 60));
        if let Some(if_match) = if_match {
            request = request.header("if-match", if_match);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = Value::parse_json(std::str::from_utf8(&body).unwrap()).unwrap_or(Value::Null);
        let header = |name: &str| head.headers.get(name).map_or("", |text| text.to_str().unwrap()).to_owned();
        let (code, item_type) = (header("iothub-errorcode"), header("x-ms-item-type"));
        Answer { status: head.status.as_u16(), code, item_type, body }
    }

    async fn send(&self, method: &str, path: &str, if_match: Option<&str>, body: &str) -> Answer {
        self.send_as(Role::DataContributor, method, path, if_match, body).await
    }

    async fn patch(&self, body: &str) -> Answer {
        self.send("PATCH", "/twins/d", None, body).await
    }

    /// The device `d`, or the module behind it.
    fn twin_ref(kind: &str) -> TwinRef {
        let device = DeviceId::new("d").unwrap();
        match kind.strip_prefix("/modules/") {
            None => TwinRef::device(device),
            Some(module) => TwinRef::module(device, ModuleId::new(module).unwrap()),
        }
    }

    async fn register(&self) {
        assert_eq!(self.send("PUT", "/devices/d", None, "{}").await.status, 200);
        assert_eq!(self.send("PUT", "/devices/d/modules/m", None, "{}").await.status, 200);
    }

    async fn with_device_and_module() -> Self {
        let hub = Self::new();
        hub.register().await;
        hub
    }

    /// A device or module reports.
    async fn report(&self, twin: &TwinRef, json: &str) -> Result<(), Refusal> {
        let reported = wire::report(json.as_bytes())?;
        self.handle.write(|registry, _, now| registry.report(twin, &reported, now)).await.map(drop)
    }

    /// Evaluates the configurations as the hub does soon after one was changed.
    async fn evaluate(&self) {
        let mut evaluation = self.handle.write(|registry, _, _| Ok(registry.due_evaluation())).await.unwrap().unwrap();
        for _ in 0..9 {
            let step = self.handle.write(|registry, _, now| Ok(registry.evaluate(&mut evaluation, 9, now)));
            if step.await.unwrap() {
                return;
            }
        }
        panic!("a hub with one device is evaluated in a few steps");
    }
}

fn both(content: &str) -> String {
    format!(r#"{{"tags":{content},"properties":{{"desired":{content}}}}}"#)
}

fn in_tags(content: &str) -> String {
    format!(r#"{{"tags":{content}}}"#)
}

fn in_desired(content: &str) -> String {
    format!(r#"{{"properties":{{"desired":{content}}}}}"#)
}

#[tokio::test]
async fn section_7_4_each_role_does_what_its_row_says() {
    for (role, registry_read, registry_write, twin_read, twin_write) in [
        (Role::DataReader, 200, 401, 200, 401),
        (Role::DataContributor, 200, 200, 200, 200),
        (Role::RegistryContributor, 200, 200, 401, 401),
        (Role::TwinContributor, 401, 401, 200, 200),
    ] {
        let hub = Hub::with_device().await;
        for (method, path, body, status) in [
            ("GET", "/devices/d", "", registry_read),
            ("PUT", "/devices/new", "{}", registry_write),
            ("GET", "/twins/d", "", twin_read),
            ("POST", "/devices/query", r#"{"query":"SELECT * FROM devices"}"#, twin_read),
            ("PATCH", "/twins/d", "{}", twin_write),
        ] {
            assert_eq!(hub.send_as(role, method, path, None, body).await.status, status, "{role:?} {method} {path}");
        }
    }
}
