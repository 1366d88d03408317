//! Lines to their place: a queue with a bound, and one writer behind it.
//!
//! Invariants: whoever writes a line never waits. A line that finds no room, or that cannot be written, is counted; the
//! count stands in the log, in a metric and, once writing works again, in a line of its own.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::file::AuditFile;
use super::line::gap;
use crate::metrics::ProcessMetrics;

/// Lines that wait for the writer.
const LINES_MAX: usize = 65_536;
/// Lines written at one time.
const BATCH_MAX: usize = 1024;
/// Time between two tries while a file takes nothing.
const RETRY: Duration = Duration::from_secs(1);
/// The most that waiting lines may delay the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to and rotated.
    File(PathBuf),
}

impl AuditTarget {
    /// `stdout`, or the path of a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text == "stdout" { Self::Stdout } else { Self::File(PathBuf::from(text)) }
    }
}

/// Takes lines. Clones write to the same place; one that is [`off`](Self::off) writes to none.
#[derive(Debug, Clone)]
pub struct AuditLog(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    lines: mpsc::Sender<String>,
    lost: Arc<AtomicU64>,
    writes: AtomicU64,
    /// Tells the writes of this process from those of others: its start in hexadecimal milliseconds.
    start: u128,
}

impl AuditLog {
    /// Records nothing: for trials that have nobody to tell.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens `target`; `now` tells the time of the lines that the writer adds itself. The second value does the writing
    /// and must be run.
    ///
    /// # Errors
    /// When the file cannot be opened for writing, or another process writes to it.
    pub fn open(
        target: &AuditTarget,
        metrics: ProcessMetrics,
        now: fn() -> SystemTime,
    ) -> io::Result<(Self, AuditWriter)> {
        let sink = match target {
            AuditTarget::Stdout => Sink::Stdout,
            AuditTarget::File(path) => Sink::File(AuditFile::open(path)?),
        };
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let start = now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let shared = Shared { lines: sender, lost: Arc::clone(&lost), writes: AtomicU64::new(0), start };
        Ok((Self(Some(Arc::new(shared))), AuditWriter { lines, lost, told: 0, failing: false, sink, metrics, now }))
    }

    /// The name of the next write: unique over processes that start at different milliseconds. `None` when nothing is
    /// recorded.
    pub(super) fn next_write(&self) -> Option<String> {
        let shared = self.0.as_ref()?;
        let number = shared.writes.fetch_add(1, Ordering::Relaxed) + 1;
        Some(format!("{:x}-{number}", shared.start))
    }

