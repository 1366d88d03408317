//! `geminid query`.

use clap::Args;

use super::args::{Access, LogArgs, SettingsArgs, log_options};
use super::output::Output;
use crate::app::start_logging;
use crate::hub::{PAGE_SIZE_MAX, Pages};

/// Pages read at most; a million rows.
const PAGES_MAX: usize = 10_000;

/// Arguments of `query`.
#[derive(Debug, Args)]
pub(super) struct QueryArgs {
    /// The query, such as "SELECT deviceId FROM devices WHERE tags.location.plant = 'Redmond43'"
    query: String,
    /// The hub, when several are configured
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Asks the hub and prints a row a line, page by page.
pub(super) async fn run(args: QueryArgs) -> anyhow::Result<u8> {
    let mut settings = args.settings.load(None, Access::Service)?;
    // A query writes nothing, so nobody has to own it.
    settings.owner.get_or_insert_with(|| super::args::DEMO_OWNER.to_owned());
    start_logging(&log_options(&settings, &args.log)?, None)?;
    let parts = args.settings.one_hub(&settings, args.hub.as_deref())?;
    let hub = parts.paced_alone()?;
    let mut pages = Pages::new(&hub, &args.query, PAGE_SIZE_MAX, PAGES_MAX);
    let mut out = Output::stdout();
    while let Some(page) = pages.next().await {
        page?.iter().for_each(|row| out.line(&row.to_string()));
    }
    Ok(0)
}
