//! `--web-config`: the file in which Prometheus' own exporters say who may connect (exporter-toolkit's format).
//!
//! Invariant: a field that is not implemented is refused, never ignored, or somebody would believe in a protection that
//! is not there. Reading blocks; it belongs on a thread that may.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::Deserialize;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

/// The largest file read, in bytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;
/// A dearer hash would take minutes to compare.
const COST_MAX: u32 = 16;
const USERS_MAX: usize = 100;

/// Why a file cannot be used; one sentence with the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WebConfigError(String);

impl WebConfigError {
    pub(super) fn of(what: &str) -> Self {
        Self(what.to_owned())
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct WebConfig {
    /// TLS, unless connections are plain.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// User to bcrypt hash.
    pub(super) users: BTreeMap<String, SecretString>,
}

// Without `Debug`: the hashes would be in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tls_server_config: Option<Tls>,
    // As a mapping of the YAML crate, which refuses a user given twice.
    basic_auth_users: Option<serde_yaml::Mapping>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert_file: PathBuf,
    key_file: PathBuf,
    client_ca_file: Option<PathBuf>,
    client_auth_type: Option<String>,
    min_version: Option<String>,
}

/// Every file that `path` stands on with its bytes: itself, certificate, key, authorities. What differs in none of
/// them need not be read again.
pub(super) fn contents(path: &Path) -> Result<Vec<SecretSlice<u8>>, WebConfigError> {
    let text = read(path)?;
    let mut all = Vec::new();
    if let Some(tls) = parse(path, &text)?.tls_server_config {
        let files = [Some(tls.cert_file), Some(tls.key_file), tls.client_ca_file];
        for file in files.into_iter().flatten() {
            all.push(read(&beside(path, &file))?);
        }
    }
    all.insert(0, text);
    Ok(all)
}

/// What `path` says.
///
/// # Errors
/// [`WebConfigError`] names the file and what is wrong; never a hash or a key.
pub(super) fn load(path: &Path) -> Result<WebConfig, WebConfigError> {
    let file = parse(path, &read(path)?)?;
    let error = |what: String| WebConfigError(format!("{}: {what}", path.display()));
    let tls = file.tls_server_config.map(|tls| server_config(path, &tls).map_err(error)).transpose()?;
    let mut users = BTreeMap::new();
    for (user, hash) in file.basic_auth_users.unwrap_or_default() {
        let (Some(user), Some(hash)) = (user.as_str(), hash.as_str()) else {
            return Err(error("basic_auth_users: users and their hashes are texts; quote them".to_owned()));
        };
        check_hash(hash).map_err(|what| error(format!("basic_auth_users: {user}: {what}")))?;
        users.insert(user.to_owned(), SecretString::from(hash));
    }
    if users.len() > USERS_MAX {
        return Err(error(format!("basic_auth_users: at most {USERS_MAX} users")));
    }
    Ok(WebConfig { tls: tls.map(Arc::new), users })
}

/// The bytes of a small file.
pub(super) fn read(path: &Path) -> Result<SecretSlice<u8>, WebConfigError> {
    let error = |what: &dyn std::fmt::Display| WebConfigError(format!("cannot read {}: {what}", path.display()));
    let length = fs::metadata(path).map_err(|why| error(&why))?.len();
    if length > FILE_SIZE_MAX {
        return Err(error(&format!("it has {length} bytes, at most {FILE_SIZE_MAX} are read")));
    }
    fs::read(path).map(SecretSlice::from).map_err(|why| error(&why))
}

/// A hash's cost, or why it is none.
fn check_hash(hash: &str) -> Result<u32, String> {
    let cost = hash.parse::<bcrypt::HashParts>().map_err(|_| "it is no bcrypt hash".to_owned())?.get_cost();
    match cost {
        4..=COST_MAX => Ok(cost),
        _ => Err(format!("a cost of 4 to {COST_MAX} is taken, this hash has {cost}")),
    }
}

/// The highest cost of the hashes, at least that of a usual one: what an unknown user costs, too.
pub(super) fn highest_cost(users: &BTreeMap<String, SecretString>) -> u32 {
    const USUAL: u32 = 10;
    users.values().filter_map(|hash| check_hash(hash.expose_secret()).ok()).max().unwrap_or(USUAL)
}

fn parse(path: &Path, text: &SecretSlice<u8>) -> Result<File, WebConfigError> {
    let error = |what: String| WebConfigError(format!("{}: {what}", path.display()));
    let text = std::str::from_utf8(text.expose_secret()).map_err(|_| error("it is no text".to_owned()))?;
    if text.trim().is_empty() {
        return Ok(File { tls_server_config: None, basic_auth_users: None });
    }
    serde_yaml::from_str(text).map_err(|why| {
        let words = why.to_string();
        // Words about a value would repeat it, and it may be a hash.
        let place =
            why.location().map_or_else(String::new, |at| format!(" at line {} column {}", at.line(), at.column()));
        error(if words.contains("unknown field") { words } else { format!("it is not of the format{place}") })
    })
}

/// Paths in the file are relative to its folder.
fn beside(config: &Path, file: &Path) -> PathBuf {
    config.parent().map_or_else(|| file.to_path_buf(), |folder| folder.join(file))
}

fn server_config(path: &Path, tls: &Tls) -> Result<ServerConfig, String> {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static FROM_13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    let versions: &[&SupportedProtocolVersion] = match tls.min_version.as_deref() {
        None | Some("TLS12") => &FROM_12,
        Some("TLS13") => &FROM_13,
        Some(other) => return Err(format!("min_version: TLS12 or TLS13 is taken, not {other:?}")),
    };
    let bytes = |file: &Path| read(&beside(path, file)).map_err(|error| error.to_string());
    let certificates = CertificateDer::pem_slice_iter(bytes(&tls.cert_file)?.expose_secret())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| format!("cert_file: {why}"))?;
    if certificates.is_empty() {
        return Err("cert_file: it holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(bytes(&tls.key_file)?.expose_secret())
        .map_err(|_| "key_file: it holds no private key in PEM".to_owned())?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|why| why.to_string())?;
    let authorities = tls.client_ca_file.as_deref().map(bytes).transpose()?;
    let builder = match (tls.client_auth_type.as_deref().unwrap_or("NoClientCert"), authorities) {
        ("NoClientCert", None) => builder.with_no_client_auth(),
        ("NoClientCert", Some(_)) => {
            return Err("client_ca_file means nothing without client_auth_type: RequireAndVerifyClientCert".to_owned());
        }
        (kind @ ("RequireAndVerifyClientCert" | "VerifyClientCertIfGiven"), Some(pem)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem.expose_secret())?), provider);
            let verifier = if kind == "VerifyClientCertIfGiven" { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|why| format!("client_ca_file: {why}"))?)
        }
        ("RequireAndVerifyClientCert" | "VerifyClientCertIfGiven", None) => {
            return Err("client_auth_type needs client_ca_file".to_owned());
        }
        (other, _) => {
            return Err(format!(
                "client_auth_type: {other:?} is not taken; write NoClientCert, VerifyClientCertIfGiven or \
                 RequireAndVerifyClientCert"
            ));
        }
    };
    let mut config =
        builder.with_single_cert(certificates, key).map_err(|why| format!("cert_file, key_file: {why}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|why| format!("client_ca_file: {why}"))?;
        roots.add(certificate).map_err(|why| format!("client_ca_file: {why}"))?;
    }
    if roots.is_empty() { Err("client_ca_file: it holds no certificate".to_owned()) } else { Ok(roots) }
}
