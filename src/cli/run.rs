//! `geminid run`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::args::{Access, DEMO_OWNER, EmbeddedArgs, LogArgs, SettingsArgs, log_options};
use super::output::Output;
use crate::app::{Announcement, run_daemon};
use crate::settings;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Start an embedded IoT Hub and use it: needs no settings and no Azure
    #[arg(long, conflicts_with = "hub_json")]
    embedded_hub: bool,
    /// Folder of manifests
    #[arg(long, value_name = "FOLDER")]
    manifests: Option<PathBuf>,
    /// Where to serve /metrics, /livez and /readyz [default: 127.0.0.1:9797]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where to serve /api/v1 [default: beside /metrics]
    #[arg(long, value_name = "ADDRESS")]
    api_listen: Option<String>,
    /// File with the bearer token of /api/v1; without it, nothing can be asked of the daemon
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Who may see /metrics, and over TLS: a web configuration file as Prometheus' exporters take it
    #[arg(long, value_name = "FILE")]
    web_config: Option<PathBuf>,
    /// File with a token that lets a client see /metrics (Authorization: Bearer)
    #[arg(long, value_name = "FILE")]
    metrics_token_file: Option<PathBuf>,
    /// Time from one sweep over all twins to the next, such as 10m
    #[arg(long, value_name = "DURATION")]
    sweep: Option<String>,
    /// Where to record every write, one JSON line each: stdout or a file [default: stdout]
    #[arg(long, value_name = "FILE")]
    audit_log: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    embedded: EmbeddedArgs,
}

/// Runs the daemon.
pub(super) async fn run(args: RunArgs) -> anyhow::Result<u8> {
    let named = args.manifests.as_ref().filter(|_| !args.embedded_hub);
    let mut settings = args.settings.load(named, Access::Owner)?;
    if let Some(listen) = args.listen {
        settings.listen = listen;
    }
    settings.api_listen = args.api_listen.or(settings.api_listen);
    settings.api_token_file = args.api_token_file.or(settings.api_token_file);
    settings.web_config = args.web_config.or(settings.web_config);
    settings.metrics_token_file = args.metrics_token_file.or(settings.metrics_token_file);
    if let Some(audit_log) = args.audit_log {
        settings.audit_log = Some(settings::parse_audit_log("--audit-log", audit_log)?);
    }
    let sweep = args.sweep.as_deref().map(|text| settings::parse_sweep("--sweep", text)).transpose()?;
    if let Some(sweep) = sweep {
        settings.hubs.values_mut().for_each(|hub| hub.sweep = sweep);
    }
    let log = log_options(&settings, &args.log)?;
    let embedded = if args.embedded_hub {
        settings.owner.get_or_insert_with(|| DEMO_OWNER.to_owned());
        let manifests = args.manifests.context("--embedded-hub needs --manifests FOLDER")?;
        Some((args.embedded.options()?, manifests))
    } else {
        if let Some(flag) = args.embedded.first_given() {
            bail!("{flag} is for --embedded-hub; add that, or leave {flag} out");
        }
        if args.settings.hub_json.is_some() && args.manifests.is_none() {
            bail!("--hub-json needs --manifests FOLDER");
        }
        None
    };
    run_daemon(settings, embedded, sweep, &log, announce).await?;
    Ok(0)
}

/// What a newcomer needs next.
fn announce(about: &Announcement) {
    let mut out = Output::stdout().beside_the_work();
    out.line(concat!("geminid ", env!("CARGO_PKG_VERSION")));
    if let Some(hub) = &about.embedded {
        out.line(&format!("  embedded hub   https://{}", hub.https));
        if let Some(address) = hub.mqtts {
            out.line(&format!("  devices        mqtts://{address}"));
        }
        out.line(&format!("  connect with   {} (connection strings, CA)", hub.connection_file.display()));
    }
    for (name, host, manifests) in &about.hubs {
        out.line(&format!("  hub {name:<10} {host}, manifests in {}", manifests.display()));
    }
    let scheme = if about.tls { "https" } else { "http" };
    out.line(&format!("  metrics        {scheme}://{}/metrics", about.listen));
    out.line(&format!("  status         geminid get --server {scheme}://{}", about.api));
    out.line("  stop           Ctrl-C");
}
