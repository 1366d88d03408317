//! Signing in with Entra ID: a token endpoint on loopback, and the embedded hub taking the tokens of a test issuer.

#![expect(clippy::unwrap_used, reason = "a test unwraps, and so do its helpers")]

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use geminid::emulator::bearer::{Role, mint};
use geminid::emulator::identity::SharedKey;
use geminid::emulator::{EmbeddedHub, HubOptions, ServiceOptions};
use geminid::hub::{
    EntraCredential, EntraOptions, HubAddress, HubError, Observed, ReadTwins, RestHub, RestOptions, SetupError,
    WriteTwins,
};
use geminid::metrics::Metrics;
use geminid::twin::{DeviceId, MergePatch, Object, TwinRef, Value};
use tokio::task::JoinSet;

#[expect(clippy::disallowed_methods, reason = "client and hub run on the real clock here, as they do in production")]
const CLOCK: fn() -> jiff::Timestamp = jiff::Timestamp::now;

/// What the token endpoint answers next; a refusal when there is nothing.
enum Gives {
    /// A token of the hub's issuer.
    Role(Role),
    /// A token that the hub does not take, though nobody could tell from its end.
    Stranger,
}

#[derive(Default)]
struct Script {
    gives: VecDeque<Gives>,
    /// Tenant and form of each request.
    seen: Vec<(String, BTreeMap<String, String>)>,
}

/// Entra, as far as it is needed, and a hub that trusts its tokens.
struct World {
    hub: EmbeddedHub,
    authority: String,
    options: RestOptions,
    script: Arc<Mutex<Script>>,
    folder: tempfile::TempDir,
    serving: JoinSet<()>,
}

type Endpoint = (Arc<Mutex<Script>>, SharedKey);

async fn answer(
    State((script, issuer)): State<Endpoint>,
    Path(tenant): Path<String>,
    body: String,
) -> (StatusCode, String) {
    let url = reqwest::Url::parse(&format!("https://localhost/?{body}")).unwrap();
    let mut script = script.lock().unwrap();
    script.seen.push((tenant, url.query_pairs().into_owned().collect()));
    let stranger = SharedKey::generate(&mut |bytes| bytes.fill(9));
    let end = CLOCK().as_second() + 3600;
    let token = match script.gives.pop_front() {
        Some(Gives::Role(role)) => mint(&issuer, role, end),
        Some(Gives::Stranger) => mint(&stranger, Role::DataContributor, end),
        None => {
            let words = r#"{"error":"invalid_client","error_description":"AADSTS7000215: the secret is not valid"}"#;
            return (StatusCode::UNAUTHORIZED, words.to_owned());
        }
    };
    let token = token.strip_prefix("Bearer ").unwrap().to_owned();
    (StatusCode::OK, format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"{token}"}}"#))
}

