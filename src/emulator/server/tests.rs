//! Real hubs: real files, real TLS, on a free port of this machine.

use super::super::auth::sign;
use super::super::identity::{IdentitySpec, SharedKey};
use super::super::if_match::IfMatch;
use super::super::trial::TrialOptions;
use super::*;
use crate::twin::{DeviceId, Value};

fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a TLS client checks the certificate against the real clock")]
    Timestamp::now()
}

fn options(folder: &tempfile::TempDir) -> HubOptions {
    HubOptions {
        https: "127.0.0.1:0".parse().unwrap(),
        mqtts: None,
        host: "localhost".to_owned(),
        state_dir: folder.path().join("state"),
        ephemeral: false,
        allow_remote: false,
        now,
        service: ServiceOptions::default(),
    }
}

fn token(connection_string: &str) -> String {
    let field = |name: &str| {
        let fields = connection_string.split(';').map(|field| field.split_once('=').unwrap());
        fields.into_iter().find(|(key, _)| *key == name).unwrap().1.to_owned()
    };
    let resource = field("HostName").replace(':', "%3A");
    let key = SharedKey::new(&field("SharedAccessKey")).unwrap();
    sign(&key, &resource, now().as_second() + 60, Some(&field("SharedAccessKeyName")))
}

fn client(info: &ConnectionInfo) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&info.ca_file).unwrap()).unwrap();
    reqwest::Client::builder().tls_certs_only([authority]).build().unwrap()
}

async fn get_twin(info: &ConnectionInfo, address: &str) -> (u16, String) {
    let url = format!("https://{address}:{}/twins/d1?api-version=2021-04-12", info.https.port());
    let request = client(info).get(url).header("Authorization", token(info.service_connection_string.expose_secret()));
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn create(hub: &EmbeddedHub) {
    let id = DeviceId::new("d1").unwrap();
    let created = hub
        .handle()
        .write(|registry, random, now| {
            registry.put_identity(&id, IdentitySpec::default(), &IfMatch::Absent, random, now)
        })
        .await;
    created.unwrap();
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_is_served_and_a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let hub = EmbeddedHub::start(options(&folder)).await.unwrap();
    create(&hub).await;
    let info = hub.connection_info().clone();
    let written = std::fs::read_to_string(hub.connection_file()).unwrap();
    let json = Value::parse_json(&written).unwrap();
    assert_eq!(json.get(["hostName"]), Some(&Value::from(format!("localhost:{}", info.https.port()))));
    assert_eq!(json.get(["mqtts"]), Some(&Value::Null));
    assert_eq!(json.get(["ownerConnectionString"]), Some(&Value::from(info.owner_connection_string.expose_secret())));
    let mut first = String::new();
    for address in ["localhost", "127.0.0.1"] {
        let (status, body) = get_twin(&info, address).await;
        assert_eq!(status, 200, "{address}: {body}");
        first = body;
    }
    let file = hub.connection_file();
    hub.shutdown().await;
    assert!(!file.exists(), "nothing is served any more");

    let hub = EmbeddedHub::start(options(&folder)).await.unwrap();
    let again = hub.connection_info().clone();
    let key =
        |info: &ConnectionInfo| info.service_connection_string.expose_secret().split_once(';').unwrap().1.to_owned();
    assert_eq!(key(&again), key(&info), "the keys are the same");
    assert_eq!(get_twin(&again, "localhost").await, (200, first));
    hub.shutdown().await;
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_a_silent_client_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let hub = EmbeddedHub::start(options(&folder)).await.unwrap();
    create(&hub).await;
    let info = hub.connection_info();
    // One says nothing, one says no TLS; both stay open.
    let _silent = TcpStream::connect(hub.address()).await.unwrap();
    let noisy = TcpStream::connect(hub.address()).await.unwrap();
    noisy.writable().await.unwrap();
    noisy.try_write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&info.ca_file).unwrap()).unwrap();
    let url = format!("https://localhost:{}/twins/d1?api-version=2021-04-12", info.https.port());
    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        let builder = reqwest::Client::builder().tls_certs_only([authority.clone()]);
        let client = builder.tls_version_min(version).tls_version_max(version).build().unwrap();
        let request = client.get(&url).header("Authorization", token(info.service_connection_string.expose_secret()));
        let response = request.send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_11), "{version:?}");
    }
    let stranger = reqwest::Client::builder().build().unwrap();
    assert!(stranger.get(&url).send().await.is_err(), "who does not trust the authority is not served");
    hub.shutdown().await;
}

