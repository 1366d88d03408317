//! A hub that is a file of page bodies: what a sweep is answered, with nothing else in this process.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use geminid::hub::{
    Continuation, HubError, PAGE_SIZE_MAX, Paced, QueryPage, ReadTwins, TextPage, TextRows, WriteTwins,
};
use geminid::plan::{DeclaredHash, DeclaredState, SealScope, declare, identity_hash};
use geminid::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef, Value};
use tokio::sync::mpsc;

use super::measure::thread_cpu;

/// What one sweep was seen to cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    /// CPU of the thread, reading the file included.
    pub(crate) cpu: Duration,
    pub(crate) at: Instant,
    pub(crate) pages: usize,
    pub(crate) reads: usize,
}

/// The hub. Clones are the same one.
#[derive(Clone)]
pub(crate) struct MemoryHub(Arc<Shared>);

struct Shared {
    bodies: File,
    ends: Vec<u64>,
    /// Told at the first page of each sweep.
    begun: mpsc::UnboundedSender<Mark>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    pages: usize,
    reads: usize,
}

/// Writes the pages that the hub answers a sweep over sealed twins nobody touched, in the order of `order`.
pub(crate) fn write_bodies(path: &Path, state: &DeclaredState, scope: &SealScope, order: &[usize]) -> Vec<u64> {
    let twins: Vec<&TwinRef> = state.twins.keys().collect();
    let mut file = BufWriter::new(File::create(path).unwrap());
    let (mut ends, mut end) = (Vec::new(), 0);
    for page in order.chunks(PAGE_SIZE_MAX) {
        let rows = page.iter().map(|index| row(state, scope, twins[*index], *index));
        let body = format!("[{}]", rows.collect::<Vec<_>>().join(","));
        file.write_all(body.as_bytes()).unwrap();
        end += body.len() as u64;
        ends.push(end);
    }
    file.flush().unwrap();
    ends
}

/// A row as the embedded hub sends it: the columns in the order of their names in the query.
fn row(state: &DeclaredState, scope: &SealScope, twin: &TwinRef, index: usize) -> String {
    let declared = declare(state, twin, None);
    let hash = DeclaredHash::of(scope, twin, declared.declared().unwrap());
    let etag = STANDARD.encode((index as u64 % 7 + 2).to_be_bytes());
    let device_etag = STANDARD.encode(format!("{}", 100_000_000 + index * 37));
    format!(
        r#"{{"d":"{twin}","t":"{etag}","y":"{device_etag}","h":"{}","e":"{etag}","i":"{}"}}"#,
        hash.as_str(),
        identity_hash(&device_etag)
    )
}

impl MemoryHub {
    pub(crate) fn new(path: &Path, ends: Vec<u64>) -> (Self, mpsc::UnboundedReceiver<Mark>) {
        let (begun, marks) = mpsc::unbounded_channel();
        let bodies = File::open(path).unwrap();
        (Self(Arc::new(Shared { bodies, ends, begun, seen: Mutex::default() })), marks)
    }

    pub(crate) fn pages(&self) -> usize {
        self.0.ends.len()
    }

    pub(crate) fn body(&self, index: usize) -> Vec<u8> {
        let from = index.checked_sub(1).map_or(0, |before| self.0.ends[before]);
        let mut body = vec![0; usize::try_from(self.0.ends[index] - from).unwrap()];
        self.0.bodies.read_exact_at(&mut body, from).unwrap();
        body
    }

    fn mark(&self) -> Mark {
        let seen = self.0.seen.lock().unwrap();
        Mark { cpu: thread_cpu(), at: Instant::now(), pages: seen.pages, reads: seen.reads }
    }
}

impl Paced for MemoryHub {}

impl ReadTwins for MemoryHub {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.0.seen.lock().unwrap().reads += 1;
        Err(HubError::Server { status: None, message: format!("{twin} should not be read") })
    }

    async fn query_page(&self, _: &str, _: usize, _: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.0.seen.lock().unwrap().pages += 1;
        let devices = i64::try_from(self.0.ends.len() * PAGE_SIZE_MAX).unwrap();
        let row = Value::Object([("n".to_owned(), Value::from(devices))].into());
        Ok(QueryPage { rows: vec![row], next: None })
    }

    async fn text_page(
        &self,
        query: &str,
        columns: &[&str],
        _: usize,
        from: Option<&Continuation>,
    ) -> Result<TextPage, HubError> {
        if query.contains("devices.modules") {
            self.0.seen.lock().unwrap().pages += 1;
            return Ok(TextPage { rows: TextRows::from_values(&[], columns, 2), next: None });
        }
        if from.is_none() {
            self.0.begun.send(self.mark()).unwrap();
        }
        let index: usize = from.map_or(0, |from| from.0.parse().unwrap());
        let body = self.body(index);
        self.0.seen.lock().unwrap().pages += 1;
        let rows = TextRows::from_body(&body, columns).unwrap();
        let next = (index + 1 < self.0.ends.len()).then(|| Continuation((index + 1).to_string()));
        Ok(TextPage { rows, next })
    }
}

impl WriteTwins for MemoryHub {
    async fn patch_twin(&self, _: &TwinRef, _: &MergePatch, _: &ETag) -> Result<Twin, HubError> {
        Err(HubError::Quota)
    }

    async fn create_device(&self, _: &DeviceId) -> Result<(), HubError> {
        Err(HubError::Quota)
    }
}
