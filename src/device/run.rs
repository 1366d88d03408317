//! The life of a simulated device.
//!
//! Invariant: it connects again until it is told to stop, with a growing pause; it reports what is not reported yet,
//! and answers every direct method.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use mqtt_protocol_core::mqtt::common::Cursor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use super::credentials::DeviceConnection;
use super::pace::{Pauses, Turns};
use super::session::{Ended, Incoming, Session};
use super::tls::Connector;
use crate::twin::{Object, Value, merge};

/// How long a token is good, in seconds.
const TOKEN_LIFE: i64 = 3600;
/// How long before its end a connection is made anew, in seconds.
const TOKEN_MARGIN: i64 = 120;
/// How long a connection and its handshake may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// How long the hub may take to take what is written.
const WRITE_TIME_MAX: Duration = Duration::from_secs(20);
/// The longest pause before asking again what the hub was too busy for; the half at least.
const BUSY_PAUSE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4096;
/// What every direct method is answered with.
const METHOD_STATUS: u16 = 200;

/// How to simulate a device.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Which device, where, with which key.
    pub connection: DeviceConnection,
    /// Where to connect instead of the connection's host, whose name the certificate must still have.
    pub address: Option<SocketAddr>,
    /// What connects, and whom it trusts.
    pub connector: Connector,
    /// Whose turn it is to connect, where many share a rate.
    pub turns: Option<Turns>,
    /// What to report, unless the twin says so already.
    pub report: Option<Object>,
    /// How long after the first connection to report.
    pub report_after: Duration,
    /// Whether a refusal ends the device even after it was connected.
    pub refusal_ends: bool,
    /// The clock of tokens.
    pub now: fn() -> Timestamp,
    /// Of the pauses' jitter.
    pub seed: u64,
}

/// What happens to the device.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceEvent {
    /// It is connected.
    Connected,
    /// It is not connected any more, or not yet, and tries again after the pause.
    Disconnected {
        /// Why.
        reason: String,
        /// The pause.
        again_in: Duration,
    },
    /// It read its twin.
    Twin {
        /// Desired, with `$version`.
        desired: Object,
        /// Reported, with `$version`.
        reported: Object,
    },
    /// Its desired properties changed: the difference, with `$version`.
    Desired(Object),
    /// The hub kept what it reported.
    Reported,
    /// The hub refused what it asked: status and the hub's words.
    Refused(u16, String),
    /// It answered a direct method.
    Method {
        /// The method's name.
        name: String,
        /// JSON, which was the answer too.
        payload: String,
    },
}

/// Why a device ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The hub does not admit it.
    #[error("the hub does not admit device {0}: wrong key, unknown or disabled device")]
    NotAdmitted(String),
    /// The host cannot stand in a certificate.
    #[error("the host of the connection string is no name a certificate could have")]
    Server,
}

/// Why one connection ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Session(#[from] Ended),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the hub closed the connection")]
    Closed,
    #[error("the token nears its end")]
    TokenEnds,
    #[error("it was told to stop")]
    Stopped,
}

/// Runs a device until `stop` is cancelled, and tells `tell` what happens to it.
///
/// # Errors
/// [`DeviceError`] when it cannot begin, or is not admitted at its first connection (at any, with `refusal_ends`).
pub async fn run_device(
    options: &DeviceOptions,
    mut tell: impl FnMut(DeviceEvent),
    stop: &CancellationToken,
) -> Result<(), DeviceError> {
    let server = ServerName::try_from(options.connection.server().to_owned()).map_err(|_| DeviceError::Server)?;
    let pauses = Pauses::new(fastrand::Rng::with_seed(options.seed));
    let mut life = Life { options, report_at: None, was_connected: false, pauses };
    loop {
        let broken = match stop.run_until_cancelled(connect(options, server.clone())).await {
            None => return Ok(()),
            Some(Ok(stream)) => life.live(stream, &mut tell, stop).await,
            Some(Err(error)) => error.into(),
        };
        match broken {
            Broken::Stopped => return Ok(()),
            Broken::Session(Ended::NotAdmitted) if options.refusal_ends || !life.was_connected => {
                return Err(DeviceError::NotAdmitted(options.connection.client_id()));
            }
            Broken::TokenEnds => continue,
            Broken::Session(_) | Broken::Io(_) | Broken::Closed => {}
        }
        let again_in = life.pauses.next();
        tell(DeviceEvent::Disconnected { reason: broken.to_string(), again_in });
        if stop.run_until_cancelled(tokio::time::sleep(again_in)).await.is_none() {
            return Ok(());
        }
    }
}

