//! The audit log as it grows: which writes there were, and when a saved level was at the hub.
//!
//! Invariant: the log is read once, to its end, over rotations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::fleet::{DECLARED_PATHS, LEVEL_PATH};

/// How many wrong lines are named.
const WRONG_MAX: usize = 5;

/// A level that was at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Landed {
    /// Whose.
    pub(crate) name: String,
    /// Which.
    pub(crate) level: u64,
    /// When the answer was there.
    pub(crate) at: Timestamp,
}

/// Writes of one twin, by the names that the audit log gives them.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// Those that took effect.
    pub(crate) sure: BTreeSet<String>,
    /// Those, and those of which nobody knows.
    pub(crate) possible: BTreeSet<String>,
}

/// The audit log so far.
#[derive(Debug)]
pub(crate) struct Account {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
    /// The writes of each twin.
    pub(crate) writes: BTreeMap<String, Writes>,
    /// Lines that tell of something that must not be.
    pub(crate) wrong: Vec<String>,
    /// How many lines were read.
    pub(crate) lines: u64,
    /// How many leaves they tell of.
    pub(crate) leaves: u64,
    /// Levels in writes of which no answer came.
    open: BTreeMap<String, (String, u64)>,
}

impl Account {
    /// The log at `path`, which need not be there yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        let (writes, open) = (BTreeMap::new(), BTreeMap::new());
        Self { path, file: None, rest: Vec::new(), writes, wrong: Vec::new(), lines: 0, leaves: 0, open }
    }

    /// Reads what is new.
    pub(crate) fn read(&mut self) -> Vec<Landed> {
        let mut landed = Vec::new();
        loop {
            let mut bytes = std::mem::take(&mut self.rest);
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut bytes).unwrap();
            }
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.rest = bytes.split_off(end);
            for line in String::from_utf8(bytes).unwrap().lines() {
                landed.extend(self.line(line));
            }
            let Ok(current) = File::open(&self.path) else { return landed };
            let inode = |file: &File| file.metadata().unwrap().ino();
            if self.file.as_ref().is_some_and(|file| inode(file) == inode(&current)) {
                return landed;
            }
            self.file = Some(current);
        }
    }

    fn line(&mut self, text: &str) -> Option<Landed> {
        self.lines += 1;
        // A process that was killed may have left half a line.
        let line: Json = serde_json::from_str(text).ok()?;
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        let (name, outcome) = (field("twin").to_owned(), field("outcome"));
        let at: Timestamp = field("time").parse().unwrap();
        let ids: Vec<String> =
            line["writes"].as_array().into_iter().flatten().filter_map(|id| Some(id.as_str()?.to_owned())).collect();
        let level = |path: &Json| {
            let changes = path.as_array()?;
            changes.iter().find(|change| change["path"] == LEVEL_PATH)?["after"].as_u64()
        };
        let writes = self.writes.entry(name.clone()).or_default();
        match (field("action"), outcome) {
            ("patch", "applied" | "unknown") => {
                let unowned = line["changes"].as_array().into_iter().flatten();
                let mut unowned = unowned.filter(|change| !DECLARED_PATHS.iter().any(|path| change["path"] == *path));
                if unowned.next().is_some() && self.wrong.len() < WRONG_MAX {
                    self.wrong.push(format!("the audit log tells of a leaf that nobody declares: {text}"));
                }
                self.leaves += line["changes"].as_array().map_or(0, Vec::len) as u64;
                writes.possible.extend(ids.iter().cloned());
                let level = level(&line["changes"]);
                if outcome == "applied" {
                    writes.sure.extend(ids);
                    return Some(Landed { name, level: level?, at });
                }
                self.open.insert(ids.first()?.clone(), (name, level?));
                None
            }
            ("create" | "patch", _) => None,
            ("", "landed") => {
                writes.sure.extend(ids.iter().cloned());
                let (name, level) = ids.iter().find_map(|id| self.open.remove(id))?;
                Some(Landed { name, level, at })
            }
            ("", "not_landed" | "gone" | "gap") => None,
            _ => {
                if self.wrong.len() < WRONG_MAX {
                    self.wrong.push(format!("the audit log has a line of another kind: {text}"));
                }
                None
            }
        }
    }
}
