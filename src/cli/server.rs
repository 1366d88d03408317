//! Asking a running daemon.
//!
//! Invariants: nothing is asked without an end; an error is one sentence; the token is never printed. The client reads
//! what it knows of an answer and leaves the rest: a newer daemon may say more.

use std::error::Error as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use reqwest::{Certificate, Client, Method, RequestBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::output::{Output, printable};
use crate::manifest::to_yaml;

/// The format of answers that this version reads.
const FORMAT_VERSION: u64 = 1;
/// The longest an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(65);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The largest answer read, in bytes.
const ANSWER_SIZE_MAX: usize = 16 * 1024 * 1024;
/// The longest token read, in bytes.
const TOKEN_SIZE_MAX: u64 = 4096;
/// The largest file of authorities read, in bytes.
const CA_SIZE_MAX: u64 = 1024 * 1024;

/// Which daemon to ask.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// Where the daemon serves /api/v1
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9797")]
    server: String,
    /// File with the bearer token that the daemon's `api_token_file` holds
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the authorities in this file too, for a server with a certificate of one's own
    #[arg(long, value_name = "FILE")]
    server_ca_file: Option<PathBuf>,
}

/// How to show an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// As the daemon says it
    Json,
    /// The same as YAML
    Yaml,
    /// Names alone, one a line
    Name,
}

/// A daemon that can be asked.
pub(super) struct Server {
    http: Client,
    address: String,
    token: Option<SecretString>,
}

impl ServerArgs {
    pub(super) fn open(&self) -> anyhow::Result<Server> {
        let address = self.server.trim_end_matches('/').to_owned();
        if !address.starts_with("http://") && !address.starts_with("https://") {
            bail!("--server {address:?} is no URL; write http://127.0.0.1:9797");
        }
        let token = self.token_file.as_ref().map(|file| {
            let mut text = String::new();
            let opened = std::fs::File::open(file);
            let read = opened.and_then(|opened| opened.take(TOKEN_SIZE_MAX).read_to_string(&mut text));
            let text = SecretString::from(text);
            read.map_err(|error| anyhow!("--token-file: cannot read {}: {error}", file.display()))?;
            anyhow::Ok(SecretString::from(text.expose_secret().trim()))
        });
        let mut http = Client::builder();
        if let Some(file) = &self.server_ca_file {
            if !address.starts_with("https://") {
                bail!("--server-ca-file is for a --server with https://, this is {address}");
            }
            http = http.tls_certs_merge(authorities(file)?);
        }
        let http = http
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(ANSWER_TIME_MAX)
            .build()
            .context("cannot set up HTTP")?;
        Ok(Server { http, address, token: token.transpose()? })
    }
}

fn authorities(file: &Path) -> anyhow::Result<Vec<Certificate>> {
    let mut pem = Vec::new();
    let opened = std::fs::File::open(file);
    let read = opened.and_then(|opened| opened.take(CA_SIZE_MAX).read_to_end(&mut pem));
    read.map_err(|error| anyhow!("--server-ca-file: cannot read {}: {error}", file.display()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => bail!("--server-ca-file: {} holds no certificate in PEM", file.display()),
    }
}

impl Server {
    /// Reads `path` beneath `/api/v1`; values of the query are encoded.
    pub(super) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(self.request(Method::GET, path)?.query(query)).await
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        self.ask(self.request(Method::POST, path)?.json(body)).await
    }

    /// The one hub, or the one named.
    pub(super) async fn hub(&self, named: Option<&str>) -> anyhow::Result<String> {
        if let Some(name) = named {
            return Ok(name.to_owned());
        }
        let hubs = self.get(&["hubs"], &[]).await?;
        let names: Vec<&str> = items(&hubs).iter().filter_map(|hub| hub["name"].as_str()).collect();
        match names.as_slice() {
            [one] => Ok((*one).to_owned()),
            names => bail!("the daemon serves {} hubs; choose one with --hub: {}", names.len(), names.join(", ")),
        }
    }

    fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = reqwest::Url::parse(&self.address)
            .map_err(|error| anyhow!("--server {:?} is no URL: {error}", self.address))?;
        url.path_segments_mut()
            .map_err(|()| anyhow!("--server {:?} is no URL of a server", self.address))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        })
    }

    async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let address = &self.address;
        let mut answer = request.send().await.map_err(|error| {
            let error = error.without_url();
            if let Some(why) = untrusted(&error) {
                anyhow!("the certificate of {address} is not trusted ({why}); name its authority with --server-ca-file")
            } else if error.is_connect() {
                let cause = cause(&error);
                anyhow!(
                    "no daemon answers at {address} ({cause}); start one with `geminid run`, or name it with --server"
                )
            } else if error.is_timeout() {
                anyhow!("the daemon at {address} did not answer within {} s", ANSWER_TIME_MAX.as_secs())
            } else {
                anyhow!("cannot ask the daemon at {address}: {}; is it http or https?", cause(&error))
            }
        })?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.context("the daemon's answer broke off")? {
            if body.len() + chunk.len() > ANSWER_SIZE_MAX {
                bail!("the answer of {address} is larger than {ANSWER_SIZE_MAX} bytes; ask for less with --limit");
            }
            body.extend_from_slice(&chunk);
        }
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        let format = json.as_ref().and_then(|json| json["formatVersion"].as_u64());
        match (json, format) {
            (Some(json), Some(FORMAT_VERSION)) if status.is_success() => Ok(json),
            (Some(json), Some(FORMAT_VERSION)) => bail!("{}", text(&json, "message")),
            (Some(_), Some(other)) => {
                bail!(
                    "the daemon at {address} answers in format {other}, this geminid reads {FORMAT_VERSION}; use its version"
                )
            }
            (_, _) => bail!("what answers at {address} with {status} is no geminid; name the daemon with --server"),
        }
    }
}

/// What is wrong with the server's certificate, when that is why it was not asked.
fn untrusted(error: &reqwest::Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.map(ToString::to_string).filter(|text| text.contains("certificate")).last()
}

/// What is at the bottom of an error: the layers above say only that something was being done.
fn cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The items of a list.
pub(super) fn items(json: &Value) -> &[Value] {
    json["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text field; empty when it is missing.
pub(super) fn text<'a>(json: &'a Value, field: &str) -> &'a str {
    json[field].as_str().unwrap_or_default()
}

/// An answer as JSON or YAML.
pub(super) fn show_document(json: &Value, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Yaml => to_yaml(&crate::twin::Value::from_json(json.clone())),
        Format::Text | Format::Json | Format::Name => serde_json::to_string_pretty(json)?,
    };
    Output::stdout().line(text.trim_end());
    Ok(())
}

/// `120s`, `5m`, `3h12m`, `4d`: an age as kubectl writes it.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 => format!("{minutes}m{}s", seconds % 60),
        600..=10799 => format!("{minutes}m"),
        10800..=86399 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d"),
    }
}

/// Columns of equal width, the last one as long as it is.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| printable(cell).replace('\n', " ")).collect());
    }

    pub(super) fn show(&self) {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = Output::stdout();
        for row in &self.rows {
            let cell = |(cell, width): (&String, &usize)| format!("{cell:<width$}   ");
            let line: String = row.iter().zip(&widths).map(cell).collect();
            out.line(line.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_as_long_as_it_must_be() {
        for (seconds, expected) in
            [(0, "0s"), (119, "119s"), (150, "2m30s"), (3600, "60m"), (11520, "3h12m"), (400_000, "4d")]
        {
            assert_eq!(age(seconds), expected);
        }
    }
}
