//! One device's MQTT session: bytes in, requests and bytes out.
//!
//! ```text
//!   bytes -> codec -> rules of MQTT and of the hub -> Request   (the loop carries it out and tells the session)
//!                                                  -> output    (the loop writes it)
//! ```
//!
//! Invariant: sans I/O, time is an argument. Nothing but CONNECT is taken before a device is attached, one request is
//! out at a time, and everything held (packets, answers, messages not yet acknowledged) has a bound.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, RawPacket};
use mqtt_protocol_core::mqtt::packet::v3_1_1;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Qos};
use mqtt_protocol_core::mqtt::result_code::{ConnectReturnCode, MqttError, SubackReturnCode};
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::time::Instant;

use super::topics::{self, Filters, Published};
use crate::twin::TwinRef;

/// The largest packet before a device is attached, in bytes: CONNECT with a will of its largest size.
pub(super) const FIRST_PACKET_BYTES_MAX: u32 = 72 * 1024;
/// The largest packet, in bytes: a message of 256 KB (`iot-hub.md` 6.3) with its topic.
pub(super) const PACKET_BYTES_MAX: u32 = 264 * 1024;
/// How long a connection may take to send CONNECT.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest keep-alive a hub grants, in seconds (`iot-hub.md` 8.1).
const KEEP_ALIVE_MAX: u64 = 1767;
/// The most messages a device may leave unacknowledged before it is let go.
const IN_FLIGHT_MAX: usize = 64;
/// The most answers and reads that wait for their subscription; the oldest makes room.
const EARLY_MAX: usize = 16;

/// What the loop must do for the device before it feeds more bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Decide about a CONNECT: [`Session::accept`] or [`Session::refuse`].
    Connect(Connect),
    /// Read the twin: [`Session::answer_twin`].
    ReadTwin {
        /// `$rid`.
        request: String,
    },
    /// Merge into reported: [`Session::answer_twin`], then [`Session::acknowledge`].
    Report {
        /// `$rid`.
        request: String,
        /// The version it rests on, as sent.
        base: Option<String>,
        /// The merge patch, as sent.
        body: Vec<u8>,
        /// What to acknowledge once the write is kept.
        packet: Option<u16>,
    },
    /// Hand the answer to whoever called the method.
    MethodAnswer {
        /// `$rid` of the call.
        request: String,
        /// What the method gave.
        status: i32,
        /// JSON, or empty.
        body: Vec<u8>,
    },
    /// Change the subscriptions: keep [`Session::filters`], then [`Session::subscribed`].
    Subscribe(Subscribed),
    /// Count a message, then [`Session::acknowledge`].
    Telemetry {
        /// The size of its content.
        bytes: usize,
        /// What to acknowledge.
        packet: Option<u16>,
    },
}

/// What a client shows for itself: a token. `Debug` hides it.
#[derive(Debug)]
pub struct Password(SecretSlice<u8>);

impl Password {
    /// The bytes, to be judged.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Password {}

/// A CONNECT packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Connect {
    /// Device or device and module.
    pub client_id: String,
    /// Host, client id and API version.
    pub user_name: Option<String>,
    /// The token.
    pub password: Option<Password>,
    /// Whether no session shall be kept.
    pub clean: bool,
}

/// What answers a SUBSCRIBE or an UNSUBSCRIBE once the subscriptions are kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// SUBACK with the granted quality of each filter; `None` refuses one.
    Granted(u16, Vec<Option<u8>>),
    /// UNSUBACK.
    Removed(u16),
}

