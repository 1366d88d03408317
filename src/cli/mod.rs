//! The command line: one file a verb.
//!
//! Exit codes: 0 as wished, 1 as the verb says (not in sync, changes, problems), 2 for an error, in one line. Results go
//! to standard output, everything else to standard error.

mod adopt;
mod apply;
mod approval;
mod approve;
mod args;
mod check;
mod completion;
mod device;
mod diagnostics;
mod events;
mod explain;
mod export;
mod export_files;
mod get;
mod hub;
mod output;
mod plan;
mod plan_file;
mod query;
mod reconcile;
mod release;
mod resume;
mod run;
mod schema;
mod server;
mod stop;
mod suspend;
mod transfer;
mod trials;
mod validate;
mod writing;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use output::{Output, print_error};

/// GitOps for Azure IoT Hub device twins.
#[derive(Debug, Parser)]
#[command(name = "geminid", version, about, long_about = None, disable_help_subcommand = true)]
#[command(after_help = "Without Azure: geminid run --embedded-hub --manifests FOLDER\n\
                        Exit code: 0 as wished, 1 as the verb says, 2 for an error")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch manifests and keep the twins as they declare, until Ctrl-C
    Run(Box<run::RunArgs>),
    /// Bring the twins to what the manifests declare, once
    #[command(after_help = "Exit code: 0 all twins in sync, 1 not all, 2 for an error")]
    Apply(apply::ApplyArgs),
    /// Show what `run` or `apply` would change, reading only
    #[command(alias = "diff", after_help = "Exit code: 0 nothing to do, 1 changes, 2 for an error")]
    Plan(plan::PlanArgs),
    /// Write live twins as manifests: what is exported plans no change
    Export(export::ExportArgs),
    /// Look at settings, login, rights and manifests before anything is run, and say what is missing
    #[command(after_help = "Exit code: 0 nothing is missing, 1 something is, 2 for an error")]
    Check(check::CheckArgs),
    /// Check manifests without a hub
    #[command(after_help = "Exit code: 0 no errors, 1 errors, 2 when nothing could be checked")]
    Validate(validate::ValidateArgs),
    /// Ask the hub with its own query language
    Query(query::QueryArgs),
    /// Run an embedded IoT Hub for trials and tests
    Hub(hub::HubArgs),
    /// List the twins of a running daemon and how they stand
    Get(get::GetArgs),
    /// Show one twin leaf by leaf: declared, live, whose, and why not
    #[command(after_help = "Exit code: 0 in sync, 1 not in sync, 2 for an error")]
    Explain(explain::ExplainArgs),
    /// Show what a running daemon did and met lately
    Events(events::EventsArgs),
    /// Have a running daemon reconcile a twin, or all, now
    #[command(after_help = "Exit code: 0 done, 1 not done in time, 2 for an error")]
    Reconcile(reconcile::ReconcileArgs),
    /// Have a running daemon leave a twin alone
    Suspend(suspend::SuspendArgs),
    /// Have a running daemon go on with a suspended twin
    Resume(resume::ResumeArgs),
    /// Let a guard of a running daemon pass what was looked at
    Approve(approve::ApproveArgs),
    /// Take over paths that another owner has sealed, without changing a value
    #[command(after_help = "Exit code: 0 all done, 1 a twin was left out, 2 for an error")]
    Adopt(adopt::AdoptArgs),
    /// Give up our seals and leave every value as it is
    #[command(after_help = "Exit code: 0 all done, 1 a twin was left out, 2 for an error")]
    Release(release::ReleaseArgs),
    /// Print the JSON Schema of manifests, for editors
    Schema(schema::SchemaArgs),
    /// Simulate a device over MQTT, until Ctrl-C
    Device(device::DeviceArgs),
    /// Print what a shell needs to complete verbs and flags
    Completion(completion::CompletionArgs),
    /// Write manual pages
    Man(completion::ManArgs),
    /// Print the reference of the command line as markdown, as it stands in docs/cli.md
    #[command(hide = true)]
    CliReference,
    /// Print the version
    Version,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Run(args) => block_on(run::run(*args)),
        Command::Apply(args) => block_on(apply::run(args)),
        Command::Plan(args) => block_on(plan::run(args)),
        Command::Check(args) => block_on(check::run(args)),
        Command::Validate(args) => validate::run(&args),
        Command::Query(args) => block_on(query::run(args)),
        Command::Hub(args) => block_on(hub::run(args)),
        Command::Get(args) => block_on(get::run(args)),
        Command::Explain(args) => block_on(explain::run(args)),
        Command::Events(args) => block_on(events::run(args)),
        Command::Reconcile(args) => block_on(reconcile::run(args)),
        Command::Suspend(args) => block_on(suspend::run(args)),
        Command::Resume(args) => block_on(resume::run(args)),
        Command::Approve(args) => block_on(approve::run(args)),
        Command::Adopt(args) => block_on(adopt::run(args)),
        Command::Release(args) => block_on(release::run(args)),
        Command::Schema(args) => schema::run(&args),
        Command::Device(args) => block_on(device::run(args)),
        Command::Export(args) => block_on(export::run(args)),
        Command::Completion(args) => completion::run(&args, Cli::command()),
        Command::Man(args) => completion::write_pages(&args, Cli::command()),
        Command::CliReference => completion::print_reference(Cli::command()),
        Command::Version => version(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_error(&error);
            ExitCode::from(2)
        }
    }
}

/// Help goes to standard output with 0; a usage error is one line on standard error with 2.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let text = error.render().to_string();
        let is_advice = |line: &str| line.starts_with("Usage:") || line.starts_with("For more information");
        let line: Vec<&str> = text.lines().map(str::trim).take_while(|line| !is_advice(line)).collect();
        let line = line.iter().filter(|line| !line.is_empty()).copied().collect::<Vec<_>>().join(" ");
        let help = helpful(&text);
        print_error(&anyhow::anyhow!("{}; see {help} --help", line.trim_start_matches("error: ")));
        return ExitCode::from(2);
    }
    let code = if error.use_stderr() { 2 } else { 0 };
    let text = error.render().to_string();
    if code == 0 {
        Output::stdout().line(text.trim_end());
    } else {
        Output::stderr().line(&Cli::command().render_help().to_string());
    }
    ExitCode::from(code)
}

/// Whose help says more: `geminid VERB` where clap's usage names one, or the command line does.
fn helpful(text: &str) -> String {
    let Some(usage) = text.lines().find_map(|line| line.trim().strip_prefix("Usage: ")) else {
        let verbs = Cli::command();
        let verb = std::env::args().nth(1).filter(|verb| verbs.find_subcommand(verb).is_some());
        return verb.map_or_else(|| "geminid".to_owned(), |verb| format!("geminid {verb}"));
    };
    usage.split(' ').take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect::<Vec<_>>().join(" ")
}

fn block_on(task: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let result = runtime.block_on(task);
    // Whatever still blocks, a file read say, must not keep the process.
    runtime.shutdown_background();
    result
}

fn version() -> anyhow::Result<u8> {
    Output::stdout().line(concat!("geminid ", env!("CARGO_PKG_VERSION")));
    Ok(0)
}