async fn connect(
    options: &DeviceOptions,
    server: ServerName<'static>,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    if let Some(turns) = &options.turns {
        tokio::time::sleep_until(turns.next(clock())).await;
    }
    let connect = async {
        let stream = match options.address {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((options.connection.server(), options.connection.port())).await?,
        };
        stream.set_nodelay(true)?;
        options.connector.0.connect(server, stream).await
    };
    timeout(CONNECT_TIME_MAX, connect).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// What outlives a connection.
struct Life<'a> {
    options: &'a DeviceOptions,
    /// When to report; set by the first connection.
    report_at: Option<Instant>,
    was_connected: bool,
    pauses: Pauses,
}

impl Life<'_> {
    /// One connection, from CONNECT to its end.
    async fn live<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        mut stream: S,
        tell: &mut impl FnMut(DeviceEvent),
        stop: &CancellationToken,
    ) -> Broken {
        let connection = &self.options.connection;
        let token = connection.token((self.options.now)().as_second().saturating_add(TOKEN_LIFE));
        let session = Session::new(&connection.client_id(), &connection.user_name(), &token, clock());
        let mut talk = match session {
            Ok(session) => Talk::new(session, self.options.report.clone()),
            Err(ended) => return ended.into(),
        };
        let ends = clock() + Duration::from_secs((TOKEN_LIFE - TOKEN_MARGIN).unsigned_abs());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Err(broken) = write(&mut stream, &mut talk.session).await {
                return broken;
            }
            let ask_at = talk.next_asking(self.report_at);
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Broken::Stopped),
                () = tokio::time::sleep_until(ends) => Err(Broken::TokenEnds),
                () = tokio::time::sleep_until(talk.session.deadline()) => {
                    talk.session.expire(clock()).map_err(Broken::from)
                }
                () = sleep_until(ask_at) => talk.ask().map_err(Broken::from),
                read = stream.read(&mut buffer) => match read {
                    Ok(0) => Err(Broken::Closed),
                    Ok(count) => self.hear(&mut talk, &buffer[..count], tell).map_err(Broken::from),
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(broken) = step {
                if matches!(broken, Broken::Stopped | Broken::TokenEnds) {
                    talk.session.disconnect();
                    // The hub notices all the same when this fails.
                    write(&mut stream, &mut talk.session).await.ok();
                    timeout(WRITE_TIME_MAX, stream.shutdown()).await.ok();
                }
                return broken;
            }
        }
    }

    /// Takes what the hub says.
    fn hear(&mut self, talk: &mut Talk, bytes: &[u8], tell: &mut impl FnMut(DeviceEvent)) -> Result<(), Ended> {
        let mut cursor = Cursor::new(bytes);
        while let Some(incoming) = talk.session.receive(&mut cursor, clock())? {
            if incoming == Incoming::Connected {
                self.was_connected = true;
                self.pauses.begin_anew();
                self.report_at.get_or_insert(clock() + self.options.report_after);
            }
            let busy_until = clock() + self.pauses.part_of(BUSY_PAUSE);
            if let Some(event) = talk.take(incoming, busy_until)? {
                tell(event);
            }
        }
        Ok(())
    }
}

/// One connection's talk with the hub.
struct Talk {
    session: Session,
    /// What is still to be reported.
    wanted: Option<Object>,
    /// What the twin said when it was read.
    reported: Option<Object>,
    /// Whether an answer about the twin is awaited, or will never come.
    asked: bool,
    /// Until when the hub is left alone, since it was too busy.
    busy_until: Option<Instant>,
}

impl Talk {
    fn new(session: Session, wanted: Option<Object>) -> Self {
        Self { session, wanted, reported: None, asked: true, busy_until: None }
    }

    /// When [`Talk::ask`] is due, if at all; `report_at` is when a report may be made.
    fn next_asking(&self, report_at: Option<Instant>) -> Option<Instant> {
        let due = match (&self.reported, &self.wanted) {
            _ if self.asked => None,
            (None, _) => self.busy_until,
            (Some(_), Some(_)) => report_at,
            (Some(_), None) => None,
        };
        due.max(due.and(self.busy_until))
    }

