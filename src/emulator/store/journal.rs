//! The journal: commits on their way to the tables, each appended to a file and flushed with one `fdatasync`.
//!
//! A file holds one segment: a header, frames one behind the other, and zeros as room for more. The room is written
//! before it is used, so that a flush needs no change of the file's size, which costs a file system several times as
//! much.
//!
//! | what | bytes |
//! |---|---|
//! | header | `MAGIC` 16, number of the segment 8, number of its first frame 8, CRC-32 of these 4 |
//! | frame | length of the payload 4, number 8, CRC-32 of the payload 4, CRC-32 of these 4, payload, `END` 1 |
//!
//! Invariant: a frame is flushed before the next one is begun, so a crash leaves whole frames, at most one that is
//! visibly unfinished behind them, and zeros. Anything else is damage: it is told, never passed over.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::frame::{END, Frame, HEAD_BYTES, Head};

const MAGIC: &[u8; 16] = b"geminid journal\n";
const HEADER_BYTES: usize = 36;
/// The size of a journal's file is a multiple of this; a new one has this.
const ROOM_BYTES: u64 = 1024 * 1024;
/// The most room made at a time, in bytes; a file that grows doubles before.
const ROOM_BYTES_MAX: u64 = 16 * ROOM_BYTES;
/// The largest file that is read, in bytes; the committer begins another long before.
const SEGMENT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// What a disk writes as one, in bytes; one that was never written reads as zeros.
const SECTOR_BYTES: usize = 512;

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    segment: u64,
    next: u64,
    /// Where the next frame goes.
    end: u64,
    /// The size of the file.
    size: u64,
}

impl Journal {
    /// Begins a segment in `file`, in the place of what was there; it is flushed when this returns.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn begin(file: &File, segment: u64, first: u64) -> io::Result<Self> {
        let file = file.try_clone()?;
        file.set_len(0)?;
        let mut journal = Self { file, segment, next: first, end: HEADER_BYTES as u64, size: 0 };
        journal.make_room(ROOM_BYTES)?;
        journal.file.write_all_at(&header(segment, first), 0)?;
        journal.file.sync_all()?;
        Ok(journal)
    }

    /// Appends the frame and flushes it. After an error the journal must not be used again.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn append(&mut self, frame: &mut Frame) -> io::Result<()> {
        let bytes = frame.seal(self.next)?;
        let end = self.end + bytes.len() as u64;
        if end > self.size {
            self.make_room(end)?;
        }
        self.file.write_all_at(bytes, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        self.next += 1;
        Ok(())
    }

    /// The number of the segment.
    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// The number of the next frame.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many bytes the segment has.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Makes the file hold at least `needed` bytes; flushed with what is written next.
    fn make_room(&mut self, needed: u64) -> io::Result<()> {
        let more = self.size.clamp(ROOM_BYTES, ROOM_BYTES_MAX);
        let size = needed.max(self.size + more).next_multiple_of(ROOM_BYTES);
        // At once, so that no crash leaves a size that is no multiple.
        self.file.set_len(size)?;
        let zeros = vec![0; usize::try_from(ROOM_BYTES).unwrap_or(SECTOR_BYTES)];
        while self.size < size {
            self.file.write_all_at(&zeros, self.size)?;
            self.size += zeros.len() as u64;
        }
        Ok(())
    }
}

/// A segment that was read.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u64,
    /// The number of its first frame.
    pub(super) first: u64,
    /// The number behind its last whole frame.
    pub(super) next: u64,
    /// Whether a frame was begun behind them that was not finished.
    pub(super) is_unfinished: bool,
    bytes: Vec<u8>,
    payloads: Vec<Range<usize>>,
}

