//! `geminid device`: one simulated device, or a fleet of them.

mod fleet;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use secrecy::ExposeSecret as _;

use super::args::{LogArgs, SettingsArgs, log_options};
use super::output::Output;
use super::stop::until_stopped;
use crate::app::{Progress, hub_file, secret_file, start_logging, wall_clock};
use crate::device::{Connector, DeviceConnection, DeviceEvent, DeviceOptions, Trust, run_device};
use crate::settings::Settings;
use crate::twin::{Object, Value};

/// Connections a second where nobody says how many: a fifth of what the smallest hub takes (`iot-hub.md` 6.1).
const RATE_DEFAULT: u32 = 20;
/// The most connections a second; a hub of many units takes more, one process hardly does.
const RATE_MAX: u32 = 1000;

/// Arguments of `device`.
#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// File with the device's connection string: HostName=...;DeviceId=...;SharedAccessKey=...
    #[arg(long, value_name = "FILE", conflicts_with_all = ["count", "id", "rate", "hub_json", "settings", "hub"])]
    connection_string_file: Option<PathBuf>,
    /// Simulate so many devices of a hub, whose keys are read there with --hub-json or --settings
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// How the devices are called, with {n} for the number of each, from 0 [default: device-{n}]
    #[arg(long, value_name = "TEMPLATE", requires = "count")]
    id: Option<String>,
    /// Connect so many a second, at first and after a loss [default: 20]
    #[arg(long, value_name = "NUMBER", requires = "count", value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: Option<u32>,
    /// The devices' hub, when `geminid hub` started it: its hub.json
    #[arg(long, value_name = "FILE", requires = "count")]
    hub_json: Option<PathBuf>,
    /// The devices' hub, when a settings file (TOML) names it; the environment (GEMINID_*) goes over it
    #[arg(long, value_name = "FILE", requires = "count")]
    settings: Option<PathBuf>,
    /// The hub, when several are configured
    #[arg(long, value_name = "NAME", requires = "count")]
    hub: Option<String>,
    /// Trust the authorities in this file alone, such as the ca.pem of an embedded hub [default: the hub's, or the
    /// system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// JSON object to report, such as {"connectivity":"cellular"}; with --count {n} in it is the device's number
    #[arg(long, value_name = "JSON")]
    report: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs simulated devices until a signal.
pub(super) async fn run(args: DeviceArgs) -> anyhow::Result<u8> {
    match (&args.connection_string_file, args.count) {
        (Some(file), None) => alone(&args, file).await,
        (None, Some(count)) => fleet::run(&args, count).await,
        (_, _) => bail!("say which: --connection-string-file FILE for one device, or --count NUMBER for many of a hub"),
    }
}

/// One device, by its connection string.
async fn alone(args: &DeviceArgs, file: &std::path::Path) -> anyhow::Result<u8> {
    let text = secret_file(file).context("--connection-string-file")?;
    let connection = DeviceConnection::parse(text.expose_secret()).context("--connection-string-file")?;
    let connector = Connector::new(&trust(args, None)?)?;
    let report = args.report.as_deref().map(reported).transpose()?;
    start_logging(&log_options(&Settings::default(), &args.log)?, &Progress::hidden(), None)?;
    let who = connection.who().to_string();
    let options = DeviceOptions {
        connection,
        address: None,
        connector,
        turns: None,
        report,
        report_after: std::time::Duration::ZERO,
        refusal_ends: false,
        now: wall_clock,
        seed: seed(),
    };
    let mut out = Output::stdout().beside_the_work();
    let tell = |event: DeviceEvent| out.line(&line(&who, &event));
    let (ended, _) = until_stopped(async |stop| run_device(&options, tell, &stop).await).await?;
    ended?;
    Ok(0)
}

/// Whom to trust: `--ca-file`, else `known`, else the system.
fn trust(args: &DeviceArgs, known: Option<&PathBuf>) -> anyhow::Result<Trust> {
    Ok(match (&args.ca_file, known) {
        (Some(file), _) => Trust::Authorities(hub_file(file).context("--ca-file")?.into_bytes()),
        (None, Some(file)) => Trust::Authorities(hub_file(file).context("ca_file")?.into_bytes()),
        (None, None) => Trust::System,
    })
}

/// Of jitter: another one each time.
fn seed() -> u64 {
    wall_clock().as_microsecond().unsigned_abs()
}

fn reported(text: &str) -> anyhow::Result<Object> {
    match Value::parse_json(text).context("--report")? {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            bail!("--report takes a JSON object, such as {{\"connectivity\":\"cellular\"}}")
        }
    }
}

/// One event in one line.
fn line(who: &str, event: &DeviceEvent) -> String {
    let json = |object: &Object| Value::Object(object.clone()).to_string();
    match event {
        DeviceEvent::Connected => format!("{who}: connected"),
        DeviceEvent::Disconnected { reason, again_in } => {
            format!("{who}: not connected ({reason}); trying again in {:.1} s", again_in.as_secs_f64())
        }
        DeviceEvent::Twin { desired, reported } => {
            format!("{who}: twin desired {} reported {}", json(desired), json(reported))
        }
        DeviceEvent::Desired(difference) => format!("{who}: desired {}", json(difference)),
        DeviceEvent::Reported => format!("{who}: reported"),
        DeviceEvent::Refused(status, words) => format!("{who}: refused with {status}: {words}"),
        DeviceEvent::Method { name, payload } => format!("{who}: method {name} {payload}"),
    }
}
