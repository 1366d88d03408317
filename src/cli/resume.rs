//! `geminid resume`.

use clap::Args;
use serde_json::json;

use super::output::Output;
use super::server::ServerArgs;

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The twin: DEVICE or DEVICE/MODULE
    twin: String,
    /// The hub, when the daemon serves several
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Has a running daemon go on with a twin that `suspend` stopped.
pub(super) async fn run(args: ResumeArgs) -> anyhow::Result<u8> {
    let server = args.server.open()?;
    let hub = server.hub(args.hub.as_deref()).await?;
    server.post(&["resume"], &json!({"hub": hub, "twin": args.twin})).await?;
    Output::stdout().beside_the_work().line(&format!("{}: resumed", args.twin));
    Ok(0)
}
