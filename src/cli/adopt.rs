//! `geminid adopt`.

use clap::Args;

use super::transfer::{self, TransferArgs};
use crate::plan::{Owner, Transfer};

/// Arguments of `adopt`.
#[derive(Debug, Args)]
pub(super) struct AdoptArgs {
    /// The owner whose seal gives the paths up
    #[arg(long, value_name = "OWNER")]
    from: String,
    /// Take over what nobody declares here, too; the next pass removes these values
    #[arg(long)]
    undeclared: bool,
    #[command(flatten)]
    transfer: TransferArgs,
}

/// Takes paths over from another owner: 0 when all is done, 1 when a twin was left out.
pub(super) async fn run(args: AdoptArgs) -> anyhow::Result<u8> {
    let from = Owner::new(&args.from)?;
    transfer::run(args.transfer, Transfer::Adopt { from, undeclared: args.undeclared }).await
}
