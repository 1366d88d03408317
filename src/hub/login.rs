//! What a client signs its requests with, and how that is renewed.
//!
//! ```text
//! connection strings     a token signed with a key of the policy, made anew before it ends   iot-hub.md 7.1
//! SharedAccessSignature  a token somebody else signed; ends when it says
//! Entra ID               a token of the directory, by one of the credentials in `entra`        iot-hub.md 7.4
//! ```
//!
//! Invariants: a text that may change (a file) is read anew when a token is made and when the hub refused one, so keys
//! rotate without a restart; one that cannot be used leaves the last good one in place and is said once. The hub
//! never changes: seals are bound to its host. Nothing here retries; no error or `Debug` text holds a secret.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

use super::HubError;
use super::address::HubAddress;
use super::entra::{EntraLogin, EntraOptions, EntraTransport, TokenWatch};
use super::sas::{
    ConnectionString, ConnectionStringError, ExposeSecret as _, SecretString, SharedAccessSignature, SignatureError,
    Signed,
};

/// The most connection strings in one text: a primary and a secondary key.
const KEYS_MAX: usize = 2;
/// How long before its end a ready-made token is looked for anew.
const SIGNATURE_MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// Gives the present text of a credential each time it is called, or one sentence why there is none.
pub type SecretText = Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>;

/// Why a credential cannot be used. The texts repeat nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The text cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// A line of it is no connection string.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// It is no token.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It holds nothing.
    #[error("it is empty; expected a connection string, or two in two lines")]
    Empty,
    /// It holds more than a primary and a secondary key.
    #[error("it has more than {KEYS_MAX} lines; expected a connection string, or two in two lines")]
    TooMany,
    /// Its two lines name two hubs, or it names another hub than before.
    #[error("it names another hub than {0}; a hub's name changes only with a restart")]
    OtherHub(HubAddress),
}

/// One credential for one hub.
#[derive(Debug)]
pub struct Login {
    address: HubAddress,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Policy(Policy),
    Signature(Ready),
    Entra(EntraLogin),
}

impl From<ConnectionString> for Login {
    /// One key that never changes.
    fn from(connection: ConnectionString) -> Self {
        let address = connection.address().clone();
        Self { address, kind: Kind::Policy(Policy { text: None, state: Mutex::new(Keys::new(vec![connection])) }) }
    }
}

impl Login {
    /// One or two connection strings of one hub, a line each: when the hub refuses the key in use, the other is tried.
    ///
    /// # Errors
    /// [`LoginError`] when the text cannot be used as it is now.
    pub fn connection_strings(text: SecretText) -> Result<Self, LoginError> {
        let keys = connections(&text)?;
        let address = keys[0].address().clone();
        Ok(Self { address, kind: Kind::Policy(Policy { text: Some(text), state: Mutex::new(Keys::new(keys)) }) })
    }

    /// A token made elsewhere, `SharedAccessSignature sr=...&sig=...&se=...&skn=...`.
    ///
    /// # Errors
    /// [`LoginError`] when the text cannot be used as it is now.
    pub fn signature(address: HubAddress, text: SecretText) -> Result<Self, LoginError> {
        let present = signature(&text)?;
        let state = Mutex::new(Renewed { present, complaint: None });
        Ok(Self { address, kind: Kind::Signature(Ready { text, state }) })
    }

    /// A token of Entra ID. Asks nobody yet.
    ///
    /// # Errors
    /// One sentence saying what the chosen credential lacks.
    pub fn entra(address: HubAddress, options: EntraOptions, transport: EntraTransport) -> Result<Self, String> {
        Ok(Self { address, kind: Kind::Entra(EntraLogin::new(options, transport)?) })
    }

    /// The hub.
    #[must_use]
    pub const fn address(&self) -> &HubAddress {
        &self.address
    }