/// The address at which a platform serves its identities; it answers in clear, on the machine itself.
async fn platform(
    State((script, issuer)): State<Endpoint>,
    headers: HeaderMap,
    Query(mut query): Query<BTreeMap<String, String>>,
) -> (StatusCode, String) {
    let mut script = script.lock().unwrap();
    let header = headers.get("x-identity-header").and_then(|value| value.to_str().ok()).unwrap_or_default();
    query.insert("header".to_owned(), header.to_owned());
    script.seen.push(("platform".to_owned(), query));
    let end = CLOCK().as_second() + 3600;
    let Some(Gives::Role(role)) = script.gives.pop_front() else {
        return (StatusCode::BAD_REQUEST, r#"{"statusCode":400,"message":"no such identity"}"#.to_owned());
    };
    let token = mint(&issuer, role, end).strip_prefix("Bearer ").unwrap().to_owned();
    let parts = r#""token_type":"Bearer","resource":"https://iothubs.azure.net""#;
    (StatusCode::OK, format!(r#"{{"access_token":"{token}","expires_on":"{end}",{parts}}}"#))
}

impl World {
    async fn start(gives: impl IntoIterator<Item = Gives>) -> Self {
        let issuer = issuer();
        let folder = tempfile::tempdir().unwrap();
        let service = ServiceOptions { bearer_issuer: Some(issuer.clone()), ..ServiceOptions::default() };
        let options = HubOptions {
            https: "127.0.0.1:0".parse().unwrap(),
            mqtts: None,
            host: "localhost".to_owned(),
            state_dir: folder.path().join("state"),
            ephemeral: true,
            allow_remote: false,
            now: CLOCK,
            service,
        };
        let hub = EmbeddedHub::start(options).await.unwrap();
        let script = Arc::new(Mutex::new(Script { gives: gives.into_iter().collect(), seen: Vec::new() }));
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = certified.cert.pem();
        let key = certified.signing_key.serialize_pem().into_bytes();
        let tls = RustlsConfig::from_pem(pem.clone().into_bytes(), key).await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let authority = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let endpoint: Router = Router::new()
            .route("/{tenant}/oauth2/v2.0/token", axum::routing::post(answer))
            .with_state((Arc::clone(&script), issuer));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
            server.serve(endpoint.into_make_service()).await.unwrap();
        });
        let mut options = RestOptions::new(CLOCK);
        let trusted = std::fs::read_to_string(&hub.connection_info().ca_file).unwrap() + &pem;
        options.extra_ca_pem = Some(trusted.into_bytes());
        Self { hub, authority, options, script, folder, serving }
    }

    fn sign_in(&self, credential: EntraCredential) -> Result<RestHub, SetupError> {
        let address = HubAddress::parse(&format!("localhost:{}", self.hub.connection_info().https.port())).unwrap();
        let entra = EntraOptions { credential, authority_host: Some(self.authority.clone()), clock: CLOCK };
        RestHub::with_entra(address, entra, &self.options)
    }

    /// Starts a platform's endpoint for identities.
    async fn platform(&mut self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/msi/token", listener.local_addr().unwrap());
        let endpoint = (Arc::clone(&self.script), issuer());
        let router = Router::new().route("/msi/token", axum::routing::get(platform)).with_state(endpoint);
        self.serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// Runs `geminid query` on the hub with nothing but these variables: the exit code, and all that it said.
    async fn query(&self, variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let port = self.hub.connection_info().https.port();
        let settings = format!(
            "owner = \"test\"\n[hubs.prod]\nmanifests = \".\"\nhost = \"localhost:{port}\"\nauth = \"entra\"\n\
             ca_file = \"{}\"\ntier = \"none\"\n",
            self.hub.connection_info().ca_file.display()
        );
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_geminid"));
        command.args(["query", "SELECT deviceId FROM devices", "--settings"]);
        command.arg(self.file("settings.toml", &settings)).current_dir(self.folder.path());
        command.env_clear().envs(variables.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn seen(&self) -> Vec<(String, BTreeMap<String, String>)> {
        self.script.lock().unwrap().seen.clone()
    }
}

/// Whose tokens the hub takes.
fn issuer() -> SharedKey {
    SharedKey::generate(&mut |bytes| bytes.fill(7))
}

fn secret() -> EntraCredential {
    EntraCredential::ClientSecret {
        tenant_id: "tenant".to_owned(),
        client_id: "client".to_owned(),
        secret: "canary".to_owned().into(),
    }
}

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

#[tokio::test]
async fn a_client_secret_gives_a_token_that_is_asked_for_once() {
    let world = World::start([Gives::Role(Role::DataContributor)]).await;
    let hub = world.sign_in(secret()).unwrap();
    assert_eq!((hub.credential().as_str(), hub.credential_ends()), ("client-secret", None));
    hub.create_device(&device("d1")).await.unwrap();
    let twin = hub.get_twin(&TwinRef::device(device("d1"))).await.unwrap();
    let tags = Object::from([("plant".to_owned(), Value::from("Redmond43"))]);
    let patch = MergePatch { tags: Some(tags), ..MergePatch::default() };
    hub.patch_twin(&TwinRef::device(device("d1")), &patch, &twin.etag).await.unwrap();
    let seen = world.seen();
    assert_eq!(seen.len(), 1, "one token serves every request");
    let (tenant, form) = &seen[0];
    assert_eq!(tenant, "tenant");
    let expected = [
        ("client_id", "client"),
        ("client_secret", "canary"),
        ("grant_type", "client_credentials"),
        ("scope", "https://iothubs.azure.net/.default"),
    ];
    for (name, value) in expected {
        assert_eq!(form[name], value, "{form:?}");
    }
}

#[tokio::test]
async fn requests_for_tokens_are_counted_by_what_entra_answered() {
    let world = World::start([Gives::Role(Role::DataContributor)]).await;
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry, &["prod"]).unwrap();
    let count = |code: &str| {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let series = format!(r#"geminid_hub_requests_total{{code="{code}",hub="prod",operation="token"}} "#);
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok())
    };
    let hub = Observed::with_tokens(world.sign_in(secret()).unwrap(), metrics.client.hub("prod"));
    assert_eq!((count("200"), count("401")), (Some(0), Some(0)), "there from the start");
    for _ in 0..3 {
        hub.create_device(&device("d1")).await.ok();
    }
    assert_eq!((count("200"), count("401")), (Some(1), Some(0)), "one token serves them all");
    let second = Observed::with_tokens(world.sign_in(secret()).unwrap(), metrics.client.hub("prod"));
    second.create_device(&device("d2")).await.unwrap_err();
    assert_eq!(count("200"), Some(1));
    assert!(count("401").unwrap() >= 1, "Entra gives no more");
}

#[tokio::test]
async fn a_workload_identity_shows_the_token_of_its_service_account() {
    let world = World::start([Gives::Role(Role::TwinContributor)]).await;
    let token_file = world.file("token", "projected-token");
    let (tenant_id, client_id) = ("tenant".to_owned(), "workload".to_owned());
    let hub = world.sign_in(EntraCredential::WorkloadIdentity { tenant_id, client_id, token_file }).unwrap();
    hub.query_page("SELECT deviceId AS d FROM devices", 1, None).await.unwrap();
    let (_, form) = &world.seen()[0];
    assert_eq!((form["client_assertion"].as_str(), form["client_id"].as_str()), ("projected-token", "workload"));
    // The role lets twins be written and no device be registered.
    let error = hub.create_device(&device("d1")).await.unwrap_err();
    assert_eq!(error.category(), "unauthorized");
    assert!(error.to_string().contains("workload-identity"), "{error}");
}

#[tokio::test]
async fn the_identity_of_a_platform_is_asked_for_at_the_address_in_the_environment() {
    let mut world = World::start([Gives::Role(Role::DataReader), Gives::Role(Role::DataReader)]).await;
    let endpoint = world.platform().await;
    let setup = Gives::Role(Role::DataContributor);
    world.script.lock().unwrap().gives.push_front(setup);
    world.sign_in(secret()).unwrap().create_device(&device("d-platform")).await.unwrap();
    let of_platform = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "canary-header")];
    for client_id in [None, Some("user-assigned")] {
        let chosen = client_id.map(|id| ("AZURE_CLIENT_ID", id));
        let variables: Vec<_> = of_platform.into_iter().chain(chosen).collect();
        let (code, said) = world.query(&variables).await;
        assert!(code == Some(0) && said.contains("d-platform"), "{code:?}: {said}");
        let (_, request) = world.seen().pop().unwrap();
        let expected = [("resource", "https://iothubs.azure.net"), ("header", "canary-header")];
        for (name, value) in expected {
            assert_eq!(request[name], value, "{request:?}");
        }
        assert_eq!(request.get("client_id").map(String::as_str), client_id);
        assert!(!said.contains("canary"), "{said}");
    }
    assert_eq!(world.seen().len(), 3, "one token serves a whole run");
    let (code, said) = world.query(&of_platform).await;
    assert!(code == Some(2) && said.contains("managed-identity"), "{code:?}: {said}");
    assert!(!said.contains("canary"), "{said}");
}

#[tokio::test]
async fn a_certificate_signs_an_assertion_that_its_public_key_proves() {
    let world = World::start([Gives::Role(Role::DataReader)]).await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["geminid".to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = world.file("client.pem", &(key.serialize_pem() + &certificate.pem()));
    let (tenant_id, client_id) = ("tenant".to_owned(), "client".to_owned());
    let hub = world.sign_in(EntraCredential::ClientCertificate { tenant_id, client_id, file }).unwrap();
    hub.query_page("SELECT deviceId AS d FROM devices", 1, None).await.unwrap();
    let (_, form) = &world.seen()[0];
    assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let (signed, signature) = form["client_assertion"].rsplit_once('.').unwrap();
    let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, rcgen::PublicKeyData::der_bytes(&key));
    public.verify(signed.as_bytes(), &BASE64_URL.decode(signature).unwrap()).unwrap();
    let part = |index: usize| {
        let text = BASE64_URL.decode(signed.split('.').nth(index).unwrap()).unwrap();
        Value::parse_json(&String::from_utf8(text).unwrap()).unwrap()
    };
    let (header, claims) = (part(0), part(1));
    let thumbprint = BASE64_URL.encode(digest(&SHA256, certificate.der()));
    assert_eq!(header.get(["alg"]), Some(&Value::from("PS256")));
    assert_eq!(header.get(["x5t#S256"]), Some(&Value::from(thumbprint.as_str())));
    let audience = format!("{}/tenant/oauth2/v2.0/token", world.authority);
    for (name, value) in [("aud", audience.as_str()), ("iss", "client"), ("sub", "client")] {
        assert_eq!(claims.get([name]), Some(&Value::from(value)), "{claims:?}");
    }
}

/// A certificate of its own, with its key, as one text; and its thumbprint.
fn certified(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2040, 2, 3);
    let certificate = params.self_signed(&key).unwrap();
    (key.serialize_pem() + &certificate.pem(), BASE64_URL.encode(digest(&SHA256, certificate.der())))
}

