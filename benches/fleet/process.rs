//! A process that is measured from start to end.
//!
//! Invariant: a process ends with its value, by its own id, however the benchmark ends; none runs longer than it may.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::kernel;

/// Time between two looks at a process; the error of every wall time.
const LOOK: Duration = Duration::from_millis(2);
/// Looks between two looks at its memory.
const LOOKS_A_MEMORY: u32 = 10;
/// How long a process may take to end when it is asked to.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

/// What a run took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// From start to end, in seconds; of a program that says when it is ready, from then.
    pub(crate) wall_s: f64,
    /// CPU time of the process over the same time.
    pub(crate) cpu_s: f64,
    /// CPU time of the hub from the start of the process to its end.
    pub(crate) hub_cpu_s: f64,
    /// The most that was resident, in bytes.
    pub(crate) peak_bytes: f64,
    /// What came before it was ready, in seconds.
    pub(crate) start_s: f64,
}

/// A process that ends when dropped.
pub(crate) struct Running {
    child: Child,
    begun: Instant,
    begun_unix_s: f64,
    said: PathBuf,
}

impl Running {
    /// Starts `command`; what it says goes into files in `folder`.
    pub(crate) fn start(command: &mut Command, folder: &Path, name: &str) -> Self {
        let (said, complained) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        command.stdin(Stdio::null());
        command.stdout(File::create(&said).unwrap()).stderr(File::create(&complained).unwrap());
        let (begun, begun_unix_s) = (Instant::now(), unix_s());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        Self { child, begun, begun_unix_s, said }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.said.with_extension("err")).unwrap_or_default()
    }

    /// What it cost so far, without anything of a hub.
    pub(crate) fn cost(&self) -> Cost {
        let (wall_s, id) = (self.seconds(), self.id());
        let peak_bytes = kernel::peak_bytes(id).map_or(0.0, |bytes| bytes as f64);
        Cost { wall_s, cpu_s: kernel::cpu_s(id).unwrap_or_default(), peak_bytes, ..Cost::default() }
    }

    /// Waits until `found` gives something; a process that ends before that, or `patience`, ends the benchmark.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut found: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = found().await {
                return found;
            }
            let trouble = if kernel::has_ended(self.id()) { "it ended" } else { "it takes too long" };
            assert!(
                !kernel::has_ended(self.id()) && begun.elapsed() < patience,
                "waiting for {what}: {trouble}\n{}\n{}",
                self.output(),
                last_lines(&self.errors())
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for its end and gives what it took.
    ///
    /// # Errors
    /// How it ended and what it said last, when that was no good end or took too long.
    pub(crate) async fn ended(mut self, hub: Option<u32>, patience: Duration) -> Result<Cost, String> {
        let hub_cpu = || hub.and_then(kernel::cpu_s).unwrap_or_default();
        let (hub_cpu_before, mut peak_bytes, mut looks) = (hub_cpu(), 0, 0);
        let wall_s = loop {
            if kernel::has_ended(self.id()) {
                break self.seconds();
            }
            if looks % LOOKS_A_MEMORY == 0 {
                peak_bytes = kernel::peak_bytes(self.id()).map_or(peak_bytes, |bytes| bytes.max(peak_bytes));
            }
            if self.begun.elapsed() > patience {
                return Err(format!("not done within {patience:?}: {}", last_lines(&self.errors())));
            }
            looks += 1;
            tokio::time::sleep(LOOK).await;
        };
        let hub_cpu_s = hub_cpu() - hub_cpu_before;
        let cpu_s = kernel::cpu_s(self.id()).unwrap_or_default();
        let status = self.child.wait().unwrap();
        if !status.success() {
            return Err(format!("{status}: {}\n{}", self.output(), last_lines(&self.errors())));
        }
        let (start_s, start_cpu_s) = self.ready().unwrap_or_default();
        let (wall_s, cpu_s) = (wall_s - start_s, cpu_s - start_cpu_s);
        Ok(Cost { wall_s, cpu_s, hub_cpu_s, peak_bytes: peak_bytes as f64, start_s })
    }

    /// Asks it to end, and waits until it did.
    pub(crate) async fn stop(mut self) {
        let asked = Command::new("kill").args(["-s", "TERM", &self.id().to_string()]).status();
        let begun = Instant::now();
        while asked.as_ref().is_ok_and(std::process::ExitStatus::success)
            && !kernel::has_ended(self.id())
            && begun.elapsed() < STOP_TIME_MAX
        {
            tokio::time::sleep(LOOK).await;
        }
        self.end();
    }

    /// Wall and CPU that the program says it took to be ready.
    fn ready(&self) -> Option<(f64, f64)> {
        let said = self.output();
        let mut words = said.lines().find_map(|line| line.strip_prefix("ready "))?.split(' ');
        let mut figure = || words.next()?.trim().parse::<f64>().ok();
        Some((figure()? - self.begun_unix_s, figure()?))
    }

    fn end(&mut self) {
        // One that ended already cannot be ended; what matters is that it is waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Seconds since 1970.
pub(crate) fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Of what a process said, so much that one sees why it ended.
fn last_lines(text: &str) -> String {
    const LINES: usize = 15;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