    /// Reads the twin when that is still to be done, else reports what it does not say yet.
    fn ask(&mut self) -> Result<(), Ended> {
        let Some(reported) = &self.reported else {
            self.asked = true;
            return self.session.read_twin();
        };
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let live = Value::Object(reported.clone());
        if merge(live.clone(), wanted) == live {
            self.wanted = None;
            return Ok(());
        }
        self.asked = true;
        self.session.report(wanted)
    }

    /// What `incoming` means to the one who looks on; until `busy_until` a busy hub is left alone.
    fn take(&mut self, incoming: Incoming, busy_until: Instant) -> Result<Option<DeviceEvent>, Ended> {
        Ok(Some(match incoming {
            Incoming::Connected => DeviceEvent::Connected,
            Incoming::Subscribed => {
                self.session.read_twin()?;
                return Ok(None);
            }
            Incoming::Twin { desired, reported } => {
                self.asked = false;
                self.reported = Some(reported.clone());
                DeviceEvent::Twin { desired, reported }
            }
            Incoming::Desired(difference) => DeviceEvent::Desired(difference),
            Incoming::Reported => {
                self.asked = false;
                self.wanted = None;
                DeviceEvent::Reported
            }
            Incoming::Refused(status, words) => {
                if is_busy(status) {
                    self.asked = false;
                    self.busy_until = Some(busy_until);
                }
                DeviceEvent::Refused(status, words)
            }
            Incoming::Method { name, request, payload } => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                self.session.answer(&request, METHOD_STATUS, payload)?;
                DeviceEvent::Method { name, payload: text }
            }
        }))
    }
}

/// Whether the same may well succeed later: throttled, or a fault of the hub's own.
fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 500..=599)
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, session: &mut Session) -> Result<(), Broken> {
    let output = session.take_output();
    if output.is_empty() {
        return Ok(());
    }
    let write = async {
        stream.write_all(&output).await?;
        stream.flush().await
    };
    Ok(timeout(WRITE_TIME_MAX, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
}

/// Sleeps for ever without a time.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "the loop reads the clock for the session")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().cloned().unwrap()
    }

    fn talk(now: Instant) -> Talk {
        let mut session = Session::new("d", "h/d/", &"token".to_owned().into(), now).unwrap();
        session.take_output();
        Talk::new(session, Some(object(r#"{"a":1}"#)))
    }

    fn sends(talk: &mut Talk, text: &str) -> bool {
        let output = talk.session.take_output();
        String::from_utf8_lossy(&output).contains(text)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_busy_hub_refuses_is_asked_again_later_and_what_is_wrong_is_not() {
        let now = clock();
        let later = now + Duration::from_secs(7);
        for (status, again) in [(429, true), (500, true), (503, true), (400, false), (413, false)] {
            let mut talk = talk(now);
            let refused = || Incoming::Refused(status, "words".to_owned());
            talk.take(Incoming::Subscribed, later).unwrap();
            assert!(sends(&mut talk, "$iothub/twin/GET/") && talk.next_asking(Some(now)).is_none());
            talk.take(refused(), later).unwrap();
            assert_eq!(talk.next_asking(Some(now)), again.then_some(later), "{status}: the read");
            if !again {
                continue;
            }
            talk.ask().unwrap();
            assert!(sends(&mut talk, "$iothub/twin/GET/") && talk.next_asking(Some(now)).is_none());
            let twin = Incoming::Twin { desired: Object::new(), reported: Object::new() };
            talk.take(twin, later).unwrap();
            talk.ask().unwrap();
            assert!(sends(&mut talk, "PATCH/properties/reported"), "{status}");
            let latest = later + Duration::from_secs(7);
            talk.take(refused(), latest).unwrap();
            assert_eq!(talk.next_asking(Some(now)), Some(latest), "{status}: the report");
            talk.ask().unwrap();
            assert!(sends(&mut talk, "PATCH/properties/reported"), "{status}: once more");
            talk.take(Incoming::Reported, latest).unwrap();
            assert_eq!(talk.next_asking(Some(now)), None, "{status}: it is kept");
        }
    }
}
