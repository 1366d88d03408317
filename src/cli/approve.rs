//! `geminid approve`.

use clap::Args;
use serde_json::json;

use super::output::Output;
use super::server::{ServerArgs, text};

/// Arguments of `approve`; the daemon prints the whole command beside what it holds.
#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// What holds: removals, creates, updates, empty or shape
    guard: String,
    /// The hub, when the daemon serves several
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// The revision of the manifests that was looked at
    #[arg(long)]
    revision: String,
    /// How many twins may pass; leaves, for shape
    #[arg(long)]
    count: usize,
    /// The twin, for shape alone
    #[arg(long, value_name = "TWIN")]
    twin: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Lets a guard pass what was looked at.
pub(super) async fn run(args: ApproveArgs) -> anyhow::Result<u8> {
    let server = args.server.open()?;
    let hub = server.hub(args.hub.as_deref()).await?;
    let mut body = json!({"hub": hub, "guard": args.guard, "revision": args.revision, "count": args.count});
    if let Some(twin) = &args.twin {
        body["twin"] = json!(twin);
    }
    let approved = server.post(&["approve"], &body).await?;
    let line =
        format!("{}: {} may pass until {}", text(&approved, "guard"), approved["count"], text(&approved, "until"));
    Output::stdout().beside_the_work().line(&line);
    Ok(0)
}