#[tokio::test]
async fn a_copy_of_a_running_hub_s_store_holds_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let hub = EmbeddedHub::start(options(&folder)).await.unwrap();
    create(&hub).await;
    let twin = hub.handle().device(&DeviceId::new("d1").unwrap()).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    drop(StateDir::open(&options(&copy).state_dir).unwrap());
    for file in ["store.redb", "store.journal.0", "store.journal.1"] {
        std::fs::copy(options(&folder).state_dir.join(file), options(&copy).state_dir.join(file)).unwrap();
    }
    let second = EmbeddedHub::start(options(&copy)).await.unwrap();
    let found = second.handle().device(&DeviceId::new("d1").unwrap()).await.unwrap();
    assert_eq!((&found.identity, &found.twin), (&twin.identity, &twin.twin));
    second.shutdown().await;
    hub.shutdown().await;
}

#[tokio::test]
async fn an_ephemeral_hub_keeps_nothing_and_leaves_a_store_alone() {
    let folder = tempfile::tempdir().unwrap();
    let hub = EmbeddedHub::start(options(&folder)).await.unwrap();
    create(&hub).await;
    hub.shutdown().await;
    let ephemeral = HubOptions { ephemeral: true, ..options(&folder) };
    let hub = EmbeddedHub::start(ephemeral).await.unwrap();
    assert_eq!(get_twin(hub.connection_info(), "localhost").await.0, 404);
    create(&hub).await;
    hub.shutdown().await;
    let hub = EmbeddedHub::start(options(&folder)).await.unwrap();
    assert_eq!(get_twin(hub.connection_info(), "localhost").await.0, 200);
    hub.shutdown().await;
}

#[tokio::test]
async fn a_hub_that_cannot_start_says_why_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let hub = EmbeddedHub::start(options(&folder)).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let damaged = tempfile::tempdir().unwrap();
    drop(StateDir::open(&options(&damaged).state_dir).unwrap());
    std::fs::write(options(&damaged).state_dir.join("store.redb"), "nonsense").unwrap();
    let unusable = tempfile::tempdir().unwrap();
    let state = StateDir::open(&options(&unusable).state_dir).unwrap();
    let kept = Certificates::obtain(None, "localhost", now()).unwrap().to_stored();
    let kept = String::from_utf8(kept).unwrap().replace("BEGIN PRIVATE KEY", "BEGIN NO KEY");
    state.replace(TLS_FILE, kept.as_bytes()).unwrap();
    drop(state);
    let remote = "0.0.0.0:0".parse().unwrap();
    for (options, words) in [
        (options(&folder), "another hub is running on the state folder"),
        (HubOptions { https: hub.address(), ..options(&other) }, "choose another address with --hub-https"),
        (HubOptions { mqtts: Some(hub.address()), ..options(&other) }, "choose another address with --hub-mqtts"),
        (HubOptions { https: remote, ..options(&other) }, "add --hub-allow-remote"),
        (HubOptions { mqtts: Some(remote), ..options(&other) }, "add --hub-allow-remote"),
        (HubOptions { host: "a;b".to_owned(), ..options(&other) }, "--hub-host takes"),
        (options(&damaged), "store.redb is damaged"),
        (options(&unusable), "tls.json to have new ones made"),
    ] {
        let message = EmbeddedHub::start(options).await.unwrap_err().to_string();
        assert!(message.contains(words) && !message.contains('\n'), "{message}");
    }
    assert!(hub.connection_file().exists(), "the running hub's file is left alone");
    hub.shutdown().await;
}

#[test]
fn the_port_is_left_out_when_it_is_the_usual_one() {
    let policies = Policies::generate(&mut |bytes| bytes.fill(1));
    let info =
        |port: u16| connection_info("hub", (SocketAddr::from(([127, 0, 0, 1], port)), None), PathBuf::new(), &policies);
    assert!(
        info(443).service_connection_string.expose_secret().starts_with("HostName=hub;SharedAccessKeyName=service;")
    );
    assert!(
        info(8443)
            .owner_connection_string
            .expose_secret()
            .starts_with("HostName=hub:8443;SharedAccessKeyName=iothubowner;")
    );
    assert_eq!(info(8443).device_connection_string_template, "HostName=hub;DeviceId={device_id};SharedAccessKey={key}");
    assert!(!format!("{:?}", info(8443)).contains(policies.key(PolicyName::Service).expose()));
}

