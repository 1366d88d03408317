//! Who is connected, what they are told, and which sessions are kept.
//!
//! Invariant: one connection per identity (`iot-hub.md` 8.1); a connection is told of the changes of its twin in their
//! order, through a bounded queue, and is ended when the queue is full: the device then reads its twin again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::super::error::Refusal;
use super::super::handle::HubHandle;
use super::super::identity::Status;
use super::super::registry::{Change, Registry};
use super::super::twin_record::{Properties, StampNode};
use super::super::wire;
use super::topics::Filters;
use crate::twin::{DeviceId, ModuleId, Object, TwinRef, Value};

/// The most notices that wait for one connection.
const NOTICES_MAX: usize = 64;
/// The most direct methods that wait for their answers.
const CALLS_MAX: usize = 4096;
/// Parts the identities in a kept session's key; no id holds it.
const KEY_SEPARATOR: char = '/';

/// Something a connected device is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The change that must be kept first; 0 when there is none.
    pub change: u64,
    /// What.
    pub told: Told,
}

/// What a device is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Desired properties changed.
    Desired {
        /// `$version`.
        version: u64,
        /// The difference, with `$version` inside.
        body: Vec<u8>,
    },
    /// A direct method is called.
    Method {
        /// Its name.
        name: String,
        /// `$rid`.
        request: u64,
        /// JSON.
        payload: Vec<u8>,
    },
}

/// The answer of a device to a direct method: status and JSON, which may be empty.
pub type MethodAnswer = (i32, Vec<u8>);

/// A session as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    /// Which life of the identity it belongs to.
    generation: u64,
    /// The subscriptions.
    filters: Filters,
}

/// One write to the store: the key of a session, and its record or `None` to forget it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// `device` or `device/module`.
    pub key: String,
    /// The session.
    pub record: Option<Vec<u8>>,
}

impl KeptSession {
    fn record(&self) -> Vec<u8> {
        // As text, so that no generation is too large for a number.
        let generation = Value::from(self.generation.to_string());
        wire::json(&Object::from([
            ("filters".to_owned(), self.filters.to_value()),
            ("generation".to_owned(), generation),
        ]))
    }

    /// Reads what the store kept; `None` when it is no session.
    fn read(key: &str, record: &[u8]) -> Option<(TwinRef, Self)> {
        let who = match key.split_once(KEY_SEPARATOR) {
            None => TwinRef::device(DeviceId::new(key).ok()?),
            Some((device, module)) => TwinRef::module(DeviceId::new(device).ok()?, ModuleId::new(module).ok()?),
        };
        let value = Value::parse_json(std::str::from_utf8(record).ok()?).ok()?;
        let Some(Value::String(generation)) = value.get(["generation"]) else { return None };
        let filters = Filters::from_value(value.get(["filters"])?)?;
        Some((who, Self { generation: generation.parse().ok()?, filters }))
    }
}

fn session_key(who: &TwinRef) -> String {
    match &who.module {
        None => who.device.to_string(),
        Some(module) => format!("{}{KEY_SEPARATOR}{module}", who.device),
    }
}

/// One connection's place: what ends it, and what it is told.
#[derive(Debug)]
struct Link {
    number: u64,
    generation: u64,
    keeps_session: bool,
    takes_methods: bool,
    notices: mpsc::Sender<Notice>,
    ended: CancellationToken,
}

/// A direct method on its way.
#[derive(Debug)]
struct Call {
    who: TwinRef,
    answer: oneshot::Sender<MethodAnswer>,
}

/// What a connection holds while it is attached.
#[derive(Debug)]
pub struct Attachment {
    /// Which device or module.
    pub who: TwinRef,
    /// The connection's number, never given twice in one run.
    pub number: u64,
    /// The filters of a session kept from before; `None` when there is none.
    pub session: Option<Filters>,
    /// What to tell the device.
    pub notices: mpsc::Receiver<Notice>,
    /// Cancelled when the connection must end.
    pub ended: CancellationToken,
}

/// Who is connected.
#[derive(Debug)]
pub struct Presence {
    links: BTreeMap<TwinRef, Link>,
    sessions: BTreeMap<TwinRef, KeptSession>,
    calls: BTreeMap<u64, Call>,
    number_last: u64,
    /// Moves when somebody begins to take methods.
    arrivals: watch::Sender<u64>,
}

impl Default for Presence {
    fn default() -> Self {
        let (arrivals, _) = watch::channel(0);
        Self { links: BTreeMap::new(), sessions: BTreeMap::new(), calls: BTreeMap::new(), number_last: 0, arrivals }
    }
}

