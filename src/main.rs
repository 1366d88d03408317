//! The `geminid` binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    geminid::cli::main()
}
