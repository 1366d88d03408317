//! Requests as SDKs send them, through the router without a socket.

use axum::http::Method;
use jiff::Timestamp;
use tower::ServiceExt;

use super::super::auth::{Policies, PolicyName, sign};
use super::twins::{CONTINUATION, ITEM_TYPE, MAX_ITEM_COUNT};
use super::*;
use crate::twin::Value;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// A hub of one test, with the keys it was made with.
pub(super) struct Hub {
    pub(super) router: Router,
    policies: Policies,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name).unwrap()
    }

    pub(super) fn get<'a>(&'a self, keys: impl IntoIterator<Item = &'a str>) -> String {
        self.body.get(keys).map(ToString::to_string).unwrap_or_default()
    }
}

impl Hub {
    fn new() -> Self {
        Self::with(ServiceOptions::default())
    }

    pub(super) fn with(options: ServiceOptions) -> Self {
        let mut rng = fastrand::Rng::with_seed(1);
        let policies = Policies::generate(&mut |bytes| rng.fill(bytes));
        let hub = HubHandle::ephemeral(Box::new(move |bytes| rng.fill(bytes)), now);
        let router = router(hub, Gate::new(policies.clone(), "localhost", 8443), options);
        Self { router, policies }
    }

    pub(super) fn token(&self, policy: PolicyName) -> String {
        sign(self.policies.key(policy), "localhost%3A8443", now().as_second() + 60, Some(policy.as_str()))
    }

