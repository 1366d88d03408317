//! The session against packets of another codec, and against bytes that nobody should send.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{self, Packet};

use super::*;
use crate::twin::DeviceId;

const TWIN: &str = "$iothub/twin/res/#";

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any time does")]
    Instant::now()
}

fn who() -> TwinRef {
    TwinRef::device(DeviceId::new("d1").unwrap())
}

fn bytes(packet: &Packet) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    packet.write(&mut buffer, usize::MAX).unwrap();
    buffer.to_vec()
}

fn connect() -> Packet {
    let mut connect = v4::Connect::new("d1");
    connect.set_login("localhost/d1/?api-version=2021-04-12", "token");
    connect.clean_session = false;
    connect.keep_alive = 10;
    Packet::Connect(connect)
}

fn publish(topic: &str, quality: QoS, id: u16) -> Packet {
    let mut publish = v4::Publish::new(topic, quality, " ");
    publish.pkid = id;
    Packet::Publish(publish)
}

fn subscribe(filters: &[(&str, QoS)]) -> Packet {
    let filters = filters.iter().map(|(filter, quality)| v4::SubscribeFilter::new((*filter).to_owned(), *quality));
    let mut subscribe = v4::Subscribe::new_many(filters);
    subscribe.pkid = 7;
    Packet::Subscribe(subscribe)
}

fn receive(session: &mut Session, bytes: &[u8]) -> Result<Option<Request>, Close> {
    session.receive(&mut Cursor::new(bytes), start())
}

/// Every packet the session wants written.
fn written(session: &mut Session) -> Vec<Packet> {
    let mut output = BytesMut::from(session.take_output().as_slice());
    let mut packets = Vec::new();
    while !output.is_empty() {
        packets.push(Packet::read(&mut output, usize::MAX).unwrap());
    }
    packets
}

fn attached() -> Session {
    let mut session = Session::new(start());
    assert!(matches!(receive(&mut session, &bytes(&connect())), Ok(Some(Request::Connect(_)))));
    session.accept(who(), None, start());
    let answer = v4::ConnAck::new(v4::ConnectReturnCode::Success, false);
    assert_eq!(written(&mut session), [Packet::ConnAck(answer)]);
    session
}

/// Subscribes as the loop would.
fn granted(session: &mut Session, filters: &[(&str, QoS)]) {
    let Ok(Some(Request::Subscribe(outcome))) = receive(session, &bytes(&subscribe(filters))) else {
        panic!("a SUBSCRIBE asks for subscriptions")
    };
    session.subscribed(outcome).unwrap();
}

#[test]
fn a_read_before_its_subscription_is_carried_out_when_the_subscription_stands() {
    let mut session = attached();
    let read = bytes(&publish("$iothub/twin/GET/?$rid=r1", QoS::AtLeastOnce, 3));
    assert_eq!(receive(&mut session, &read), Ok(None));
    assert_eq!(written(&mut session), [Packet::PubAck(v4::PubAck::new(3))]);
    granted(&mut session, &[("$iothub/methods/POST/#", QoS::AtMostOnce)]);
    assert_eq!(receive(&mut session, &[]), Ok(None), "another subscription");
    granted(&mut session, &[(TWIN, QoS::AtLeastOnce)]);
    assert_eq!(receive(&mut session, &[]), Ok(Some(Request::ReadTwin { request: "r1".to_owned() })));
    assert_eq!(receive(&mut session, &[]), Ok(None), "once");
}

#[test]
fn an_answer_before_its_subscription_waits_for_it() {
    let mut session = attached();
    session.answer_twin("$iothub/twin/res/204/?$rid=1".to_owned(), b"x".to_vec()).unwrap();
    assert_eq!(written(&mut session), []);
    granted(&mut session, &[(TWIN, QoS::AtMostOnce)]);
    let sent = written(&mut session);
    assert!(matches!(&sent[..], [Packet::SubAck(_), Packet::Publish(answer)] if answer.payload == "x"), "{sent:?}");
}