    /// What messages call the credential: the name of the policy, or the kind of Entra credential.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Policy(policy) => format!("policy {}", policy.keys().present().policy()),
            Kind::Signature(ready) => match ready.state().present.policy() {
                Some(policy) => format!("a token of policy {policy}"),
                None => "a token".to_owned(),
            },
            Kind::Entra(entra) => entra.name().to_owned(),
        }
    }

    /// When the credential ends for good; `None` when it does not, when nobody knows, or when it renews itself.
    #[must_use]
    pub fn ends(&self) -> Option<SystemTime> {
        match &self.kind {
            Kind::Signature(ready) => {
                let seconds = u64::try_from(ready.state().present.ends()).unwrap_or_default();
                Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            }
            Kind::Entra(entra) => entra.ends().map(SystemTime::from),
            Kind::Policy(_) => None,
        }
    }

    /// Tells `watch` of each request for a token; the other credentials are made here and ask nobody.
    pub(super) fn watch_tokens(&self, watch: TokenWatch) {
        match &self.kind {
            Kind::Entra(entra) => entra.watch(watch),
            Kind::Policy(_) | Kind::Signature(_) => {}
        }
    }

    /// The value of `Authorization` now.
    ///
    /// # Errors
    /// [`HubError::Unauthorized`] when Entra gives no token, [`HubError::Transport`] when it cannot be reached.
    pub(super) async fn token(&self, now: Timestamp) -> Result<SecretString, HubError> {
        match &self.kind {
            Kind::Policy(policy) => Ok(policy.token(&self.address, now)),
            Kind::Signature(ready) => Ok(ready.token(now)),
            Kind::Entra(entra) => entra.token().await,
        }
    }

    /// Another token, because the hub refused `refused`; the same one when there is no other.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub(super) async fn token_instead_of(
        &self,
        refused: &SecretString,
        now: Timestamp,
    ) -> Result<SecretString, HubError> {
        match &self.kind {
            Kind::Policy(policy) => Ok(policy.token_instead_of(&self.address, refused, now)),
            Kind::Signature(ready) => Ok(ready.reread()),
            Kind::Entra(entra) => entra.token_instead_of(refused).await,
        }
    }
}

/// A shared access policy, with one key or two.
struct Policy {
    text: Option<SecretText>,
    state: Mutex<Keys>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Keys {
    /// One or two.
    connections: Vec<ConnectionString>,
    /// Which of them signs.
    used: usize,
    token: Option<Signed>,
    complaint: Option<LoginError>,
}

impl Keys {
    const fn new(connections: Vec<ConnectionString>) -> Self {
        Self { connections, used: 0, token: None, complaint: None }
    }

    fn present(&self) -> &ConnectionString {
        &self.connections[self.used]
    }

    /// Takes what the text holds now; goes on with the key in use if it is still there.
    fn take(&mut self, connections: Vec<ConnectionString>) {
        self.used = connections.iter().position(|new| new.has_key_of(self.present())).unwrap_or(0);
        self.connections = connections;
    }

    /// Takes what the text holds now, after the key in use was refused: a key nobody knew before comes next, else the
    /// other one.
    fn take_other(&mut self, connections: Vec<ConnectionString>) {
        let known = |new: &ConnectionString| self.connections.iter().any(|known| known.has_key_of(new));
        let unknown = connections.iter().position(|new| !known(new));
        let refused = connections.iter().position(|new| new.has_key_of(self.present()));
        self.used = unknown.or(refused.map(|at| (at + 1) % connections.len())).unwrap_or(0);
        self.connections = connections;
    }

    fn sign(&mut self, now: Timestamp) -> SecretString {
        let token = Signed::new(self.present(), now);
        let text = token.text().clone();
        self.token = Some(token);
        text
    }
}

impl Policy {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, address: &HubAddress, now: Timestamp) -> SecretString {
        let mut keys = self.keys();
        if let Some(token) = keys.token.as_ref().filter(|token| token.is_good_at(now)) {
            return token.text().clone();
        }
        if let Some(connections) = self.reread(&mut keys, address) {
            keys.take(connections);
        }
        keys.sign(now)
    }

    fn token_instead_of(&self, address: &HubAddress, refused: &SecretString, now: Timestamp) -> SecretString {
        let mut keys = self.keys();
        let other = keys.token.as_ref().filter(|token| token.text().expose_secret() != refused.expose_secret());
        if let Some(token) = other {
            return token.text().clone();
        }
        match self.reread(&mut keys, address) {
            Some(connections) => keys.take_other(connections),
            None => keys.used = (keys.used + 1) % keys.connections.len(),
        }
        keys.sign(now)
    }

    /// What the text holds now, if it can be used.
    fn reread(&self, keys: &mut Keys, address: &HubAddress) -> Option<Vec<ConnectionString>> {
        let text = self.text.as_ref()?;
        let read = connections(text).and_then(|connections| {
            let same = connections[0].address() == address;
            if same { Ok(connections) } else { Err(LoginError::OtherHub(address.clone())) }
        });
        complain(address, &mut keys.complaint, read.as_ref().err());
        read.ok()
    }
}