impl Presence {
    /// Nobody is connected; the sessions are those the store kept.
    ///
    /// # Errors
    /// The key of a record that is no session.
    pub fn restored(records: Vec<(String, Vec<u8>)>) -> Result<Self, String> {
        let read = |(key, record): (String, Vec<u8>)| KeptSession::read(&key, &record).ok_or(key);
        let sessions = records.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { sessions, ..Self::default() })
    }

    /// Tells who is concerned of a change, before it is kept.
    pub fn tell(&mut self, change: &Change) {
        let who = &change.twin;
        let Some(after) = &change.after else {
            // The modules of a deleted device are deleted by changes of their own.
            if let Some(link) = self.links.get_mut(who) {
                link.ended.cancel();
                // What it still subscribes to must not outlive the device.
                link.keeps_session = false;
            }
            self.sessions.remove(who);
            return;
        };
        if after.identity.status == Status::Disabled {
            self.end_all_of(who);
            return;
        }
        let Some(link) = self.links.get(who) else { return };
        let Some(mut difference) = desired_difference(change) else { return };
        let version = after.twin.desired.stored().version;
        difference.insert("$version".to_owned(), wire::count(version));
        let told = Told::Desired { version, body: wire::json(&difference) };
        link.tell(Notice { change: change.number, told });
    }

    /// Ends the connections of a device and of its modules.
    fn end_all_of(&self, who: &TwinRef) {
        let from = TwinRef::device(who.device.clone());
        for (_, link) in self.links.range(from..).take_while(|(twin, _)| twin.device == who.device) {
            link.ended.cancel();
        }
    }

    /// Begins a connection of `who`; an earlier one ends.
    fn attach(&mut self, who: &TwinRef, generation: u64, clean: bool) -> (Attachment, Option<SessionRecord>) {
        self.number_last += 1;
        let (notices, receiver) = mpsc::channel(NOTICES_MAX);
        let ended = CancellationToken::new();
        let kept = self.sessions.get(who).filter(|session| session.generation == generation);
        let session = kept.filter(|_| !clean).map(|session| session.filters.clone());
        let record = match (&session, clean) {
            (Some(_), _) => None,
            (None, true) => self.sessions.remove(who).map(|_| SessionRecord { key: session_key(who), record: None }),
            (None, false) => Some(self.keep(who, KeptSession { generation, filters: Filters::default() })),
        };
        let link = Link {
            number: self.number_last,
            generation,
            keeps_session: !clean,
            takes_methods: session.as_ref().is_some_and(Filters::take_methods),
            notices,
            ended: ended.clone(),
        };
        if link.takes_methods {
            self.arrivals.send_modify(|count| *count += 1);
        }
        if let Some(before) = self.links.insert(who.clone(), link) {
            before.ended.cancel();
        }
        let attachment = Attachment { who: who.clone(), number: self.number_last, session, notices: receiver, ended };
        (attachment, record)
    }

    fn keep(&mut self, who: &TwinRef, session: KeptSession) -> SessionRecord {
        let record = Some(session.record());
        self.sessions.insert(who.clone(), session);
        SessionRecord { key: session_key(who), record }
    }

    /// Notes the subscriptions of a connection; the record is what must be kept.
    fn subscribe(&mut self, attached: &Attachment, filters: &Filters) -> Option<SessionRecord> {
        let link = self.links.get_mut(&attached.who).filter(|link| link.number == attached.number)?;
        let took_methods = std::mem::replace(&mut link.takes_methods, filters.take_methods());
        if link.takes_methods && !took_methods {
            self.arrivals.send_modify(|count| *count += 1);
        }
        let session = KeptSession { generation: link.generation, filters: filters.clone() };
        let changed = link.keeps_session && self.sessions.get(&attached.who) != Some(&session);
        changed.then(|| self.keep(&attached.who, session))
    }

    /// Ends a connection; whether it was still the identity's own.
    fn detach(&mut self, attached: &Attachment) -> bool {
        let own = self.links.get(&attached.who).is_some_and(|link| link.number == attached.number);
        if own {
            self.links.remove(&attached.who);
        }
        own
    }

    /// Moves with everybody who begins to take methods.
    #[must_use]
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// Sends a direct method to `who`; `None` when it takes none now.
    ///
    /// # Errors
    /// [`Refusal::TooManyMethods`].
    pub fn call(
        &mut self,
        who: &TwinRef,
        name: &str,
        payload: Vec<u8>,
    ) -> Result<Option<(u64, oneshot::Receiver<MethodAnswer>)>, Refusal> {
        let Some(link) = self.links.get(who).filter(|link| link.takes_methods && !link.ended.is_cancelled()) else {
            return Ok(None);
        };
        if self.calls.len() >= CALLS_MAX {
            return Err(Refusal::TooManyMethods);
        }
        self.number_last += 1;
        let request = self.number_last;
        let (answer, receiver) = oneshot::channel();
        self.calls.insert(request, Call { who: who.clone(), answer });
        link.tell(Notice { change: 0, told: Told::Method { name: name.to_owned(), request, payload } });
        Ok(Some((request, receiver)))
    }

    /// Hands over the answer to a call, if `who` was asked and somebody still waits.
    pub fn answer(&mut self, who: &TwinRef, request: &str, answer: MethodAnswer) {
        let Ok(request) = request.parse() else { return };
        if self.calls.get(&request).is_some_and(|call| call.who == *who) {
            // Whoever asked may have stopped waiting at this moment.
            self.calls.remove(&request).map(|call| call.answer.send(answer));
        }
    }

    /// Forgets a call nobody waits for any more.
    pub fn forget_call(&mut self, request: u64) {
        self.calls.remove(&request);
    }
}

