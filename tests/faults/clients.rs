//! Slow and hostile clients on each port: who behaves is served all the while, and nothing stays behind.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::cases;
use crate::fleet::Fleet;
use crate::health::{Footprint, assert_few_complaints};
use crate::support::{Process, World};

const TWINS: usize = 4;
/// Hostile connections at one time, more than the daemon's own port takes.
const HOSTILE: usize = 150;
/// Honest questions asked meanwhile, and the longest that one may take.
const QUESTIONS: usize = 5;
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Between two bytes of the slow ones.
const TRICKLE: Duration = Duration::from_millis(200);
/// Far more than any head.
const HUGE_HEAD_BYTES: usize = 4 * 1024 * 1024;
/// A `ClientHello` begins so; the rest never comes.
const HALF_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01];

/// Where they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Daemon,
    HubHttps,
    HubMqtts,
}

/// What they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hostile {
    /// A request, one byte at a time.
    Slowloris,
    /// A head without end.
    HugeHead,
    /// Nothing at all.
    Silent,
    /// The first bytes of a handshake.
    HalfHandshake,
    /// Bytes that mean nothing.
    Garbage,
    /// A connection that is reset at once, again and again.
    Reset,
    /// A question, and no reading of its answer.
    NeverReads,
}

cases! {survives:
    slowloris_on_the_daemons_port => (Port::Daemon, Hostile::Slowloris),
    a_huge_head_on_the_daemons_port => (Port::Daemon, Hostile::HugeHead),
    silence_on_the_daemons_port => (Port::Daemon, Hostile::Silent),
    garbage_on_the_daemons_port => (Port::Daemon, Hostile::Garbage),
    resets_on_the_daemons_port => (Port::Daemon, Hostile::Reset),
    readers_that_never_read_on_the_daemons_port => (Port::Daemon, Hostile::NeverReads),
    slowloris_on_the_hubs_https => (Port::HubHttps, Hostile::Slowloris),
    a_huge_head_on_the_hubs_https => (Port::HubHttps, Hostile::HugeHead),
    silence_on_the_hubs_https => (Port::HubHttps, Hostile::Silent),
    half_handshakes_on_the_hubs_https => (Port::HubHttps, Hostile::HalfHandshake),
    garbage_on_the_hubs_https => (Port::HubHttps, Hostile::Garbage),
    resets_on_the_hubs_https => (Port::HubHttps, Hostile::Reset),
    slowloris_on_the_hubs_mqtt => (Port::HubMqtts, Hostile::Slowloris),
    a_huge_packet_on_the_hubs_mqtt => (Port::HubMqtts, Hostile::HugeHead),
    silence_on_the_hubs_mqtt => (Port::HubMqtts, Hostile::Silent),
    half_handshakes_on_the_hubs_mqtt => (Port::HubMqtts, Hostile::HalfHandshake),
    garbage_on_the_hubs_mqtt => (Port::HubMqtts, Hostile::Garbage),
    resets_on_the_hubs_mqtt => (Port::HubMqtts, Hostile::Reset),
}

async fn survives((port, hostile): (Port, Hostile)) {
    let world = World::new();
    let mut fleet = Fleet::new(&world, TWINS);
    let hub_process = world.hub("state", "127.0.0.1:0").await;
    let hub = world.client("state");
    let mut daemon = world.run_on("state/hub.json", &["--sweep", "1s"]).await;
    fleet.assert_accounted(&daemon, &hub).await;
    let json = world.hub_json("state");
    let address = match port {
        Port::Daemon => {
            daemon.announced("metrics ").trim_start_matches("http://").trim_end_matches("/metrics").to_owned()
        }
        Port::HubHttps => json["https"].as_str().unwrap().to_owned(),
        Port::HubMqtts => json["mqtts"].as_str().unwrap().to_owned(),
    };
    let tls = connector(&fs::read(json["caFile"].as_str().unwrap()).unwrap());
    let tls = (port != Port::Daemon).then_some(tls);
    let asked: &Process = if port == Port::Daemon { &daemon } else { &hub_process };
    honest(port, &address, tls.as_ref(), &daemon).await;
    let (before, said) = (Footprint::of(asked), asked.stderr().lines().count());

    let mut crowd = JoinSet::new();
    for number in 0..HOSTILE {
        let (address, tls) = (address.clone(), tls.clone());
        // Whoever is thrown out has had its say.
        crowd.spawn(async move { annoy(&address, tls, hostile, port, number).await.ok() });
    }
    for _ in 0..QUESTIONS {
        let answered = tokio::time::timeout(ANSWERED_WITHIN, honest(port, &address, tls.as_ref(), &daemon)).await;
        assert!(answered.is_ok(), "nobody else is served: {hostile:?} on {port:?}");
    }
    fleet.rise(&world);
    fleet.at_the_hub(&daemon, &hub).await;
    crowd.shutdown().await;
    fleet.assert_accounted(&daemon, &hub).await;

    before.assert_back(asked, TWINS).await;
    let lines = asked.stderr().lines().count() - said;
    assert!(lines <= QUESTIONS + 8 * TWINS, "{lines} lines of log: {}", asked.stderr());
    assert_few_complaints(&daemon, 0, 0);
    assert_eq!(daemon.interrupt().await, 0, "{}", daemon.stderr());
}

