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
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use super::credentials::DeviceConnection;
use super::session::{Ended, Incoming, Session};
use super::tls::{self, Trust, TrustError};
use crate::twin::{Object, Value, merge};

/// How long a token is good, in seconds.
const TOKEN_LIFE: i64 = 3600;
/// How long before its end a connection is made anew, in seconds.
const TOKEN_MARGIN: i64 = 120;
/// How long a connection and its handshake may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// How long the hub may take to take what is written.
const WRITE_TIME_MAX: Duration = Duration::from_secs(20);
/// The first pause before connecting again, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
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
    /// Whom to trust.
    pub trust: Trust,
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
    /// Nobody can be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
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
    let connector = tls::connector(&options.trust)?;
    let server = ServerName::try_from(options.connection.server().to_owned()).map_err(|_| DeviceError::Server)?;
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut life = Life { options, report_at: None, was_connected: false };
    let mut pause = PAUSE_FIRST;
    loop {
        let connect = connect(options, &connector, server.clone());
        let broken = match stop.run_until_cancelled(connect).await {
            None => return Ok(()),
            Some(Ok(stream)) => life.live(stream, &mut tell, stop, &mut pause).await,
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
        // Half to all of it, so that many devices do not come back at once.
        let again_in = pause.mul_f64(0.5 + random.f64() / 2.0);
        tell(DeviceEvent::Disconnected { reason: broken.to_string(), again_in });
        if stop.run_until_cancelled(tokio::time::sleep(again_in)).await.is_none() {
            return Ok(());
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(
    options: &DeviceOptions,
    connector: &TlsConnector,
    server: ServerName<'static>,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let connect = async {
        let stream = match options.address {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((options.connection.server(), options.connection.port())).await?,
        };
        stream.set_nodelay(true)?;
        connector.connect(server, stream).await
    };
    timeout(CONNECT_TIME_MAX, connect).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// What outlives a connection.
struct Life<'a> {
    options: &'a DeviceOptions,
    /// When to report; set by the first connection.
    report_at: Option<Instant>,
    was_connected: bool,
}

impl Life<'_> {
    /// One connection, from CONNECT to its end.
    async fn live<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        mut stream: S,
        tell: &mut impl FnMut(DeviceEvent),
        stop: &CancellationToken,
        pause: &mut Duration,
    ) -> Broken {
        let connection = &self.options.connection;
        let token = connection.token((self.options.now)().as_second().saturating_add(TOKEN_LIFE));
        let session = Session::new(&connection.client_id(), &connection.user_name(), &token, clock());
        let mut talk = match session {
            Ok(session) => Talk { session, wanted: self.options.report.clone(), reported: None },
            Err(ended) => return ended.into(),
        };
        let ends = clock() + Duration::from_secs((TOKEN_LIFE - TOKEN_MARGIN).unsigned_abs());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Err(broken) = write(&mut stream, &mut talk.session).await {
                return broken;
            }
            let report_at = self.report_at.filter(|_| talk.is_report_due());
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Broken::Stopped),
                () = tokio::time::sleep_until(ends) => Err(Broken::TokenEnds),
                () = tokio::time::sleep_until(talk.session.deadline()) => {
                    talk.session.expire(clock()).map_err(Broken::from)
                }
                () = sleep_until(report_at) => talk.report().map_err(Broken::from),
                read = stream.read(&mut buffer) => match read {
                    Ok(0) => Err(Broken::Closed),
                    Ok(count) => talk.hear(&buffer[..count], &mut |event| {
                        if event == DeviceEvent::Connected {
                            self.was_connected = true;
                            *pause = PAUSE_FIRST;
                            let at = clock() + self.options.report_after;
                            self.report_at.get_or_insert(at);
                        }
                        tell(event);
                    }).map_err(Broken::from),
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
}

/// One connection's talk with the hub.
struct Talk {
    session: Session,
    /// What is still to be reported.
    wanted: Option<Object>,
    /// What the twin said when it was read.
    reported: Option<Object>,
}

impl Talk {
    fn is_report_due(&self) -> bool {
        self.wanted.is_some() && self.reported.is_some()
    }

    /// Reports what the twin does not say yet.
    fn report(&mut self) -> Result<(), Ended> {
        let (Some(wanted), Some(reported)) = (self.wanted.take(), &self.reported) else { return Ok(()) };
        let live = Value::Object(reported.clone());
        if merge(live.clone(), &wanted) == live { Ok(()) } else { self.session.report(&wanted) }
    }

    fn hear(&mut self, bytes: &[u8], tell: &mut impl FnMut(DeviceEvent)) -> Result<(), Ended> {
        let mut cursor = Cursor::new(bytes);
        while let Some(incoming) = self.session.receive(&mut cursor, clock())? {
            match incoming {
                Incoming::Connected => tell(DeviceEvent::Connected),
                Incoming::Subscribed => self.session.read_twin()?,
                Incoming::Twin { desired, reported } => {
                    self.reported = Some(reported.clone());
                    tell(DeviceEvent::Twin { desired, reported });
                }
                Incoming::Desired(difference) => tell(DeviceEvent::Desired(difference)),
                Incoming::Reported => tell(DeviceEvent::Reported),
                Incoming::Refused(status, words) => tell(DeviceEvent::Refused(status, words)),
                Incoming::Method { name, request, payload } => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    self.session.answer(&request, METHOD_STATUS, payload)?;
                    tell(DeviceEvent::Method { name, payload: text });
                }
            }
        }
        Ok(())
    }
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
