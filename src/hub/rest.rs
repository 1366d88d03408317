//! The hub over HTTPS (`iot-hub.md` section 2).
//!
//! Invariant: one request a call, the one renewal of a refused token excepted; no redirect is followed, no answer of
//! more than 8 MiB is read, no proxy is taken from the environment. A twin is written only under its etag, in quotes,
//! and a device is registered only without `If-Match`, which is create-only.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, Method, NoProxy, Proxy, Response, Url};

use super::entra::{EntraOptions, EntraTransport};
use super::login::Login;
use super::refusal::{Asked, Parties, refusal};
use super::sas::{Clock, ExposeSecret as _, SecretString, encode};
use super::wire;
use super::{Continuation, HubAddress, HubError, PAGE_SIZE_MAX, QueryPage, ReadTwins, TextPage, TextRows, WriteTwins};
use crate::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef, TwinTrace};

/// The version of the API spoken (`iot-hub.md` section 0).
const API_VERSION: &str = "2021-04-12";
/// The largest answer read, in bytes.
const BODY_SIZE_MAX: usize = 8 * 1024 * 1024;
/// The least time a call should be given: a hub delays before it refuses (`iot-hub.md` 6.4).
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(75);
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const CONNECTIONS_DEFAULT: usize = 32;
const USER_AGENT: &str = concat!("geminid/", env!("CARGO_PKG_VERSION"));

/// How to reach a hub.
#[derive(Debug)]
pub struct RestOptions {
    /// The wall clock, by which tokens are made.
    pub clock: Clock,
    /// Certificates in PEM that are trusted beside the system's.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// A proxy to go through.
    pub proxy: Option<ProxyOptions>,
    /// Connections kept open while idle; at least the number of calls in flight at once.
    pub connections: usize,
    /// The most a call may take, from name to last byte.
    pub timeout: Duration,
    /// The most that name, connection and TLS may take of it.
    pub connect_timeout: Duration,
}

/// A proxy, as `HTTPS_PROXY` and `NO_PROXY` name it.
#[derive(Debug)]
pub struct ProxyOptions {
    /// The proxy's URL, which may hold a user and a password.
    pub url: SecretString,
    /// Hosts that are reached without it, separated by commas; may be empty.
    pub except: String,
}

impl RestOptions {
    /// No further certificates, no proxy, 32 connections, 75 s a call and 10 s to connect.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            extra_ca_pem: None,
            proxy: None,
            connections: CONNECTIONS_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
        }
    }
}

/// Why a client cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The further certificates are not PEM, or there are none in it.
    #[error("the CA file holds no certificate in PEM; expected -----BEGIN CERTIFICATE-----")]
    Ca,
    /// The proxy's address is not a URL.
    #[error("the proxy's address is not a URL; expected http://host:port")]
    Proxy,
    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be set up: {0}; check the system's CA certificates")]
    Tls(String),
    /// The Entra credential lacks something.
    #[error("{0}")]
    Entra(String),
}

/// A hub reached over HTTPS with one credential.
#[derive(Debug)]
pub struct RestHub {
    client: Client,
    login: Login,
    clock: Clock,
    /// `https://{address}`.
    base: String,
}

impl RestHub {
    /// A client of the hub that `login` is for. Connects to nothing yet.
    ///
    /// # Errors
    /// [`SetupError`] when certificates or proxy cannot be used.
    pub fn new(login: impl Into<Login>, options: &RestOptions) -> Result<Self, SetupError> {
        let login = login.into();
        let client = builder(options)?.https_only(true).user_agent(USER_AGENT).build().map_err(|error| tls(&error))?;
        let base = format!("https://{}", login.address());
        Ok(Self { client, login, clock: options.clock, base })
    }

    /// Tells `watch` of each request for a token: its status, if there was an answer, and how long it took.
    pub fn watch_tokens(&self, watch: impl Fn(Option<u16>, Duration) + Send + Sync + 'static) {
        self.login.watch_tokens(Box::new(watch));
    }

    /// A client of the hub at `address` that signs in with Entra ID, over the same trust and proxy. Connects to
    /// nothing yet.
    ///
    /// # Errors
    /// [`SetupError`] when certificates or proxy cannot be used, or the credential lacks something.
    pub fn with_entra(address: HubAddress, entra: EntraOptions, options: &RestOptions) -> Result<Self, SetupError> {
        // The address of a machine's own identity is reached without TLS.
        let client = builder(options)?.build().map_err(|error| tls(&error))?;
        let login = Login::entra(address, entra, EntraTransport::new(client)).map_err(SetupError::Entra)?;
        Self::new(login, options)
    }

    /// The hub's address; its host without port is what labels and seals call the hub.
    #[must_use]
    pub fn address(&self) -> &HubAddress {
        self.login.address()
    }

    /// What messages call the credential.
    #[must_use]
    pub fn credential(&self) -> String {
        self.login.name()
    }