    pub(super) async fn send(
        &self,
        policy: PolicyName,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder().method(method).uri(format!("{path}{separator}api-version=2021-04-12"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.raw(request.header(AUTHORIZATION, self.token(policy)).body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) async fn raw(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body =
            if body.is_empty() { Value::Null } else { Value::parse_json(std::str::from_utf8(&body).unwrap()).unwrap() };
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(super) async fn owner(&self, method: Method, path: &str, body: &str) -> Answer {
        self.send(PolicyName::Owner, method, path, &[], body).await
    }

    async fn owner_if(&self, method: Method, path: &str, if_match: &str, body: &str) -> Answer {
        self.send(PolicyName::Owner, method, path, &[("If-Match", if_match)], body).await
    }
}

#[tokio::test]
async fn the_life_of_a_device_goes_as_the_sdks_expect() {
    let hub = Hub::new();
    let created = hub.owner(Method::PUT, "/devices/myDevice", r#"{"deviceId":"myDevice"}"#).await;
    assert_eq!((created.status, created.get(["deviceId"])), (200, "\"myDevice\"".to_owned()));
    let etag = created.get(["etag"]);
    assert_eq!(created.header("etag"), Some(etag.as_str()), "quoted in the header, without quotes in the body");
    assert_eq!(hub.owner(Method::PUT, "/devices/myDevice", "{}").await.status, 409);

    let twin = hub.owner(Method::GET, "/twins/myDevice", "").await;
    assert_eq!((twin.status, twin.header("etag")), (200, None));
    assert_eq!(twin.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!((twin.get(["etag"]), twin.get(["tags"])), ("\"AAAAAAAAAAE=\"".to_owned(), String::new()));

    let body = r#"{"tags":{"location":{"region":"US"}},"properties":{"desired":{"power_level":1}}}"#;
    let patched = hub.owner_if(Method::PATCH, "/twins/myDevice", "\"AAAAAAAAAAE=\"", body).await;
    assert_eq!((patched.status, patched.get(["version"])), (200, "3".to_owned()));
    assert_eq!(patched.get(["properties", "desired", "$version"]), "2");
    let stale = hub.owner_if(Method::PATCH, "/twins/myDevice", "\"AAAAAAAAAAE=\"", body).await;
    assert_eq!((stale.status, stale.header("iothub-errorcode")), (412, Some("PreconditionFailed")));
    assert!(stale.get(["Message"]).contains("ErrorCode:PreconditionFailed;ETag mismatch for device ID 'myDevice'"));

    let replaced = hub.owner_if(Method::PUT, "/twins/myDevice", "\"*\"", r#"{"tags":{"a":3}}"#).await;
    assert_eq!((replaced.status, replaced.get(["tags"])), (200, r#"{"a":3}"#.to_owned()));
    assert_eq!(replaced.get(["properties", "desired", "power_level"]), "");

    assert_eq!(hub.owner(Method::DELETE, "/devices/myDevice", "").await.status, 412);
    assert_eq!(hub.owner_if(Method::DELETE, "/devices/myDevice", "\"*\"", "").await.status, 204);
    let gone = hub.owner(Method::GET, "/twins/myDevice", "").await;
    assert_eq!((gone.status, gone.header("iothub-errorcode")), (404, Some("DeviceNotFound")));
    assert_eq!(gone.get(["Message"]), "\"ErrorCode:DeviceNotFound;myDevice\"");
}

#[tokio::test]
async fn ids_travel_percent_encoded_and_lists_take_a_slash_at_the_end() {
    let hub = Hub::new();
    for id in ["a%25b", "a%2Bb%3D", "x:y", "query"] {
        assert_eq!(hub.owner(Method::PUT, &format!("/devices/{id}"), "{}").await.status, 200, "{id}");
        assert_eq!(hub.owner(Method::GET, &format!("/twins/{id}"), "").await.status, 200, "{id}");
    }
    assert_eq!(hub.owner(Method::GET, "/twins/a%2525b", "").await.status, 404);
    assert_eq!(hub.owner(Method::GET, "/twins/a%20b", "").await.status, 400);
    assert_eq!(hub.owner(Method::GET, "/twins/%FF", "").await.status, 400);
    assert_eq!(hub.owner(Method::GET, "/twins//x:y", "").await.status, 404);
    for (path, count) in
        [("/devices", 4), ("/devices/", 4), ("/devices?top=2", 2), ("/devices/?top=0", 4), ("/devices?top=x", 4)]
    {
        let Value::Array(list) = hub.owner(Method::GET, path, "").await.body else { panic!("{path} is a list") };
        assert_eq!(list.len(), count, "{path}");
    }
}

#[tokio::test]
async fn queries_page_by_header_and_the_last_page_has_no_token() {
    let hub = Hub::new();
    for id in ["d1", "d2", "d3"] {
        hub.owner(Method::PUT, &format!("/devices/{id}"), "{}").await;
    }
    let query = r#"{"query":"SELECT * FROM devices"}"#;
    let ask = |headers: Vec<(&'static str, String)>| {
        let hub = &hub;
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            hub.send(PolicyName::Service, Method::POST, "/devices/query", &headers, query).await
        }
    };
    let first = ask(vec![(MAX_ITEM_COUNT, "2".to_owned())]).await;
    assert_eq!((first.status, first.header(ITEM_TYPE)), (200, Some("Twin")));
    let token = first.header(CONTINUATION).unwrap().to_owned();
    let second = ask(vec![(MAX_ITEM_COUNT, "2".to_owned()), (CONTINUATION, token)]).await;
    assert_eq!(second.header(CONTINUATION), None);
    let Value::Array(rows) = &second.body else { panic!("rows") };
    assert_eq!(rows[0].get(["deviceId"]), Some(&Value::from("d3")));
    assert_eq!(ask(vec![(CONTINUATION, "MQ==".to_owned())]).await.status, 400);
    assert_eq!(ask(vec![(MAX_ITEM_COUNT, "many".to_owned())]).await.status, 400);
    assert!(ask(vec![(MAX_ITEM_COUNT, "-1".to_owned())]).await.header(CONTINUATION).is_some());

    let count = hub.owner(Method::POST, "/devices/query", r#"{"query":"SELECT COUNT() AS n FROM devices"}"#).await;
    assert_eq!((count.header(ITEM_TYPE), count.body.to_string()), (Some("Raw"), r#"[{"n":3}]"#.to_owned()));
    for (body, status, code) in [
        (r#"{"query":"SELECT"}"#, 400, "ArgumentInvalid"),
        (r#"{"query":"SELECT AVG(version) FROM devices.modules"}"#, 400, "ArgumentInvalid"),
        (r#"{"query":null}"#, 400, "ArgumentNull"),
        ("{}", 400, "ArgumentNull"),
        ("nonsense", 400, "DeserializationError"),
        (r#"{"query":"SELECT deviceId FROM devices.jobs"}"#, 400, "ArgumentInvalid"),
    ] {
        let refused = hub.owner(Method::POST, "/devices/query", body).await;
        assert_eq!((refused.status, refused.header(ERROR_CODE)), (status, Some(code)), "{body}");
    }
}

#[tokio::test]
async fn each_policy_opens_its_own_doors_and_no_token_opens_none() {
    let hub = Hub::new();
    hub.owner(Method::PUT, "/devices/d1", "{}").await;
    for (policy, registry, twin) in [
        (PolicyName::Owner, 200, 200),
        (PolicyName::Service, 401, 200),
        (PolicyName::RegistryRead, 200, 401),
        (PolicyName::RegistryReadWrite, 200, 401),
        (PolicyName::Device, 401, 401),
    ] {
        assert_eq!(hub.send(policy, Method::GET, "/devices/d1", &[], "").await.status, registry, "{policy:?}");
        assert_eq!(hub.send(policy, Method::GET, "/twins/d1", &[], "").await.status, twin, "{policy:?}");
    }
    assert_eq!(hub.send(PolicyName::RegistryRead, Method::PUT, "/devices/d2", &[], "{}").await.status, 401);
    for path in ["/twins/d1?api-version=1", "/no/such/place", "/twins/d1"] {
        let refused = hub.raw(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((refused.status, refused.header(ERROR_CODE)), (401, Some("IotHubUnauthorizedAccess")), "{path}");
        assert_eq!(refused.get(["Message"]), "\"ErrorCode:IotHubUnauthorizedAccess;Unauthorized\"");
    }
}

#[tokio::test]
async fn what_is_missing_wrong_or_too_large_is_said_with_its_status() {
    let hub = Hub::new();
    hub.owner(Method::PUT, "/devices/d1", "{}").await;
    for (method, path, body, status) in [
        (Method::GET, "/no/such/place", "", 404),
        (Method::POST, "/twins/d1", "", 405),
        (Method::POST, "/twins/d1/methods", "{}", 400),
        (Method::POST, "/twins/d1/methods", r#"{"methodName":"m"}"#, 404),
        (Method::POST, "/twins/d1/modules/m/methods", r#"{"methodName":"m"}"#, 404),
        (Method::GET, "/twins/d1/methods", "", 405),
        (Method::POST, "/devices", "{}", 400),
        (Method::POST, "/jobs/create", "{}", 501),
        (Method::PATCH, "/twins/d1", "{", 400),
        (Method::PATCH, "/twins/d1", r#"{"tags":{"a$b":1}}"#, 400),
        (Method::PUT, "/devices/d2", r#"{"deviceId":"d3"}"#, 400),
        (Method::GET, "/devices/d9", "", 404),
    ] {
        let refused = hub.owner(method.clone(), path, body).await;
        assert_eq!(refused.status, status, "{method} {path} {body}");
        assert!(refused.header(ERROR_CODE).is_some() && refused.header(REQUEST_ID).is_some());
    }
    let large = format!(r#"{{"tags":{{"a":"{}"}}}}"#, "x".repeat(BODY_BYTES_MAX));
    assert_eq!(hub.owner(Method::PATCH, "/twins/d1", &large).await.status, 413);
    let item = r#"[{"id":"d7","importMode":"create"}]"#;
    let padded = |bytes: usize| format!("{item}{}", " ".repeat(bytes - item.len()));
    assert_eq!(hub.owner(Method::POST, "/devices", &padded(BULK_BYTES_MAX)).await.status, 200);
    assert_eq!(hub.owner(Method::POST, "/devices", &padded(BULK_BYTES_MAX + 1)).await.status, 413);
    for name in ["If-Match", CONTINUATION] {
        // Passing over what cannot be read would write without a guard, or begin a query anew.
        let unreadable = [(name, "\u{e4}")];
        let refused = hub.send(
            PolicyName::Owner,
            Method::POST,
            "/devices/query",
            &unreadable,
            r#"{"query":"SELECT * FROM devices"}"#,
        );
        assert_eq!(refused.await.status, 400, "{name}");
    }
    let token = hub.token(PolicyName::Owner);
    for uri in ["/twins/d1", "/twins/d1?api-version=", "/twins/d1?apiversion=2021-04-12"] {
        let request = Request::get(uri).header(AUTHORIZATION, &token).body(Body::empty()).unwrap();
        assert_eq!(hub.raw(request).await.status, 400, "{uri}");
    }
}

/// A body of which nothing ever comes.
struct Never;

impl http_body::Body for Never {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_its_request_in_time() {
    let hub = Hub::new();
    let request =
        Request::patch("/twins/d1?api-version=2021-04-12").header(AUTHORIZATION, hub.token(PolicyName::Owner));
    #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
    let start = tokio::time::Instant::now();
    let refused = hub.raw(request.body(Body::new(Never)).unwrap()).await;
    assert_eq!((refused.status, start.elapsed().as_secs()), (408, BODY_TIME_MAX.as_secs()));
}

#[tokio::test]
async fn the_life_of_a_module_goes_as_the_sdks_expect() {
    let hub = Hub::new();
    hub.owner(Method::PUT, "/devices/d1", "{}").await;
    let body = r#"{"moduleId":"m1","managedBy":"","deviceId":"d1","authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}"#;
    let created = hub.owner(Method::PUT, "/devices/d1/modules/m1", body).await;
    assert_eq!((created.status, created.header("etag")), (200, None), "a module's answer has no ETag header");
    assert_eq!((created.get(["moduleId"]), created.get(["managedBy"])), ("\"m1\"".to_owned(), "\"\"".to_owned()));
    assert_eq!(created.get(["status"]), "", "modules have no status");
    assert_eq!(hub.owner(Method::PUT, "/devices/d1/modules/m1", body).await.status, 409);
    let listed = hub.owner(Method::GET, "/devices/d1/modules", "").await;
    assert_eq!(listed.body.to_string().matches("\"moduleId\"").count(), 1);
    let read = hub.owner(Method::GET, "/devices/d1/modules/m1", "").await;
    assert_eq!(read.get(["authentication"]), created.get(["authentication"]));

    let patch = r#"{"tags":{"a":1},"properties":{"desired":{"b":2}}}"#;
    let twin = hub.owner_if(Method::PATCH, "/twins/d1/modules/m1", "\"AAAAAAAAAAE=\"", patch).await;
    assert_eq!((twin.status, twin.get(["moduleId"])), (200, "\"m1\"".to_owned()));
    assert_eq!((twin.get(["capabilities"]), twin.get(["status"])), (String::new(), "\"enabled\"".to_owned()));
    assert_eq!(twin.get(["deviceEtag"]), created.get(["etag"]));
    let replaced = hub.owner(Method::PUT, "/twins/d1/modules/m1", r#"{"tags":{"c":3}}"#).await;
    assert_eq!(replaced.get(["tags"]), r#"{"c":3}"#);

    let missing = hub.owner(Method::GET, "/twins/d1/modules/m9", "").await;
    assert_eq!((missing.status, missing.header(ERROR_CODE)), (404, Some("DeviceNotFound")));
    let missing = hub.owner(Method::GET, "/devices/d1/modules/m9", "").await;
    assert_eq!((missing.status, missing.header(ERROR_CODE)), (404, Some("ModuleNotFound")));
    let nowhere = hub.owner(Method::GET, "/devices/d9/modules/m1", "").await;
    assert_eq!((nowhere.status, nowhere.header(ERROR_CODE)), (401, Some("IotHubUnauthorizedAccess")));
    assert!(nowhere.get(["Message"]).contains(r#"\"errorCode\":401002"#), "in the nested shape");

    assert_eq!(hub.owner(Method::DELETE, "/devices/d1/modules/m1", "").await.status, 412);
    assert_eq!(hub.owner_if(Method::DELETE, "/devices/d1/modules/m1", "\"*\"", "").await.status, 204);
    assert_eq!(hub.owner(Method::GET, "/twins/d1/modules/m1", "").await.status, 404);
    for (policy, status) in [(PolicyName::Service, 401), (PolicyName::RegistryRead, 200)] {
        assert_eq!(hub.send(policy, Method::GET, "/devices/d1/modules", &[], "").await.status, status, "{policy:?}");
    }
}

#[tokio::test]
async fn a_bulk_operation_answers_item_by_item() {
    let hub = Hub::new();
    let made = hub
        .owner(Method::POST, "/devices", r#"[{"id":"a","importMode":"create"},{"id":"b","importMode":"create"}]"#)
        .await;
    assert_eq!((made.status, made.get(["isSuccessful"]), made.header(ERROR_CODE)), (200, "true".to_owned(), None));
    let mixed = r#"[{"id":"a","importMode":"Delete"},{"id":"b","importMode":"create"},{"id":"c","importMode":"updateTwin","tags":{"x":1}}]"#;
    let mixed = hub.owner(Method::POST, "/devices", mixed).await;
    assert_eq!((mixed.status, mixed.header(ERROR_CODE)), (400, Some("BulkRegistryOperationFailure")));
    assert_eq!(mixed.get(["isSuccessful"]), "false");
    let errors = mixed.get(["errors"]);
    assert!(errors.contains("DeviceAlreadyExists") && errors.contains("DeviceNotFound"), "{errors}");
    assert_eq!(hub.owner(Method::GET, "/devices/a", "").await.status, 404, "what could be done was");
    let many: Vec<String> = (0..101).map(|n| format!(r#"{{"id":"n{n}","importMode":"create"}}"#)).collect();
    let refused = hub.owner(Method::POST, "/devices", &format!("[{}]", many.join(","))).await;
    assert_eq!((refused.status, refused.header(ERROR_CODE)), (413, Some("TooManyDevices")));
    let large = "x".repeat(4000);
    let large: Vec<String> = (0..100)
        .map(|n| format!(r#"{{"id":"l{n}","importMode":"create","properties":{{"desired":{{"a":"{large}","b":"{large}","c":"{large}"}}}}}}"#))
        .collect();
    assert_eq!(hub.owner(Method::POST, "/devices", &format!("[{}]", large.join(","))).await.status, 200);
    let counts = hub.owner(Method::GET, "/statistics/devices", "").await;
    let expected = r#"{"disabledDeviceCount":0,"enabledDeviceCount":101,"totalDeviceCount":101}"#;
    assert_eq!((counts.status, counts.body.to_string()), (200, expected.to_owned()));
    let connected = hub.owner(Method::GET, "/statistics/service", "").await;
    assert_eq!(connected.body.to_string(), r#"{"connectedDeviceCount":0}"#);
    for (policy, status) in
        [(PolicyName::RegistryReadWrite, 200), (PolicyName::RegistryRead, 401), (PolicyName::Service, 401)]
    {
        assert_eq!(hub.send(policy, Method::POST, "/devices", &[], "[]").await.status, status, "{policy:?}");
    }
}

#[tokio::test]
async fn a_configuration_is_written_read_tested_and_deleted() {
    let hub = Hub::new();
    let body = r#"{"id":"c","schemaVersion":null,"labels":null,"content":{"deviceContent":{"properties.desired.x":1},"moduleContent":null},
        "targetCondition":"tags.n = 1","priority":3,"metrics":{"queries":{"m":"SELECT deviceId FROM devices"}}}"#;
    let made = hub.owner(Method::PUT, "/configurations/c", body).await;
    assert_eq!((made.status, made.header("etag"), made.get(["etag"])), (200, Some("\"MQ==\""), "\"MQ==\"".to_owned()));
    assert_eq!(
        made.get(["systemMetrics", "queries", "targetedCount"]),
        "\"select deviceId from devices where tags.n = 1\""
    );
    assert_eq!(made.get(["systemMetrics", "results"]), r#"{"appliedCount":0,"targetedCount":0}"#);
    let conflict = hub.owner(Method::PUT, "/configurations/c", body).await;
    assert_eq!((conflict.status, conflict.header(ERROR_CODE)), (409, Some("ConfigurationAlreadyExists")));
    let updated = hub.owner_if(Method::PUT, "/configurations/c", "\"MQ==\"", &body.replace(":3", ":4")).await;
    assert_eq!(
        (updated.status, updated.get(["priority"]), updated.get(["etag"])),
        (200, "4".to_owned(), "\"Mg==\"".to_owned())
    );
    assert_eq!(hub.owner_if(Method::PUT, "/configurations/c", "\"MQ==\"", body).await.status, 412);
    let listed = hub.owner(Method::GET, "/configurations?top=5", "").await;
    assert!(matches!(&listed.body, Value::Array(all) if all.len() == 1), "{}", listed.body);
    let tested =
        r#"{"targetCondition":"tags.n =","customMetricQueries":{"good":"SELECT * FROM devices","bad":"SELECT"}}"#;
    let tested = hub.owner(Method::POST, "/configurations/testQueries", tested).await;
    assert_eq!(tested.status, 200);
    assert!(tested.get(["targetConditionError"]).len() > 4);
    let Some(Value::Object(errors)) = tested.body.get(["customMetricQueryErrors"]) else { panic!("errors") };
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["bad"]);
    for (id, body, status, code) in [
        ("Upper", body, 400, "ArgumentInvalid"),
        ("d", body, 400, "ArgumentInvalid"),
        ("d", r#"{"targetCondition":"*"}"#, 400, "InvalidConfigurationContent"),
        (
            "d",
            r#"{"content":{"deviceContent":{}},"targetCondition":"x x"}"#,
            400,
            "InvalidConfigurationTargetCondition",
        ),
        ("d", r#"{"content":{"modulesContent":{"$edgeAgent":{}}}}"#, 501, "NotImplemented"),
    ] {
        let refused = hub.owner(Method::PUT, &format!("/configurations/{id}"), body).await;
        assert_eq!((refused.status, refused.header(ERROR_CODE)), (status, Some(code)), "{id} {body}");
    }
    assert_eq!(hub.owner(Method::DELETE, "/configurations/c", "").await.status, 204);
    let gone = hub.owner(Method::GET, "/configurations/c", "").await;
    assert_eq!((gone.status, gone.header(ERROR_CODE)), (404, Some("ConfigurationNotFound")));
}

#[tokio::test]
async fn a_job_is_scheduled_read_listed_and_cancelled() {
    let hub = Hub::new();
    let body = |start: &str| {
        format!(
            r#"{{"jobId":"j","type":"scheduleUpdateTwin","updateTwin":{{"etag":"*","tags":{{"a":1}}}},"queryCondition":"deviceId = 'd'","startTime":"{start}","maxExecutionTimeInSeconds":60}}"#
        )
    };
    let made = hub.send(PolicyName::Service, Method::PUT, "/jobs/v2/j", &[], &body("2023-11-15T00:00:00Z")).await;
    assert_eq!(
        (made.status, made.get(["status"]), made.get(["type"])),
        (200, "\"scheduled\"".to_owned(), "\"scheduleUpdateTwin\"".to_owned())
    );
    assert_eq!(hub.owner(Method::PUT, "/jobs/v2/j", &body("")).await.header(ERROR_CODE), Some("JobAlreadyExists"));
    assert_eq!(hub.owner(Method::GET, "/jobs/v2/j", "").await.get(["jobId"]), "\"j\"");
    let unknown = hub.owner(Method::GET, "/jobs/v2/none", "").await;
    assert_eq!(
        (unknown.status, unknown.get(["type"]), unknown.get(["status"])),
        (200, "\"unknown\"".to_owned(), "\"unknown\"".to_owned())
    );
    hub.owner(Method::PUT, "/jobs/v2/k", &body("").replace("\"jobId\":\"j\",", "")).await;
    let page = hub.send(PolicyName::Owner, Method::GET, "/jobs/v2/query", &[(MAX_ITEM_COUNT, "1")], "").await;
    let token = page.header(CONTINUATION).unwrap().to_owned();
    assert!(page.body.to_string().contains("\"jobId\":\"j\""), "{}", page.body);
    let next = hub.send(PolicyName::Owner, Method::GET, "/jobs/v2/query", &[(CONTINUATION, &token)], "").await;
    assert!(next.body.to_string().contains("\"jobId\":\"k\"") && next.header(CONTINUATION).is_none(), "{}", next.body);
    for (filter, count) in [
        ("jobStatus=Scheduled", 1),
        ("jobStatus=completed", 0),
        ("jobType=scheduleDeviceMethod", 0),
        ("jobType=scheduleUpdateTwin", 2),
    ] {
        let Value::Array(found) = hub.owner(Method::GET, &format!("/jobs/v2/query?{filter}"), "").await.body else {
            panic!("jobs")
        };
        assert_eq!(found.len(), count, "{filter}");
    }
    let cancelled = hub.owner(Method::POST, "/jobs/v2/j/cancel", "").await;
    assert_eq!((cancelled.status, cancelled.get(["status"])), (200, "\"cancelled\"".to_owned()));
    assert_eq!(hub.owner(Method::POST, "/jobs/v2/j/cancel", "").await.status, 405);
    for (body, status) in [
        (body("").replace("\"*\"", "\"AAA=\""), 400),
        (body("").replace("\"etag\":\"*\",", ""), 400),
        (body("soon"), 400),
        (body("2024-11-15T00:00:00Z"), 400),
        (body("").replace("scheduleUpdateTwin", "scheduleTwinUpdate"), 400),
        (body("").replace("scheduleUpdateTwin", "scheduleDeviceMethod"), 400),
    ] {
        assert_eq!(
            hub.owner(Method::PUT, "/jobs/v2/n", &body.replace("\"jobId\":\"j\",", "")).await.status,
            status,
            "{body}"
        );
    }
    assert_eq!(hub.send(PolicyName::RegistryReadWrite, Method::GET, "/jobs/v2/j", &[], "").await.status, 401);
}
