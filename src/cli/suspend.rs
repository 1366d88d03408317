//! `geminid suspend`.

use clap::Args;
use serde_json::json;

use super::output::Output;
use super::server::ServerArgs;

/// Arguments of `suspend`.
#[derive(Debug, Args)]
pub(super) struct SuspendArgs {
    /// The twin: DEVICE or DEVICE/MODULE
    twin: String,
    /// Why, for whoever wonders later
    #[arg(long)]
    reason: String,
    /// The hub, when the daemon serves several
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Has a running daemon leave a twin alone.
pub(super) async fn run(args: SuspendArgs) -> anyhow::Result<u8> {
    let server = args.server.open()?;
    let hub = server.hub(args.hub.as_deref()).await?;
    let body = json!({"hub": hub, "twin": args.twin, "reason": args.reason});
    server.post(&["suspend"], &body).await?;
    Output::stdout().beside_the_work().line(&format!("{}: suspended, until `geminid resume {}`", args.twin, args.twin));
    Ok(0)
}
