//! `geminid export`.
//!
//! Invariant: reads only; every twin is read by itself, because query rows lag and a row never proves what stands in a
//! twin. A twin that cannot be read ends the export: a part must not pass for the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use tokio::task::JoinSet;

use super::args::OneHubArgs;
use super::export_files::{ManifestFolder, PROFILES};
use super::output::{Output, counted};
use crate::app::Progress;
use crate::hub::{HubError, PAGE_SIZE_MAX, Pages, ReadTwins};
use crate::manifest::{ExportedProfile, ExportedTwin, can_be_declared, factor_profiles};
use crate::plan::{ProfileTarget, Subtree, row_twin};
use crate::query::{Item, Query, Select, Source, parse};
use crate::twin::{DeviceId, ModuleId, Twin, TwinRef};

/// Pages of names read at most; a million twins.
const PAGES_MAX: usize = 10_000;
/// Twins read at one time.
const READS_MAX: usize = 16;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Twins, as DEVICE or DEVICE/MODULE [default: all of the hub]
    #[arg(value_name = "TWIN", conflicts_with = "query")]
    twins: Vec<String>,
    /// Only twins that this query names, such as "SELECT deviceId FROM devices WHERE tags.plant = 'R43'"
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// One file a device into this folder [default: one stream to standard output]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Write into a folder that is not empty, over files of the same names
    #[arg(long, requires = "out")]
    force: bool,
    /// Put what twins with one value at this path have in common into a profile, such as tags.location.plant
    #[arg(long, value_name = "PATH")]
    profile_by: Option<String>,
    #[command(flatten)]
    one: OneHubArgs,
}

/// Writes live twins as manifests.
pub(super) async fn run(args: ExportArgs) -> anyhow::Result<u8> {
    let by = args.profile_by.as_deref().map(profile_path).transpose()?;
    let asked = args.twins.iter().map(|text| twin_ref(text)).collect::<anyhow::Result<BTreeSet<_>>>()?;
    let opened = args.one.open_to_read()?;
    let hub = opened.parts.paced_alone()?;
    let mut folder = args.out.as_deref().map(|path| ManifestFolder::open(path, args.force)).transpose()?;
    let names = match &args.query {
        Some(text) => named_by(&hub, text).await?,
        None if asked.is_empty() => all_twins(&hub).await?,
        None => asked.clone(),
    };
    let mut out = Output::stdout();
    let mut exporting = Exporting { missing_is_wrong: !asked.is_empty(), by: by.is_some(), ..Exporting::default() };
    let mut names: Vec<TwinRef> = names.into_iter().filter(can_be_declared).collect();
    // Manifests on the same terminal would run through a bar.
    let crowded = folder.is_none() && std::io::stdout().is_terminal();
    let progress = if crowded { Progress::hidden() } else { opened.progress };
    let hub = Arc::new(progress.work("reading twins", names.len()).reading(hub));
    while !names.is_empty() {
        let rest = names.split_off(names.len().min(READS_MAX));
        for live in read_all(&hub, std::mem::replace(&mut names, rest)).await? {
            exporting.take(live, folder.as_mut(), &mut out)?;
        }
    }
    drop(hub);
    exporting.finish(by.as_ref(), folder.as_mut(), &mut out)?;
    Ok(0)
}

/// What is exported so far.
#[derive(Debug, Default)]
struct Exporting {
    /// Twins asked for by name must exist; others may be ghosts of a query.
    missing_is_wrong: bool,
    /// Whether twins are kept until profiles can be made of them.
    by: bool,
    kept: Vec<ExportedTwin>,
    /// The documents of the device that is being written, with its name.
    device: Option<(DeviceId, String)>,
    twins: usize,
}

impl Exporting {
    fn take<W: std::io::Write>(
        &mut self,
        (twin, live): (TwinRef, Option<Twin>),
        folder: Option<&mut ManifestFolder>,
        out: &mut Output<W>,
    ) -> anyhow::Result<()> {
        let Some(live) = live else {
            if self.missing_is_wrong {
                bail!("{twin} is not registered; look at its name");
            }
            return Ok(());
        };
        let (exported, violations) = ExportedTwin::of(&live);
        for violation in &violations {
            tracing::warn!(%twin, "a manifest cannot declare what stands at the hub: {violation}");
        }
        self.twins += 1;
        if self.by {
            self.kept.push(exported);
            return Ok(());
        }
        self.write(&exported, folder, out)
    }

    fn write<W: std::io::Write>(
        &mut self,
        exported: &ExportedTwin,
        folder: Option<&mut ManifestFolder>,
        out: &mut Output<W>,
    ) -> anyhow::Result<()> {
        let yaml = exported.to_yaml();
        let Some(folder) = folder else {
            out.line(&format!("---\n{}", yaml.trim_end()));
            return Ok(());
        };
        let device = &exported.twin.device;
        match &mut self.device {
            Some((open, text)) if open == device => {
                text.push_str("---\n");
                text.push_str(&yaml);
            }
            Some(_) | None => {
                self.flush(folder)?;
                self.device = Some((device.clone(), yaml));
            }
        }
        Ok(())
    }

    fn flush(&mut self, folder: &mut ManifestFolder) -> anyhow::Result<()> {
        match self.device.take() {
            Some((device, text)) => folder.write_device(device.as_str(), &text),
            None => Ok(()),
        }
    }