    /// Hands a line on; it is made only if somebody takes it.
    pub(super) fn write(&self, line: impl FnOnce() -> String) {
        let Some(shared) = &self.0 else { return };
        match shared.lines.try_reserve() {
            Ok(place) => place.send(line()),
            Err(_) => {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

enum Sink {
    Stdout,
    File(AuditFile),
    /// Standard output was closed by its reader; nobody will ever read it again.
    Closed,
}

/// Writes the lines.
pub struct AuditWriter {
    lines: mpsc::Receiver<String>,
    /// Lines that are lost since the last line that says so.
    lost: Arc<AtomicU64>,
    /// How many of them the log and the metric know of.
    told: u64,
    failing: bool,
    sink: Sink,
    metrics: ProcessMetrics,
    now: fn() -> SystemTime,
}

/// Lines as bytes, and how many of these are written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    written: usize,
    lines: u64,
}

impl AuditWriter {
    /// Writes until `ended` is cancelled, and then what waits.
    pub async fn run(mut self, ended: CancellationToken) {
        let mut lines = Vec::new();
        loop {
            let count = tokio::select! {
                biased;
                count = self.lines.recv_many(&mut lines, BATCH_MAX) => count,
                () = ended.cancelled() => break,
            };
            if count == 0 {
                break;
            }
            let batch = self.batch(&mut lines);
            self = self.deliver(batch, Some(&ended)).await;
        }
        self.finish(lines).await;
    }

    /// What waits at the end, within [`FLUSH_MAX`].
    async fn finish(mut self, mut lines: Vec<String>) {
        self.lines.close();
        let flush = async {
            while self.lines.recv_many(&mut lines, BATCH_MAX).await > 0 {
                let batch = self.batch(&mut lines);
                self = self.deliver(batch, None).await;
            }
            self.sync().await;
        };
        if tokio::time::timeout(FLUSH_MAX, flush).await.is_err() {
            tracing::error!("the audit log took no lines any more; the last ones are lost");
        }
    }

    fn batch(&mut self, lines: &mut Vec<String>) -> Batch {
        let mut batch = Batch { lines: lines.len() as u64, ..Batch::default() };
        for line in lines.drain(..) {
            batch.bytes.extend_from_slice(line.as_bytes());
            batch.bytes.push(b'\n');
        }
        batch
    }

    /// Writes a batch, trying again for as long as a file may take it; `None`: without trying again.
    async fn deliver(mut self, mut batch: Batch, patience: Option<&CancellationToken>) -> Self {
        loop {
            let result;
            (self, batch, result) = self.attempt(batch).await;
            match result {
                Ok(()) => {
                    self.metrics.audit_written(batch.lines);
                    return self.recovered().await;
                }
                Err(error) if matches!(self.sink, Sink::Closed) => {
                    self.failed(&error, batch.lines);
                    return self;
                }
                Err(error) => {
                    self.failed(&error, 0);
                    let again = match patience {
                        Some(ended) => ended.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_some(),
                        None => false,
                    };
                    if !again {
                        self.lost.fetch_add(batch.lines, Ordering::Relaxed);
                        self.tell_lost();
                        return self;
                    }
                }
            }
        }
    }

    /// One try, on a thread that may block: a pipe that is full does.
    async fn attempt(self, batch: Batch) -> (Self, Batch, io::Result<()>) {
        let work = spawn_blocking(move || {
            let (mut writer, mut batch) = (self, batch);
            let result = writer.sink.write(&mut batch);
            (writer, batch, result)
        });
        match work.await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Something was written: says so if it is news, and how much is missing.
    async fn recovered(mut self) -> Self {
        self.tell_lost();
        if std::mem::take(&mut self.failing) {
            tracing::info!("the audit log can be written again");
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        self.told = 0;
        if lost == 0 {
            return self;
        }
        let mut lines = vec![gap(lost, (self.now)())];
        let batch = self.batch(&mut lines);
        let (writer, _, result) = self.attempt(batch).await;
        if result.is_err() {
            // Told to the metric already; the next line that can be written says it.
            writer.lost.fetch_add(lost, Ordering::Relaxed);
            return Self { told: lost, ..writer };
        }
        writer
    }

    fn failed(&mut self, error: &io::Error, lost: u64) {
        self.lost.fetch_add(lost, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "cannot write the audit log; twins are written all the same");
        }
        self.tell_lost();
    }

    /// Hands what was lost since the last time to the metric, and the first of it to the log.
    fn tell_lost(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        let news = lost.saturating_sub(self.told);
        if news > 0 && self.told == 0 {
            tracing::error!(lost, "lines of the audit log are lost; geminid_audit_lines_total counts them");
        }
        self.metrics.audit_lost(news);
        self.told = lost;
    }

    async fn sync(self) {
        let result = spawn_blocking(move || match self.sink {
            Sink::File(file) => file.sync(),
            Sink::Stdout | Sink::Closed => Ok(()),
        });
        if let Ok(Err(error)) = result.await {
            tracing::error!(%error, "cannot make the end of the audit log durable");
        }
    }
}

impl Sink {
    /// Writes what is left of `batch`.
    fn write(&mut self, batch: &mut Batch) -> io::Result<()> {
        match self {
            Self::Closed => Err(io::ErrorKind::BrokenPipe.into()),
            Self::File(file) => {
                if batch.written == 0 {
                    file.rotate_if_due()?;
                }
                while batch.written < batch.bytes.len() {
                    batch.written += file.write(&batch.bytes[batch.written..])?;
                }
                Ok(())
            }
            Self::Stdout => {
                let mut out = io::stdout().lock();
                let result = out.write_all(&batch.bytes[batch.written..]).and_then(|()| out.flush());
                drop(out);
                // What was written of it before is not known: the rest is not written a second time.
                if result.is_err() {
                    *self = Self::Closed;
                }
                result
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> (prometheus::Registry, ProcessMetrics) {
        let registry = prometheus::Registry::new();
        let metrics = crate::metrics::Metrics::register(&registry, &[]).unwrap();
        (registry, metrics.process)
    }

    fn counted(registry: &prometheus::Registry) -> String {
        let mut text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.retain(|c| c != '"');
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("geminid_audit_lines_total")).collect();
        lines.join(" ")
    }

    const CLOCK: fn() -> SystemTime = || SystemTime::UNIX_EPOCH;

    #[tokio::test]
    async fn lines_that_find_no_room_are_counted_and_the_log_says_where_they_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let (registry, metrics) = metrics();
        let (log, writer) = AuditLog::open(&AuditTarget::File(path.clone()), metrics, CLOCK).unwrap();
        for number in 0..LINES_MAX + 3 {
            log.write(|| number.to_string());
        }
        drop(log);
        writer.run(CancellationToken::new()).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), LINES_MAX + 1);
        let gap = r#"{"formatVersion":1,"lost":3,"outcome":"gap","time":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(text.lines().filter(|line| *line == gap).count(), 1);
        assert_eq!(counted(&registry), format!("{{result=lost}} 3 {{result=written}} {LINES_MAX}"));
    }

    #[tokio::test]
    async fn a_full_disk_and_a_closed_pipe_lose_lines_and_stop_nothing() {
        for sink in [Sink::File(AuditFile::full()), Sink::Closed] {
            let folder = tempfile::tempdir().unwrap();
            let (registry, metrics) = metrics();
            let target = AuditTarget::File(folder.path().join("audit.log"));
            let (log, writer) = AuditLog::open(&target, metrics, CLOCK).unwrap();
            let writer = AuditWriter { sink, ..writer };
            log.write(|| "one".to_owned());
            log.write(|| "two".to_owned());
            let ended = CancellationToken::new();
            ended.cancel();
            writer.run(ended).await;
            assert_eq!(counted(&registry), "{result=lost} 2 {result=written} 0");
            log.write(|| unreachable!("nobody asks for a line that cannot be taken"));
        }
    }
}
