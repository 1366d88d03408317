//! Throttles, the daily quota and faults as devices meet them.

use super::super::super::faults::FaultPlan;
use super::super::super::identity::Thumbprints;
use super::super::super::throttle::Tier;
use super::super::super::traffic::Traffic;
use super::*;

const READ: &str = "$iothub/twin/GET/?$rid=a";
const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=a";
const EVENTS: &str = "devices/d1/messages/events/";

async fn hub_with(options: TrialOptions) -> Hub {
    let mut hub = Hub::with_device().await;
    hub.desk.trial = Trial::new(&options);
    hub
}

async fn faulty(rule: &str) -> Hub {
    let plan = FaultPlan::quiet(1).replaced(format!(r#"{{"rules":[{rule}]}}"#).as_bytes()).unwrap();
    hub_with(TrialOptions { faults: Some(plan), ..TrialOptions::default() }).await
}

async fn throttled(tier: Tier) -> Hub {
    hub_with(TrialOptions { tier: Some((tier, 1)), ..TrialOptions::default() }).await
}

/// A CONNECT with a good token, and its answer.
async fn connect(hub: &mut Hub) -> (Device, v4::ConnAck) {
    let mut device = hub.open();
    let token = sign(&hub.key(), "localhost%2Fdevices%2Fd1", NOW + 86_400, None);
    let answer = device.connect("d1", "localhost/d1/?api-version=2021-04-12", &token, true).await;
    (device, answer)
}

async fn subscribed(hub: &mut Hub) -> Device {
    let (mut device, _) = connect(hub).await;
    device.subscribe(TWIN, QoS::AtMostOnce).await;
    device
}

async fn reported_version(hub: &Hub) -> u64 {
    hub.desk.hub.device(&id()).await.unwrap().twin.reported.version
}

#[tokio::test]
async fn a_request_about_the_twin_is_answered_with_the_fault_s_status_and_not_carried_out() {
    let mut hub = faulty(r#"{"operations":["deviceTwinRead","report"],"rate":1,"times":2,"status":503}"#).await;
    let mut device = subscribed(&mut hub).await;
    for (topic, body) in [(READ, ""), (REPORT, r#"{"x":1}"#)] {
        device.publish(topic, body).await;
        let (answer, body) = device.message().await;
        assert_eq!(answer, "$iothub/twin/res/503/?$rid=a", "{topic}");
        assert!(body.contains(r#""errorCode":503000"#) && body.contains("a fault on purpose"), "{body}");
    }
    assert_eq!(reported_version(&hub).await, 1);
    device.publish(READ, "").await;
    assert_eq!(device.message().await.0, "$iothub/twin/res/200/?$rid=a", "the rule has run out");
}

#[tokio::test]
async fn a_connect_that_meets_a_fault_is_refused_by_a_connack() {
    for (status, code) in [
        (503, ConnectReturnCode::ServiceUnavailable),
        (429, ConnectReturnCode::ServiceUnavailable),
        (401, ConnectReturnCode::NotAuthorized),
    ] {
        let mut hub = faulty(&format!(r#"{{"operations":["connect"],"rate":1,"times":1,"status":{status}}}"#)).await;
        let (mut device, answer) = connect(&mut hub).await;
        assert_eq!(answer.code, code);
        assert!(device.next().await.is_none(), "{status}: the connection ends");
        assert!(!hub.connected().await);
        assert_eq!(connect(&mut hub).await.1.code, ConnectReturnCode::Success, "{status}: the next one is let in");
    }
}

#[tokio::test]
async fn a_message_that_meets_a_fault_ends_the_connection_uncounted_and_unacknowledged() {
    let mut hub = faulty(r#"{"operations":["telemetry"],"rate":1,"times":1,"status":500}"#).await;
    let mut device = subscribed(&mut hub).await;
    let mut message = v4::Publish::new(EVENTS, QoS::AtLeastOnce, "x");
    message.pkid = 9;
    device.send(&Packet::Publish(message.clone())).await;
    assert!(device.next().await.is_none());
    assert_eq!(hub.desk.hub.messages(), 0);
    let mut device = subscribed(&mut hub).await;
    device.send(&Packet::Publish(message)).await;
    assert_eq!(device.next().await, Some(Packet::PubAck(v4::PubAck::new(9))));
    assert_eq!(hub.desk.hub.messages(), 1);
}

#[tokio::test]
async fn an_answer_is_dropped_or_cut_after_the_write_took_effect() {
    for (effect, left) in [("dropAnswer", false), ("truncateBody", true)] {
        let mut hub = faulty(&format!(r#"{{"operations":["report"],"rate":1,"{effect}":true}}"#)).await;
        let mut device = subscribed(&mut hub).await;
        device.publish(REPORT, r#"{"x":1}"#).await;
        assert!(device.next().await.is_none(), "{effect}: no whole answer, and the end");
        assert_eq!(!device.inbox.is_empty(), left, "{effect}");
        assert_eq!(reported_version(&hub).await, 2, "{effect}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_late_and_its_device_is_not_silent_meanwhile() {
    let mut hub = faulty(r#"{"operations":["deviceTwinRead"],"rate":1,"times":1,"latencyMs":500000}"#).await;
    let mut device = subscribed(&mut hub).await;
    let began = clock();
    for _ in 0..2 {
        device.publish(READ, "").await;
        assert_eq!(device.message().await.0, "$iothub/twin/res/200/?$rid=a");
    }
    assert_eq!((clock() - began).as_secs(), 500);
}

#[tokio::test(start_paused = true)]
async fn reports_wait_at_the_tier_s_rate_and_are_then_refused_with_429() {
    let mut hub = throttled(Tier::S1).await;
    let mut device = subscribed(&mut hub).await;
    // 50 at once and 10 s of 50; the hub's clock stands still. A service takes from the same bucket.
    hub.desk.trial.admit(Traffic::TwinWrite, 540, now()).await.unwrap();
    for number in 541..=560 {
        let began = clock();
        device.publish(REPORT, r#"{"x":1}"#).await;
        let (topic, body) = device.message().await;
        if number <= 550 {
            assert!(topic.starts_with("$iothub/twin/res/204/"), "{number}: {topic}");
            assert_eq!((clock() - began).as_millis(), (number - 50) * 20, "{number}");
        } else {
            assert_eq!(topic, "$iothub/twin/res/429/?$rid=a", "{number}");
            assert!(body.contains(r#""errorCode":429003"#), "{body}");
        }
    }
    assert_eq!(reported_version(&hub).await, 11);
}

#[tokio::test(start_paused = true)]
async fn connects_and_messages_have_their_own_rates() {
    let mut hub = throttled(Tier::S1).await;
    hub.desk.trial.admit(Traffic::Connect, 1099, now()).await.unwrap();
    let (mut device, answer) = connect(&mut hub).await;
    assert_eq!(answer.code, ConnectReturnCode::Success, "the last of 100 at once and 10 s of 100");
    assert_eq!(connect(&mut hub).await.1.code, ConnectReturnCode::ServiceUnavailable);
    hub.desk.trial.admit(Traffic::Telemetry, 1098, now()).await.unwrap();
    for _ in 0..3 {
        device.publish(EVENTS, "x").await;
    }
    assert!(device.next().await.is_none(), "one too many ends the connection");
    assert_eq!(hub.desk.hub.messages(), 2);
}

#[tokio::test]
async fn devices_use_up_the_day_s_messages_by_size() {
    // A free hub has 8,000 messages of 512 bytes; so many are left, and this is sent before the read.
    for (left, sent, told, expected) in [
        (4, 513, false, 200),
        (3, 513, false, 200),
        (2, 513, false, 403),
        (1, 0, false, 200),
        (1, 0, true, 403),
        (2, 0, true, 200),
    ] {
        let mut hub = throttled(Tier::F1).await;
        let mut device = subscribed(&mut hub).await;
        device.subscribe(DESIRED, QoS::AtMostOnce).await;
        hub.desk.trial.charge(Traffic::Telemetry, (8000 - left) * 512, now());
        if sent > 0 {
            device.publish(EVENTS, &"x".repeat(sent)).await;
        }
        if told {
            hub.patch(r#"{"a":1}"#).await;
            assert!(device.message().await.0.starts_with("$iothub/twin/PATCH/properties/desired/"));
        }
        device.publish(READ, "").await;
        let (topic, body) = device.message().await;
        assert_eq!(topic, format!("$iothub/twin/res/{expected}/?$rid=a"), "{left} {sent} {told}");
        assert_eq!(body.contains(r#""errorCode":403002"#), expected == 403, "{body}");
    }
    let mut hub = throttled(Tier::F1).await;
    let mut device = subscribed(&mut hub).await;
    hub.desk.trial.charge(Traffic::Telemetry, 8000 * 512, now());
    device.publish(EVENTS, "x").await;
    assert!(device.next().await.is_none(), "a message too many ends the connection");
    assert_eq!(hub.desk.hub.messages(), 0);
}

#[tokio::test]
async fn a_device_with_a_certificate_is_refused_as_not_authorized() {
    let mut hub = Hub::with_device().await;
    for (device, authentication, code) in [
        ("x1", AuthenticationSpec::SelfSigned(Thumbprints::new(Some("A".repeat(40)), None).unwrap()), true),
        ("x2", AuthenticationSpec::CertificateAuthority, true),
        ("x3", AuthenticationSpec::Sas(None), false),
    ] {
        let name = DeviceId::new(device).unwrap();
        let spec = IdentitySpec { authentication, ..IdentitySpec::default() };
        let put = hub
            .desk
            .hub
            .write(|registry, random, now| registry.put_identity(&name, spec, &IfMatch::Absent, random, now));
        put.await.unwrap();
        let mut connection = hub.open();
        let user = format!("localhost/{device}/?api-version=2021-04-12");
        let answer = connection.connect(device, &user, "", true).await;
        let expected = if code { ConnectReturnCode::NotAuthorized } else { ConnectReturnCode::BadUserNamePassword };
        assert_eq!(answer.code, expected, "{device}");
        assert!(connection.next().await.is_none(), "{device}");
    }
}