/// The certificate of a new folder, and clients that trust it.
async fn tls_of(folder: &tempfile::TempDir) -> (RustlsConfig, tokio_rustls::TlsConnector) {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let state = StateDir::open(&options(folder).state_dir).unwrap();
    let config = tls(&state, &options(folder)).await.unwrap();
    let authority = std::fs::read(state.path(AUTHORITY_FILE)).unwrap();
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let client = tokio_rustls::rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (config, Arc::new(client).into())
}

async fn connect(tls: &tokio_rustls::TlsConnector, address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    tls.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

/// What a peer sends until it closes.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A connection may also end by a reset, which is an end too.
    tokio::io::AsyncReadExt::read_to_end(stream, &mut bytes).await.ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hello() -> axum::Router {
    axum::Router::new().fallback(|| std::future::ready("hello"))
}

#[tokio::test]
async fn a_head_that_is_too_large_too_long_or_too_slow_ends_its_connection() {
    use tokio::io::AsyncWriteExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (config, client) = tls_of(&folder).await;
    let (listener, address) = bind("127.0.0.1:0".parse().unwrap(), HTTPS_FLAG).unwrap();
    let bounds = Bounds { head_time_max: Duration::from_millis(300), ..Bounds::default() };
    let (handle, _serving) = serve(listener, config, hello(), bounds).unwrap();
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    for (what, head, expected) in [
        ("good", format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{}\r\n", fields(90)), "HTTP/1.1 200"),
        ("too many fields", format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", fields(101)), "HTTP/1.1 431"),
        ("a field too large", format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(HEAD_BYTES_MAX)), "HTTP/1.1 431"),
        ("an address too large", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_BYTES_MAX)), "HTTP/1.1 4"),
        ("slow", "GET / HTTP/1.1\r\nhost: h".to_owned(), ""),
        ("silent", String::new(), ""),
        ("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let mut stream = connect(&client, address).await;
        // Who is refused early may not be read to the end.
        stream.write_all(head.as_bytes()).await.ok();
        let answer = tokio::time::timeout(Duration::from_secs(60), rest(&mut stream)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: the connection stays open"));
        assert!(answer.starts_with(expected) && answer.is_empty() == expected.is_empty(), "{what}: {answer:.80}");
    }
    handle.shutdown();
}

#[tokio::test]
async fn each_port_has_a_bound_of_connections_and_of_the_time_for_a_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let (config, client) = tls_of(&folder).await;
    let (listener, https) = bind("127.0.0.1:0".parse().unwrap(), HTTPS_FLAG).unwrap();
    let bounds = Bounds { connections_max: 2, handshake_time_max: Duration::from_millis(300), ..Bounds::default() };
    let (handle, _serving) = serve(listener, config.clone(), hello(), bounds).unwrap();
    let (listener, mqtts) = bind("127.0.0.1:0".parse().unwrap(), MQTTS_FLAG).unwrap();
    let server = MqttServer::new(listener).unwrap().with_connections_max(2);
    let hub = HubHandle::ephemeral(Box::new(|bytes| bytes.fill(1)), now);
    let gate = Arc::new(Gate::new(Policies::generate(&mut |bytes| bytes.fill(1)), "localhost", 443));
    let desk = Desk { hub, gate, trial: Trial::new(&TrialOptions::default()) };
    let stop = CancellationToken::new();
    let mut devices = JoinSet::new();
    devices.spawn(server.serve(ServerConfig::clone(&config.get_inner()), desk, stop.clone()));
    for address in [https, mqtts] {
        let first = connect(&client, address).await;
        let second = connect(&client, address).await;
        let mut third = TcpStream::connect(address).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), rest(&mut third)).await;
        assert_eq!(ended.expect("one too many is closed at once"), "", "{address}");
        drop((first, second));
    }
    // Both are gone once the server has seen it; then there is room again.
    let mut silent = loop {
        let mut stream = TcpStream::connect(https).await.unwrap();
        let mut byte = [0];
        let closed =
            tokio::time::timeout(Duration::from_millis(100), tokio::io::AsyncReadExt::read(&mut stream, &mut byte));
        if closed.await.is_err() {
            break stream;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), rest(&mut silent)).await;
    assert_eq!(ended.expect("who says no hello is let go"), "");
    stop.cancel();
    handle.shutdown();
    while devices.join_next().await.is_some() {}
}