#[test]
fn subscriptions_are_granted_by_their_rules_and_deliver_at_their_quality() {
    use v4::SubscribeReasonCode::{Failure, Success};
    let mut session = attached();
    granted(
        &mut session,
        &[
            (TWIN, QoS::ExactlyOnce),
            ("devices/d2/messages/devicebound/#", QoS::AtLeastOnce),
            ("$iothub/methods/POST/#", QoS::AtMostOnce),
        ],
    );
    let codes = vec![Success(QoS::AtLeastOnce), Failure, Success(QoS::AtMostOnce)];
    assert_eq!(written(&mut session), [Packet::SubAck(v4::SubAck::new(7, codes))]);
    for (topic, quality) in [
        ("$iothub/twin/res/200/?$rid=1", Some(QoS::AtLeastOnce)),
        ("$iothub/methods/POST/m/?$rid=1", Some(QoS::AtMostOnce)),
        ("$iothub/twin/PATCH/properties/desired/?$version=2", None),
    ] {
        session.deliver(topic, Vec::new()).unwrap();
        let sent = written(&mut session);
        let qualities: Vec<QoS> = sent
            .iter()
            .filter_map(|packet| if let Packet::Publish(sent) = packet { Some(sent.qos) } else { None })
            .collect();
        assert_eq!(qualities.len(), sent.len(), "nothing but messages");
        assert_eq!(qualities, Vec::from_iter(quality), "{topic}");
    }
    let mut unsubscribe = v4::Unsubscribe::new(TWIN);
    unsubscribe.pkid = 9;
    let removed = receive(&mut session, &bytes(&Packet::Unsubscribe(unsubscribe)));
    assert_eq!(removed, Ok(Some(Request::Subscribe(Subscribed::Removed(9)))));
    assert_eq!(session.filters().unwrap().quality("$iothub/twin/res/200/?$rid=1"), None);
}

#[test]
fn what_a_device_leaves_unacknowledged_is_bounded() {
    let mut session = attached();
    granted(&mut session, &[(TWIN, QoS::AtLeastOnce)]);
    let topic = "$iothub/twin/res/200/?$rid=1";
    for _ in 0..IN_FLIGHT_MAX {
        session.deliver(topic, Vec::new()).unwrap();
    }
    assert_eq!(session.deliver(topic, Vec::new()), Err(Close::Slow));
    assert_eq!(receive(&mut session, &bytes(&Packet::PubAck(v4::PubAck::new(5)))), Ok(None));
    assert_eq!(session.deliver(topic, Vec::new()), Ok(()));
    let unknown = receive(&mut session, &bytes(&Packet::PubAck(v4::PubAck::new(999))));
    assert_eq!(unknown, Ok(None), "of an earlier connection");
    for number in 0..3 * EARLY_MAX {
        session.answer_twin(format!("$iothub/other/{number}"), Vec::new()).unwrap();
    }
    assert_eq!(session.open().unwrap().early_answers.len(), EARLY_MAX);
}

#[test]
fn a_refusal_is_a_connack_and_never_a_bare_close() {
    use v4::ConnectReturnCode as Code;
    for (refused, code) in [
        (Refused::ClientId, Code::BadClientId),
        (Refused::Unavailable, Code::ServiceUnavailable),
        (Refused::Malformed, Code::BadUserNamePassword),
        (Refused::Unauthorized, Code::NotAuthorized),
    ] {
        let mut session = Session::new(start());
        receive(&mut session, &bytes(&connect())).unwrap();
        assert_eq!(session.refuse(refused), Close::Refused);
        assert_eq!(written(&mut session), [Packet::ConnAck(v4::ConnAck::new(code, false))]);
    }
    let mut level5 = bytes(&connect());
    level5[8] = 5;
    let mut session = Session::new(start());
    assert_eq!(receive(&mut session, &level5), Err(Close::Refused));
    let answer = v4::ConnAck::new(Code::RefusedProtocolVersion, false);
    assert_eq!(written(&mut session), [Packet::ConnAck(answer)]);
}

