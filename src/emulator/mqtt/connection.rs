//! One device's connection: bytes, notices and deadlines in, the session and the registry behind.
//!
//! Invariant: the loop does one thing at a time, so a device's requests and what it is told keep their order; a write
//! that the device does not take ends the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mqtt_protocol_core::mqtt::common::Cursor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::auth::Gate;
use super::super::error::Refusal;
use super::super::handle::HubHandle;
use super::super::traffic::Traffic;
use super::super::trial::Trial;
use super::super::wire;
use super::door;
use super::presence::{Attachment, Notice, Told};
use super::requests;
use super::session::{Close, Connect, Refused, Request, Session};
use super::topics;

/// Read at once, in bytes.
const READ_BYTES: usize = 4096;
/// How long a device may take to take what is written to it.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a device may take to read the last answer and close.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest a token counts, in seconds: a year. A connection does not last as long.
const TOKEN_SECONDS_MAX: i64 = 365 * 24 * 3600;

/// What every connection needs.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The hub.
    pub hub: HubHandle,
    /// Checks tokens.
    pub gate: Arc<Gate>,
    /// Throttles and faults.
    pub trial: Trial,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Session(#[from] Close),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the device closed the connection without a word")]
    Closed,
    #[error("the token ended")]
    TokenEnded,
    #[error("another connection took its place, the device is gone or disabled, or it did not keep up")]
    Ended,
    #[error("the hub is stopping")]
    Stopping,
    #[error("the hub cannot keep writes: {0}")]
    Hub(Refusal),
    #[error("a message was refused with status {0}")]
    TurnedAway(u16),
    #[error("a fault asked for it")]
    Fault,
}

/// What the loop waits for.
enum Event {
    Bytes(usize),
    Told(Notice),
    Deadline,
}

/// What ends a connection from outside.
struct Ending {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Ending {
    /// What `work` gives, unless the connection must end before.
    async fn unless<T>(self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stopping),
            () = self.ended.cancelled() => Err(End::Ended),
            done = work => Ok(done),
        }
    }
}

struct Connection<'a, S> {
    desk: &'a Desk,
    stream: S,
    session: Session,
    attached: Option<Attachment>,
    token_ends: Option<Instant>,
    stop: CancellationToken,
}

