//! The simulated device against the embedded hub: real TLS on free ports of this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use geminid::device::{Connector, DeviceConnection, DeviceError, DeviceEvent, DeviceOptions, Trust, run_device};
use geminid::emulator::identity::IdentitySpec;
use geminid::emulator::if_match::IfMatch;
use geminid::emulator::mqtt::MethodCall;
use geminid::emulator::{EmbeddedHub, HubHandle, HubOptions, ServiceOptions};
use geminid::twin::{DeviceId, MergePatch, Object, TwinRef, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[expect(clippy::disallowed_methods, reason = "TLS and tokens are checked against the real clock")]
const CLOCK: fn() -> jiff::Timestamp = jiff::Timestamp::now;

fn id() -> DeviceId {
    DeviceId::new("d1").unwrap()
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().cloned().unwrap()
}

async fn start(folder: &tempfile::TempDir) -> EmbeddedHub {
    let hub = EmbeddedHub::start(HubOptions {
        https: "127.0.0.1:0".parse().unwrap(),
        mqtts: Some("127.0.0.1:0".parse().unwrap()),
        host: "localhost".to_owned(),
        state_dir: folder.path().join("state"),
        ephemeral: false,
        allow_remote: false,
        service: ServiceOptions::default(),
        now: CLOCK,
    });
    hub.await.unwrap()
}

async fn register(hub: &HubHandle) {
    let spec = IdentitySpec::default();
    let put = hub.write(|registry, random, now| registry.put_identity(&id(), spec, &IfMatch::Absent, random, now));
    put.await.unwrap();
}

async fn patch(hub: &HubHandle, desired: &str) {
    let patch = MergePatch { tags: None, desired: Some(object(desired)) };
    hub.write(|registry, _, now| registry.patch_twin(&TwinRef::device(id()), &patch, &IfMatch::Any, now))
        .await
        .unwrap();
}

fn options(hub: &EmbeddedHub, key: &str) -> DeviceOptions {
    let info = hub.connection_info();
    let text = info.device_connection_string_template.replace("{device_id}", "d1").replace("{key}", key);
    DeviceOptions {
        connection: DeviceConnection::parse(&text).unwrap(),
        address: info.mqtts,
        connector: Connector::new(&Trust::Authorities(std::fs::read(&info.ca_file).unwrap())).unwrap(),
        turns: None,
        report: Some(object(r#"{"connectivity":"cellular"}"#)),
        report_after: Duration::ZERO,
        refusal_ends: false,
        now: CLOCK,
        seed: 1,
    }
}

/// Waits for the event that `wanted` finds.
async fn until(
    events: &mut mpsc::UnboundedReceiver<DeviceEvent>,
    wanted: impl Fn(&DeviceEvent) -> bool,
) -> DeviceEvent {
    loop {
        let event = events.recv().await.expect("the device goes on");
        if wanted(&event) {
            return event;
        }
    }
}

#[tokio::test]
async fn a_simulated_device_reports_hears_of_changes_answers_methods_and_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(&folder).await;
    let handle = hub.handle();
    register(&handle).await;
    let options = options(&hub, handle.device_key(&id()).await.unwrap().unwrap().expose());
    let stop = CancellationToken::new();
    let (sender, mut events) = mpsc::unbounded_channel();
    let device = run_device(&options, |event| sender.send(event).unwrap(), &stop);
    let service = async {
        until(&mut events, |event| *event == DeviceEvent::Reported).await;
        let found = handle.device(&id()).await.unwrap();
        assert_eq!(found.twin.reported.values, object(r#"{"connectivity":"cellular"}"#));
        assert!(found.identity.connected);
        patch(&handle, r#"{"power_level":2}"#).await;
        let told = until(&mut events, |event| matches!(event, DeviceEvent::Desired(_))).await;
        assert_eq!(told, DeviceEvent::Desired(object(r#"{"$version":2,"power_level":2}"#)));
        let call = MethodCall::new("reboot".to_owned(), b"{\"d\":1}".to_vec(), None, Some(20)).unwrap();
        let answer = handle.call_method(&TwinRef::device(id()), &call).await;
        assert_eq!(answer, Ok((200, b"{\"d\":1}".to_vec())));
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(device, service);
    ended.unwrap();
    hub.shutdown().await;
}

#[tokio::test]
async fn a_device_that_is_not_admitted_says_so_and_one_whose_hub_restarts_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(&folder).await;
    let handle = hub.handle();
    register(&handle).await;
    let stop = CancellationToken::new();
    let wrong = options(&hub, "MDEyMzQ1Njc4OWFiY2RlZg==");
    let refused = run_device(&wrong, |_| {}, &stop).await;
    assert!(matches!(&refused, Err(DeviceError::NotAdmitted(who)) if who == "d1"), "{refused:?}");
    assert!(Connector::new(&Trust::Authorities(b"nothing".to_vec())).is_err());

    let mut options = options(&hub, handle.device_key(&id()).await.unwrap().unwrap().expose());
    options.address = hub.connection_info().mqtts;
    let address = options.address.unwrap();
    let (sender, mut events) = mpsc::unbounded_channel();
    let device = run_device(&options, |event| sender.send(event).unwrap(), &stop);
    let service = async {
        until(&mut events, |event| *event == DeviceEvent::Reported).await;
        hub.shutdown().await;
        let gone = until(&mut events, |event| matches!(event, DeviceEvent::Disconnected { .. })).await;
        assert!(matches!(gone, DeviceEvent::Disconnected { again_in, .. } if again_in <= Duration::from_secs(1)));
        let again = EmbeddedHub::start(HubOptions {
            https: "127.0.0.1:0".parse().unwrap(),
            mqtts: Some(address),
            host: "localhost".to_owned(),
            state_dir: folder.path().join("state"),
            ephemeral: false,
            allow_remote: false,
            service: ServiceOptions::default(),
            now: CLOCK,
        });
        let again = again.await.unwrap();
        assert!(!again.handle().device(&id()).await.unwrap().identity.connected, "nobody is after a restart");
        until(&mut events, |event| *event == DeviceEvent::Connected).await;
        let twin = until(&mut events, |event| matches!(event, DeviceEvent::Twin { .. })).await;
        let version = again.handle().device(&id()).await.unwrap().twin.reported.version;
        assert_eq!(version, 2, "what is reported already is not reported again: {twin:?}");
        stop.cancel();
        again
    };
    let (ended, again) = tokio::join!(device, service);
    ended.unwrap();
    again.shutdown().await;
}