impl Segment {
    /// Reads the segment in `file`; `None` when none was begun there.
    ///
    /// # Errors
    /// What is damaged, with the place.
    pub(super) fn read(file: &File) -> Result<Option<Self>, String> {
        let read = || -> io::Result<Result<Vec<u8>, String>> {
            let size = file.metadata()?.len();
            if !size.is_multiple_of(ROOM_BYTES) {
                return Ok(Err(format!("it was cut to {size} bytes")));
            }
            if size > SEGMENT_BYTES_MAX {
                return Ok(Err(format!("its {size} bytes are more than any journal has")));
            }
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Ok(bytes))
        };
        Self::parse(read().map_err(|error| error.to_string())??)
    }

    /// The payloads of the whole frames, in order.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().map(|range| &self.bytes[range.clone()])
    }

    fn parse(bytes: Vec<u8>) -> Result<Option<Self>, String> {
        let Some((number, first)) = read_header(&bytes)? else { return Ok(None) };
        let (mut at, mut next, mut payloads) = (HEADER_BYTES, first, Vec::new());
        while let Some(payload) = whole_frame(&bytes, at, next) {
            at = payload.end + 1;
            next += 1;
            payloads.push(payload);
        }
        let is_unfinished = is_unfinished(&bytes, at, next)?;
        Ok(Some(Self { number, first, next, is_unfinished, bytes, payloads }))
    }
}

fn header(segment: u64, first: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..16].copy_from_slice(MAGIC);
    header[16..24].copy_from_slice(&segment.to_le_bytes());
    header[24..32].copy_from_slice(&first.to_le_bytes());
    let check = crc32fast::hash(&header[..32]);
    header[32..].copy_from_slice(&check.to_le_bytes());
    header
}

/// The numbers of a segment and of its first frame; `None` when the header was never finished.
fn read_header(bytes: &[u8]) -> Result<Option<(u64, u64)>, String> {
    let number = |range: Range<usize>| {
        bytes.get(range).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes).unwrap_or_default()
    };
    let (segment, first) = (number(16..24), number(24..32));
    if bytes.starts_with(&header(segment, first)) {
        return Ok(Some((segment, first)));
    }
    // It is flushed before any frame is written, so an unfinished one has nothing behind it.
    if written(bytes) < HEADER_BYTES { Ok(None) } else { Err("its header is damaged".to_owned()) }
}

/// How many bytes there are before nothing but zeros follows.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Where the payload of the frame at `at` lies, if it is whole and has this number.
fn whole_frame(bytes: &[u8], at: usize, number: u64) -> Option<Range<usize>> {
    let head = Head::read(bytes.get(at..)?)?;
    let payload = at + HEAD_BYTES..(at + HEAD_BYTES).checked_add(head.length)?;
    let is_whole = head.number == number
        && bytes.get(payload.end) == Some(&END)
        && crc32fast::hash(bytes.get(payload.clone())?) == head.check;
    is_whole.then_some(payload)
}

/// Whether a frame was begun at `at` and left unfinished by a crash.
///
/// # Errors
/// What is damaged, when no crash leaves what is there.
fn is_unfinished(bytes: &[u8], at: usize, number: u64) -> Result<bool, String> {
    let rest = &bytes[at.min(bytes.len())..];
    let written = written(rest);
    if written == 0 {
        return Ok(false);
    }
    let damaged = || format!("its frame {number} at byte {at} is damaged");
    // The next frame is begun when this one is flushed.
    let is_later = |start: usize| Head::read(&rest[start..]).is_some_and(|head| head.number > number);
    if (0..written).any(is_later) {
        return Err(damaged());
    }
    let length = Head::read(rest).map_or(HEAD_BYTES, |head| HEAD_BYTES + head.length + 1);
    // The process ended while it wrote, or the machine before the disk had all of it.
    if written < length || has_empty_sector(rest, at, written) { Ok(true) } else { Err(damaged()) }
}

/// Whether a sector, or the part of the first one from `at` on, was never written.
fn has_empty_sector(rest: &[u8], at: usize, written: usize) -> bool {
    let first = (at.next_multiple_of(SECTOR_BYTES) - at).min(written);
    let is_empty = |sector: &[u8]| !sector.is_empty() && sector.iter().all(|byte| *byte == 0);
    is_empty(&rest[..first]) || rest[first..written].chunks_exact(SECTOR_BYTES).any(is_empty)
}

#[cfg(test)]
mod tests;
