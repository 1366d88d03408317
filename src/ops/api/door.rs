//! Who may ask what.
//!
//! ```text
//!                     on loopback               off loopback
//!   Host              localhost or an address   any: the token is needed anyway
//!   GET               open                      token
//!   POST              token                     token
//!   no token file     POST is 403               everything is 403
//! ```
//!
//! Invariants: the token is compared in constant time, read anew for each request that needs it, and never printed. A
//! web page that a browser loaded elsewhere cannot read the API: its requests carry the name of another host.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret as _, SecretString};

use super::Api;
use super::problem::Problem;
use crate::ops::digest::Digest;

/// The longest token, in bytes.
const TOKEN_SIZE_MAX: u64 = 4096;
/// The shortest token: anything below can be guessed.
const TOKEN_SIZE_MIN: usize = 16;

/// Lets a request in, or says why not.
pub(super) async fn keep(State(api): State<Api>, request: Request, next: Next) -> Response {
    match admit(&api, request.method(), request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn admit(api: &Api, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let remote = api.options.remote;
    if !remote {
        check_host(headers)?;
    }
    let reads = method == Method::GET || method == Method::HEAD;
    if reads && !remote {
        return Ok(());
    }
    let Some(file) = api.options.token_file.clone() else {
        let what = if reads { "reading from other machines is" } else { "actions are" };
        return Err(Problem::forbidden(format!("{what} off; name a file with a token: api_token_file = \"...\"")));
    };
    let presented = presented(headers)?;
    let read = tokio::task::spawn_blocking(move || read_token(&file)).await;
    let token = match read {
        Ok(Ok(token)) => token,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the token of the API cannot be used");
            return Err(Problem::forbidden(format!("the file of api_token_file cannot be used: {error}")));
        }
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    match is_same(&presented, &token) {
        true => Ok(()),
        false => Err(Problem::unauthorized("the token is not that of api_token_file; check --token-file")),
    }
}

/// On loopback a browser may be made to ask for somebody else: then `Host` is that one's name.
fn check_host(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    if name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(Problem::misdirected("the Host header is neither localhost nor an address; ask this port by one of them"))
}

fn presented(headers: &HeaderMap) -> Result<SecretString, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| SecretString::from(token.trim()));
    token.ok_or_else(|| Problem::unauthorized("a bearer token is needed; send that of api_token_file (--token-file)"))
}

fn read_token(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    let read = File::open(path)?.take(TOKEN_SIZE_MAX + 1).read_to_string(&mut text);
    let text = SecretString::from(text);
    read?;
    let token = text.expose_secret().trim();
    if token.len() < TOKEN_SIZE_MIN || text.expose_secret().len() as u64 > TOKEN_SIZE_MAX {
        let problem = format!("a token has {TOKEN_SIZE_MIN} to {TOKEN_SIZE_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(SecretString::from(token))
}

/// Why the token in the file cannot be used, if it cannot.
pub(super) fn token_problem(path: &Path) -> Option<String> {
    read_token(path).err().map(|error| error.to_string())
}

/// Digests have one length and tell nothing about where two tokens differ.
fn is_same(one: &SecretString, other: &SecretString) -> bool {
    let digest = |text: &SecretString| Digest::of([text.expose_secret().as_bytes()]);
    digest(one) == digest(other)
}
