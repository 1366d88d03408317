//! `geminid hub`.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::args::{EmbeddedArgs, LogArgs, log_options};
use super::output::Output;
use super::stop::until_stopped;
use crate::app::{Progress, start_logging};
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
    start_logging(&log_options(&Settings::default(), &args.log)?, &Progress::hidden(), None)?;
    let (ended, _) = until_stopped(async |stop| serve(&args, stop).await).await?;
    ended.map(|()| 0)
}

async fn serve(args: &HubArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let hub = EmbeddedHub::start(args.embedded.options()?).await?;
    let mut out = Output::stdout().beside_the_work();
    out.line(concat!("geminid ", env!("CARGO_PKG_VERSION")));
    out.line(&format!("  embedded hub   https://{}", hub.address()));
    if let Some(address) = hub.connection_info().mqtts {
        out.line(&format!("  devices        mqtts://{address}"));
    }
    out.line(&format!("  connect with   {} (connection strings, CA)", hub.connection_file().display()));
    out.line("  stop           Ctrl-C");
    stop.cancelled().await;
    hub.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        hub: EmbeddedArgs,
    }

    /// `--flag VALUE` to its default, as the page for users has them.
    fn in_the_page() -> Vec<(String, String)> {
        let page = include_str!("../../docs/embedded-hub.md");
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `--")?.split(" | ");
            let flag = cells.next()?.trim_end_matches('`').to_owned();
            Some((format!("--{flag}"), cells.next()?.replace('`', "").trim().to_owned()))
        };
        // Its first table alone: a later one has the flags of simulated devices.
        let table = page.lines().skip_while(|line| !line.starts_with("| `--"));
        table.map_while(row).collect()
    }

    #[test]
    fn the_page_for_users_has_every_flag_with_its_default() {
        let command = Command::command();
        let flag = |flag: &clap::Arg| {
            let name = format!("--{}", flag.get_long()?);
            let value = flag.get_value_names().filter(|_| flag.get_action().takes_values());
            let written = value.map_or(name.clone(), |values| format!("{name} {}", values[0]));
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let default = help.split_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
            Some((written, default.unwrap_or_default().to_owned()))
        };
        let flags: Vec<(String, String)> = command.get_arguments().filter_map(flag).collect();
        assert!(flags.len() > 10, "{flags:?}");
        assert_eq!(in_the_page(), flags, "docs/embedded-hub.md and `geminid hub --help`");
    }
}