    fn finish<W: std::io::Write>(
        mut self,
        by: Option<&Subtree>,
        mut folder: Option<&mut ManifestFolder>,
        out: &mut Output<W>,
    ) -> anyhow::Result<()> {
        let mut kept = std::mem::take(&mut self.kept);
        let profiles = by.map_or_else(Vec::new, |by| factor_profiles(&mut kept, by));
        let texts: Vec<String> = profiles.iter().map(ExportedProfile::to_yaml).collect();
        match folder.as_deref_mut() {
            Some(folder) if !texts.is_empty() => folder.write(PROFILES, &texts.join("---\n"))?,
            Some(_) => {}
            None => texts.iter().for_each(|text| out.line(&format!("---\n{}", text.trim_end()))),
        }
        for exported in &kept {
            self.write(exported, folder.as_deref_mut(), out)?;
        }
        let Some(folder) = folder else { return Ok(()) };
        self.flush(folder)?;
        let profiles = if texts.is_empty() { String::new() } else { format!(", {}", counted(texts.len(), "profile")) };
        out.line(&format!(
            "{}{profiles} in {} of {}",
            counted(self.twins, "twin"),
            counted(folder.files(), "file"),
            folder.path().display()
        ));
        Ok(())
    }
}

fn profile_path(text: &str) -> anyhow::Result<Subtree> {
    let path = Subtree::parse(text).context("--profile-by")?;
    if path.path.keys().is_empty() {
        bail!("--profile-by {text} is a whole section; name a value in it, such as tags.location.plant");
    }
    Ok(path)
}

fn twin_ref(text: &str) -> anyhow::Result<TwinRef> {
    let name = |error| anyhow!("{text}: {error}");
    match text.split_once('/') {
        None => Ok(TwinRef::device(DeviceId::new(text).map_err(name)?)),
        Some((device, module)) => {
            Ok(TwinRef::module(DeviceId::new(device).map_err(name)?, ModuleId::new(module).map_err(name)?))
        }
    }
}

async fn all_twins<H: ReadTwins>(hub: &H) -> anyhow::Result<BTreeSet<TwinRef>> {
    let mut found = BTreeSet::new();
    for target in ProfileTarget::ALL {
        let query = match target {
            ProfileTarget::Devices => "SELECT deviceId AS d FROM devices",
            ProfileTarget::Modules => "SELECT deviceId AS d, moduleId AS m FROM devices.modules",
        };
        names_of(hub, query, &mut found).await?;
    }
    Ok(found)
}

async fn names_of<H: ReadTwins>(hub: &H, query: &str, found: &mut BTreeSet<TwinRef>) -> anyhow::Result<()> {
    let mut pages = Pages::new(hub, query, PAGE_SIZE_MAX, PAGES_MAX);
    while let Some(page) = pages.next().await {
        found.extend(page?.iter().filter_map(row_twin));
    }
    Ok(())
}

/// The twins that a query names: whatever its columns are, only ids are asked for.
async fn named_by<H: ReadTwins>(hub: &H, text: &str) -> anyhow::Result<BTreeSet<TwinRef>> {
    let query = parse(text).map_err(|error| anyhow!("--query: {error}"))?;
    let grouped = matches!(query.select, Select::Groups(_));
    let columns: &[(&str, &str)] = match query.source {
        Source::Devices if !grouped => &[("deviceId", "d")],
        Source::Modules if !grouped => &[("deviceId", "d"), ("moduleId", "m")],
        Source::Devices | Source::Modules | Source::Jobs => {
            bail!("--query: a query of twins is needed, such as SELECT deviceId FROM devices WHERE tags.plant = 'R43'")
        }
    };
    let item = |(name, alias): &(&str, &str)| {
        crate::query::Attribute::new([*name]).map(|attribute| Item { attribute, alias: Some((*alias).to_owned()) })
    };
    let ids = Query { select: Select::Items(columns.iter().filter_map(item).collect()), ..query };
    let mut found = BTreeSet::new();
    names_of(hub, &ids.to_string(), &mut found).await?;
    Ok(found)
}

/// Each twin with what the hub says of it, in order; `None` when it is gone.
async fn read_all<H: ReadTwins + 'static>(
    hub: &Arc<H>,
    names: Vec<TwinRef>,
) -> anyhow::Result<BTreeMap<TwinRef, Option<Twin>>> {
    let mut reads = JoinSet::new();
    for twin in names {
        let hub = Arc::clone(hub);
        reads.spawn(async move {
            let live = hub.get_twin(&twin).await;
            (twin, live)
        });
    }
    let mut found = BTreeMap::new();
    while let Some(read) = reads.join_next().await {
        let (twin, live) = read.context("internal error: a read ended")?;
        let live = match live {
            Ok(live) => Some(live),
            Err(HubError::NotFound(_)) => None,
            Err(error) => return Err(anyhow!("cannot read {twin}: {error}")),
        };
        found.insert(twin, live);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_twin_and_no_path_is_named() {
        assert_eq!(twin_ref("d/m").unwrap().to_string(), "d/m");
        assert!(twin_ref("a b").unwrap_err().to_string().starts_with("a b: an id may not hold ' '"));
        assert!(twin_ref("d/").is_err() && twin_ref("d/m/x").is_err());
        assert!(profile_path("tags.plant").is_ok());
        for wrong in ["tags", "plant", "properties.reported.x"] {
            assert!(profile_path(wrong).is_err(), "{wrong}");
        }
    }
}
