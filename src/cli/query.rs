//! `geminid query`.
//!
//! Invariant: pages are written as they come and never collected; the answer of any size takes the memory of one page.

mod advice;
mod metrics;
mod table;

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::args::OneHubArgs;
use super::output::{Output, Style};
use super::stop::until_stopped;
use crate::app::{Colour, wall_clock};
use crate::hub::{PAGE_SIZE_MAX, Pages, ReadTwins};
use crate::query::{Dialect, ParseError, Query, parse_as};
use crate::settings::parse_duration;
use crate::twin::Value;
use table::{Columns, CsvWriter, TableWriter};

/// Pages read at most; a million rows.
const PAGES_MAX: usize = 10_000;
/// The shortest time between two rounds of `--watch`.
const WATCH_MIN: Duration = Duration::from_secs(1);
/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;

/// What `query --help` ends with.
const LANGUAGE: &str = include_str!("../../docs/query.md");

/// Arguments of `query`.
#[derive(Debug, Args)]
#[command(after_long_help = LANGUAGE)]
pub(super) struct QueryArgs {
    /// The query, such as "SELECT deviceId FROM devices WHERE tags.location.plant = 'Redmond43'"
    #[arg(required_unless_present = "metrics", conflicts_with = "metrics")]
    query: Option<String>,
    /// Run the twin queries that this manifest declares once, and print the metrics they would give
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "watch", "explain"])]
    metrics: Option<PathBuf>,
    /// How rows are written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Ask again and again, with this time in between, until Ctrl-C, such as 10s
    #[arg(long, value_name = "DURATION", conflicts_with = "explain")]
    watch: Option<String>,
    /// Say what the query would cost and what is odd about it; only its rows are counted
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    one: OneHubArgs,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// Columns
    #[default]
    Table,
    /// One JSON document with the whole rows
    Json,
    /// Comma-separated values (RFC 4180)
    Csv,
}

/// Asks the hub and writes its rows.
pub(super) async fn run(args: QueryArgs) -> anyhow::Result<u8> {
    let Some(text) = args.query else {
        let file = args.metrics.context("give a query, or --metrics FILE")?;
        return metrics::show_metrics(&file, &args.one).await;
    };
    let watch = args.watch.as_deref().map(|text| parse_duration("--watch", text)).transpose()?;
    if watch.is_some_and(|pause| pause < WATCH_MIN) {
        bail!("--watch takes 1s or more; a hub answers few queries a minute");
    }
    // What a hub may take, but is not known to, is the hub's to refuse.
    let query = match parse_as(&text, Dialect::Permissive) {
        Ok(query) => query,
        Err(error) => return refuse(&text, &error),
    };
    let opened = args.one.open_to_read()?;
    let hub = opened.parts.paced_alone()?;
    if args.explain {
        return advice::explain(&hub, &hub.budget().allowance(), &query, &mut Output::coloured_stdout(opened.colour))
            .await;
    }
    let (result, _) = until_stopped(async |cancel: CancellationToken| -> anyhow::Result<()> {
        loop {
            let round = write_rows(&hub, &text, &query, args.output, opened.colour, watch);
            match cancel.run_until_cancelled(round).await {
                Some(written) => written?,
                None if watch.is_none() => bail!("stopped before the last row"),
                None => return Ok(()),
            }
            let Some(pause) = watch else { return Ok(()) };
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    })
    .await?;
    result.map(|()| 0)
}

/// Draws the query with a caret under what is wrong, and says what it is.
fn refuse(text: &str, error: &ParseError) -> anyhow::Result<u8> {
    let (number, column) = error.position(text);
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let wrong = text.get(error.span.start..error.span.end).unwrap_or_default();
    let width = wrong.lines().next().unwrap_or_default().chars().count().max(1);
    let mut err = Output::stderr();
    // A tab is as wide as the caret's line thinks it is.
    err.line(&format!("  {}", line.replace('\t', " ")));
    err.line(&format!("  {}{}", " ".repeat(column - 1), "^".repeat(width)));
    bail!("{error}; `geminid query --help` shows the language")
}

async fn write_rows<H: ReadTwins>(
    hub: &H,
    text: &str,
    query: &Query,
    format: Format,
    colour: Colour,
    watch: Option<Duration>,
) -> anyhow::Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut out = Output::coloured_stdout(colour);
    if let Some(pause) = watch.filter(|_| format == Format::Table) {
        if is_terminal {
            out.clear();
        }
        let now = wall_clock().strftime("%Y-%m-%dT%H:%M:%SZ");
        out.styled(Style::Heading, &format!("{now}, every {:.0} s: {query}", pause.as_secs_f64()));
    }
    let mut writer = RowWriter::new(format, Columns::of(query), &mut out);
    let mut pages = Pages::new(hub, text, PAGE_SIZE_MAX, PAGES_MAX);
    while let Some(page) = pages.next().await {
        writer.page(&page?, &mut out);
    }
    writer.finish(&mut out);
    Ok(())
}

/// Writes rows in one of the forms.
enum RowWriter {
    Table(TableWriter),
    Json { rows: usize },
    Csv(CsvWriter),
}

impl RowWriter {
    fn new<W: Write>(format: Format, columns: Columns, out: &mut Output<W>) -> Self {
        match format {
            Format::Table => Self::Table(TableWriter::new(columns)),
            Format::Csv => Self::Csv(CsvWriter::new(columns, out)),
            Format::Json => {
                out.line(&format!("{{\"formatVersion\":{FORMAT_VERSION},\"rows\":["));
                Self::Json { rows: 0 }
            }
        }
    }

    fn page<W: Write>(&mut self, page: &[Value], out: &mut Output<W>) {
        match self {
            Self::Table(table) => table.page(page, out),
            Self::Csv(csv) => csv.page(page, out),
            Self::Json { rows } => {
                for row in page {
                    out.json_item(&row.to_json(), *rows > 0);
                    *rows += 1;
                }
            }
        }
    }

    fn finish<W: Write>(self, out: &mut Output<W>) {
        match self {
            Self::Table(table) => table.finish(out),
            Self::Csv(_) => {}
            Self::Json { .. } => out.line("]}"),
        }
    }
}
