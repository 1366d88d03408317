//! `geminid reconcile`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::output::Output;
use super::server::{Server, ServerArgs, items, text};

/// Time between two looks at whether it was done.
const LOOK: Duration = Duration::from_millis(250);

/// Arguments of `reconcile`.
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// The twin: DEVICE or DEVICE/MODULE
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    twin: Option<String>,
    /// All twins, by a sweep
    #[arg(long)]
    all: bool,
    /// The hub, when the daemon serves several
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// Return at once; the printed token tells later whether it was done
    #[arg(long)]
    no_wait: bool,
    /// The longest to wait
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    timeout: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Has twins reconciled now: 0 when it was done, 1 when it was not done in time.
pub(super) async fn run(args: ReconcileArgs) -> anyhow::Result<u8> {
    let timeout = crate::settings::parse_duration("--timeout", &args.timeout)?;
    let server = args.server.open()?;
    let mut body = json!({});
    if let Some(twin) = &args.twin {
        body["twin"] = json!(twin);
        body["hub"] = json!(server.hub(args.hub.as_deref()).await?);
    } else if let Some(hub) = &args.hub {
        body["hub"] = json!(hub);
    }
    let requested = server.post(&["reconcile"], &body).await?;
    let token = text(&requested, "token");
    let mut out = Output::stdout().beside_the_work();
    if args.no_wait {
        out.line(token);
        return Ok(0);
    }
    let what = args.twin.as_deref().unwrap_or("all twins");
    let done = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let request = server.get(&["requests", token], &[]).await?;
            match text(&request, "state") {
                "done" => return anyhow::Ok(()),
                "waiting" | "running" => {}
                other => bail!("the daemon says {other:?} of the request; use its version of geminid"),
            }
        }
    };
    match tokio::time::timeout(timeout, done).await {
        Ok(result) => {
            result?;
            let how = match &args.twin {
                Some(twin) => format!("reconciled{}", trouble(&server, &body, twin).await?),
                None => "swept; `geminid get` shows how they stand".to_owned(),
            };
            out.line(&format!("{what}: {how}"));
            Ok(0)
        }
        Err(_) => {
            Output::stderr().line(&format!("{what}: not done within {}; the request {token} stands", args.timeout));
            Ok(1)
        }
    }
}

/// How `twin` stands now, unless it is in sync: a reconcile that was done may have held everything.
async fn trouble(server: &Server, body: &Value, twin: &str) -> anyhow::Result<String> {
    let device = twin.split_once('/').map_or(twin, |(device, _)| device);
    let query = [("hub", text(body, "hub").to_owned()), ("name", device.to_owned())];
    let twins = server.get(&["twins"], &query).await?;
    let found = items(&twins).iter().find(|found| text(found, "name") == twin);
    Ok(match found.map(|found| (text(found, "state"), text(&found["condition"], "message"))) {
        None | Some(("in_sync", _)) => String::new(),
        Some((state, "")) => format!("; it is {state}"),
        Some((state, message)) => format!("; it is {state}: {message}"),
    })
}
