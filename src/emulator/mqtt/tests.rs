//! Whole connections over a pipe: a device of another codec, the registry behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use jiff::Timestamp;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{self, ConnectReturnCode, Packet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::auth::{Gate, Policies, PolicyName, sign};
use super::super::error::Refusal;
use super::super::handle::{HubHandle, Randomness};
use super::super::identity::{AuthenticationSpec, IdentitySpec, SharedKey, Status};
use super::super::if_match::IfMatch;
use super::super::state_dir::StateDir;
use super::super::store::{Durable, Store, run_committer};
use super::super::trial::{Trial, TrialOptions};
use super::session::{FIRST_PACKET_BYTES_MAX, PACKET_BYTES_MAX};
use super::websocket::{CONNECTIONS_MAX, WebSocketDoor};
use super::{Desk, MethodCall, Presence, connection};
use crate::twin::{DeviceId, MergePatch, ModuleId, TwinRef, Value};

const NOW: i64 = 1_800_000_000;
const TWIN: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const METHODS: &str = "$iothub/methods/POST/#";

fn id() -> DeviceId {
    DeviceId::new("d1").unwrap()
}

fn twin() -> TwinRef {
    TwinRef::device(id())
}

fn random() -> Randomness {
    let mut rng = fastrand::Rng::with_seed(5);
    Box::new(move |bytes| rng.fill(bytes))
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn clock() -> tokio::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
    tokio::time::Instant::now()
}

struct Hub {
    desk: Desk,
    policies: Policies,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Hub {
    fn over(hub: HubHandle) -> Self {
        let policies = Policies::generate(&mut *random());
        let gate = Gate::new(policies.clone(), "localhost", 443).also_on(8883);
        let desk = Desk { hub, gate: Arc::new(gate), trial: Trial::new(&TrialOptions::default()) };
        Self { desk, policies, tasks: JoinSet::new(), stop: CancellationToken::new() }
    }

    async fn with_device() -> Self {
        let hub = Self::over(HubHandle::ephemeral(random(), now));
        hub.put(Status::Enabled, &IfMatch::Absent).await;
        hub
    }

    async fn put(&self, status: Status, if_match: &IfMatch) {
        let keys = Some((SharedKey::new("MDEyMzQ1Njc4OWFiY2RlZg==").unwrap(), self.key()));
        let authentication = AuthenticationSpec::Sas(keys);
        let spec = IdentitySpec { status, authentication, ..IdentitySpec::default() };
        let put =
            self.desk.hub.write(|registry, random, now| registry.put_identity(&id(), spec, if_match, random, now));
        put.await.unwrap();
    }

    async fn put_module(&self) {
        let keys = Some((self.key(), self.key()));
        let spec = IdentitySpec { authentication: AuthenticationSpec::Sas(keys), ..IdentitySpec::default() };
        let module = ModuleId::new("m").unwrap();
        let put = self
            .desk
            .hub
            .write(|registry, random, now| registry.put_module(&id(), &module, spec, &IfMatch::Absent, random, now));
        put.await.unwrap();
    }

    fn key(&self) -> SharedKey {
        SharedKey::new("ZmVkY2JhOTg3NjU0MzIxMA==").unwrap()
    }

    async fn patch(&self, desired: &str) {
        let patch = MergePatch { tags: None, desired: Value::parse_json(desired).unwrap().as_object().cloned() };
        let write = self.desk.hub.write(|registry, _, now| registry.patch_twin(&twin(), &patch, &IfMatch::Any, now));
        write.await.unwrap();
    }

    async fn replace(&self, desired: &str) {
        let whole = MergePatch { tags: None, desired: Value::parse_json(desired).unwrap().as_object().cloned() };
        let write = self.desk.hub.write(|registry, _, now| registry.replace_twin(&twin(), &whole, &IfMatch::Any, now));
        write.await.unwrap();
    }

    async fn connected(&self) -> bool {
        self.desk.hub.device(&id()).await.unwrap().identity.connected
    }

    fn open(&mut self) -> Device {
        let (near, far) = tokio::io::duplex(1024);
        let (desk, stop) = (self.desk.clone(), self.stop.clone());
        self.tasks.spawn(async move { connection::serve(&desk, far, stop).await });
        Device { stream: near, inbox: BytesMut::new() }
    }

    /// The device, connected with its second key.
    async fn device(&mut self, clean: bool) -> (Device, bool) {
        let mut device = self.open();
        let token = sign(&self.key(), "localhost%2Fdevices%2Fd1", NOW + 60, None);
        let answer = device.connect("d1", "localhost/d1/?api-version=2021-04-12", &token, clean).await;
        assert_eq!(answer.code, ConnectReturnCode::Success);
        (device, answer.session_present)
    }
}

struct Device {
    stream: DuplexStream,
    inbox: BytesMut,
}

impl Device {
    async fn send(&mut self, packet: &Packet) {
        let mut buffer = BytesMut::new();
        packet.write(&mut buffer, usize::MAX).unwrap();
        self.stream.write_all(&buffer).await.unwrap();
    }

