//! The embedded hub in a process of its own, and what is asked of it beside the contenders: drift, and whether all is well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::process::Running;
use super::{PATIENCE, pairs, twins};

/// Where the Node SDK finds a hub: at this port and no other.
const HTTPS_PORT: u16 = 443;
/// Requests under way at once when a fleet is made to drift.
const IN_FLIGHT: usize = 16;
const API: &str = "api-version=2021-04-12";
/// Twins of a page.
pub(crate) const PAGE: usize = 100;
const TOKEN_TIME: i64 = 24 * 3600;

/// How a hub is started.
pub(crate) struct Setting<'s> {
    pub(crate) name: &'s str,
    pub(crate) devices: usize,
    /// Its host, an address of its own.
    pub(crate) host: String,
    /// The address that it serves.
    pub(crate) https: String,
    pub(crate) more: &'s [&'s str],
}

/// A running hub.
pub(crate) struct Hub {
    process: Running,
    folder: PathBuf,
    client: reqwest::Client,
    /// What its clients are told; a copy in which a proxy may stand in the place of the hub.
    pub(crate) json: PathBuf,
    pub(crate) ca: PathBuf,
    pub(crate) address: String,
    pub(crate) authority: String,
    pub(crate) connection_string: String,
    pub(crate) token: String,
}

impl Hub {
    /// Starts a hub of so many devices in `folder` and waits until it serves.
    pub(crate) async fn start(folder: &Path, setting: &Setting<'_>) -> Self {
        let folder = folder.join(setting.name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("template.json"), twins::TEMPLATE).unwrap();
        let state = folder.join("state");
        let mut command = super::geminid();
        command.args(["hub", "--hub-host", &setting.host, "--hub-https", &setting.https]);
        command.args(["--hub-mqtts", "127.0.0.1:0", "--fill-devices", &setting.devices.to_string()]);
        command.arg("--fill-template").arg(folder.join("template.json")).arg("--state-dir").arg(&state);
        let process = Running::start(command.args(setting.more), &folder, "hub");
        let told = state.join("hub.json");
        let text = process.until("the hub", PATIENCE, async || fs::read_to_string(&told).ok()).await;
        let described: Value = serde_json::from_str(&text).unwrap();
        let field = |name: &str| described[name].as_str().unwrap().to_owned();
        let connection_string = field("ownerConnectionString");
        let (authority, ca) = (field("hostName"), PathBuf::from(field("caFile")));
        let authority_part = reqwest::Certificate::from_pem(&fs::read(&ca).unwrap()).unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).add_root_certificate(authority_part);
        Self {
            process,
            folder,
            client: client.build().unwrap(),
            json: told,
            ca,
            address: field("https"),
            token: token(&connection_string),
            authority,
            connection_string,
        }
    }

    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.errors()
    }

    /// Tells clients, from now on, of `host` at port 443 and not of the address that the hub serves.
    pub(crate) fn behind(&mut self, host: &str) {
        let text = fs::read_to_string(&self.json).unwrap().replace(&self.authority, host);
        self.json = self.folder.join("behind.json");
        fs::write(&self.json, text).unwrap();
    }

    /// Lets every twin of these numbers drift, and makes sure that it did.
    pub(crate) async fn let_drift(&self, numbers: std::ops::Range<usize>, round: usize, patch: &str) {
        let requests = |number| vec![pairs::Step::Patch(number, patch.to_owned())];
        pairs::run(self, numbers.clone(), IN_FLIGHT, requests).await;
        let query =
            format!("SELECT COUNT() AS n FROM devices WHERE properties.desired.power_level = {}", twins::level(round));
        let (rows, _) = self.page(&query, None).await;
        assert_eq!(rows[0]["n"], json!(numbers.len()), "twins that drifted");
    }

    /// Makes sure that the hub has `count` twins and that each holds what is wanted of it.
    pub(crate) async fn verify(&self, count: usize) {
        let (mut seen, mut wrong, mut next) = (0, Vec::new(), None);
        loop {
            let (rows, token) = self.page("SELECT * FROM devices", next.as_deref()).await;
            seen += rows.len();
            wrong.extend(rows.iter().filter(|row| !twins::holds(row)).map(|row| row["deviceId"].to_string()));
            next = token;
            if next.is_none() {
                break;
            }
        }
        assert_eq!((seen, wrong.len()), (count, 0), "not as wanted: {:?}", &wrong[..wrong.len().min(5)]);
    }

    async fn page(&self, query: &str, next: Option<&str>) -> (Vec<Value>, Option<String>) {
        let mut request = self.client.post(format!("https://{}/devices/query?{API}", self.address));
        request = request.header("Authorization", &self.token).header("x-ms-max-item-count", PAGE);
        if let Some(next) = next {
            request = request.header("x-ms-continuation", next);
        }
        let body = json!({"query": query}).to_string();
        let answer = request.header("Content-Type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{query}");
        let next = answer.headers().get("x-ms-continuation").map(|next| next.to_str().unwrap().to_owned());
        (serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap(), next)
    }

    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }
}

/// An address that nobody else has: the process's number picks one of 127.9.0.0/16. Where the machine owns only
/// 127.0.0.1, it is that.
pub(crate) fn host(index: u32) -> String {
    let number = std::process::id() * 4 + index;
    let candidate = format!("127.9.{}.{}", number / 250 % 250 + 1, number % 250 + 1);
    match std::net::TcpListener::bind((candidate.as_str(), 0)) {
        Ok(_) => candidate,
        Err(_) => "127.0.0.1".to_owned(),
    }
}

/// That host's address for clients that know one port alone.
///
/// # Errors
/// When the port is taken or not allowed: one sentence with the remedy.
pub(crate) fn well_known(host: &str) -> Result<String, String> {
    let address = format!("{host}:{HTTPS_PORT}");
    match std::net::TcpListener::bind(&address) {
        Ok(_) => Ok(address),
        Err(error) => Err(format!(
            "cannot serve {address}, where the Node SDK looks for a hub: {error}; free it, or allow it to everybody by \
             sudo sysctl net.ipv4.ip_unprivileged_port_start=443"
        )),
    }
}

/// A token as an SDK makes it.
fn token(connection_string: &str) -> String {
    use base64::engine::general_purpose::STANDARD;
    let field = |name: &str| {
        let mut fields = connection_string.split(';').map(|field| field.split_once('=').unwrap());
        fields.find(|(key, _)| *key == name).unwrap().1.to_owned()
    };
    let resource = field("HostName").replace(':', "%3A");
    let expiry = jiff::Timestamp::now().as_second() + TOKEN_TIME;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&STANDARD.decode(field("SharedAccessKey")).unwrap()).unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={}", field("SharedAccessKeyName"))
}

/// The environment that a client of the hub gets: its authority, and no proxy that the machine may have set.
pub(crate) fn trusting(command: &mut Command, ca: &Path) {
    for name in ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
        command.env(name, ca);
    }
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "SSL_CERT_DIR"] {
        command.env_remove(name);
    }
}