#[test]
fn bytes_that_break_a_rule_end_the_connection() {
    let get = "$iothub/twin/GET/?$rid=1";
    let mut wrong_flags = bytes(&subscribe(&[(TWIN, QoS::AtMostOnce)]));
    wrong_flags[0] = 0x80;
    let mut no_id = bytes(&subscribe(&[(TWIN, QoS::AtMostOnce)]));
    (no_id[2], no_id[3]) = (0, 0);
    let mut dup = bytes(&publish(get, QoS::AtMostOnce, 0));
    dup[0] |= 8;
    let mut zero = bytes(&publish(get, QoS::AtLeastOnce, 1));
    let id_at = 2 + 2 + get.len();
    (zero[id_at], zero[id_at + 1]) = (0, 0);
    for (what, bytes) in [
        ("quality 2", bytes(&publish(get, QoS::ExactlyOnce, 1))),
        ("an unknown topic", bytes(&publish("anything", QoS::AtMostOnce, 0))),
        ("a wildcard", bytes(&publish("devices/d1/messages/events/#", QoS::AtMostOnce, 0))),
        ("another device's topic", bytes(&publish("devices/d2/messages/events/", QoS::AtMostOnce, 0))),
        ("DUP at quality 0", dup),
        ("PUBLISH with id 0", zero),
        ("SUBSCRIBE with wrong flags", wrong_flags),
        ("SUBSCRIBE with id 0", no_id),
        ("a second CONNECT", bytes(&connect())),
        ("a server's packet", bytes(&Packet::PingResp)),
        ("PUBREL", bytes(&Packet::PubRel(v4::PubRel::new(1)))),
        ("type 0", vec![0, 0]),
        ("type 15", vec![0xF0, 0]),
        ("a length without end", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("256 MB", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
    ] {
        assert!(receive(&mut attached(), &bytes).is_err(), "{what}");
    }
    for (what, packet) in [
        ("PUBLISH", publish(get, QoS::AtMostOnce, 0)),
        ("SUBSCRIBE", subscribe(&[(TWIN, QoS::AtMostOnce)])),
        ("PINGREQ", Packet::PingReq),
    ] {
        let mut session = Session::new(start());
        assert!(receive(&mut session, &bytes(&packet)).is_err(), "{what} before CONNECT");
        assert_eq!(written(&mut session), [], "{what} before CONNECT");
    }
    let mut reserved = bytes(&connect());
    reserved[9] |= 1;
    assert!(receive(&mut Session::new(start()), &reserved).is_err(), "the reserved flag");
}

#[test]
fn silence_ends_a_connection_after_one_and_a_half_times_its_keep_alive() {
    let begin = start();
    let mut session = Session::new(begin);
    assert_eq!(session.deadline(), begin + CONNECT_TIME_MAX);
    receive(&mut session, &bytes(&connect())).unwrap();
    session.accept(who(), None, begin);
    assert_eq!(session.deadline(), begin + Duration::from_secs(15));
    let later = begin + Duration::from_secs(14);
    assert_eq!(session.receive(&mut Cursor::new(&bytes(&Packet::PingReq)), later), Ok(None));
    assert_eq!(session.deadline(), later + Duration::from_secs(15));
    assert_eq!(written(&mut session).last(), Some(&Packet::PingResp));
    assert_eq!(receive(&mut session, &bytes(&Packet::Disconnect)), Err(Close::Left));
}

/// What a session does with `bytes`, fed in pieces of `size`, when everything it asks for is granted.
fn fed(bytes: &[u8], size: usize) -> (Vec<String>, Vec<u8>) {
    let mut session = Session::new(start());
    let (mut said, mut output) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        let mut cursor = Cursor::new(piece);
        loop {
            let received = session.receive(&mut cursor, start());
            said.push(format!("{received:?}"));
            match received {
                Ok(None) => {
                    said.pop();
                    break;
                }
                Err(_) => return (said, session.take_output()),
                Ok(Some(Request::Connect(_))) => session.accept(who(), None, start()),
                Ok(Some(Request::Subscribe(outcome))) => session.subscribed(outcome).unwrap(),
                Ok(Some(_)) => {}
            }
        }
        output.extend(session.take_output());
    }
    (said, output)
}

proptest! {
    #[test]
    fn no_bytes_panic_and_the_cuts_between_them_do_not_matter(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        size in 1..40_usize,
    ) {
        let mut good = bytes(&connect());
        good.extend(bytes(&subscribe(&[(TWIN, QoS::AtLeastOnce), ("$iothub/methods/POST/#", QoS::AtMostOnce)])));
        good.extend(bytes(&publish("$iothub/twin/GET/?$rid=1", QoS::AtLeastOnce, 1)));
        good.extend(bytes(&publish("$iothub/twin/PATCH/properties/reported/?$rid=2", QoS::AtLeastOnce, 2)));
        for (at, flip) in flips {
            let at = at.index(good.len());
            good[at] ^= flip;
        }
        good.extend(&noise);
        let (whole, pieces) = (fed(&good, good.len()), fed(&good, size));
        prop_assert_eq!(whole.0, pieces.0);
    }
}
