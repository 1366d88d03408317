//! Files that are read when the daemon starts and not again: the settings, and authorities to trust.
//!
//! Invariant: a change of one is said once, so that nobody waits for what only a restart brings.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::connect::hub_file;
use crate::settings::Settings;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// The files of `settings` that are read at start alone.
pub(super) fn files_of_the_start(settings: &Settings) -> Vec<PathBuf> {
    let authorities = settings.hubs.values().filter_map(|hub| hub.ca_file.clone());
    let mut files: Vec<PathBuf> = settings.file.iter().cloned().chain(authorities).collect();
    files.sort();
    files.dedup();
    files
}

/// Says until `ended` which of `files` are no longer what they were now.
pub(super) async fn tell_changes(files: Vec<PathBuf>, ended: CancellationToken) -> anyhow::Result<()> {
    let mut watched = Vec::new();
    for file in files {
        let at_start = content(&file).await;
        watched.push(Watched { file, at_start, is_changed: false });
    }
    while ended.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        for watched in &mut watched {
            // What cannot be read now is perhaps being written.
            let Some(now) = content(&watched.file).await else { continue };
            watched.compare(&now);
        }
    }
    Ok(())
}

struct Watched {
    file: PathBuf,
    at_start: Option<String>,
    is_changed: bool,
}

impl Watched {
    fn compare(&mut self, now: &str) {
        let is_changed = self.at_start.as_deref() != Some(now);
        let file = self.file.display();
        match (self.is_changed, is_changed) {
            (false, true) => tracing::warn!(%file, "changed, and is read at start alone: restart to take the change"),
            (true, false) => tracing::info!(%file, "is again what it was at start"),
            (false, false) | (true, true) => {}
        }
        self.is_changed = is_changed;
    }
}

async fn content(file: &std::path::Path) -> Option<String> {
    let file = file.to_owned();
    spawn_blocking(move || hub_file(&file).ok()).await.ok().flatten()
}
