//! From a file saved to the patch at the hub, every process being the real one.
//!
//! The hub's log says when it had answered a patch; its clock is the one by which a save is timed.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::PATIENCE;
use super::arguments::Arguments;
use super::daemon::Daemon;
use super::hub::{Hub, Setting, host};
use super::process::unix_s;
use super::twins;
use super::wire;

/// How long a daemon waits for more events before it reads (DESIGN section 3).
pub(crate) const DEBOUNCE_MS: f64 = 200.0;
/// A number without a factor in common with the counts of twins, so that saves are far apart.
const STRIDE: usize = 7919;
/// Time between two looks at the log.
const LOOK: Duration = Duration::from_millis(1);
const SYNC_TIME_MAX: Duration = Duration::from_secs(300);
/// A power level that no earlier save had.
const LEVELS: usize = 100;

/// Milliseconds from each save to its patch, in rising order.
pub(crate) struct Saves {
    pub(crate) manifests: usize,
    pub(crate) taken_ms: Vec<f64>,
    /// What the daemon took and asked from the first save to the last.
    pub(crate) cpu_s: f64,
    pub(crate) requests: usize,
    /// The most that was resident, the first sync included.
    pub(crate) peak_bytes: f64,
}

impl Saves {
    /// The time that so many percent do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.taken_ms[(self.taken_ms.len() * percent / 100).min(self.taken_ms.len() - 1)]
    }
}

/// Saves files one after the other, every other one by renaming, as editors do.
pub(crate) async fn saves(folder: &Path, arguments: &Arguments) -> Saves {
    let (folder, count) = (folder.join("saves"), arguments.manifests);
    let manifests = folder.join("manifests");
    for number in 0..count {
        let path = manifests.join(twins::place(number));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, twins::manifest(number, twins::POWER_LEVEL)).unwrap();
    }
    let host = host(0);
    let https = format!("{host}:0");
    let setting = Setting { name: "hub", devices: count, host, https, more: &wire::LOGGING };
    let hub = Hub::start(&folder, &setting).await;
    let daemon = Daemon::start(&hub, &manifests).await;
    daemon.ready().await;
    daemon.reaches("geminid_twins{hub=\"embedded\",state=\"in_sync\"}", count as f64, SYNC_TIME_MAX).await;
    let (mut taken_ms, before, logged) = (Vec::new(), daemon.cost(), hub.log().len());
    for save in 0..arguments.saves {
        let number = save * STRIDE % count;
        let (path, text) = (manifests.join(twins::place(number)), twins::manifest(number, LEVELS + save));
        let mut log = Tail::new(&hub);
        if save % 2 == 0 {
            fs::write(&path, text).unwrap();
        } else {
            let draft = path.with_extension("tmp");
            fs::write(&draft, text).unwrap();
            fs::rename(&draft, &path).unwrap();
        }
        let saved = unix_s();
        taken_ms.push((log.patched(&twins::id(number)).await - saved) * 1_000.0);
    }
    let after = daemon.cost();
    let requests = wire::answered(&hub.log()[logged..]).len();
    daemon.stop().await;
    hub.stop().await;
    taken_ms.sort_by(f64::total_cmp);
    let cpu_s = after.cpu_s - before.cpu_s;
    Saves { manifests: count, taken_ms, cpu_s, requests, peak_bytes: after.peak_bytes }
}

/// What is written to the hub's log from now on.
struct Tail {
    file: File,
    text: String,
}

impl Tail {
    fn new(hub: &Hub) -> Self {
        let mut file = File::open(hub.folder().join("hub.err")).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Self { file, text: String::new() }
    }

    /// When that twin's patch was answered.
    async fn patched(&mut self, id: &str) -> f64 {
        let path = format!("/twins/{id}");
        let found = async {
            loop {
                self.file.read_to_string(&mut self.text).unwrap();
                // A line without its end is read again with it.
                let whole = &self.text[..self.text.rfind('\n').map_or(0, |end| end + 1)];
                let answers = wire::answered(whole);
                let patch = answers.iter().find(|answer| answer.method == "PATCH" && answer.path == path);
                if let Some(patch) = patch {
                    return patch.unix_s;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{id} was saved and not patched"))
    }
}
