//! `geminid events`.

use clap::Args;

use super::output::Output;
use super::server::{Format, ServerArgs, Table, items, show_document, text};

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// The events of this twin alone: DEVICE or DEVICE/MODULE
    twin: Option<String>,
    /// The events of this hub alone
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// At most this many, the youngest, up to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
    /// How to show them
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// Shows what happened lately, the youngest last.
pub(super) async fn run(args: EventsArgs) -> anyhow::Result<u8> {
    let filters = [("hub", args.hub), ("twin", args.twin), ("limit", Some(args.limit.to_string()))];
    let query: Vec<(&str, String)> = filters.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let events = args.server.open()?.get(&["events"], &query).await?;
    match args.output {
        Format::Json | Format::Yaml => show_document(&events, args.output)?,
        Format::Name => {
            let mut out = Output::stdout();
            items(&events).iter().for_each(|event| out.line(text(event, "reason")));
        }
        Format::Text => {
            let mut table = Table::new(&["TIME", "HUB", "TWIN", "REASON", "MESSAGE"]);
            for event in items(&events) {
                let twin = event["twin"].as_str().unwrap_or("-");
                table.row(&[
                    text(event, "time"),
                    text(event, "hub"),
                    twin,
                    text(event, "reason"),
                    text(event, "message"),
                ]);
            }
            table.show();
        }
    }
    Ok(0)
}