#[tokio::test]
async fn a_certificate_that_entra_refuses_is_read_anew_the_next_time() {
    let world = World::start([]).await;
    let ((old, old_print), (new, new_print)) = (certified("old"), certified("new"));
    let file = world.file("client.pem", &old);
    let (tenant_id, client_id) = ("tenant".to_owned(), "client".to_owned());
    let hub = world.sign_in(EntraCredential::ClientCertificate { tenant_id, client_id, file }).unwrap();
    let ends = std::time::SystemTime::from("2040-02-03T00:00:00Z".parse::<jiff::Timestamp>().unwrap());
    assert_eq!(hub.credential_ends(), Some(ends));
    world.file("client.pem", &new);
    let query = "SELECT deviceId AS d FROM devices";
    assert_eq!(hub.query_page(query, 1, None).await.unwrap_err().category(), "unauthorized");
    world.script.lock().unwrap().gives.push_back(Gives::Role(Role::DataReader));
    hub.query_page(query, 1, None).await.unwrap();
    let prints = world.seen().into_iter().map(|(_, form)| {
        let header = BASE64_URL.decode(form["client_assertion"].split('.').next().unwrap()).unwrap();
        let header = Value::parse_json(&String::from_utf8(header).unwrap()).unwrap();
        header.get(["x5t#S256"]).and_then(Value::as_str).unwrap().to_owned()
    });
    assert_eq!(prints.collect::<Vec<_>>(), [old_print, new_print]);
}

