//! Who may see `/` and `/metrics`, and over what.
//!
//! Invariant: passwords are compared one at a time and each answer is remembered, so that guessing does not take all
//! of the machine; a user nobody knows costs as much as a known one. What cannot be read again leaves what was there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use tokio_rustls::rustls::ServerConfig;

use super::digest::Digest;
use super::web_config::{self, WebConfig, WebConfigError};

/// Answers of comparisons remembered; then they are forgotten, all at once.
const REMEMBERED_MAX: usize = 100;
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"geminid\", Bearer realm=\"geminid\"");

/// Where the rules stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessFiles {
    /// exporter-toolkit's web configuration.
    pub web_config: Option<PathBuf>,
    /// A token that a client may give instead of a user's password.
    pub token: Option<PathBuf>,
}

/// Who may see what. Clones share it. The default lets everybody in, without TLS.
#[derive(Debug, Clone, Default)]
pub struct Access(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    files: AccessFiles,
    rules: Mutex<Arc<Rules>>,
    remembered: Mutex<BTreeMap<Digest, bool>>,
    /// Held while a password is compared.
    comparing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Rules {
    web: WebConfig,
    /// Compared with for users that nobody knows.
    dummy: SecretString,
    token: Option<Digest>,
    /// Of each file that was read.
    contents: Vec<Digest>,
}

impl Access {
    /// Reads the rules. Blocks.
    ///
    /// # Errors
    /// [`WebConfigError`] names the file and what is wrong with it.
    pub fn load(files: AccessFiles) -> Result<Self, WebConfigError> {
        let rules = Rules::load(&files)?;
        Ok(Self(Arc::new(Shared { files, rules: Mutex::new(Arc::new(rules)), ..Shared::default() })))
    }

    /// Reads the rules again where a file changed; says whether one did. Blocks.
    ///
    /// # Errors
    /// [`WebConfigError`]; the rules stay as they were.
    pub fn refresh(&self) -> Result<bool, WebConfigError> {
        if digests(&Rules::contents(&self.0.files)?) == self.rules().contents {
            return Ok(false);
        }
        let rules = Arc::new(Rules::load(&self.0.files)?);
        *self.0.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(true)
    }

    /// Whether anything can change: whether there are files.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.0.files != AccessFiles::default()
    }

    /// Whether connections are encrypted now.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls().is_some()
    }

    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.rules().web.tls.clone()
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn allows(&self, given: Option<&HeaderValue>) -> bool {
        let rules = self.rules();
        if rules.web.users.is_empty() && rules.token.is_none() {
            return true;
        }
        let Some((scheme, rest)) = given.and_then(|value| value.to_str().ok()?.split_once(' ')) else { return false };
        if scheme.eq_ignore_ascii_case("bearer") {
            return rules.token.is_some_and(|token| token == Digest::of([rest.trim().as_bytes()]));
        }
        if !scheme.eq_ignore_ascii_case("basic") || rules.web.users.is_empty() {
            return false;
        }
        let pair = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(pair) = pair.map(SecretString::from) else { return false };
        let (user, password) = pair.expose_secret().split_once(':').unwrap_or((pair.expose_secret(), ""));
        self.knows(&rules, user, SecretString::from(password)).await
    }

    async fn knows(&self, rules: &Rules, user: &str, password: SecretString) -> bool {
        let known = rules.web.users.get(user);
        let hash = known.unwrap_or(&rules.dummy).clone();
        let parts = [user, hash.expose_secret(), password.expose_secret()];
        let key = Digest::of(parts.map(str::as_bytes));
        let _turn = self.0.comparing.lock().await;
        if let Some(answer) = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *answer;
        }
        let compare = move || bcrypt::verify(password.expose_secret(), hash.expose_secret());
        let same = tokio::task::spawn_blocking(compare).await;
        let answer = matches!(same, Ok(Ok(true))) && known.is_some();
        let mut remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key, answer);
        answer
    }
}

impl Rules {
    fn contents(files: &AccessFiles) -> Result<Vec<SecretSlice<u8>>, WebConfigError> {
        let mut contents = files.web_config.as_deref().map(web_config::contents).transpose()?.unwrap_or_default();
        if let Some(token) = &files.token {
            contents.push(web_config::read(token)?);
        }
        Ok(contents)
    }

    fn load(files: &AccessFiles) -> Result<Self, WebConfigError> {
        // Read before the rules: a file that changes in between is read once more the next time.
        let contents = Self::contents(files)?;
        let web = files.web_config.as_deref().map(web_config::load).transpose()?.unwrap_or_default();
        let dummy = match web.users.is_empty() {
            true => SecretString::default(),
            false => bcrypt::hash("no password of anybody", web_config::highest_cost(&web.users))
                .map_err(|_| WebConfigError::of("cannot make a bcrypt hash"))?
                .into(),
        };
        let token = match &files.token {
            None => None,
            Some(file) => {
                let text = contents.last().map(|bytes| bytes.expose_secret().trim_ascii()).unwrap_or_default();
                if text.is_empty() {
                    return Err(WebConfigError::of(&format!("{}: it holds no token", file.display())));
                }
                Some(Digest::of([text]))
            }
        };
        Ok(Self { web, dummy, token, contents: digests(&contents) })
    }
}

/// Lets through who may see the page.
pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.allows(request.headers().get(header::AUTHORIZATION)).await {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, CHALLENGE)], "unauthorized\n").into_response()
}

fn digests(contents: &[SecretSlice<u8>]) -> Vec<Digest> {
    contents.iter().map(|bytes| Digest::of([bytes.expose_secret()])).collect()
}
