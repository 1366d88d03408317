//! `geminid query`.

use clap::Args;

use super::args::OneHubArgs;
use super::output::Output;
use crate::hub::{PAGE_SIZE_MAX, Pages};

/// Pages read at most; a million rows.
const PAGES_MAX: usize = 10_000;

/// Arguments of `query`.
#[derive(Debug, Args)]
pub(super) struct QueryArgs {
    /// The query, such as "SELECT deviceId FROM devices WHERE tags.location.plant = 'Redmond43'"
    query: String,
    #[command(flatten)]
    one: OneHubArgs,
}

/// Asks the hub and prints a row a line, page by page.
pub(super) async fn run(args: QueryArgs) -> anyhow::Result<u8> {
    let hub = args.one.open_to_read()?.parts.paced_alone()?;
    let mut pages = Pages::new(&hub, &args.query, PAGE_SIZE_MAX, PAGES_MAX);
    let mut out = Output::stdout();
    while let Some(page) = pages.next().await {
        page?.iter().for_each(|row| out.line(&row.to_string()));
    }
    Ok(0)
}