/// Why a CONNECT is refused (`iot-hub.md` 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Code 1.
    Level,
    /// Code 2.
    ClientId,
    /// Code 3.
    Unavailable,
    /// Code 4: user name or password have no form the hub knows.
    Malformed,
    /// Code 5: unknown or disabled device, or a token that does not admit it.
    Unauthorized,
    /// Code 5 too: the identity has a certificate, which the hub does not take.
    Certificate,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    /// DISCONNECT.
    #[error("the device left")]
    Left,
    /// CONNECT was refused and answered so.
    #[error("the device was refused")]
    Refused,
    /// The bytes break the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Something the hub does not do.
    #[error("not allowed at a hub: {0}")]
    Forbidden(&'static str),
    /// Nothing came for too long.
    #[error("the device was silent for longer than its keep-alive")]
    Silent,
    /// Too much was sent that the device did not acknowledge.
    #[error("the device does not keep up")]
    Slow,
}

/// One connection's session.
pub struct Session {
    builder: PacketBuilder,
    stage: Stage,
    deadline: Instant,
    output: Vec<u8>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("stage", &self.stage).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Stage {
    /// Nothing was sent yet.
    Fresh,
    /// CONNECT is being decided.
    Deciding { keep_alive: u16, will: bool },
    /// A device is attached.
    Open(Open),
}

#[derive(Debug)]
struct Open {
    who: TwinRef,
    keep_alive: Duration,
    will: bool,
    filters: Filters,
    in_flight: BTreeSet<u16>,
    packet_last: u16,
    /// Reads that came before the subscription to their answers.
    early_reads: VecDeque<String>,
    /// Answers that wait for the subscription: topic and payload.
    early_answers: VecDeque<(String, Vec<u8>)>,
}

impl Session {
    /// A connection that sent nothing yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            builder: PacketBuilder::with_maximum_packet_size(FIRST_PACKET_BYTES_MAX),
            stage: Stage::Fresh,
            deadline: now + CONNECT_TIME_MAX,
            output: Vec::new(),
        }
    }

    /// When [`Session::expire`] is due, unless something is received before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What to write now.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Throws away what is to be written, or the second half of it.
    pub fn cut_output(&mut self, in_half: bool) {
        self.output.truncate(if in_half { self.output.len() / 2 } else { 0 });
    }

    /// The device is not silent: it waited for its turn until now.
    pub fn heard(&mut self, now: Instant) {
        if let Stage::Open(open) = &self.stage {
            self.deadline = now + open.keep_alive;
        }
    }

    /// The subscriptions.
    #[must_use]
    pub fn filters(&self) -> Option<&Filters> {
        self.open().map(|open| &open.filters)
    }

    /// Whether the device left a will, which counts as a message when it goes without DISCONNECT.
    #[must_use]
    pub fn has_will(&self) -> bool {
        self.open().is_some_and(|open| open.will)
    }

    fn open(&self) -> Option<&Open> {
        match &self.stage {
            Stage::Open(open) => Some(open),
            Stage::Fresh | Stage::Deciding { .. } => None,
        }
    }

    /// Takes bytes up to the next request; `None` when all are used up. Call it again with the same cursor when the
    /// request is carried out.
    ///
    /// # Errors
    /// [`Close`] when the connection must end; what is in the output must still be written.
    pub fn receive(&mut self, data: &mut Cursor<&[u8]>, now: Instant) -> Result<Option<Request>, Close> {
        loop {
            if let Some(request) = self.early_read() {
                return Ok(Some(Request::ReadTwin { request }));
            }
            match self.builder.feed(data) {
                PacketBuildResult::Incomplete => return Ok(None),
                PacketBuildResult::Error(MqttError::PacketTooLarge) => return Err(Close::Forbidden("a larger packet")),
                PacketBuildResult::Error(_) => return Err(Close::Protocol("no packet")),
                PacketBuildResult::Complete(packet) => {
                    if let Some(request) = self.take(&packet, now)? {
                        return Ok(Some(request));
                    }
                }
            }
        }
    }

    /// The deadline passed.
    #[must_use]
    pub fn expire(&self) -> Close {
        Close::Silent
    }

    /// Admits the device of the CONNECT. `filters` are those of a session kept from before, if there is one.
    pub fn accept(&mut self, who: TwinRef, session: Option<Filters>, now: Instant) {
        let Stage::Deciding { keep_alive, will } = self.stage else { return };
        self.connack(ConnectReturnCode::Accepted, session.is_some());
        self.builder.set_maximum_packet_size(PACKET_BYTES_MAX);
        let seconds = if keep_alive == 0 { KEEP_ALIVE_MAX } else { u64::from(keep_alive).min(KEEP_ALIVE_MAX) };
        let open = Open {
            who,
            // One and a half times, as MQTT 3.1.1 says in 3.1.2.10.
            keep_alive: Duration::from_millis(seconds * 1500),
            will,
            filters: session.unwrap_or_default(),
            in_flight: BTreeSet::new(),
            packet_last: 0,
            early_reads: VecDeque::new(),
            early_answers: VecDeque::new(),
        };
        self.deadline = now + open.keep_alive;
        self.stage = Stage::Open(open);
    }

    /// Refuses the CONNECT. The connection ends when the answer is written.
    pub fn refuse(&mut self, why: Refused) -> Close {
        let code = match why {
            Refused::Level => ConnectReturnCode::UnacceptableProtocolVersion,
            Refused::ClientId => ConnectReturnCode::IdentifierRejected,
            Refused::Unavailable => ConnectReturnCode::ServerUnavailable,
            Refused::Malformed => ConnectReturnCode::BadUserNameOrPassword,
            Refused::Unauthorized | Refused::Certificate => ConnectReturnCode::NotAuthorized,
        };
        self.connack(code, false);
        Close::Refused
    }

    /// Answers a SUBSCRIBE or UNSUBSCRIBE whose outcome is kept, then sends what waited for the subscription.
    ///
    /// # Errors
    /// [`Close::Slow`].
    pub fn subscribed(&mut self, outcome: Subscribed) -> Result<(), Close> {
        match outcome {
            Subscribed::Granted(packet, granted) => {
                let code = |granted: Option<u8>| match granted {
                    Some(0) => SubackReturnCode::SuccessMaximumQos0,
                    Some(_) => SubackReturnCode::SuccessMaximumQos1,
                    None => SubackReturnCode::Failure,
                };
                let codes = granted.into_iter().map(code).collect();
                let suback = v3_1_1::Suback::builder().packet_id(packet).return_codes(codes).build();
                self.send(&suback.map_err(|_| Close::Protocol("an id of 0"))?);
            }
            Subscribed::Removed(packet) => {
                let unsuback = v3_1_1::Unsuback::builder().packet_id(packet).build();
                self.send(&unsuback.map_err(|_| Close::Protocol("an id of 0"))?);
            }
        }
        let Stage::Open(open) = &mut self.stage else { return Ok(()) };
        if open.early_answers.iter().all(|(topic, _)| open.filters.quality(topic).is_none()) {
            return Ok(());
        }
        for (topic, payload) in std::mem::take(&mut open.early_answers) {
            self.deliver(&topic, payload)?;
        }
        Ok(())
    }

    /// Answers a request about the twin; the answer waits if its subscription is still to come.
    ///
    /// # Errors
    /// [`Close::Slow`].
    pub fn answer_twin(&mut self, topic: String, payload: Vec<u8>) -> Result<(), Close> {
        let Stage::Open(open) = &mut self.stage else { return Ok(()) };
        if open.filters.quality(&topic).is_some() {
            return self.deliver(&topic, payload);
        }
        if open.early_answers.len() == EARLY_MAX {
            open.early_answers.pop_front();
        }
        open.early_answers.push_back((topic, payload));
        Ok(())
    }

    /// Acknowledges a message of quality 1.
    pub fn acknowledge(&mut self, packet: Option<u16>) {
        let puback = packet.and_then(|packet| v3_1_1::Puback::builder().packet_id(packet).build().ok());
        if let Some(puback) = puback {
            self.send(&puback);
        }
    }

    /// Sends `payload` if the device subscribed to `topic`.
    ///
    /// # Errors
    /// [`Close::Slow`] when too many messages are unacknowledged.
    pub fn deliver(&mut self, topic: &str, payload: Vec<u8>) -> Result<(), Close> {
        let Stage::Open(open) = &mut self.stage else { return Ok(()) };
        let Some(quality) = open.filters.quality(topic) else { return Ok(()) };
        let builder = v3_1_1::Publish::builder().topic_name(topic).map_err(|_| Close::Protocol("a topic too long"))?;
        let builder = if quality == 0 {
            builder.qos(Qos::AtMostOnce)
        } else {
            if open.in_flight.len() == IN_FLIGHT_MAX {
                return Err(Close::Slow);
            }
            let packet = open.next_packet();
            open.in_flight.insert(packet);
            builder.qos(Qos::AtLeastOnce).packet_id(packet)
        };
        let publish = builder.payload(payload).build().map_err(|_| Close::Protocol("a message that cannot be sent"))?;
        self.send(&publish);
        Ok(())
    }

    /// A read whose answer can be delivered now.
    fn early_read(&mut self) -> Option<String> {
        let Stage::Open(open) = &mut self.stage else { return None };
        let next = open.early_reads.front()?;
        open.filters.quality(&topics::twin_answer(200, next, None))?;
        open.early_reads.pop_front()
    }

    fn take(&mut self, packet: &RawPacket, now: Instant) -> Result<Option<Request>, Close> {
        match &mut self.stage {
            Stage::Fresh => self.connect(packet).map(Some),
            // The loop decides before it feeds more.
            Stage::Deciding { .. } => Err(Close::Protocol("a packet before the answer to CONNECT")),
            Stage::Open(open) => {
                self.deadline = now + open.keep_alive;
                self.packet(packet)
            }
        }
    }

    fn connect(&mut self, packet: &RawPacket) -> Result<Request, Close> {
        if packet.packet_type() != 1 || packet.flags() != 0 {
            return Err(Close::Protocol("something before CONNECT"));
        }
        let reserved = packet.data_as_slice().get(7).is_some_and(|flags| flags & 1 == 1);
        let connect = match packet.parse_exact(v3_1_1::Connect::parse) {
            Err(MqttError::UnsupportedProtocolVersion) => return Err(self.refuse(Refused::Level)),
            Ok(connect) if !reserved => connect,
            Ok(_) | Err(_) => return Err(Close::Protocol("a malformed CONNECT")),
        };
        if connect.client_id().is_empty() || connect.client_id().contains('\0') {
            return Err(self.refuse(Refused::ClientId));
        }
        self.stage = Stage::Deciding { keep_alive: connect.keep_alive(), will: connect.will_flag() };
        Ok(Request::Connect(Connect {
            client_id: connect.client_id().to_owned(),
            user_name: connect.user_name().map(str::to_owned),
            password: connect.password().map(|bytes| Password(bytes.to_vec().into())),
            clean: connect.clean_session(),
        }))
    }

    fn packet(&mut self, packet: &RawPacket) -> Result<Option<Request>, Close> {
        // Each type has its fixed flags but PUBLISH (MQTT 3.1.1, 2.2.2).
        match (packet.packet_type(), packet.flags()) {
            (3, _) => self.published(packet),
            (4, 0) => {
                let puback = packet.parse_exact(v3_1_1::Puback::parse).map_err(|_| Close::Protocol("PUBACK"))?;
                if let Stage::Open(open) = &mut self.stage {
                    // One of an earlier connection may still come; it acknowledges nothing.
                    open.in_flight.remove(&puback.packet_id());
                }
                Ok(None)
            }
            (8, 2) => self.subscribe(packet).map(Some),
            (10, 2) => self.unsubscribe(packet).map(Some),
            (12, 0) => {
                packet.parse_exact(v3_1_1::Pingreq::parse).map_err(|_| Close::Protocol("PINGREQ"))?;
                self.send(&v3_1_1::Pingresp::new());
                Ok(None)
            }
            (14, 0) => Err(Close::Left),
            _ => Err(Close::Protocol("a packet that no device sends")),
        }
    }

    fn published(&mut self, packet: &RawPacket) -> Result<Option<Request>, Close> {
        let Stage::Open(open) = &mut self.stage else { return Ok(None) };
        let flags = packet.flags();
        let parsed = packet.parse_exact(|data| v3_1_1::Publish::parse(flags, data.into()));
        let publish = parsed.map_err(|_| Close::Protocol("PUBLISH"))?;
        match publish.qos() {
            Qos::ExactlyOnce => return Err(Close::Forbidden("quality of service 2")),
            Qos::AtMostOnce if publish.dup() => return Err(Close::Protocol("DUP at quality 0")),
            Qos::AtLeastOnce if publish.packet_id() == Some(0) => return Err(Close::Protocol("an id of 0")),
            Qos::AtMostOnce | Qos::AtLeastOnce => {}
        }
        let meaning = topics::published(publish.topic_name(), &open.who).ok_or(Close::Forbidden("this topic"))?;
        let (body, packet) = (publish.payload().as_slice().to_vec(), publish.packet_id());
        let request = match meaning {
            Published::ReadTwin { request } => {
                if open.early_reads.len() == EARLY_MAX {
                    open.early_reads.pop_front();
                }
                open.early_reads.push_back(request);
                None
            }
            // Acknowledged when it is kept, or its turn has come.
            Published::Report { request, base } => return Ok(Some(Request::Report { request, base, body, packet })),
            Published::MethodAnswer { request, status } => Some(Request::MethodAnswer { request, status, body }),
            Published::Telemetry => return Ok(Some(Request::Telemetry { bytes: body.len(), packet })),
        };
        self.acknowledge(packet);
        Ok(request)
    }

    fn subscribe(&mut self, packet: &RawPacket) -> Result<Request, Close> {
        let Stage::Open(open) = &mut self.stage else { return Err(Close::Protocol("SUBSCRIBE")) };
        let parsed = packet.parse_exact(v3_1_1::Subscribe::parse);
        let subscribe =
            parsed.ok().filter(|subscribe| subscribe.packet_id() != 0).ok_or(Close::Protocol("SUBSCRIBE"))?;
        let mut grant = |entry: &mqtt_protocol_core::mqtt::packet::SubEntry| {
            open.filters.subscribe(entry.topic_filter(), entry.sub_opts().qos() as u8, &open.who)
        };
        let granted = subscribe.entries().iter().map(&mut grant).collect();
        Ok(Request::Subscribe(Subscribed::Granted(subscribe.packet_id(), granted)))
    }

    fn unsubscribe(&mut self, packet: &RawPacket) -> Result<Request, Close> {
        let Stage::Open(open) = &mut self.stage else { return Err(Close::Protocol("UNSUBSCRIBE")) };
        let parsed = packet.parse_exact(v3_1_1::Unsubscribe::parse);
        let unsubscribe = parsed.ok().filter(|packet| packet.packet_id() != 0).ok_or(Close::Protocol("UNSUBSCRIBE"))?;
        for filter in unsubscribe.entries() {
            open.filters.unsubscribe(filter.as_str());
        }
        Ok(Request::Subscribe(Subscribed::Removed(unsubscribe.packet_id())))
    }

    fn connack(&mut self, code: ConnectReturnCode, session_present: bool) {
        let connack = v3_1_1::Connack::builder().return_code(code).session_present(session_present).build();
        self.send(&connack.expect("a code and a flag make a CONNACK"));
    }

    fn send(&mut self, packet: &impl GenericPacketTrait) {
        self.output.extend_from_slice(&packet.to_continuous_buffer());
    }
}

impl Open {
    /// An id that is not in flight.
    fn next_packet(&mut self) -> u16 {
        loop {
            self.packet_last = self.packet_last.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains(&self.packet_last) {
                return self.packet_last;
            }
        }
    }
}

#[cfg(test)]
mod tests;
