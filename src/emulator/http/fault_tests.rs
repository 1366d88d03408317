//! Throttles and faults through the front door.

use axum::http::Method;

use super::tests::Hub;
use super::*;
use crate::emulator::auth::PolicyName;
use crate::emulator::faults::FaultPlan;
use crate::emulator::throttle::Tier;
use crate::emulator::trial::TrialOptions;
use crate::twin::Value;

const FAULTS: &str = "/_geminid/faults";

fn hub(trials: TrialOptions) -> Hub {
    Hub::with(ServiceOptions { trials, ..ServiceOptions::default() })
}

fn faulty() -> Hub {
    hub(TrialOptions { faults: Some(FaultPlan::quiet(3)), ..TrialOptions::default() })
}

async fn put(hub: &Hub, rules: &str) -> u16 {
    hub.owner(Method::PUT, FAULTS, &format!(r#"{{"rules":[{rules}]}}"#)).await.status
}

#[tokio::test]
async fn the_address_of_faults_is_there_for_the_owner_and_only_when_switched_on() {
    let plain = hub(TrialOptions::default());
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        assert_eq!(plain.owner(method, FAULTS, "{}").await.status, 404);
    }
    let hub = faulty();
    for policy in [PolicyName::Service, PolicyName::RegistryReadWrite, PolicyName::Device] {
        assert_eq!(hub.send(policy, Method::GET, FAULTS, &[], "").await.status, 401, "{policy:?}");
    }
    assert_eq!(hub.owner(Method::POST, FAULTS, "{}").await.status, 405);
    assert_eq!(hub.owner(Method::PUT, FAULTS, r#"{"rules":[{"rate":1}]}"#).await.status, 400);
    assert_eq!(hub.owner(Method::PUT, FAULTS, "nonsense").await.status, 400);
    assert_eq!(put(&hub, r#"{"operations":["query"],"rate":0.5,"latencyMs":3}"#).await, 204);
    let plan = hub.owner(Method::GET, FAULTS, "").await;
    let expected = r#"{"rules":[{"latencyMs":3,"operations":["query"],"rate":0.5}],"seed":3}"#;
    assert_eq!((plan.status, plan.body.to_string()), (200, expected.to_owned()));
}

#[tokio::test]
async fn a_status_is_answered_in_the_hub_s_shape_and_nothing_is_done() {
    let hub = faulty();
    assert_eq!(
        put(&hub, r#"{"operations":["registryWrite"],"rate":1,"times":1,"status":503,"code":"ServerBusy"}"#).await,
        204
    );
    let refused = hub.owner(Method::PUT, "/devices/d", "{}").await;
    assert_eq!((refused.status, refused.header(ERROR_CODE)), (503, Some("ServerBusy")));
    assert!(refused.get(["Message"]).contains("ErrorCode:ServerBusy;"));
    assert_eq!(hub.owner(Method::GET, "/devices/d", "").await.status, 404);
    assert_eq!(hub.owner(Method::PUT, "/devices/d", "{}").await.status, 200, "the rule had one time");
}

#[tokio::test]
async fn a_concurrent_writer_beats_a_guarded_write_and_not_an_unguarded_one() {
    let hub = faulty();
    hub.owner(Method::PUT, "/devices/d", "{}").await;
    assert_eq!(put(&hub, r#"{"operations":["twinWrite"],"rate":1,"concurrentWrite":{"tags":{"rival":1}}}"#).await, 204);
    let guarded = [("If-Match", "\"AAAAAAAAAAE=\"")];
    let lost = hub.send(PolicyName::Owner, Method::PATCH, "/twins/d", &guarded, r#"{"tags":{"own":1}}"#).await;
    assert_eq!((lost.status, lost.header(ERROR_CODE)), (412, Some("PreconditionFailed")));
    let won = hub.owner(Method::PATCH, "/twins/d", r#"{"tags":{"own":1}}"#).await;
    assert_eq!(won.body.get(["tags"]).map(Value::to_string).unwrap(), r#"{"own":1,"rival":1}"#);
    assert_eq!(hub.owner(Method::PATCH, "/twins/none", r#"{"tags":{"own":1}}"#).await.status, 404);
}

#[tokio::test]
async fn a_dropped_answer_and_a_truncated_one_fail_after_the_write_took_effect() {
    for (effect, bytes) in [("dropAnswer", 0), ("truncateBody", 100)] {
        let hub = faulty();
        hub.owner(Method::PUT, "/devices/d", "{}").await;
        assert_eq!(put(&hub, &format!(r#"{{"operations":["twinWrite"],"rate":1,"{effect}":true}}"#)).await, 204);
        let request =
            Request::patch("/twins/d?api-version=2021-04-12").header(AUTHORIZATION, hub.token(PolicyName::Owner));
        let request = request.body(Body::from(r#"{"tags":{"a":1}}"#)).unwrap();
        let response = tower::ServiceExt::oneshot(hub.router.clone(), request).await.unwrap();
        let mut body = response.into_body();
        let mut given = 0;
        let failed = loop {
            let frame =
                std::future::poll_fn(|context| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), context));
            match frame.await {
                Some(Ok(frame)) => given += frame.into_data().unwrap().len(),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert!(failed && given >= bytes, "{effect}: {given} bytes");
        let twin = hub.owner(Method::GET, "/twins/d", "").await;
        assert_eq!(twin.get(["tags"]), r#"{"a":1}"#, "{effect}: it was carried out");
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_the_rate_requests_are_late_and_then_refused_without_a_hint() {
    let hub = hub(TrialOptions { tier: Some((Tier::S1, 1)), ..TrialOptions::default() });
    let query = r#"{"query":"SELECT * FROM devices"}"#;
    #[expect(clippy::disallowed_methods, reason = "the paused clock of this test")]
    let clock = tokio::time::Instant::now;
    let mut waits = Vec::new();
    // The hub's own clock stands still in these tests, so that each query adds to the queue: 20 at once, 3 late.
    for _ in 0..23 {
        let begun = clock();
        assert_eq!(hub.owner(Method::POST, "/devices/query", query).await.status, 200);
        waits.push(begun.elapsed().as_secs());
    }
    assert_eq!((waits[19], &waits[20..]), (0, [3, 6, 9].as_slice()));
    let refused = hub.owner(Method::POST, "/devices/query", query).await;
    assert_eq!((refused.status, refused.header(ERROR_CODE)), (429, Some("ThrottlingBacklogTimeout")));
    assert_eq!((refused.header("connection"), refused.header("retry-after")), (Some("close"), None));
    let text = "The request has been throttled. Wait 10 seconds and try again. Operation type: Query";
    assert!(refused.get(["Message"]).contains(text));
    assert_eq!(hub.owner(Method::GET, "/twins/d", "").await.status, 404, "other kinds go on");
    let items: Vec<String> = (0..60).map(|n| format!(r#"{{"id":"b{n}","importMode":"create"}}"#)).collect();
    let bulk = format!("[{}]", items.join(","));
    assert_eq!(hub.owner(Method::POST, "/devices", &bulk).await.status, 200);
    assert_eq!(hub.owner(Method::POST, "/devices", &bulk).await.status, 429, "60 more of 100 would wait too long");
}

#[tokio::test(start_paused = true)]
async fn direct_methods_wait_and_are_refused_by_the_size_of_their_payload() {
    let hub = hub(TrialOptions { tier: Some((Tier::S1, 1)), ..TrialOptions::default() });
    hub.owner(Method::PUT, "/devices/d", "{}").await;
    let call = |bytes: usize| format!(r#"{{"methodName":"m","payload":"{}"}}"#, "x".repeat(bytes - 2));
    // 160 KB a second: 40 meters of 4 KB at once, and 400 more within 10 s; 13 of 32 and 24 of one are 440.
    for (bytes, count) in [(128 * 1024, 13), (4096, 24)] {
        for _ in 0..count {
            let answer = hub.owner(Method::POST, "/twins/d/methods", &call(bytes)).await;
            assert_eq!((answer.status, answer.header(ERROR_CODE)), (404, Some("DeviceNotOnline")), "{bytes}");
        }
    }
    let refused = hub.owner(Method::POST, "/twins/d/methods", &call(1024)).await;
    assert_eq!((refused.status, refused.header(ERROR_CODE)), (429, Some("ThrottlingBacklogTimeout")));
}

#[tokio::test]
async fn the_tier_sets_how_many_jobs_may_be_active() {
    for (tier, most) in
        [(Some(Tier::F1), 1), (Some(Tier::S1), 1), (Some(Tier::S2), 5), (Some(Tier::S3), 10), (None, 10)]
    {
        let hub = hub(TrialOptions { tier: tier.map(|tier| (tier, 1)), ..TrialOptions::default() });
        for number in 0..=most {
            let body = r#"{"type":"scheduleUpdateTwin","updateTwin":{"etag":"*"},"queryCondition":"deviceId = 'd'"}"#;
            let answer = hub.owner(Method::PUT, &format!("/jobs/v2/j{number}"), body).await;
            let expected = if number < most { (200, None) } else { (429, Some("ThrottlingMaxActiveJobCountExceeded")) };
            assert_eq!((answer.status, answer.header(ERROR_CODE)), expected, "{tier:?} {number}");
        }
    }
}
