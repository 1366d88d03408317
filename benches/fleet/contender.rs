//! Who brings a fleet in sync, and how each is started.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::hub::{Hub, trusting};
use super::process::{Cost, Running};
use super::{ROOT, pairs, twins};

/// Longer than the slowest contender needs for the largest fleet on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(30 * 60);

/// One way to bring a fleet in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// `geminid apply`.
    Geminid,
    /// Requests made beforehand, so many in flight: what the hub and the machine allow.
    Ceiling(usize),
    /// The Node service SDK, so many in flight.
    Node(usize),
    /// The Python service SDK, so many threads.
    Python(usize),
}

impl Contender {
    /// Those of a whole run. geminid has 32 in flight, which cannot be set; so the others stand beside it with 32, too,
    /// where more helps them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Geminid,
        Self::Ceiling(16),
        Self::Ceiling(32),
        Self::Node(16),
        Self::Node(32),
        Self::Python(1),
        Self::Python(16),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Geminid => "geminid apply, 32 in flight".to_owned(),
            Self::Ceiling(in_flight) => format!("bare pairs (ceiling), {in_flight} in flight"),
            Self::Node(in_flight) => format!("Node SDK, {in_flight} in flight"),
            Self::Python(1) => "Python SDK, 1 thread".to_owned(),
            Self::Python(threads) => format!("Python SDK, {threads} threads"),
        }
    }

    /// Whether a large fleet takes it minutes.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::Python(_))
    }

    /// Runs it on the first `count` twins of `hub`, which must go well.
    pub(crate) async fn run(self, hub: &Hub, files: &Files, count: usize) -> Cost {
        self.try_to_run(hub, files, count).await.unwrap_or_else(|trouble| panic!("{}: {trouble}", self.name()))
    }

    /// The same.
    ///
    /// # Errors
    /// How it ended, if that was not well.
    pub(crate) async fn try_to_run(self, hub: &Hub, files: &Files, count: usize) -> Result<Cost, String> {
        let mut command = self.command(hub, files, count);
        Running::start(&mut command, hub.folder(), "contender").ended(Some(hub.process()), TIME_MAX).await
    }

    fn command(self, hub: &Hub, files: &Files, count: usize) -> Command {
        let script = |name: &str| Path::new(ROOT).join("benches/fleet/contenders").join(name);
        let mut command = match self {
            Self::Geminid => {
                let mut command = super::geminid();
                command.arg("apply").arg("--hub-json").arg(&hub.json).arg("--manifests").arg(&files.manifests);
                return command;
            }
            Self::Ceiling(in_flight) => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(pairs::arguments(hub, count, in_flight));
                return command;
            }
            Self::Node(in_flight) => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", sdk().join("node/node_modules")).arg(script("sdk.js"));
                command.arg(&hub.json).arg(&files.wanted).arg(in_flight.to_string());
                command
            }
            Self::Python(threads) => {
                let mut command = Command::new(sdk().join("venv/bin/python"));
                command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script("sdk.py"));
                command.arg(&hub.json).arg(&files.wanted).arg(threads.to_string());
                command
            }
        };
        trusting(&mut command, &hub.ca);
        command
    }
}

/// What is wanted of a fleet, for those who read manifests and for those who read JSON.
pub(crate) struct Files {
    pub(crate) manifests: PathBuf,
    pub(crate) wanted: PathBuf,
}

impl Files {
    pub(crate) fn write(folder: &Path, count: usize) -> Self {
        let files = Self { manifests: folder.join("manifests"), wanted: folder.join("wanted.json") };
        twins::write_manifests(&files.manifests, count, twins::POWER_LEVEL);
        twins::write_wanted(&files.wanted, count);
        files
    }
}

fn sdk() -> PathBuf {
    Path::new(ROOT).join("target/sdk")
}

/// Installs both SDKs under `target/sdk`, unless they are there.
pub(crate) fn set_up() {
    let status = Command::new("bash").arg(Path::new(ROOT).join("tests/sdk/setup.sh")).status().unwrap();
    assert!(
        status.success(),
        "the SDKs cannot be installed; Python 3.10 with venv, Node 20 with npm and, the first \
                               time, the network are needed"
    );
}

/// What Python, Node and both SDKs call their versions.
pub(crate) fn versions() -> Vec<(&'static str, String)> {
    let said = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let python = sdk().join("venv/bin/python");
    let package = sdk().join("node/node_modules/azure-iothub/package.json");
    let read = format!("require({:?}).version", package.display().to_string());
    let version = "import importlib.metadata as m; print(m.version('azure-iot-hub'))";
    vec![
        ("Python", said(&python, &["--version"]).trim_start_matches("Python ").to_owned()),
        ("azure-iot-hub", said(&python, &["-c", version])),
        ("Node", said(Path::new("node"), &["--version"]).trim_start_matches('v').to_owned()),
        ("azure-iothub", said(Path::new("node"), &["-p", &read])),
    ]
}
