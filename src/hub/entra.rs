//! Signing in with Entra ID (`iot-hub.md` 7.4), by Microsoft's own credentials.
//!
//! Invariants: every credential asks for the one scope of IoT Hub, through a transport of ours: verified TLS, no
//! redirect, no retry (the credential of a machine asks its metadata service again by itself, within
//! [`TOKEN_TIME_MAX`]). A token is kept by the credential until shortly before it ends; one that the hub refused is
//! thrown away with the credential that kept it, and so is a credential that gives none. No error or `Debug` text holds a secret.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::{AsyncRawResponse, ClientOptions, HttpClient, Request, RetryOptions, Transport};
use azure_identity::{
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use jiff::Timestamp;
use reqwest::Client;

use super::HubError;
use super::certificate::Certificate;
use super::sas::{Clock, ExposeSecret as _, SecretString};
use super::wire;

/// The scope of every IoT hub (`iot-hub.md` 7.4).
const SCOPE: &str = "https://iothubs.azure.net/.default";
/// How long a credential may take for a token, its own attempts together: that of a machine asks again by itself.
const TOKEN_TIME_MAX: Duration = Duration::from_secs(30);
/// Where Entra answers for Azure's public cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// Which identity signs in, and how it proves itself.
#[derive(Debug, Clone)]
pub enum EntraCredential {
    /// A Kubernetes service account that is federated with an application or a managed identity.
    WorkloadIdentity {
        /// The directory.
        tenant_id: String,
        /// The application or managed identity.
        client_id: String,
        /// The projected token of the service account; read anew by the credential.
        token_file: PathBuf,
    },
    /// The identity of the machine; a user-assigned one when its client id is given.
    ManagedIdentity {
        /// The user-assigned identity.
        client_id: Option<String>,
    },
    /// An application with a secret.
    ClientSecret {
        /// The directory.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Its secret.
        secret: SecretString,
    },
    /// An application with a certificate.
    ClientCertificate {
        /// The directory.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// The certificate and its RSA key (PKCS #8), in PEM; read anew when a token is refused, by Entra or the hub.
        file: PathBuf,
    },
    /// Whoever is signed in with the Azure CLI or the Azure Developer CLI.
    DeveloperTools,
}

impl EntraCredential {
    /// The word of the settings for it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::WorkloadIdentity { .. } => "workload-identity",
            Self::ManagedIdentity { .. } => "managed-identity",
            Self::ClientSecret { .. } => "client-secret",
            Self::ClientCertificate { .. } => "client-certificate",
            Self::DeveloperTools => "developer-tools",
        }
    }
}

/// How to sign in.
#[derive(Debug, Clone)]
pub struct EntraOptions {
    /// Who, and by what.
    pub credential: EntraCredential,
    /// Where Entra answers, `https://...`; `None` for Azure's public cloud.
    pub authority_host: Option<String>,
    /// The wall clock, by which a certificate signs.
    pub clock: Clock,
}

/// Who is told of each request for a token: the status, if there was an answer, and how long it took.
pub(super) type TokenWatch = Box<dyn Fn(Option<u16>, Duration) + Send + Sync>;

/// The way to Entra: TLS trust and proxy.
#[derive(Clone)]
pub struct EntraTransport {
    client: Client,
    watch: Arc<OnceLock<TokenWatch>>,
}

impl EntraTransport {
    pub(super) fn new(client: Client) -> Self {
        Self { client, watch: Arc::default() }
    }
}

impl fmt::Debug for EntraTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntraTransport")
    }
}

impl HttpClient for EntraTransport {
    fn execute_request<'a, 'r, 'f>(
        &'a self,
        request: &'r Request,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<AsyncRawResponse>> + Send + 'f>>
    where
        'a: 'f,
        'r: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let start = clock();
            let answer = self.client.execute_request(request).await;
            if let Some(watch) = self.watch.get() {
                let status = answer.as_ref().ok().map(|answer| u16::from(answer.status()));
                watch(status, clock().duration_since(start));
            }
            answer
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "measures durations and decides nothing")]
fn clock() -> Instant {
    Instant::now()
}

/// One identity, signed in when first asked.
#[derive(Debug)]
pub(super) struct EntraLogin {
    options: EntraOptions,
    transport: EntraTransport,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    credential: Arc<dyn TokenCredential>,
    /// When its certificate ends, if it is one.
    ends: Option<Timestamp>,
    /// The last token it gave.
    last: Option<SecretString>,
}