/// Says once that a credential cannot be used, until it changes.
fn complain(hub: &HubAddress, known: &mut Option<LoginError>, error: Option<&LoginError>) {
    if known.as_ref() != error {
        if let Some(error) = error {
            tracing::warn!(hub = hub.host(), %error, "the connection string changed and cannot be used; the last one stays");
        }
        *known = error.cloned();
    }
}

/// The connection strings in a text, one or two of one hub.
fn connections(text: &SecretText) -> Result<Vec<ConnectionString>, LoginError> {
    let text = text().map_err(LoginError::Unreadable)?;
    let lines = text.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty());
    let connections = lines.map(ConnectionString::parse).collect::<Result<Vec<_>, _>>()?;
    let first = connections.first().ok_or(LoginError::Empty)?.address();
    if connections.len() > KEYS_MAX {
        return Err(LoginError::TooMany);
    }
    if connections.iter().any(|connection| connection.address() != first) {
        return Err(LoginError::OtherHub(first.clone()));
    }
    Ok(connections)
}

/// A token made elsewhere.
struct Ready {
    text: SecretText,
    state: Mutex<Renewed>,
}

#[derive(Debug)]
struct Renewed {
    present: SharedAccessSignature,
    complaint: Option<LoginError>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Ready {
    fn state(&self) -> MutexGuard<'_, Renewed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, now: Timestamp) -> SecretString {
        let present = self.state().present.clone();
        let left = present.ends().saturating_sub(now.as_second());
        if left > SIGNATURE_MARGIN.as_secs() { present.text().clone() } else { self.reread() }
    }

    fn reread(&self) -> SecretString {
        let read = signature(&self.text);
        let mut state = self.state();
        if state.complaint.as_ref() != read.as_ref().err() {
            state.complaint = read.as_ref().err().cloned();
            if let Some(error) = &state.complaint {
                tracing::warn!(%error, "the token changed and cannot be used; the last one stays");
            }
        }
        if let Ok(present) = read {
            state.present = present;
        }
        state.present.text().clone()
    }
}

