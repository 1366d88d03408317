//! `geminid device`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::{LogArgs, log_options};
use super::output::Output;
use crate::app::{Progress, StopSignals, hub_file, secret_file, start_logging, wall_clock};
use crate::device::{DeviceConnection, DeviceEvent, DeviceOptions, Trust, run_device};
use crate::settings::Settings;
use crate::twin::{Object, Value};

/// Arguments of `device`.
#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// File with the device's connection string: HostName=...;DeviceId=...;SharedAccessKey=...
    #[arg(long, value_name = "FILE")]
    connection_string_file: PathBuf,
    /// Trust the authorities in this file alone, such as the ca.pem of an embedded hub [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// JSON object to report, such as {"connectivity":"cellular"}
    #[arg(long, value_name = "JSON")]
    report: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs a simulated device until a signal.
pub(super) async fn run(args: DeviceArgs) -> anyhow::Result<u8> {
    let text = secret_file(&args.connection_string_file).context("--connection-string-file")?;
    let connection = DeviceConnection::parse(text.expose_secret()).context("--connection-string-file")?;
    let trust = match &args.ca_file {
        Some(file) => Trust::Authorities(hub_file(file).context("--ca-file")?.into_bytes()),
        None => Trust::System,
    };
    let report = args.report.as_deref().map(reported).transpose()?;
    start_logging(&log_options(&Settings::default(), &args.log)?, &Progress::hidden(), None)?;
    let caught = StopSignals::catch()?;
    let who = connection.who().to_string();
    let options = DeviceOptions {
        connection,
        address: None,
        trust,
        report,
        report_after: std::time::Duration::ZERO,
        refusal_ends: false,
        now: wall_clock,
        seed: wall_clock().as_microsecond().unsigned_abs(),
    };
    let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
    let mut signals = JoinSet::new();
    signals.spawn(caught.obey(cancel.clone(), ended.clone()));
    let mut out = Output::stdout();
    let result = run_device(&options, |event| out.line(&line(&who, &event)), &cancel).await;
    ended.cancel();
    while signals.join_next().await.is_some() {}
    result?;
    Ok(0)
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