    /// The first key of a device (`iot-hub.md` 2.5), for those who connect in its place.
    ///
    /// # Errors
    /// [`HubError::NotFound`] when the device is not registered, [`HubError::Unauthorized`] when the credential may not
    /// read identities (`iot-hub.md` 7), [`HubError::Server`] when it has no such key; else what stopped the read.
    pub async fn device_key(&self, device: &DeviceId) -> Result<SecretString, HubError> {
        let path = format!("/devices/{}", segment(device.as_str())?);
        let answer = self.send(Asked::Key(device), Call::new(Method::GET, path, None)).await?;
        wire::device_key(&answer.body, device).map(SecretString::from).map_err(not_understood)
    }

    /// Sends `call` and gives its answer when the status is 200.
    async fn send(&self, asked: Asked<'_>, call: Call) -> Result<Answer, HubError> {
        let address = self.address().to_string();
        let url = Url::parse(&format!("{}{}?api-version={API_VERSION}", self.base, call.path))
            .map_err(|error| HubError::Server { status: None, message: format!("{address}: {error}") })?;
        let token = self.login.token((self.clock)()).await?;
        let mut answer = self.send_with(&token, &url, &call).await?;
        if answer.status == 401 {
            let token = self.login.token_instead_of(&token, (self.clock)()).await?;
            answer = self.send_with(&token, &url, &call).await?;
        }
        if answer.status == 200 {
            return Ok(answer);
        }
        let fault = wire::fault(&answer.body, answer.header("iothub-errorcode"));
        let credential = self.credential();
        let parties = Parties { hub: &address, credential: &credential };
        Err(refusal(asked, parties, answer.status, answer.header(RETRY_AFTER.as_str()), fault))
    }

    /// Asks for one page of a query.
    async fn send_query(&self, query: &str, page_size: usize, from: Option<&Continuation>) -> Result<Answer, HubError> {
        let mut call = Call::new(Method::POST, "/devices/query".to_owned(), Some(wire::query_body(query)));
        call.headers.insert("x-ms-max-item-count", HeaderValue::from(page_size.clamp(1, PAGE_SIZE_MAX)));
        if let Some(Continuation(token)) = from {
            let token = HeaderValue::from_str(token)
                .map_err(|_| not_understood("the continuation of a query cannot be sent back".to_owned()))?;
            call.headers.insert(CONTINUATION, token);
        }
        self.send(Asked::Page, call).await
    }

    /// Writes `patch` under the etag.
    async fn send_patch(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Answer, HubError> {
        let mut call = Call::new(Method::PATCH, twin_path(twin)?, Some(wire::patch_body(patch)));
        let quoted = HeaderValue::from_str(&etag.quoted()).expect("an etag is printable ASCII");
        call.headers.insert(IF_MATCH, quoted);
        self.send(Asked::Write(twin), call).await
    }

    async fn send_with(&self, token: &SecretString, url: &Url, call: &Call) -> Result<Answer, HubError> {
        let mut authorization = HeaderValue::from_str(token.expose_secret()).expect("a token is printable ASCII");
        authorization.set_sensitive(true);
        let mut request = self.client.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        request = request.header(AUTHORIZATION, authorization);
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json; charset=utf-8").body(body.clone());
        }
        let unreachable = |error| self.transport_error(&error);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = self.read_body(response, status).await?;
        Ok(Answer { status, headers, body })
    }

    async fn read_body(&self, mut response: Response, status: u16) -> Result<Vec<u8>, HubError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport_error(&error))? {
            if body.len() + chunk.len() > BODY_SIZE_MAX {
                let message = format!("{status}: the answer is larger than {BODY_SIZE_MAX} bytes");
                return Err(HubError::Server { status: Some(status).filter(|status| *status != 200), message });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport_error(&self, error: &reqwest::Error) -> HubError {
        let address = self.address();
        let timeout = error.is_timeout();
        let why = causes(error);
        let message = if timeout && error.is_connect() {
            format!("{address}: no connection in time")
        } else if timeout {
            format!("{address}: no answer in time")
        } else if why.contains("UnknownIssuer") {
            format!("{address}: certificate not trusted: {why}; name the file of a private authority in ca_file")
        } else if why.contains("invalid peer certificate") {
            format!("{address}: certificate not trusted: {why}")
        } else if why.contains("corrupt message") {
            format!("{address}: nothing there speaks TLS: {why}")
        } else if let Some(why) = why.strip_prefix("tunnel error: ") {
            format!("{address}: the proxy of HTTPS_PROXY gives no way there: {why}")
        } else {
            format!("{address}: {why}")
        };
        HubError::Transport { message: wire::clean(&message, wire::TEXT_MAX), timeout }
    }
}

impl ReadTwins for RestHub {
    fn credential_ends(&self) -> Option<SystemTime> {
        self.login.ends()
    }

    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        let call = Call::new(Method::GET, twin_path(twin)?, None);
        let answer = self.send(Asked::Read(twin), call).await?;
        wire::twin(&answer.body, twin).map_err(not_understood)
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        let answer = self.send_query(query, page_size, from).await?;
        let rows = wire::rows(&answer.body).map_err(not_understood)?;
        Ok(QueryPage { rows, next: continuation(&answer)? })
    }

    async fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<TextPage, HubError> {
        let answer = self.send_query(query, page_size, from).await?;
        let rows = TextRows::from_body(&answer.body, columns).map_err(|error| not_understood(error.to_string()))?;
        Ok(TextPage { rows, next: continuation(&answer)? })
    }
}

