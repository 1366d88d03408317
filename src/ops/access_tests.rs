//! Who is let in, over what, and which files are refused.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::access::{Access, AccessFiles, guard};
use super::serve;

/// A folder with `web.yml`, a certificate of its own authority for localhost, and its key.
struct Folder {
    root: tempfile::TempDir,
    certificate: String,
    key: String,
}

impl Folder {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = Self {
            root: tempfile::tempdir().unwrap(),
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        };
        folder.write("cert.pem", &folder.certificate);
        folder.write("key.pem", &folder.key);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Loads `web.yml` with this text.
    fn load(&self, text: &str) -> Result<Access, String> {
        self.write("web.yml", text);
        let files = AccessFiles { web_config: Some(self.path("web.yml")), token: None };
        Access::load(files).map_err(|error| error.to_string().replace(&self.root.path().display().to_string(), "DIR"))
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n";

fn user(name: &str, password: &str) -> String {
    format!("  {name}: '{}'\n", bcrypt::hash(password, 4).unwrap())
}

#[test]
fn what_is_not_implemented_or_wrong_is_refused_by_name() {
    let folder = Folder::new();
    let tls = |more: &str| format!("{TLS}  {more}\n");
    for (text, wanted) in [
        ("rate_limit: {interval: 1s}\n".to_owned(), "unknown field `rate_limit`"),
        ("http_server_config: {http2: false}\n".to_owned(), "unknown field `http_server_config`"),
        (tls("cipher_suites: [A]"), "unknown field `cipher_suites`"),
        (tls("min_version: TLS11"), "min_version: TLS12 or TLS13 is taken, not \"TLS11\""),
        (tls("client_auth_type: RequestClientCert"), "client_auth_type: \"RequestClientCert\" is not taken"),
        (tls("client_auth_type: RequireAndVerifyClientCert"), "client_auth_type needs client_ca_file"),
        (tls("client_ca_file: cert.pem"), "client_ca_file means nothing without client_auth_type"),
        ("tls_server_config: {cert_file: none.pem, key_file: key.pem}\n".to_owned(), "cannot read DIR/none.pem"),
        (
            "tls_server_config: {cert_file: key.pem, key_file: key.pem}\n".to_owned(),
            "cert_file: it holds no certificate",
        ),
        (
            "tls_server_config: {cert_file: cert.pem, key_file: cert.pem}\n".to_owned(),
            "key_file: it holds no private key",
        ),
        ("tls_server_config: {cert_file: cert.pem}\n".to_owned(), "it is not of the format"),
        ("basic_auth_users: {a: secret}\n".to_owned(), "basic_auth_users: a: it is no bcrypt hash"),
        ("basic_auth_users: secret\n".to_owned(), "it is not of the format"),
        ("basic_auth_users: {a: 1}\n".to_owned(), "users and their hashes are texts"),
        (format!("basic_auth_users:\n{}{}", user("a", "x"), user("a", "y")), "it is not of the format"),
        (
            "basic_auth_users: {a: $2y$17$abcdefghijklmnopqrstuuJoNiM1XhSpHtf4b7gfHBfjFBxqDcUEi}\n".to_owned(),
            "a cost of 4 to 16 is taken, this hash has 17",
        ),
    ] {
        let found = folder.load(&text).unwrap_err();
        assert!(found.contains(wanted) && !found.contains("secret"), "{text}\n{found}");
    }
    for text in [String::new(), "{}\n".to_owned(), tls("min_version: TLS13"), tls("client_auth_type: NoClientCert")] {
        folder.load(&text).unwrap();
    }
    let token = AccessFiles { web_config: None, token: Some(folder.path("empty")) };
    folder.write("empty", " \n");
    assert!(Access::load(token).unwrap_err().to_string().ends_with("it holds no token"));
}

/// The status of `/metrics` with this header.
async fn status(access: &Access, header: Option<&str>) -> u16 {
    let layer = axum::middleware::from_fn_with_state(access.clone(), guard);
    let router = Router::new().route("/metrics", get("text\n")).route_layer(layer);
    let mut request = Request::builder().uri("/metrics");
    if let Some(header) = header {
        request = request.header("authorization", header);
    }
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
    status
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn a_user_with_the_password_or_a_client_with_the_token_is_let_in() {
    let folder = Folder::new();
    let access = folder.load(&format!("basic_auth_users:\n{}", user("prometheus", "pass:word"))).unwrap();
    for _ in 0..2 {
        assert_eq!(status(&access, Some(&basic("prometheus", "pass:word"))).await, 200);
        for bad in [
            None,
            Some(basic("prometheus", "pass")),
            Some(basic("nobody", "pass:word")),
            Some(basic("nobody", "no password of anybody")),
            Some("Basic !".to_owned()),
            Some("Bearer pass:word".to_owned()),
            Some("x".to_owned()),
        ] {
            assert_eq!(status(&access, bad.as_deref()).await, 401, "{bad:?}");
        }
    }
    folder.write("token", "t0ken\n");
    let files = AccessFiles { web_config: None, token: Some(folder.path("token")) };
    let access = Access::load(files).unwrap();
    assert_eq!(status(&access, Some("Bearer t0ken")).await, 200);
    for bad in [None, Some("Bearer t0ke"), Some("Bearer "), Some("Basic dDBrZW46")] {
        assert_eq!(status(&access, bad).await, 401, "{bad:?}");
    }
    assert_eq!(status(&Access::default(), None).await, 200);
}

#[tokio::test]
async fn users_are_read_again_and_a_broken_file_leaves_them_as_they_were() {
    let folder = Folder::new();
    let access = folder.load(&format!("basic_auth_users:\n{}", user("a", "one"))).unwrap();
    assert_eq!(access.refresh(), Ok(false));
    assert_eq!(status(&access, Some(&basic("a", "one"))).await, 200);
    folder.write("web.yml", "basic_auth_users: [");
    assert!(access.refresh().is_err());
    assert_eq!(status(&access, Some(&basic("a", "one"))).await, 200);
    folder.write("web.yml", &format!("basic_auth_users:\n{}", user("a", "two")));
    assert_eq!(access.refresh(), Ok(true));
    assert_eq!(status(&access, Some(&basic("a", "one"))).await, 401, "what was remembered is forgotten");
    assert_eq!(status(&access, Some(&basic("a", "two"))).await, 200);
}

/// The first bytes answered over TLS to a client that trusts `authority`, perhaps with a certificate of its own.
async fn fetch(address: std::net::SocketAddr, authority: &str, own: Option<(&str, &str)>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut head = [0; 15];
    stream.read_exact(&mut head).await?;
    Ok(String::from_utf8(head.to_vec()).unwrap())
}

async fn with_server<T>(access: Access, client: impl AsyncFnOnce(std::net::SocketAddr) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let router = Router::new().route("/livez", get("ok\n"));
    let ask = async {
        // A client that never begins its handshake keeps nobody waiting.
        let _silent = TcpStream::connect(address).await.unwrap();
        let answer = client(address).await;
        cancel.cancel();
        answer
    };
    tokio::join!(serve(listener, router, access, cancel.clone()), ask).1
}

#[tokio::test]
async fn connections_are_encrypted_and_a_new_certificate_is_used_without_a_restart() {
    let folder = Folder::new();
    let access = folder.load(TLS).unwrap();
    let before = folder.certificate.clone();
    let server = access.clone();
    with_server(server, async |address| {
        assert_eq!(fetch(address, &before, None).await.unwrap(), "HTTP/1.1 200 OK");
        let renewed = Folder::new();
        folder.write("cert.pem", &renewed.certificate);
        folder.write("key.pem", &renewed.key);
        assert_eq!(access.refresh(), Ok(true));
        assert_eq!(fetch(address, &renewed.certificate, None).await.unwrap(), "HTTP/1.1 200 OK");
        assert!(fetch(address, &before, None).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_client_without_the_certificate_asked_for_is_not_served() {
    let (folder, client, stranger) = (Folder::new(), Folder::new(), Folder::new());
    folder.write("clients.pem", &client.certificate);
    let text = format!("{TLS}  client_ca_file: clients.pem\n  client_auth_type: RequireAndVerifyClientCert\n");
    let access = folder.load(&text).unwrap();
    with_server(access, async |address| {
        let own = Some((client.certificate.as_str(), client.key.as_str()));
        assert_eq!(fetch(address, &folder.certificate, own).await.unwrap(), "HTTP/1.1 200 OK");
        assert!(fetch(address, &folder.certificate, None).await.is_err());
        let own = Some((stranger.certificate.as_str(), stranger.key.as_str()));
        assert!(fetch(address, &folder.certificate, own).await.is_err());
    })
    .await;
}
