//! What several verbs take: settings, hub, owner, logging, the embedded hub's flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use super::trials::TrialArgs;
use crate::app::{Colour, HubParts, LogOptions, NO_HUB, Progress, hub_parts, secret_file, start_logging, wall_clock};
use crate::emulator::HubOptions;
use crate::plan::TwinFilter;
use crate::settings::{self, Secret, Settings, hub_defaults};

/// The owner where nobody names one: trials on an embedded hub.
pub(super) const DEMO_OWNER: &str = "demo";
/// The name of a hub that only a `hub.json` describes.
const FILE_HUB: &str = "embedded";

/// What `-v` shows: our own steps, and of the libraries beneath what is for everybody.
const VERBOSE: &str = "info,geminid=debug";

/// Where settings come from.
#[derive(Debug, Clone, Args)]
pub(super) struct SettingsArgs {
    /// Settings file (TOML); the environment (GEMINID_*) goes over it
    #[arg(long, value_name = "FILE")]
    pub(super) settings: Option<PathBuf>,
    /// Use the hub that `geminid hub` started elsewhere: its hub.json
    #[arg(long, value_name = "FILE")]
    pub(super) hub_json: Option<PathBuf>,
    /// Who owns what is written; one per instance [default with --embedded-hub or --hub-json: demo]
    #[arg(long)]
    pub(super) owner: Option<String>,
}

/// How to log, and how to look.
#[derive(Debug, Clone, Args)]
pub(super) struct LogArgs {
    /// Log lines as text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", conflicts_with_all = ["quiet", "verbose"])]
    pub(super) log_level: Option<String>,
    /// Say nothing but results and errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more: once for every step, twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Colour: auto is on terminals, unless `NO_COLOR` is set
    #[arg(long, value_name = "WHEN", value_enum)]
    pub(super) color: Option<ColourChoice>,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ColourChoice {
    /// On terminals
    Auto,
    /// Into files and pipes too
    Always,
    /// Not at all
    Never,
}

/// One hub, as a verb that asks it takes it.
#[derive(Debug, Clone, Args)]
pub(super) struct OneHubArgs {
    /// The hub, when several are configured
    #[arg(long, value_name = "NAME")]
    pub(super) hub: Option<String>,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// Manifests and the one hub they are for.
#[derive(Debug, Clone, Args)]
pub(super) struct FleetArgs {
    /// Folder of manifests [default: that of the settings]
    #[arg(long, value_name = "FOLDER")]
    pub(super) manifests: Option<PathBuf>,
    #[command(flatten)]
    pub(super) one: OneHubArgs,
}

/// A part of the fleet.
#[derive(Debug, Clone, Args)]
pub(super) struct FilterArgs {
    /// Only twins whose manifest has this label, such as plant=redmond43
    #[arg(short = 'l', long = "label", alias = "selector", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Only twins of devices whose id matches, such as 'pump-*'
    #[arg(long = "device", value_name = "GLOB")]
    devices: Vec<String>,
}

impl FilterArgs {
    /// Whether manifests are needed to tell which twins are meant.
    pub(super) fn has_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    pub(super) fn filter(&self) -> anyhow::Result<TwinFilter> {
        Ok(TwinFilter::new(&self.labels, &self.devices)?)
    }
}

/// What a verb about one hub works with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) parts: HubParts,
    /// When results are coloured.
    pub(super) colour: Colour,
    /// The settings that the hub is of.
    pub(super) settings: Settings,
    /// Where long work is shown.
    pub(super) progress: Progress,
}

impl OneHubArgs {
    /// The hub for somebody who owns nothing: who only reads needs no owner.
    pub(super) fn open_to_read(&self) -> anyhow::Result<Opened> {
        let mut settings = self.settings.load(None, Access::Service)?;
        settings.owner.get_or_insert_with(|| DEMO_OWNER.to_owned());
        self.open(settings)
    }

    /// The one hub of these settings; from now on there are log lines.
    fn open(&self, settings: Settings) -> anyhow::Result<Opened> {
        let log = log_options(&settings, &self.log)?;
        let progress = Progress::stderr();
        start_logging(&log, &progress, None)?;
        Ok(Opened { parts: self.parts(&settings)?, colour: log.colour, settings, progress })
    }

    /// The one hub of these settings.
    pub(super) fn parts(&self, settings: &Settings) -> anyhow::Result<HubParts> {
        self.settings.one_hub(settings, self.hub.as_deref())
    }
}

impl FleetArgs {
    /// The hub with its folder of manifests.
    pub(super) fn open(&self, access: Access) -> anyhow::Result<Opened> {
        let settings = self.one.settings.load(self.manifests.as_ref(), access)?;
        self.one.open(settings)
    }
}

/// The embedded hub.
#[derive(Debug, Clone, Args)]
pub(super) struct EmbeddedArgs {
    /// Where the embedded hub serves HTTPS; port 0 takes a free one [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) hub_https: Option<SocketAddr>,
    /// Where the embedded hub serves MQTT over TLS; port 0 takes a free one [default: 127.0.0.1:8883]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) hub_mqtts: Option<SocketAddr>,
    /// The embedded hub's host name, in connection strings and certificate [default: localhost]
    #[arg(long, value_name = "NAME")]
    pub(super) hub_host: Option<String>,
    /// The embedded hub's folder: twins, keys, hub.json [default: .geminid]
    #[arg(long, value_name = "FOLDER")]
    pub(super) state_dir: Option<PathBuf>,
    /// Keep no twins when the embedded hub ends
    #[arg(long)]
    pub(super) hub_ephemeral: bool,
    /// Let the embedded hub serve other machines
    #[arg(long)]
    pub(super) hub_allow_remote: bool,
    #[command(flatten)]
    pub(super) trials: TrialArgs,
}

impl EmbeddedArgs {
    pub(super) fn options(&self) -> anyhow::Result<HubOptions> {
        Ok(HubOptions {
            https: self.hub_https.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8443))),
            mqtts: Some(self.hub_mqtts.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8883)))),
            host: self.hub_host.clone().unwrap_or_else(|| "localhost".to_owned()),
            state_dir: self.state_dir.clone().unwrap_or_else(|| PathBuf::from(".geminid")),
            ephemeral: self.hub_ephemeral,
            allow_remote: self.hub_allow_remote,
            now: wall_clock,
            service: self.trials.service()?,
        })
    }

    /// A flag of the embedded hub without the embedded hub is a mistake worth telling.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--hub-https", self.hub_https.is_some()),
            ("--hub-mqtts", self.hub_mqtts.is_some()),
            ("--hub-host", self.hub_host.is_some()),
            ("--state-dir", self.state_dir.is_some()),
            ("--hub-ephemeral", self.hub_ephemeral),
            ("--hub-allow-remote", self.hub_allow_remote),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag)).or_else(|| self.trials.first_given())
    }
}