fn connector(ca_pem: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A question as any client asks it, on a connection of its own.
async fn honest(port: Port, address: &str, tls: Option<&TlsConnector>, daemon: &Process) {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut answer = [0; 16];
    match (port, tls) {
        (Port::Daemon, _) => {
            drop(stream);
            // A newcomer amid a crowd of newcomers may lose its place to the next; it asks again, as probes do.
            let answer = loop {
                if let Ok(answer) = daemon.try_get("/livez").await {
                    break answer;
                }
            };
            assert_eq!(answer.0, 200);
        }
        (Port::HubHttps, Some(tls)) => {
            let mut stream = tls.connect(name, stream).await.unwrap();
            stream.write_all(b"GET /twins/d0000?api-version=2021-04-12 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
        }
        (Port::HubMqtts, Some(tls)) => {
            let mut stream = tls.connect(name, stream).await.unwrap();
            stream.write_all(&connect_packet()).await.unwrap();
            stream.read_exact(&mut answer[..4]).await.unwrap();
            assert!(answer.starts_with(&[0x20, 2, 0]) && answer[3] > 0, "no refusal: {answer:?}");
        }
        (Port::HubHttps | Port::HubMqtts, None) => unreachable!("the hub speaks TLS"),
    }
}

/// CONNECT of a device that nobody knows: client id, user name and password of one letter each.
fn connect_packet() -> Vec<u8> {
    let fields: &[u8] = b"\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01d\x00\x01u\x00\x01p";
    [&[0x10, u8::try_from(fields.len()).unwrap()], fields].concat()
}

async fn annoy(
    address: &str,
    tls: Option<TlsConnector>,
    hostile: Hostile,
    port: Port,
    number: usize,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    match hostile {
        Hostile::Silent => std::future::pending().await,
        Hostile::HalfHandshake => {
            stream.write_all(HALF_HELLO).await?;
            std::future::pending().await
        }
        Hostile::Reset => loop {
            stream.set_zero_linger()?;
            drop(stream);
            tokio::time::sleep(TRICKLE).await;
            stream = TcpStream::connect(address).await?;
        },
        Hostile::Garbage => {
            let mut rng = fastrand::Rng::with_seed(number as u64);
            let bytes: Vec<u8> = (0..4096).map(|_| rng.u8(..)).collect();
            stream.write_all(&bytes).await?;
            std::future::pending().await
        }
        Hostile::Slowloris | Hostile::HugeHead | Hostile::NeverReads => match tls {
            None => speak(&mut stream, hostile, port).await,
            Some(tls) => {
                speak(&mut tls.connect(ServerName::try_from("localhost").unwrap(), stream).await?, hostile, port).await
            }
        },
    }
}

/// What is said once the connection stands.
async fn speak<S>(stream: &mut S, hostile: Hostile, port: Port) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let begin: &[u8] =
        if port == Port::HubMqtts { &[0x10, 0xff, 0xff, 0xff, 0x7f] } else { b"GET /metrics HTTP/1.1\r\nX-Filler: " };
    match hostile {
        Hostile::Slowloris => {
            let bytes = begin.iter().copied().chain(std::iter::repeat(b'x'));
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(TRICKLE).await;
            }
            Ok(())
        }
        Hostile::NeverReads => {
            for _ in 0..64 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await?;
            }
            std::future::pending().await
        }
        Hostile::HugeHead | Hostile::Silent | Hostile::HalfHandshake | Hostile::Garbage | Hostile::Reset => {
            stream.write_all(begin).await?;
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..HUGE_HEAD_BYTES / piece.len() {
                stream.write_all(&piece).await?;
            }
            std::future::pending().await
        }
    }
}