impl Link {
    fn tell(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            self.ended.cancel();
        }
    }
}

impl HubHandle {
    /// Begins a connection of `who`, whose token was checked against the identity of `generation`.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] when that identity is gone or disabled by now; [`Refusal::Unavailable`] when the
    /// session cannot be kept.
    pub async fn attach(&self, who: &TwinRef, generation: u64, clean: bool) -> Result<Attachment, Refusal> {
        let attach = |presence: &mut Presence, registry: &mut Registry, now: Timestamp| {
            let enabled = registry.device(&who.device).is_ok_and(|device| device.identity.status == Status::Enabled);
            let same = registry.record(who).is_ok_and(|record| record.identity.generation == generation);
            if !enabled || !same {
                return (Err(Refusal::Unauthorized), None);
            }
            let (attachment, record) = presence.attach(who, generation, clean);
            registry.note_activity(who, true, now);
            (Ok(attachment), record)
        };
        let attached = self.attend(attach).await;
        attached.and_then(std::convert::identity)
    }

    /// Keeps the subscriptions of a connection.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when they cannot be kept.
    pub async fn subscribe(&self, attached: &Attachment, filters: &Filters) -> Result<(), Refusal> {
        self.attend(|presence, _, _| ((), presence.subscribe(attached, filters))).await
    }

    /// Ends a connection. The twin shows it, unless a newer one took its place.
    pub fn detach(&self, attached: &Attachment) {
        self.look(|presence, registry, now| {
            if presence.detach(attached) {
                registry.note_activity(&attached.who, false, now);
            }
        });
    }

    /// Notes that a connected device did something that changes nothing.
    pub fn note_activity(&self, attached: &Attachment) {
        self.look(|presence, registry, now| {
            if presence.links.get(&attached.who).is_some_and(|link| link.number == attached.number) {
                registry.note_activity(&attached.who, true, now);
            }
        });
    }
}

/// What a device is told of a change of desired: the patch as it was sent, or the new tree with `null` for what is
/// gone (`iot-hub.md` 2.3). `None` when desired was not written.
fn desired_difference(change: &Change) -> Option<Object> {
    let (before, after) = (&change.before.as_ref()?.twin.desired, &change.after.as_ref()?.twin.desired);
    if before.stored().version == after.stored().version {
        return None;
    }
    if let Some(patch) = &change.desired_patch {
        return Some(Object::clone(patch));
    }
    Some(difference(&before.values, after, &after.values, &after.stamps))
}

/// What the last write of `section` touched in `values`, and `null` for every key of `before` that is gone.
fn difference(before: &Object, section: &Properties, values: &Object, stamps: &StampNode) -> Object {
    let mut found = Object::new();
    for (key, value) in values {
        let node = stamps.children.get(key);
        let Some(node) = node.filter(|node| node.stamp.version == Some(section.version)) else { continue };
        let inner = match (value, before.get(key)) {
            (Value::Object(inner), Some(Value::Object(was))) => Value::Object(difference(was, section, inner, node)),
            (value, _) => value.clone(),
        };
        found.insert(key.clone(), inner);
    }
    found.extend(before.keys().filter(|key| !values.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_deleted_while_it_subscribes_leaves_no_session() {
        let who = TwinRef::device(DeviceId::new("d").unwrap());
        let mut presence = Presence::default();
        let (attached, _) = presence.attach(&who, 1, false);
        assert!(presence.subscribe(&attached, &Filters::default()).is_none(), "kept already");
        let deleted = Change { number: 2, twin: who.clone(), before: None, after: None, desired_patch: None };
        presence.tell(&deleted);
        assert!(attached.ended.is_cancelled());
        let mut filters = Filters::default();
        filters.subscribe("$iothub/twin/res/#", 0, &who);
        assert!(presence.subscribe(&attached, &filters).is_none() && presence.sessions.is_empty());
    }
}
