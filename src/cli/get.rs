//! `geminid get`.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::server::{Format, Server, ServerArgs, Table, age, items, show_document, text};
use super::stop::until_stopped;

/// Twins asked for at one time; the daemon gives no more.
const PAGE: usize = 500;
/// The shortest pause between two looks.
const WATCH_MIN: Duration = Duration::from_secs(1);

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// This twin alone: DEVICE or DEVICE/MODULE; or a glob such as 'line2-*'
    #[arg(value_name = "TWIN")]
    name: Option<String>,
    /// The twins of this hub alone
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// Twins in this state alone, such as held
    #[arg(long)]
    state: Option<String>,
    /// Twins with this reason alone, such as `ShapeConflict`
    #[arg(long)]
    reason: Option<String>,
    /// Twins whose manifest has these labels, such as plant=redmond43,line=2
    #[arg(short = 'l', long = "selector", alias = "label", value_name = "LABELS")]
    labels: Option<String>,
    /// At most this many twins [default: all]
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// How to show them
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Again and again, such as every 2s, until Ctrl-C
    #[arg(long, value_name = "DURATION")]
    watch: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

impl GetArgs {
    /// The one twin that is asked for; `None` where an empty list is an answer.
    fn one(&self) -> Option<&str> {
        let is_filtered = self.state.is_some() || self.reason.is_some() || self.labels.is_some();
        self.name.as_deref().filter(|name| !is_filtered && !name.contains(['*', '?', '[', '{']))
    }
}

/// Lists twins: 0 when the daemon answered.
pub(super) async fn run(args: GetArgs) -> anyhow::Result<u8> {
    let server = args.server.open()?;
    let every = args.watch.as_deref().map(|text| crate::settings::parse_sweep("--watch", text)).transpose()?;
    let Some(every) = every else {
        let twins = list(&server, &args).await?;
        if let Some(name) = args.one().filter(|_| items(&twins).is_empty()) {
            bail!("{name} is not managed; `geminid get` lists the twins that are");
        }
        show(&twins, args.output)?;
        return Ok(0);
    };
    let (ended, _) = until_stopped(async |stop: CancellationToken| {
        stop.run_until_cancelled(watch(&server, &args, every.max(WATCH_MIN))).await
    })
    .await?;
    ended.unwrap_or(Ok(0))
}

/// Shows the list again and again, until an answer fails.
async fn watch(server: &Server, args: &GetArgs, every: Duration) -> anyhow::Result<u8> {
    loop {
        let twins = list(server, args).await?;
        if args.output == Format::Text && std::io::stdout().is_terminal() {
            Output::stdout().clear();
        }
        show(&twins, args.output)?;
        tokio::time::sleep(every).await;
    }
}

/// All pages as one list.
async fn list(server: &Server, args: &GetArgs) -> anyhow::Result<Value> {
    let (device, module) = match args.name.as_deref().map(|name| name.split_once('/').unwrap_or((name, ""))) {
        Some((device, module)) => (Some(device.to_owned()), module),
        None => (None, ""),
    };
    let filters = [
        ("hub", args.hub.clone()),
        ("name", device),
        ("state", args.state.clone()),
        ("reason", args.reason.clone()),
        ("labels", args.labels.clone()),
    ];
    let filters: Vec<(&str, String)> = filters.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let limit = args.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        bail!("--limit is at least 1");
    }
    let mut found: Vec<Value> = Vec::new();
    let mut next = None;
    let mut page = loop {
        let mut query = filters.clone();
        query.push(("limit", PAGE.min(limit - found.len()).to_string()));
        query.extend(next.map(|next| ("continue", next)));
        let page = server.get(&["twins"], &query).await?;
        let wanted = |twin: &&Value| module.is_empty() || text(twin, "module") == module;
        found.extend(items(&page).iter().filter(wanted).cloned());
        next = page["continue"].as_str().map(str::to_owned);
        if next.is_none() || found.len() >= limit {
            break page;
        }
    };
    page["items"] = Value::Array(found);
    Ok(page)
}

fn show(twins: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json | Format::Yaml => show_document(twins, format),
        Format::Name => {
            let mut out = Output::stdout();
            items(twins).iter().for_each(|twin| out.line(text(twin, "name")));
            Ok(())
        }
        Format::Text if items(twins).is_empty() => {
            Output::stderr().line("no twins");
            Ok(())
        }
        Format::Text => {
            let mut table = Table::new(&["HUB", "TWIN", "STATE", "REASON", "AGE", "REVISION", "MESSAGE"]);
            for twin in items(twins) {
                let age = age(twin["ageSeconds"].as_u64().unwrap_or_default());
                let condition = &twin["condition"];
                let revision: String = text(twin, "revision").chars().take(12).collect();
                table.row(&[
                    text(twin, "hub"),
                    text(twin, "name"),
                    text(twin, "state"),
                    text(condition, "reason"),
                    &age,
                    &revision,
                    text(condition, "message"),
                ]);
            }
            table.show();
            Ok(())
        }
    }
}