    /// The next packet; `None` at the end.
    async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.inbox, usize::MAX) {
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.inbox).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn connect(&mut self, client: &str, user: &str, password: &str, clean: bool) -> v4::ConnAck {
        let mut connect = v4::Connect::new(client);
        connect.set_login(user, password);
        connect.clean_session = clean;
        connect.keep_alive = 60;
        self.send(&Packet::Connect(connect)).await;
        match self.next().await {
            Some(Packet::ConnAck(answer)) => answer,
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    async fn subscribe(&mut self, filter: &str, quality: QoS) {
        let mut subscribe = v4::Subscribe::new(filter, quality);
        subscribe.pkid = 1;
        self.send(&Packet::Subscribe(subscribe)).await;
        assert!(matches!(self.next().await, Some(Packet::SubAck(_))));
    }

    async fn publish(&mut self, topic: &str, body: &str) {
        self.send(&Packet::Publish(v4::Publish::new(topic, QoS::AtMostOnce, body))).await;
    }

    /// The next message: topic and body.
    async fn message(&mut self) -> (String, String) {
        match self.next().await {
            Some(Packet::Publish(publish)) => (publish.topic, String::from_utf8(publish.payload.to_vec()).unwrap()),
            other => panic!("no message but {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_device_reads_its_twin_and_reports() {
    let mut hub = Hub::with_device().await;
    let (mut device, _) = hub.device(true).await;
    assert!(hub.connected().await);
    device.subscribe(TWIN, QoS::AtMostOnce).await;
    for (topic, body, answer, expected) in [
        (
            "$iothub/twin/GET/?$rid=a",
            " ",
            "$iothub/twin/res/200/?$rid=a",
            r#"{"desired":{"$version":1},"reported":{"$version":1}}"#,
        ),
        (
            "$iothub/twin/PATCH/properties/reported/?$rid=b",
            r#"{"c":"cellular"}"#,
            "$iothub/twin/res/204/?$rid=b&$version=2",
            "",
        ),
        (
            "$iothub/twin/PATCH/properties/reported/?$rid=c&$version=2",
            r#"{"c":null,"d":1}"#,
            "$iothub/twin/res/204/?$rid=c&$version=3",
            "",
        ),
        (
            "$iothub/twin/GET/?$rid=d",
            "",
            "$iothub/twin/res/200/?$rid=d",
            r#"{"desired":{"$version":1},"reported":{"$version":3,"d":1}}"#,
        ),
    ] {
        device.publish(topic, body).await;
        assert_eq!(device.message().await, (answer.to_owned(), expected.to_owned()), "{topic}");
    }
    for (topic, body, status, code) in [
        ("$iothub/twin/PATCH/properties/reported/?$rid=e", "{", 400, 400_012),
        ("$iothub/twin/PATCH/properties/reported/?$rid=e", "[]", 400, 400_004),
        ("$iothub/twin/PATCH/properties/reported/?$rid=e", r#"{"a.b":1}"#, 400, 400_004),
        ("$iothub/twin/PATCH/properties/reported/?$rid=e&$version=x", "{}", 400, 400_004),
        ("$iothub/twin/PATCH/properties/reported/?$rid=e&$version=2", "{}", 412, 412_001),
    ] {
        device.publish(topic, body).await;
        let (answer, text) = device.message().await;
        assert_eq!(answer, format!("$iothub/twin/res/{status}/?$rid=e"), "{topic} {body}");
        let error = Value::parse_json(&text).unwrap();
        assert_eq!(error.get(["errorCode"]), Some(&Value::from(i64::from(code))), "{text}");
        assert!(error.get(["message"]).is_some(), "{text}");
    }
    device.publish("devices/d1/messages/events/%24.ct=x", "hello").await;
    device.send(&Packet::Disconnect).await;
    assert_eq!(device.next().await, None);
    drop(device);
    hub.tasks.join_next().await.unwrap().unwrap();
    assert_eq!(hub.desk.hub.messages(), 1);
    assert!(!hub.connected().await);
    assert_eq!(hub.desk.hub.device(&id()).await.unwrap().twin.version, 4, "connections move no counter");
}

#[tokio::test]
async fn desired_changes_are_told_in_order_with_what_was_sent_and_null_for_what_a_put_removes() {
    let mut hub = Hub::with_device().await;
    hub.patch(r#"{"was":1}"#).await;
    let (mut device, _) = hub.device(true).await;
    device.subscribe(DESIRED, QoS::AtMostOnce).await;
    hub.patch(r#"{"a":{"b":1,"gone":null},"none":null}"#).await;
    hub.patch(r#"{"a":{"b":1}}"#).await;
    hub.replace(r#"{"a":{"c":2},"x":[1]}"#).await;
    hub.replace(r#"{"a":{"c":2},"x":[1]}"#).await;
    hub.patch("{}").await;
    for (version, expected) in [
        (3, r#"{"$version":3,"a":{"b":1,"gone":null},"none":null}"#),
        (4, r#"{"$version":4,"a":{"b":1}}"#),
        (5, r#"{"$version":5,"a":{"b":null,"c":2},"was":null,"x":[1]}"#),
        (6, r#"{"$version":6,"a":{"c":2},"x":[1]}"#),
        (7, r#"{"$version":7}"#),
    ] {
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        assert_eq!(device.message().await, (topic, expected.to_owned()));
    }
}

#[tokio::test]
async fn who_may_not_connect_is_told_by_a_code() {
    let mut hub = Hub::with_device().await;
    let (own, user) = ("localhost%2Fdevices%2Fd1", "localhost/d1/?api-version=2021-04-12");
    let owner = hub.policies.key(PolicyName::Owner).clone();
    let service = hub.policies.key(PolicyName::Service).clone();
    let key = hub.key();
    let good = sign(&key, own, NOW + 60, None);
    hub.put_module().await;
    let modules = sign(&key, "localhost%2Fdevices%2Fd1%2Fmodules%2Fm", NOW + 60, None);
    use ConnectReturnCode::{BadClientId, BadUserNamePassword, NotAuthorized, Success};
    for (what, client, user, token, code) in [
        ("its key", "d1", user, good.clone(), Success),
        (
            "the host with a port",
            "d1",
            "localhost:8883/d1/?api-version=1",
            sign(&key, "localhost%3a8883%2fdevices%2fd1", NOW + 60, None),
            Success,
        ),
        (
            "a policy that may, for the hub",
            "d1",
            user,
            sign(&owner, "localhost", NOW + 60, Some("iothubowner")),
            Success,
        ),
        ("a policy that may, for the device", "d1", user, sign(&owner, own, NOW + 60, Some("iothubowner")), Success),
        ("a policy that may not", "d1", user, sign(&service, own, NOW + 60, Some("service")), NotAuthorized),
        ("another key", "d1", user, sign(&service, own, NOW + 60, None), NotAuthorized),
        ("its key for the whole hub", "d1", user, sign(&key, "localhost", NOW + 60, None), NotAuthorized),
        ("its key for all devices", "d1", user, sign(&key, "localhost%2Fdevices", NOW + 60, None), NotAuthorized),
        (
            "its key for another device",
            "d1",
            user,
            sign(&key, "localhost%2Fdevices%2Fd2", NOW + 60, None),
            NotAuthorized,
        ),
        ("an ended token", "d1", user, sign(&key, own, NOW, None), NotAuthorized),
        (
            "an unknown device",
            "d2",
            "localhost/d2/?api-version=1",
            sign(&key, "localhost%2Fdevices%2Fd2", NOW + 60, None),
            NotAuthorized,
        ),
        ("another hub", "d1", "example.org/d1/?api-version=1", good.clone(), NotAuthorized),
        ("another port's hub", "d1", "localhost:1/d1/?api-version=1", good.clone(), NotAuthorized),
        ("no api-version", "d1", "localhost/d1/", good.clone(), BadUserNamePassword),
        ("another device's user name", "d1", "localhost/d2/?api-version=1", good.clone(), BadUserNamePassword),
        ("no device's id", "d 1", user, good.clone(), BadClientId),
        ("a module that is not there", "d1/x", "localhost/d1/x/?api-version=1", good.clone(), NotAuthorized),
        ("a module with its device's token", "d1/m", "localhost/d1/m/?api-version=1", good.clone(), NotAuthorized),
        ("a module", "d1/m", "localhost/d1/m/?api-version=1", modules, Success),
    ] {
        let answer = hub.open().connect(client, user, &token, true).await;
        assert_eq!((answer.code, answer.session_present), (code, false), "{what}");
    }
    hub.put(Status::Disabled, &IfMatch::Any).await;
    let answer = hub.open().connect("d1", user, &good, true).await;
    assert_eq!(answer.code, NotAuthorized, "a disabled device");
}

#[tokio::test]
async fn one_connection_stands_for_an_identity_and_a_disabled_or_deleted_one_has_none() {
    let mut hub = Hub::with_device().await;
    let (mut first, _) = hub.device(true).await;
    let (mut second, _) = hub.device(true).await;
    assert_eq!(first.next().await, None, "the new one drops the old one");
    drop(first);
    hub.tasks.join_next().await.unwrap().unwrap();
    assert!(hub.connected().await, "the end of the old one is not the end of the new one");
    hub.put(Status::Disabled, &IfMatch::Any).await;
    assert_eq!(second.next().await, None, "disabled");
    drop(second);
    hub.tasks.join_next().await.unwrap().unwrap();
    assert!(!hub.connected().await);
    hub.put(Status::Enabled, &IfMatch::Any).await;
    let (mut third, _) = hub.device(true).await;
    hub.desk.hub.write(|registry, _, _| registry.delete_identity(&id(), &IfMatch::Any)).await.unwrap();
    assert_eq!(third.next().await, None, "deleted");
}

#[tokio::test]
async fn subscriptions_survive_a_reconnect_and_a_restart_but_not_a_clean_session_or_another_life() {
    let folder = tempfile::tempdir().unwrap();
    let mut lives = Vec::new();
    for round in 0..3 {
        let store = Store::open(&StateDir::open(&folder.path().join("state")).unwrap()).unwrap();
        let registry = store.registry().unwrap();
        let presence = Presence::restored(store.sessions().unwrap()).unwrap();
        let (sender, receiver) = mpsc::channel(8);
        let (durable, progress) = watch::channel(Durable::UpTo(0));
        let committer = tokio::task::spawn_blocking(|| run_committer(store, receiver, durable));
        let mut hub = Hub::over(HubHandle::new(registry, presence, random(), now, sender, progress));
        if round == 0 {
            hub.put(Status::Enabled, &IfMatch::Absent).await;
            assert!(!hub.connected().await);
            let (mut device, present) = hub.device(false).await;
            device.subscribe(DESIRED, QoS::AtLeastOnce).await;
            lives.push(present);
        }
        let (mut device, present) = hub.device(false).await;
        lives.push(present);
        hub.patch(r#"{"a":1}"#).await;
        let (topic, _) = device.message().await;
        assert!(topic.starts_with("$iothub/twin/PATCH/properties/desired/"), "round {round}");
        if round == 2 {
            lives.push(hub.device(true).await.1);
            lives.push(hub.device(false).await.1);
            hub.device(false).await.0.subscribe(TWIN, QoS::AtMostOnce).await;
            hub.desk.hub.write(|registry, _, _| registry.delete_identity(&id(), &IfMatch::Any)).await.unwrap();
            hub.put(Status::Enabled, &IfMatch::Absent).await;
            lives.push(hub.device(false).await.1);
        }
        hub.stop.cancel();
        while hub.tasks.join_next().await.is_some() {}
        hub.desk.hub.close().await;
        committer.await.unwrap();
    }
    assert_eq!(lives, [false, true, true, true, false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_method_goes_to_the_device_and_its_answer_comes_back() {
    let mut hub = Hub::with_device().await;
    let handle = hub.desk.hub.clone();
    let twin = twin();
    let call = |response, connect| {
        MethodCall::new("reboot".to_owned(), br#"{"d":1}"#.to_vec(), Some(response), Some(connect)).unwrap()
    };
    assert_eq!(handle.call_method(&twin, &call(5, 0)).await, Err(Refusal::DeviceNotOnline), "not connected");
    let (mut device, _) = hub.device(true).await;
    assert_eq!(handle.call_method(&twin, &call(5, 1)).await, Err(Refusal::DeviceNotOnline), "takes no methods");
    let other = TwinRef::device(DeviceId::new("d2").unwrap());
    let unknown = handle.call_method(&other, &call(5, 0)).await;
    assert_eq!(unknown, Err(Refusal::DeviceNotFound(other.device.clone())));

    // The caller waits for the device to take methods.
    let patient = call(30, 30);
    let answering = async {
        device.subscribe(METHODS, QoS::AtMostOnce).await;
        let (topic, payload) = device.message().await;
        assert_eq!(payload, r#"{"d":1}"#);
        let request = topic.strip_prefix("$iothub/methods/POST/reboot/?$rid=").unwrap().to_owned();
        device.publish(&format!("$iothub/methods/res/201/?$rid={request}"), r#"{"ok":1}"#).await;
    };
    let (answer, ()) = tokio::join!(handle.call_method(&twin, &patient), answering);
    assert_eq!(answer, Ok((201, br#"{"ok":1}"#.to_vec())));

    let (begin, short) = (clock(), call(5, 0));
    let (late, _) = tokio::join!(handle.call_method(&twin, &short), device.message());
    assert_eq!((late, begin.elapsed()), (Err(Refusal::MethodTimeout), Duration::from_secs(5)));
    device.publish("$iothub/methods/res/200/?$rid=99", "too late").await;
    device.send(&Packet::PingReq).await;
    assert_eq!(device.next().await, Some(Packet::PingResp), "an answer nobody waits for is let go");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_keep_up_or_keeps_silent_is_let_go() {
    let mut hub = Hub::with_device().await;
    let (mut device, _) = hub.device(true).await;
    device.subscribe(DESIRED, QoS::AtMostOnce).await;
    for number in 0..200 {
        hub.patch(&format!(r#"{{"a":"{}{number}"}}"#, "x".repeat(1000))).await;
    }
    while hub.tasks.join_next().await.is_some() {}
    assert!(!hub.connected().await, "too slow");
    let (mut device, _) = hub.device(true).await;
    let begin = clock();
    assert_eq!(device.next().await, None);
    assert_eq!(begin.elapsed(), Duration::from_secs(60), "the token ends before the keep-alive does");
}

/// A packet of this first byte and this whole size, as far as the connection takes it.
async fn send_packet_of_size(device: &mut Device, first: u8, size: u32) {
    // A fixed header of four bytes: the size takes three, seven bits in each.
    let rest = size - 4;
    let digit = |shift: u32| u8::try_from(rest >> shift & 0x7f).unwrap();
    let mut packet = vec![first, digit(0) | 0x80, digit(7) | 0x80, digit(14)];
    packet.resize(size as usize, 0);
    device.stream.write_all(&packet).await.ok();
}

#[tokio::test]
async fn a_packet_that_is_too_large_ends_its_connection() {
    let mut hub = Hub::with_device().await;
    let user = "localhost/d1/?api-version=2021-04-12";
    let token = sign(&hub.key(), "localhost%2Fdevices%2Fd1", NOW + 60, None);
    let mut connect = v4::Connect::new("d1");
    connect.set_login(user, token);
    // The largest will that fits its length of two bytes.
    let topic = "devices/d1/messages/events/";
    connect.last_will = Some(v4::LastWill::new(topic, vec![b'x'; usize::from(u16::MAX)], QoS::AtMostOnce, false));
    let mut device = hub.open();
    device.send(&Packet::Connect(connect)).await;
    let Some(Packet::ConnAck(answer)) = device.next().await else { panic!("no answer") };
    assert_eq!(answer.code, ConnectReturnCode::Success);

    // The largest message of a hub, then a packet of one byte too much, of which nothing need be right but its size.
    let mut message = v4::Publish::new(topic, QoS::AtLeastOnce, vec![b'x'; 256 * 1024]);
    message.pkid = 7;
    device.send(&Packet::Publish(message)).await;
    assert_eq!(device.next().await, Some(Packet::PubAck(v4::PubAck::new(7))));
    send_packet_of_size(&mut device, 0x30, PACKET_BYTES_MAX + 1).await;
    assert_eq!(device.next().await, None);

    let mut stranger = hub.open();
    send_packet_of_size(&mut stranger, 0x10, FIRST_PACKET_BYTES_MAX + 1).await;
    assert_eq!(stranger.next().await, None, "its first packet");
    while hub.tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn at_the_bound_of_websockets_one_more_is_refused_until_one_ends() {
    let mut hub = Hub::with_device().await;
    let door = WebSocketDoor::new(hub.desk.clone(), hub.stop.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (router, stop) = (door.router(), hub.stop.clone());
    hub.tasks.spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap();
    });
    let upgrade = async || {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = "GET /$iothub/websocket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
                       upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: mqtt\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        (stream, String::from_utf8(status.to_vec()).unwrap())
    };
    // All places but one belong to others.
    let others = Arc::clone(&door.places).acquire_many_owned(CONNECTIONS_MAX - 1).await.unwrap();
    let (last, status) = upgrade().await;
    assert_eq!(status, "HTTP/1.1 101");
    assert_eq!(upgrade().await.1, "HTTP/1.1 503");
    drop(last);
    // It is free once the server has seen the end.
    drop(Arc::clone(&door.places).acquire_owned().await.unwrap());
    assert_eq!(upgrade().await.1, "HTTP/1.1 101");
    drop(others);
    hub.stop.cancel();
    while hub.tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn a_module_has_a_connection_and_a_twin_of_its_own() {
    let mut hub = Hub::with_device().await;
    hub.put_module().await;
    let who = TwinRef::module(id(), ModuleId::new("m").unwrap());
    let token = sign(&hub.key(), "localhost%2Fdevices%2Fd1%2Fmodules%2Fm", NOW + 60, None);
    let (mut device, _) = hub.device(true).await;
    let mut module = hub.open();
    let answer = module.connect("d1/m", "localhost/d1/m/?api-version=2021-04-12", &token, true).await;
    assert_eq!(answer.code, ConnectReturnCode::Success);
    module.subscribe(TWIN, QoS::AtMostOnce).await;
    module.subscribe(DESIRED, QoS::AtMostOnce).await;
    module.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"of":"module"}"#).await;
    assert_eq!(module.message().await.0, "$iothub/twin/res/204/?$rid=1&$version=2");
    let found = hub.desk.hub.record(&who).await.unwrap();
    assert_eq!((found.twin.reported.values.len(), found.identity.connected), (1, true));
    assert!(hub.desk.hub.device(&id()).await.unwrap().twin.reported.values.is_empty());
    let patch = MergePatch { tags: None, desired: Value::parse_json(r#"{"x":1}"#).unwrap().as_object().cloned() };
    hub.desk.hub.write(|registry, _, now| registry.patch_twin(&who, &patch, &IfMatch::Any, now)).await.unwrap();
    assert_eq!(module.message().await.1, r#"{"$version":2,"x":1}"#);
    hub.put(Status::Disabled, &IfMatch::Any).await;
    assert_eq!((module.next().await, device.next().await), (None, None), "a disabled device takes its modules along");
}

mod trials;
