//! The device's side of one MQTT connection: bytes in, what the hub says and bytes out.
//!
//! Invariant: sans I/O, time is an argument. Packets are bounded, and a hub that does not answer a ping in time is
//! taken for gone.

use std::time::Duration;

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, RawPacket};
use mqtt_protocol_core::mqtt::packet::v3_1_1;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Qos, SubEntry, SubOpts};
use mqtt_protocol_core::mqtt::result_code::{ConnectReturnCode, SubackReturnCode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use crate::twin::{Object, Value};

/// The largest packet, in bytes: a message of 256 KB with its topic.
const PACKET_BYTES_MAX: u32 = 264 * 1024;
/// In seconds; the hub allows up to 1177 (`iot-hub.md` 8.1).
const KEEP_ALIVE: u16 = 60;
/// How long the hub may take to answer CONNECT, SUBSCRIBE or a ping.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Answers about the twin, changes of desired, direct methods (`iot-hub.md` 8.2).
const FILTERS: [&str; 3] = ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"];
const READ_REQUEST: &str = "twin";
const REPORT_REQUEST: &str = "report";

/// What the hub says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incoming {
    /// The device is connected; the subscriptions are asked for.
    Connected,
    /// The subscriptions stand.
    Subscribed,
    /// The twin: desired and reported, each with its `$version`.
    Twin {
        /// Desired.
        desired: Object,
        /// Reported.
        reported: Object,
    },
    /// Desired changed: the difference, with `$version`.
    Desired(Object),
    /// What was reported is kept.
    Reported,
    /// What was reported, or a read, was refused: status and the hub's words.
    Refused(u16, String),
    /// A direct method.
    Method {
        /// Its name.
        name: String,
        /// What the answer must name.
        request: String,
        /// JSON.
        payload: Vec<u8>,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    /// CONNACK 4 or 5.
    #[error("the hub does not admit the device: wrong key, unknown or disabled device")]
    NotAdmitted,
    /// Another CONNACK.
    #[error("the hub refused the connection ({0:?})")]
    Refused(ConnectReturnCode),
    /// The hub's bytes make no sense.
    #[error("the hub broke the protocol: {0}")]
    Protocol(&'static str),
    /// The hub is silent.
    #[error("the hub does not answer")]
    Silent,
}

/// One connection.
pub(super) struct Session {
    builder: PacketBuilder,
    connected: bool,
    waiting: bool,
    deadline: Instant,
    packet_last: u16,
    output: Vec<u8>,
}

impl Session {
    /// A connection that begins with CONNECT.
    pub(super) fn new(client_id: &str, user_name: &str, password: &SecretString, now: Instant) -> Result<Self, Ended> {
        let connect = v3_1_1::Connect::builder().clean_session(false).keep_alive(KEEP_ALIVE);
        let connect = connect.client_id(client_id).and_then(|connect| connect.user_name(user_name));
        let connect = connect.and_then(|connect| connect.password(password.expose_secret())?.build());
        let connect = connect.map_err(|_| Ended::Protocol("the names fit no CONNECT"))?;
        let mut session = Self {
            builder: PacketBuilder::with_maximum_packet_size(PACKET_BYTES_MAX),
            connected: false,
            waiting: true,
            deadline: now + ANSWER_TIME_MAX,
            packet_last: 0,
            output: Vec::new(),
        };
        session.send(&connect);
        Ok(session)
    }

    /// When [`Session::expire`] is due.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What to write now.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The deadline passed: time for a ping, or the end.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), Ended> {
        if self.waiting {
            return Err(Ended::Silent);
        }
        self.waiting = true;
        self.deadline = now + ANSWER_TIME_MAX;
        self.send(&v3_1_1::Pingreq::new());
        Ok(())
    }

    /// Asks for the twin.
    pub(super) fn read_twin(&mut self) -> Result<(), Ended> {
        self.publish(&format!("$iothub/twin/GET/?$rid={READ_REQUEST}"), Vec::new())
    }

    /// Reports.
    pub(super) fn report(&mut self, reported: &Object) -> Result<(), Ended> {
        let body = Value::Object(reported.clone()).to_string().into_bytes();
        self.publish(&format!("$iothub/twin/PATCH/properties/reported/?$rid={REPORT_REQUEST}"), body)
    }

    /// Answers a direct method.
    pub(super) fn answer(&mut self, request: &str, status: u16, payload: Vec<u8>) -> Result<(), Ended> {
        self.publish(&format!("$iothub/methods/res/{status}/?$rid={request}"), payload)
    }

    /// Says goodbye.
    pub(super) fn disconnect(&mut self) {
        let disconnect = v3_1_1::Disconnect::new();
        self.send(&disconnect);
    }

    /// Takes bytes up to the next thing the hub says; `None` when all are used up.
    pub(super) fn receive(&mut self, data: &mut Cursor<&[u8]>, now: Instant) -> Result<Option<Incoming>, Ended> {
        loop {
            match self.builder.feed(data) {
                PacketBuildResult::Incomplete => return Ok(None),
                PacketBuildResult::Error(_) => return Err(Ended::Protocol("no packet")),
                PacketBuildResult::Complete(packet) => {
                    if let Some(incoming) = self.packet(&packet, now)? {
                        return Ok(Some(incoming));
                    }
                }
            }
        }
    }

    fn packet(&mut self, packet: &RawPacket, now: Instant) -> Result<Option<Incoming>, Ended> {
        self.waiting = false;
        self.deadline = now + Duration::from_secs(u64::from(KEEP_ALIVE));
        match (packet.packet_type(), self.connected) {
            (2, false) => self.connack(packet).map(Some),
            (3, true) => self.published(packet),
            // The hub's acknowledgement of a report says less than its answer, of a method's answer nothing.
            (4 | 13, true) => Ok(None),
            (9, true) => {
                let suback = packet.parse_exact(v3_1_1::Suback::parse).map_err(|_| Ended::Protocol("SUBACK"))?;
                if suback.return_codes().contains(&SubackReturnCode::Failure) {
                    return Err(Ended::Protocol("a subscription was refused"));
                }
                Ok(Some(Incoming::Subscribed))
            }
            _ => Err(Ended::Protocol("a packet that no hub sends")),
        }
    }

    fn connack(&mut self, packet: &RawPacket) -> Result<Incoming, Ended> {
        let connack = packet.parse_exact(v3_1_1::Connack::parse).map_err(|_| Ended::Protocol("CONNACK"))?;
        match connack.return_code() {
            ConnectReturnCode::Accepted => {}
            ConnectReturnCode::BadUserNameOrPassword | ConnectReturnCode::NotAuthorized => {
                return Err(Ended::NotAdmitted);
            }
            other @ (ConnectReturnCode::UnacceptableProtocolVersion
            | ConnectReturnCode::IdentifierRejected
            | ConnectReturnCode::ServerUnavailable) => return Err(Ended::Refused(other)),
        }
        self.connected = true;
        let entry = |filter: &&str| SubEntry::new(*filter, SubOpts::new().set_qos(Qos::AtLeastOnce));
        let entries = FILTERS.iter().map(entry).collect::<Result<Vec<_>, _>>();
        let packet = self.next_packet();
        let subscribe =
            entries.and_then(|entries| v3_1_1::Subscribe::builder().packet_id(packet).entries(entries).build());
        self.send(&subscribe.map_err(|_| Ended::Protocol("the filters fit no SUBSCRIBE"))?);
        Ok(Incoming::Connected)
    }

    fn published(&mut self, packet: &RawPacket) -> Result<Option<Incoming>, Ended> {
        let flags = packet.flags();
        let publish = packet.parse_exact(|data| v3_1_1::Publish::parse(flags, data.into()));
        let publish = publish.map_err(|_| Ended::Protocol("PUBLISH"))?;
        if let Some(id) = publish.packet_id() {
            let puback = v3_1_1::Puback::builder().packet_id(id).build().map_err(|_| Ended::Protocol("an id of 0"))?;
            self.send(&puback);
        }
        incoming(publish.topic_name(), publish.payload().as_slice()).map(Some)
    }

    fn publish(&mut self, topic: &str, payload: Vec<u8>) -> Result<(), Ended> {
        let packet = self.next_packet();
        let publish = v3_1_1::Publish::builder().topic_name(topic);
        let publish = publish
            .and_then(|publish| publish.qos(Qos::AtLeastOnce).packet_id(packet).payload(payload).build())
            .map_err(|_| Ended::Protocol("a message that cannot be sent"))?;
        self.send(&publish);
        Ok(())
    }

    fn next_packet(&mut self) -> u16 {
        self.packet_last = self.packet_last.checked_add(1).unwrap_or(1);
        self.packet_last
    }

    fn send(&mut self, packet: &impl GenericPacketTrait) {
        self.output.extend_from_slice(&packet.to_continuous_buffer());
    }
}

/// What a message of the hub means.
fn incoming(topic: &str, payload: &[u8]) -> Result<Incoming, Ended> {
    if let Some(rest) = topic.strip_prefix("$iothub/twin/res/") {
        let (status, rest) = rest.split_once('/').ok_or(Ended::Protocol("an answer without a status"))?;
        let status: u16 = status.parse().map_err(|_| Ended::Protocol("an answer without a status"))?;
        return match status {
            200 if property(rest, "$rid") == Some(READ_REQUEST) => {
                let twin = Value::Object(object(payload)?);
                let section = |name| twin.get([name]).and_then(Value::as_object).cloned();
                let (desired, reported) = (section("desired"), section("reported"));
                let both = desired.zip(reported).ok_or(Ended::Protocol("a twin without its sections"))?;
                Ok(Incoming::Twin { desired: both.0, reported: both.1 })
            }
            200..=299 => Ok(Incoming::Reported),
            _ => Ok(Incoming::Refused(status, String::from_utf8_lossy(payload).into_owned())),
        };
    }
    if topic.starts_with("$iothub/twin/PATCH/properties/desired/") {
        return object(payload).map(Incoming::Desired);
    }
    let call = topic.strip_prefix("$iothub/methods/POST/").and_then(|rest| rest.split_once('/'));
    let (name, rest) = call.ok_or(Ended::Protocol("a message on an unknown topic"))?;
    let request = property(rest, "$rid").ok_or(Ended::Protocol("a method without $rid"))?;
    Ok(Incoming::Method { name: name.to_owned(), request: request.to_owned(), payload: payload.to_vec() })
}

fn object(payload: &[u8]) -> Result<Object, Ended> {
    let value = std::str::from_utf8(payload).ok().and_then(|text| Value::parse_json(text).ok());
    value.as_ref().and_then(Value::as_object).cloned().ok_or(Ended::Protocol("a body that is no object"))
}

/// A property of `?a=b&c=d`.
fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.strip_prefix('?')?
        .split('&')
        .find_map(|field| field.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}
