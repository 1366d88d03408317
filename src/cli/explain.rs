//! `geminid explain`.

use clap::Args;
use serde_json::Value;

use super::output::Output;
use super::server::{Format, ServerArgs, Table, age, show_document, text};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The twin: DEVICE or DEVICE/MODULE
    twin: String,
    /// The hub, when the daemon serves several
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// Shows why a twin is as it is: 0 when it is in sync, 1 when not.
pub(super) async fn run(args: ExplainArgs) -> anyhow::Result<u8> {
    let server = args.server.open()?;
    let hub = server.hub(args.hub.as_deref()).await?;
    let (device, module) = args.twin.split_once('/').map_or((args.twin.as_str(), None), |(d, m)| (d, Some(m)));
    let query: Vec<(&str, String)> = module.map(|module| ("module", module.to_owned())).into_iter().collect();
    let explained = server.get(&["hubs", &hub, "twins", device], &query).await?;
    match args.output {
        Format::Json | Format::Yaml => show_document(&explained, args.output)?,
        Format::Name => Output::stdout().line(text(&explained["twin"], "name")),
        Format::Text => show(&explained),
    }
    Ok(u8::from(text(&explained["twin"]["condition"], "status") != "True"))
}

fn show(explained: &Value) {
    let mut out = Output::stdout();
    let (twin, condition) = (&explained["twin"], &explained["twin"]["condition"]);
    let since = age(twin["ageSeconds"].as_u64().unwrap_or_default());
    let synced = text(condition, "status");
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            out.line(&format!("{:<13}{value}", format!("{name}:")));
        }
    };
    field("Twin", text(twin, "name"));
    field("Hub", text(twin, "hub"));
    field("State", &format!("{} (Synced={synced}, {}, for {since})", text(twin, "state"), text(condition, "reason")));
    field("Message", text(condition, "message"));
    field("Revision", text(twin, "revision"));
    field("Declared at", text(explained, "source"));
    field("Last write", text(explained, "lastWrite"));
    match (explained["readAt"].as_str(), explained["readError"].as_str()) {
        (Some(at), _) if explained["etag"].is_null() => field("Live", &format!("not registered, asked at {at}")),
        (Some(at), _) => field("Live", &format!("etag {}, read at {at}", text(explained, "etag"))),
        (None, Some(error)) => field("Live", &format!("could not be read: {error}")),
        (None, None) => {}
    }
    let held = explained["held"].as_array().map(Vec::as_slice).unwrap_or_default();
    held.iter().filter_map(Value::as_str).for_each(|held| field("Held", held));
    let leaves = explained["leaves"].as_array().map(Vec::as_slice).unwrap_or_default();
    if leaves.is_empty() {
        return;
    }
    out.line("");
    let mut table = Table::new(&["LEAF", "DECLARED", "LIVE", "HOLDER", "DECLARED AT", "LAST WRITE", "WHY NOT"]);
    for leaf in leaves {
        let declared = match leaf["isDeclared"].as_bool() {
            Some(true) if leaf["declared"].is_null() => "(none)".to_owned(),
            Some(true) => leaf["declared"].to_string(),
            Some(false) | None => "-".to_owned(),
        };
        let live = if leaf["live"].is_null() { "-".to_owned() } else { leaf["live"].to_string() };
        let initial = if leaf["initialOnly"] == true { " (initial only)" } else { "" };
        let why = leaf["held"].as_str().map_or_else(|| pending(leaf), str::to_owned);
        table.row(&[
            text(leaf, "path"),
            &format!("{declared}{initial}"),
            &live,
            text(leaf, "holder"),
            leaf["source"].as_str().unwrap_or("-"),
            leaf["lastWrite"].as_str().unwrap_or("-"),
            &why,
        ]);
    }
    table.show();
}

/// What is to be done and held by nothing.
fn pending(leaf: &Value) -> String {
    leaf["change"].as_str().map(|change| format!("to {change}")).unwrap_or_default()
}