#[tokio::test]
async fn a_token_that_the_hub_refuses_is_replaced_once() {
    let world = World::start([Gives::Stranger, Gives::Role(Role::DataReader), Gives::Stranger, Gives::Stranger]).await;
    let hub = world.sign_in(secret()).unwrap();
    let query = "SELECT deviceId AS d FROM devices";
    hub.query_page(query, 1, None).await.unwrap();
    assert_eq!(world.seen().len(), 2);
    let refused = world.sign_in(secret()).unwrap();
    let error = refused.query_page(query, 1, None).await.unwrap_err();
    assert_eq!((error.category(), world.seen().len()), ("unauthorized", 4), "{error}");
    assert!(error.to_string().contains("IoT Hub Twin Contributor"), "{error}");
}

#[tokio::test]
async fn no_token_is_said_in_one_sentence_without_the_secret() {
    let world = World::start([]).await;
    let hub = world.sign_in(secret()).unwrap();
    let error = hub.get_twin(&TwinRef::device(device("d1"))).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("AADSTS7000215") && text.contains("client-secret"), "{text}");
    assert!(!text.contains("canary") && !error.to_string().contains('\n'), "{text}");
    assert_eq!(error.category(), "unauthorized");
}

#[tokio::test]
async fn an_entra_that_cannot_be_reached_is_no_refusal() {
    let mut world = World::start([]).await;
    // A port that nobody listens on: bound, and free again.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.authority = format!("https://localhost:{free}");
    let hub = world.sign_in(secret()).unwrap();
    let error = hub.get_twin(&TwinRef::device(device("d1"))).await.unwrap_err();
    assert!(matches!(error, HubError::Transport { .. }), "{error:?}");
    assert!(error.to_string().contains("cannot sign in with Entra"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_said_with_its_file() {
    let world = World::start([]).await;
    let elliptic = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&elliptic).unwrap();
    let cases = [
        ("nothing.pem", String::new(), "holds no certificate"),
        ("alone.pem", certificate.pem(), "holds no key"),
        ("elliptic.pem", certificate.pem() + &elliptic.serialize_pem(), "no RSA key"),
    ];
    for (name, content, expected) in cases {
        let file = world.file(name, &content);
        let (tenant_id, client_id) = ("tenant".to_owned(), "client".to_owned());
        let error = world.sign_in(EntraCredential::ClientCertificate { tenant_id, client_id, file }).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(name), "{text}");
    }
}
