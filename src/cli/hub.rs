//! `geminid hub`.

use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::{EmbeddedArgs, LogArgs, log_options};
use super::output::Output;
use crate::app::{StopSignals, start_logging};
use crate::emulator::EmbeddedHub;
use crate::settings::Settings;

/// Arguments of `hub`.
#[derive(Debug, Args)]
pub(super) struct HubArgs {
    #[command(flatten)]
    embedded: EmbeddedArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs an embedded hub until a signal.
pub(super) async fn run(args: HubArgs) -> anyhow::Result<u8> {
    start_logging(&log_options(&Settings::default(), &args.log)?, None)?;
    let signals = StopSignals::catch()?;
    let hub = EmbeddedHub::start(args.embedded.options()).await?;
    let mut out = Output::stdout();
    out.line(concat!("geminid ", env!("CARGO_PKG_VERSION")));
    out.line(&format!("  embedded hub   https://{}", hub.address()));
    if let Some(address) = hub.connection_info().mqtts {
        out.line(&format!("  devices        mqtts://{address}"));
    }
    out.line(&format!("  connect with   {} (connection strings, CA)", hub.connection_file().display()));
    out.line("  stop           Ctrl-C");
    let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
    let mut obeying = JoinSet::new();
    obeying.spawn(signals.obey(cancel.clone(), ended.clone()));
    cancel.cancelled().await;
    hub.shutdown().await;
    ended.cancel();
    while obeying.join_next().await.is_some() {}
    Ok(0)
}