/// Which of the two policies of a `hub.json` a verb needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reads twins.
    Service,
    /// Registers devices too.
    Owner,
}

impl SettingsArgs {
    /// Settings with flags over environment over file. With `--hub-json` there is exactly that hub, and `manifests`
    /// is its folder.
    pub(super) fn load(&self, manifests: Option<&PathBuf>, access: Access) -> anyhow::Result<Settings> {
        let mut settings = settings::load(self.settings.as_deref())?;
        if let Some(owner) = &self.owner {
            settings.owner = Some(owner.clone());
        }
        if let Some(file) = &self.hub_json {
            if !settings.hubs.is_empty() {
                bail!("--hub-json stands alone; remove the hubs from the settings, or leave it out");
            }
            let (connection, ca_file) = read_hub_json(file, access)?;
            let manifests = manifests.cloned().unwrap_or_default();
            settings.hubs.insert(FILE_HUB.to_owned(), hub_defaults(manifests, connection, Some(ca_file)));
            settings.owner.get_or_insert_with(|| DEMO_OWNER.to_owned());
        } else if let Some(manifests) = manifests {
            let count = settings.hubs.len();
            if count == 0 {
                bail!("{NO_HUB}");
            }
            let Some(hub) = settings.hubs.values_mut().next().filter(|_| count == 1) else {
                bail!(
                    "--manifests needs exactly one hub, {count} are configured; set `manifests` of each in the settings"
                );
            };
            hub.manifests.clone_from(manifests);
        }
        Ok(settings)
    }

    /// The one hub that the verb is about: the only one, or the one named.
    pub(super) fn one_hub(&self, settings: &Settings, name: Option<&str>) -> anyhow::Result<HubParts> {
        let mut parts = hub_parts(settings)?;
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        let index = match name {
            Some(name) => parts.iter().position(|part| part.name == name),
            None if parts.len() == 1 => Some(0),
            None => bail!("{} hubs are configured; choose one with --hub: {}", parts.len(), names.join(", ")),
        };
        let index = index.with_context(|| format!("no such hub; configured are {}", names.join(", ")))?;
        Ok(parts.swap_remove(index))
    }
}

/// Flags over settings.
pub(super) fn log_options(settings: &Settings, args: &LogArgs) -> anyhow::Result<LogOptions> {
    let format = args.log_format.as_deref().map_or(Ok(settings.log_format), settings::parse_log_format)?;
    let asked = match (args.quiet, args.verbose) {
        (true, _) => Some("error"),
        (false, 0) => None,
        (false, 1) => Some(VERBOSE),
        (false, _) => Some("trace"),
    };
    let level = args.log_level.as_deref().or(asked).unwrap_or(&settings.log_level);
    let level = settings::check_log_level(level.to_owned())?;
    Ok(LogOptions { format, level, colour: colour(settings, args) })
}

/// The flag over `NO_COLOR`.
fn colour(settings: &Settings, args: &LogArgs) -> Colour {
    match (args.color, settings.colour) {
        (Some(ColourChoice::Always), _) => Colour::Always,
        (Some(ColourChoice::Never), _) | (None, false) => Colour::Never,
        (Some(ColourChoice::Auto), _) | (None, true) => Colour::Auto,
    }
}

fn read_hub_json(file: &std::path::Path, access: Access) -> anyhow::Result<(Secret, PathBuf)> {
    let json = HubJson::read(file)?;
    let name = match access {
        Access::Service => "serviceConnectionString",
        Access::Owner => "ownerConnectionString",
    };
    Ok((Secret::Value(SecretString::from(json.field(name)?)), PathBuf::from(json.field("caFile")?)))
}

/// A `hub.json`.
pub(super) struct HubJson<'f> {
    file: &'f std::path::Path,
    json: serde_json::Value,
}

impl<'f> HubJson<'f> {
    pub(super) fn read(file: &'f std::path::Path) -> anyhow::Result<Self> {
        let text = secret_file(file).map_err(|error| anyhow!("--hub-json: {error}; is `geminid hub` running?"))?;
        let json = serde_json::from_str(text.expose_secret())
            .with_context(|| format!("--hub-json: {} is no JSON", file.display()))?;
        Ok(Self { file, json })
    }

    pub(super) fn field(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.json.get(name).and_then(serde_json::Value::as_str);
        value.with_context(|| format!("--hub-json: {} has no {name}; is it a hub.json?", self.file.display()))
    }
}
