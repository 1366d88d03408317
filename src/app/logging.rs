//! Log lines: to standard error, counted by level.

use std::io::{IsTerminal as _, stderr};

use anyhow::Context as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use super::progress::Progress;
use crate::metrics::{Level as LevelLabel, ProcessMetrics};
use crate::settings::LogFormat;

/// How to log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// For people or for machines.
    pub format: LogFormat,
    /// A level, or tracing directives such as `info,geminid=debug`.
    pub level: String,
    /// When lines are coloured.
    pub colour: Colour,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// On terminals.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

impl Colour {
    /// Whether a stream that is a terminal, or is none, is coloured.
    #[must_use]
    pub const fn is_on(self, is_terminal: bool) -> bool {
        match self {
            Self::Auto => is_terminal,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Starts logging, around the bars of `progress`. `metrics` counts messages, where there are metrics.
///
/// # Errors
/// When the level is none, or logging was started before.
pub fn start_logging(options: &LogOptions, progress: &Progress, metrics: Option<ProcessMetrics>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(directives(&options.level))
        .with_context(|| format!("log level {:?} is neither error, warn, info, debug nor trace", options.level))?;
    let counted = metrics.map(Counted);
    let registry = tracing_subscriber::registry().with(filter).with(counted);
    let writer = progress.clone();
    match options.format {
        LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init(),
        LogFormat::Text => {
            let colour = options.colour.is_on(stderr().is_terminal());
            registry.with(fmt::layer().with_target(false).with_ansi(colour).with_writer(writer)).try_init()
        }
    }
    .context("cannot start logging")
}

/// The level, without what libraries tell at it that we handle and say in our own words: of folders that went, and of
/// certificates that are not trusted. Who asks for more, or writes directives, gets everything.
fn directives(level: &str) -> String {
    match level.to_ascii_lowercase().as_str() {
        "error" | "warn" => format!("{level},rustls_platform_verifier=off"),
        "info" => format!("{level},notify=warn,rustls_platform_verifier=off"),
        _ => level.to_owned(),
    }
}

/// Counts what passes the filter.
struct Counted(ProcessMetrics);

impl<S: Subscriber> Layer<S> for Counted {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = *event.metadata().level();
        self.0.logged(if level == Level::ERROR {
            LevelLabel::Error
        } else if level == Level::WARN {
            LevelLabel::Warn
        } else if level == Level::INFO {
            LevelLabel::Info
        } else if level == Level::DEBUG {
            LevelLabel::Debug
        } else {
            LevelLabel::Trace
        });
    }
}
