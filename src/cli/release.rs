//! `geminid release`.

use anyhow::bail;
use clap::Args;

use super::transfer::{self, TransferArgs};
use crate::plan::Transfer;

/// Arguments of `release`.
#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// Every twin that carries our seal
    #[arg(long, conflicts_with_all = ["twins", "labels", "devices"])]
    all: bool,
    #[command(flatten)]
    transfer: TransferArgs,
}

/// Gives our seals up and leaves the values: 0 when all is done, 1 when a twin was left out.
pub(super) async fn run(args: ReleaseArgs) -> anyhow::Result<u8> {
    if !args.all && !args.transfer.chooses()? {
        bail!("say which twins: TWIN, --device, --label, or --all for every one that carries our seal");
    }
    transfer::run(args.transfer, Transfer::Release).await
}