impl EntraLogin {
    pub(super) fn new(options: EntraOptions, transport: EntraTransport) -> Result<Self, String> {
        let state = make(&options, &transport)?;
        Ok(Self { options, transport, state: Mutex::new(state) })
    }

    /// Tells `watch` of each request for a token from now on; the first to ask is told.
    pub(super) fn watch(&self, watch: TokenWatch) {
        // Whoever asks second gets nothing: one hub has one client.
        drop(self.transport.watch.set(watch));
    }

    pub(super) const fn name(&self) -> &'static str {
        self.options.credential.as_str()
    }

    /// When the certificate ends, if it is one; the other credentials renew themselves, or nobody knows.
    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ends
    }

    pub(super) async fn token(&self) -> Result<SecretString, HubError> {
        let credential = Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner).credential);
        let answer = tokio::time::timeout(TOKEN_TIME_MAX, credential.get_token(&[SCOPE], None)).await;
        let token = answer.map_err(|_| self.late())?.map_err(|error| {
            // What the credential was made of may have been replaced: the next attempt reads it anew.
            self.renew(None);
            self.refused(&error)
        })?;
        let text = SecretString::from(format!("Bearer {}", token.token.secret()));
        self.state.lock().unwrap_or_else(PoisonError::into_inner).last = Some(text.clone());
        Ok(text)
    }

    pub(super) async fn token_instead_of(&self, refused: &SecretString) -> Result<SecretString, HubError> {
        // The credential would answer the same token from its memory; another one has none.
        self.renew(Some(refused));
        self.token().await
    }

    /// Another credential in the place of this one; given a token, only if that is the last one.
    fn renew(&self, refused: Option<&SecretString>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = |refused: &SecretString| {
            state.last.as_ref().is_some_and(|last| last.expose_secret() == refused.expose_secret())
        };
        if refused.is_none_or(is_last)
            && let Ok(renewed) = make(&self.options, &self.transport)
        {
            *state = renewed;
        }
    }

    fn late(&self) -> HubError {
        let message =
            format!("cannot sign in with Entra ({}): no token came in {} s", self.name(), TOKEN_TIME_MAX.as_secs());
        HubError::Transport { message, timeout: true }
    }

    /// The error of a token that was not given: whether Entra said no or was not there to say anything.
    fn refused(&self, error: &azure_core::Error) -> HubError {
        let kind = self.name();
        let words = wire::clean(&causes(error), wire::TEXT_MAX);
        if unanswered(error) {
            let message = format!("cannot sign in with Entra ({kind}): {words}");
            return HubError::Transport { message, timeout: false };
        }
        let message = format!("Entra gives no token ({kind}): {words}; check tenant, client and its credential");
        HubError::Unauthorized { message }
    }
}

/// Whether the error is that nobody answered.
fn unanswered(error: &azure_core::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(link) = cause {
        if link.downcast_ref::<reqwest::Error>().is_some() {
            return true;
        }
        if let Some(error) = link.downcast_ref::<azure_core::Error>()
            && matches!(error.kind(), ErrorKind::Io | ErrorKind::Connection)
        {
            return true;
        }
        cause = link.source();
    }
    false
}

/// An error and what lies beneath, outermost first, each said once.
fn causes(error: &azure_core::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(link) = cause {
        let text = link.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        cause = link.source();
    }
    texts.join(": ")
}

fn make(options: &EntraOptions, transport: &EntraTransport) -> Result<State, String> {
    let client_options = client_options(options, transport);
    let mut ends = None;
    let made: Result<Arc<dyn TokenCredential>, azure_core::Error> = match options.credential.clone() {
        EntraCredential::WorkloadIdentity { tenant_id, client_id, token_file } => {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options },
                client_id: Some(client_id),
                tenant_id: Some(tenant_id),
                token_file_path: Some(token_file),
            };
            WorkloadIdentityCredential::new(Some(options)).map(|made| made as _)
        }
        EntraCredential::ManagedIdentity { client_id } => {
            let user_assigned_id = client_id.map(UserAssignedId::ClientId);
            let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
            ManagedIdentityCredential::new(Some(options)).map(|made| made as _)
        }
        EntraCredential::ClientSecret { tenant_id, client_id, secret } => {
            let secret = Secret::new(secret.expose_secret().to_owned());
            let options = ClientSecretCredentialOptions { client_options };
            ClientSecretCredential::new(&tenant_id, client_id, secret, Some(options)).map(|made| made as _)
        }
        EntraCredential::ClientCertificate { tenant_id, client_id, file } => {
            let authority = options.authority_host.as_deref().unwrap_or(AUTHORITY).trim_end_matches('/');
            let audience = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
            let certificate = Certificate::read(&file, &client_id, audience, options.clock)?;
            let assertion = ClientAssertionCredentialOptions { client_options };
            ends = certificate.ends();
            ClientAssertionCredential::new(tenant_id, client_id, certificate, Some(assertion)).map(|made| made as _)
        }
        EntraCredential::DeveloperTools => DeveloperToolsCredential::new(None).map(|made| made as _),
    };
    let credential = made.map_err(|error| format!("{}: {}", options.credential.as_str(), causes(&error)))?;
    Ok(State { credential, ends, last: None })
}