impl WriteTwins for RestHub {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        let answer = self.send_patch(twin, patch, etag).await?;
        wire::twin(&answer.body, twin).map_err(not_understood)
    }

    async fn patch_twin_for_trace(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
        tag: &str,
    ) -> Result<TwinTrace, HubError> {
        let answer = self.send_patch(twin, patch, etag).await?;
        wire::trace(&answer.body, twin, tag).map_err(not_understood)
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        let path = format!("/devices/{}", segment(device.as_str())?);
        let call = Call::new(Method::PUT, path, Some(wire::device_body(device)));
        // The answer holds the keys of the device, which nobody here needs.
        self.send(Asked::Create(device), call).await.map(|_| ())
    }
}

/// What every connection has in common.
fn builder(options: &RestOptions) -> Result<ClientBuilder, SetupError> {
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_max_idle_per_host(options.connections)
        .timeout(options.timeout)
        .connect_timeout(options.connect_timeout)
        .no_proxy();
    if let Some(pem) = &options.extra_ca_pem {
        let certificates = Certificate::from_pem_bundle(pem).map_err(|_| SetupError::Ca)?;
        if certificates.is_empty() {
            return Err(SetupError::Ca);
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some(proxy) = &options.proxy {
        let except = NoProxy::from_string(&proxy.except);
        let proxy = Proxy::https(proxy.url.expose_secret()).map_err(|_| SetupError::Proxy)?;
        builder = builder.proxy(proxy.no_proxy(except));
    }
    Ok(builder)
}

fn tls(error: &reqwest::Error) -> SetupError {
    SetupError::Tls(causes(error))
}

const CONTINUATION: &str = "x-ms-continuation";

/// One request without its token.
struct Call {
    method: Method,
    /// From `/`, percent-encoded.
    path: String,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl Call {
    fn new(method: Method, path: String, body: Option<Vec<u8>>) -> Self {
        Self { method, path, headers: HeaderMap::new(), body }
    }
}

/// What came back, read to its end.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn twin_path(twin: &TwinRef) -> Result<String, HubError> {
    let device = segment(twin.device.as_str())?;
    match &twin.module {
        None => Ok(format!("/twins/{device}")),
        Some(module) => Ok(format!("/twins/{device}/modules/{}", segment(module.as_str())?)),
    }
}

/// An id as one segment of a path. `.` and `..` mean something else there in every spelling, so such an id, which
/// IoT Hub's rules allow, cannot be asked for; asking would reach another resource.
fn segment(id: &str) -> Result<String, HubError> {
    if matches!(id, "." | "..") {
        let message = format!("the id {id} cannot stand in a URL");
        return Err(HubError::Rejected { status: 400, code: "ArgumentInvalid".to_owned(), message });
    }
    Ok(encode(id))
}

/// Where the next page of a query begins, if the answer is not the last one.
fn continuation(answer: &Answer) -> Result<Option<Continuation>, HubError> {
    let Some(token) = answer.headers.get(CONTINUATION) else { return Ok(None) };
    let token = token.to_str().ok().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| not_understood("the continuation of a query is no text".to_owned()))?;
    Ok(Some(Continuation(token.to_owned())))
}

fn not_understood(message: String) -> HubError {
    HubError::Server { status: None, message }
}

/// What lies beneath an error, outermost first; the error itself only repeats the URL. Links that say nothing of their
/// own are left out.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !text.starts_with("client error (") && texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_in_a_path_as_one_segment() {
        for (id, encoded) in [
            ("myDevice", "myDevice"),
            ("a-b_c.d", "a-b_c.d"),
            ("...", "..."),
            ("a:b+%#*?!(),=@;$'", "a%3Ab%2B%25%23%2A%3F%21%28%29%2C%3D%40%3B%24%27"),
        ] {
            assert_eq!(segment(id), Ok(encoded.to_owned()));
            let url = Url::parse(&format!("https://h.net/twins/{encoded}?api-version=1")).unwrap();
            assert_eq!(url.path(), format!("/twins/{encoded}"));
        }
        for id in [".", ".."] {
            assert_eq!(segment(id).unwrap_err().category(), "invalid", "{id}");
        }
    }
}