/// Serves MQTT on `stream` until it ends or `stop` is cancelled.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(desk: &Desk, stream: S, stop: CancellationToken) {
    let session = Session::new(clock());
    let mut connection = Connection { desk, stream, session, attached: None, token_ends: None, stop };
    let end = match connection.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let twin = connection.attached.as_ref().map(|attached| attached.who.to_string());
    tracing::debug!(twin, reason = %end, "an MQTT connection ended");
    if let Some(attached) = connection.attached.take() {
        if connection.session.has_will() && !matches!(end, End::Session(Close::Left)) {
            desk.hub.count_message();
            desk.trial.charge(Traffic::Telemetry, 0, desk.hub.now());
        }
        desk.hub.detach(&attached);
    }
    connection.say_goodbye().await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.next(&mut buffer).await? {
                Event::Bytes(0) => return Err(End::Closed),
                Event::Bytes(count) => self.received(&buffer[..count]).await?,
                Event::Told(notice) => self.tell(notice).await?,
                Event::Deadline if self.token_ends.is_some_and(|ends| ends <= clock()) => return Err(End::TokenEnded),
                Event::Deadline => return Err(self.session.expire().into()),
            }
            self.write().await?;
        }
    }

    async fn next(&mut self, buffer: &mut [u8]) -> Result<Event, End> {
        let deadline = self.session.deadline();
        let deadline = self.token_ends.map_or(deadline, |ends| ends.min(deadline));
        let ended = self.attached.as_ref().map(|attached| attached.ended.clone()).unwrap_or_default();
        let notice = async {
            match &mut self.attached {
                Some(attached) => attached.notices.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stopping),
            () = ended.cancelled() => Err(End::Ended),
            () = tokio::time::sleep_until(deadline) => Ok(Event::Deadline),
            notice = notice => notice.map(Event::Told).ok_or(End::Ended),
            read = self.stream.read(buffer) => Ok(Event::Bytes(read?)),
        }
    }

    async fn received(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut cursor = Cursor::new(bytes);
        while let Some(request) = self.session.receive(&mut cursor, clock())? {
            self.take_turn(request).await?;
            // A device that sends much at once still sees its answers one by one.
            self.write().await?;
        }
        Ok(())
    }

    /// Carries out a request when it is its turn, with what goes wrong with it.
    async fn take_turn(&mut self, request: Request) -> Result<(), End> {
        let Some(kind) = requests::kind(&request) else { return self.carry_out(request).await };
        let faults = self.desk.trial.draw(kind);
        let (trial, now) = (self.desk.trial.clone(), self.desk.hub.now());
        if faults.latency_ms > 0 {
            self.unless_ended(tokio::time::sleep(Duration::from_millis(faults.latency_ms))).await?;
        }
        let admitted = match &faults.status {
            Some((status, code)) => {
                let body = wire::numbered_fault(*status, code, self.desk.hub.draw(), now);
                return self.turn_away(request, *status, body);
            }
            None => self.unless_ended(trial.admit(kind, 1, now)).await?,
        };
        // What waited for its turn is no silence of the device.
        self.session.heard(clock());
        if let Err(refusal) = admitted {
            let body = wire::numbered_refusal(&refusal, self.desk.hub.draw(), now);
            return self.turn_away(request, refusal.status(), body);
        }
        self.carry_out(request).await?;
        if faults.drop_answer || faults.truncate_body {
            self.session.cut_output(!faults.drop_answer);
            return Err(End::Fault);
        }
        Ok(())
    }

    /// Answers a request that is not carried out. A message has no answer that could say so: the connection ends.
    fn turn_away(&mut self, request: Request, status: u16, body: Vec<u8>) -> Result<(), End> {
        match request {
            Request::Connect(_) if status == 401 || status == 403 => {
                Err(self.session.refuse(Refused::Unauthorized).into())
            }
            Request::Connect(_) => Err(self.session.refuse(Refused::Unavailable).into()),
            Request::ReadTwin { request } => {
                Ok(self.session.answer_twin(topics::twin_answer(status, &request, None), body)?)
            }
            Request::Report { request, packet, .. } => {
                self.session.acknowledge(packet);
                Ok(self.session.answer_twin(topics::twin_answer(status, &request, None), body)?)
            }
            Request::Telemetry { .. } | Request::MethodAnswer { .. } | Request::Subscribe(_) => {
                Err(End::TurnedAway(status))
            }
        }
    }

    async fn carry_out(&mut self, request: Request) -> Result<(), End> {
        let hub = self.desk.hub.clone();
        let attached = match (&self.attached, request) {
            (_, Request::Connect(connect)) => return self.admit(&connect).await,
            (None, _) => return Err(Close::Protocol("a request before the answer to CONNECT").into()),
            (Some(attached), request) => (attached, request),
        };
        match attached {
            (_, Request::Connect(_)) => {}
            (attached, Request::ReadTwin { request }) => {
                let (topic, body) = requests::read_twin(&hub, &attached.who, &request).await;
                self.desk.trial.charge(Traffic::DeviceTwinRead, body.len(), hub.now());
                self.session.answer_twin(topic, body)?;
            }
            (attached, Request::Report { request, base, body: patch, packet }) => {
                let answer = requests::report(&hub, &attached.who, &request, base.as_deref(), &patch).await;
                self.desk.trial.charge(Traffic::Report, patch.len(), hub.now());
                self.session.acknowledge(packet);
                self.session.answer_twin(answer.0, answer.1)?;
            }
            (attached, Request::MethodAnswer { request, status, body }) => {
                hub.note_activity(attached);
                hub.look(|presence, _, _| presence.answer(&attached.who, &request, (status, body)));
            }
            (attached, Request::Subscribe(outcome)) => {
                if let Some(filters) = self.session.filters() {
                    hub.subscribe(attached, filters).await.map_err(End::Hub)?;
                }
                self.session.subscribed(outcome)?;
            }
            (attached, Request::Telemetry { bytes, packet }) => {
                hub.note_activity(attached);
                hub.count_message();
                self.desk.trial.charge(Traffic::Telemetry, bytes, hub.now());
                self.session.acknowledge(packet);
            }
        }
        Ok(())
    }

    async fn admit(&mut self, connect: &Connect) -> Result<(), End> {
        let admitted = match door::admit(&self.desk.hub, &self.desk.gate, connect).await {
            Ok(admitted) => admitted,
            Err(refused) => {
                if refused == Refused::Certificate {
                    tracing::warn!(
                        client = connect.client_id,
                        "the embedded hub takes no X.509 certificates; register the device with symmetric keys"
                    );
                }
                tracing::debug!(client = connect.client_id, ?refused, "the embedded hub refused a device");
                return Err(self.session.refuse(refused).into());
            }
        };
        let left = admitted.token_ends.saturating_sub(self.desk.hub.now().as_second()).clamp(0, TOKEN_SECONDS_MAX);
        let now = clock();
        self.token_ends = Some(now + Duration::from_secs(left.unsigned_abs()));
        let mut attachment = admitted.attachment;
        self.session.accept(attachment.who.clone(), attachment.session.take(), now);
        self.attached = Some(attachment);
        Ok(())
    }

    /// Tells the device something once it is kept.
    async fn tell(&mut self, notice: Notice) -> Result<(), End> {
        self.desk.hub.kept(notice.change).await.map_err(End::Hub)?;
        let (topic, body) = match notice.told {
            Told::Desired { version, body } => {
                self.desk.trial.charge(Traffic::TwinWrite, body.len(), self.desk.hub.now());
                (topics::desired_change(version), body)
            }
            Told::Method { name, request, payload } => (topics::method_call(&name, &request.to_string()), payload),
        };
        Ok(self.session.deliver(&topic, body)?)
    }

    async fn write(&mut self) -> Result<(), End> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let ending = self.ending();
        let stream = &mut self.stream;
        let write = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        let written = ending.unless(tokio::time::timeout(WRITE_TIME_MAX, write)).await?;
        Ok(written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
    }

    fn ending(&self) -> Ending {
        let ended = self.attached.as_ref().map(|attached| attached.ended.clone()).unwrap_or_default();
        Ending { stop: self.stop.clone(), ended }
    }

    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        self.ending().unless(work).await
    }

    /// Writes what is left, closes, and reads what still comes, so that the last answer is not lost in a reset.
    async fn say_goodbye(mut self) {
        let output = self.session.take_output();
        let goodbye = async {
            self.stream.write_all(&output).await?;
            self.stream.shutdown().await?;
            let mut rest = [0; READ_BYTES];
            while self.stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // Whoever does not wait for it is gone already.
        tokio::time::timeout(GOODBYE_TIME_MAX, goodbye).await.ok();
    }
}

#[expect(clippy::disallowed_methods, reason = "the loop reads the clock for the session")]
fn clock() -> Instant {
    Instant::now()
}