fn client_options(options: &EntraOptions, transport: &EntraTransport) -> ClientOptions {
    let cloud = options.authority_host.as_ref().map(|host| {
        let mut custom = CustomConfiguration::default();
        custom.authority_host.clone_from(host);
        Arc::new(CloudConfiguration::Custom(custom))
    });
    ClientOptions {
        // Retries happen in the queue and nowhere else.
        retry: RetryOptions::none(),
        transport: Some(Transport::new(Arc::new(transport.clone()))),
        cloud,
        ..ClientOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::Router;
    use axum::extract::Query;
    use axum::http::{HeaderMap, Uri};
    use axum::routing::get;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::*;

    /// The identity of a machine whose requests in clear all go to `proxy`: the address of its metadata service is fixed.
    fn machine(client_id: Option<&str>, proxy: std::net::SocketAddr) -> EntraLogin {
        let proxy = reqwest::Proxy::http(format!("http://{proxy}")).unwrap();
        let transport = EntraTransport::new(Client::builder().no_proxy().proxy(proxy).build().unwrap());
        let credential = EntraCredential::ManagedIdentity { client_id: client_id.map(str::to_owned) };
        #[expect(clippy::disallowed_methods, reason = "the credential judges by the real clock when its token ends")]
        let options = EntraOptions { credential, authority_host: None, clock: Timestamp::now };
        EntraLogin::new(options, transport).unwrap()
    }

    #[tokio::test]
    async fn the_identity_of_a_machine_is_asked_of_its_metadata_service_once_for_each_token() {
        let (seen, mut requests) = mpsc::unbounded_channel();
        let answer = async move |uri: Uri, headers: HeaderMap, Query(query): Query<BTreeMap<String, String>>| {
            let is_metadata = headers.get("metadata").is_some_and(|value| value == "true");
            seen.send((uri.authority().map(ToString::to_string), is_metadata, query)).unwrap();
            #[expect(clippy::disallowed_methods, reason = "a token ends by the real clock")]
            let ends = Timestamp::now().as_second() + 3600;
            let parts = r#""token_type":"Bearer","resource":"https://iothubs.azure.net","access_token":"canary""#;
            format!(r#"{{"expires_on":"{ends}",{parts}}}"#)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        let router = Router::new().route("/metadata/identity/oauth2/token", get(answer));
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        for client_id in [None, Some("user-assigned")] {
            let login = machine(client_id, address);
            let token = login.token().await.unwrap();
            assert_eq!(token.expose_secret(), "Bearer canary");
            login.token().await.unwrap();
            let (host, is_metadata, query) = requests.recv().await.unwrap();
            assert_eq!((host.as_deref(), is_metadata), (Some("169.254.169.254"), true));
            assert_eq!(query["resource"], "https://iothubs.azure.net");
            assert_eq!(query.get("client_id").map(String::as_str), client_id);
            assert!(requests.is_empty(), "a token is kept");
            login.token_instead_of(&token).await.unwrap();
            requests.recv().await.expect("a refused one is replaced");
            assert!(!format!("{login:?}").contains("canary"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_metadata_service_that_does_not_answer_is_waited_for_within_a_bound() {
        // Connections are taken by the system, and nobody reads them.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let login = machine(None, listener.local_addr().unwrap());
        let error = login.token().await.unwrap_err();
        assert!(matches!(error, HubError::Transport { timeout: true, .. }), "{error:?}");
        let expected = "cannot reach the hub: cannot sign in with Entra (managed-identity): no token came in 30 s";
        assert_eq!(error.to_string(), expected);
    }
}