fn signature(text: &SecretText) -> Result<SharedAccessSignature, LoginError> {
    let text = text().map_err(LoginError::Unreadable)?;
    Ok(SharedAccessSignature::parse(text.expose_secret())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// base64 of `canary-first`, `canary-second` and `canary-third`.
    const KEYS: [&str; 3] = ["Y2FuYXJ5LWZpcnN0", "Y2FuYXJ5LXNlY29uZA==", "Y2FuYXJ5LXRoaXJk"];

    fn line(key: &str) -> String {
        format!("HostName=h.net;SharedAccessKeyName=service;SharedAccessKey={key}\n")
    }

    /// A text that a test may change, as a file is changed.
    fn text_of(present: &Arc<Mutex<String>>) -> SecretText {
        let present = Arc::clone(present);
        Arc::new(move || Ok(SecretString::from(present.lock().unwrap().as_str())))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The token that `key` signs at `second`.
    fn signed(key: &str, second: i64) -> String {
        let connection = ConnectionString::parse(&line(key)).unwrap();
        Signed::new(&connection, at(second)).text().expose_secret().to_owned()
    }

    async fn token(login: &Login, second: i64) -> SecretString {
        login.token(at(second)).await.unwrap()
    }

    async fn refused(login: &Login, token: &SecretString, second: i64) -> SecretString {
        login.token_instead_of(token, at(second)).await.unwrap()
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_it_ends_or_when_refused() {
        let login = Login::from(ConnectionString::parse(&line(KEYS[0])).unwrap());
        for (second, made) in [(0, 0), (2999, 0), (3000, 3000), (5999, 3000), (6000, 6000), (5999, 5999)] {
            assert_eq!(token(&login, second).await.expose_secret(), signed(KEYS[0], made), "at {second}");
        }
        let first = token(&login, 5999).await;
        let fresh = refused(&login, &first, 6500).await;
        assert_eq!(fresh.expose_secret(), signed(KEYS[0], 6500));
        let same = refused(&login, &first, 6600).await;
        assert_eq!(same.expose_secret(), fresh.expose_secret(), "a second refusal of one token makes no second one");
        let printed = format!("{login:?}");
        assert!(!printed.contains("SharedAccessSignature") && !printed.contains("canary"), "{printed}");
    }

    #[tokio::test]
    async fn when_the_primary_key_is_refused_the_secondary_signs_and_then_stays() {
        let text = Arc::new(Mutex::new(line(KEYS[0]) + &line(KEYS[1])));
        let login = Login::connection_strings(text_of(&text)).unwrap();
        let first = token(&login, 0).await;
        assert_eq!(first.expose_secret(), signed(KEYS[0], 0));
        let second = refused(&login, &first, 1).await;
        assert_eq!(second.expose_secret(), signed(KEYS[1], 1));
        assert_eq!(token(&login, 4000).await.expose_secret(), signed(KEYS[1], 4000));
        let back = token(&login, 4000).await;
        assert_eq!(refused(&login, &back, 4001).await.expose_secret(), signed(KEYS[0], 4001));
    }

    #[tokio::test]
    async fn a_key_that_is_rotated_in_the_file_is_taken_when_the_old_one_is_refused() {
        let text = Arc::new(Mutex::new(line(KEYS[0])));
        let login = Login::connection_strings(text_of(&text)).unwrap();
        let old = token(&login, 0).await;
        *text.lock().unwrap() = line(KEYS[2]);
        assert_eq!(token(&login, 10).await.expose_secret(), old.expose_secret(), "the old key still is good");
        assert_eq!(refused(&login, &old, 20).await.expose_secret(), signed(KEYS[2], 20));
        *text.lock().unwrap() = line(KEYS[1]) + &line(KEYS[2]);
        assert_eq!(token(&login, 4000).await.expose_secret(), signed(KEYS[2], 4000), "the one in use goes on");
        let present = token(&login, 4000).await;
        assert_eq!(refused(&login, &present, 4001).await.expose_secret(), signed(KEYS[1], 4001));
    }

    #[tokio::test]
    async fn a_text_that_cannot_be_used_leaves_the_last_good_key() {
        let text = Arc::new(Mutex::new(line(KEYS[0])));
        let login = Login::connection_strings(text_of(&text)).unwrap();
        let mut present = token(&login, 0).await;
        let elsewhere = line(KEYS[1]).replace("h.net", "other.net");
        for (second, bad) in (1..).zip(["", "nonsense", elsewhere.as_str(), &line(KEYS[0]).repeat(3)]) {
            bad.clone_into(&mut text.lock().unwrap());
            present = refused(&login, &present, second).await;
            assert_eq!(present.expose_secret(), signed(KEYS[0], second), "{bad:?}");
        }
    }

    #[test]
    fn a_text_that_cannot_be_used_at_the_start_is_refused_without_being_repeated() {
        let two_hubs = line(KEYS[0]) + &line(KEYS[1]).replace("h.net", "other.net");
        for (bad, expected) in [
            ("\n\n".to_owned(), "it is empty"),
            (line(KEYS[0]).repeat(3), "more than 2 lines"),
            (two_hubs, "it names another hub than h.net"),
            ("SharedAccessSignature sr=x&sig=canary&se=1".to_owned(), "is unknown; expected HostName"),
        ] {
            let error = Login::connection_strings(text_of(&Arc::new(Mutex::new(bad)))).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
        }
        let host = HubAddress::parse("h.net").unwrap();
        for (bad, expected) in [
            ("", "it is no token"),
            ("SharedAccessSignature sr=h.net&sig=canary", "no usable se"),
            ("SharedAccessSignature sr=h.net&se=5", "no usable sig"),
            ("SharedAccessSignature sig=canary&se=5", "no usable sr"),
            ("SharedAccessSignature sr=h.net&sig=canary&se=soon", "no usable se"),
        ] {
            let text = text_of(&Arc::new(Mutex::new(bad.to_owned())));
            let error = Login::signature(host.clone(), text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_ready_made_token_is_looked_for_anew_when_it_is_about_to_end() {
        let ready = |ends: i64| format!("SharedAccessSignature sr=h.net&sig=canary&se={ends}&skn=my%20policy");
        let text = Arc::new(Mutex::new(ready(10_000)));
        let login = Login::signature(HubAddress::parse("h.net").unwrap(), text_of(&text)).unwrap();
        assert_eq!(login.name(), "a token of policy my policy");
        assert_eq!(login.ends(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(10_000)));
        *text.lock().unwrap() = ready(20_000);
        assert_eq!(token(&login, 9_000).await.expose_secret(), ready(10_000));
        assert_eq!(token(&login, 9_800).await.expose_secret(), ready(20_000));
        *text.lock().unwrap() = "gone".to_owned();
        assert_eq!(token(&login, 19_900).await.expose_secret(), ready(20_000), "the last one stays");
        *text.lock().unwrap() = ready(30_000);
        let present = token(&login, 19_000).await;
        assert_eq!(refused(&login, &present, 19_001).await.expose_secret(), ready(30_000));
    }
}
