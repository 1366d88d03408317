//! A journal cut, torn and damaged at every place.

use super::super::frame::{Table, entries};
use super::*;

fn frame(key: &str, record: Option<&[u8]>) -> Frame {
    let mut frame = Frame::new();
    frame.put(Table::Devices, key, record);
    frame
}

/// As many bytes of a journal's file as a test looks at; reading a megabyte for each case would take minutes.
const LOOKED_AT: usize = 8 * 1024;

fn start(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; LOOKED_AT];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The bytes of a journal with a frame for each key, and where each frame ends.
fn journal(keys: &[&str]) -> (Vec<u8>, Vec<usize>) {
    let file = tempfile::tempfile().unwrap();
    let mut journal = Journal::begin(&file, 7, 41).unwrap();
    let mut ends = vec![HEADER_BYTES];
    for key in keys {
        journal.append(&mut frame(key, Some(format!("record of {key}").repeat(3).as_bytes()))).unwrap();
        ends.push(usize::try_from(journal.bytes()).unwrap());
    }
    (start(&file), ends)
}

fn keys(segment: &Segment) -> Vec<String> {
    segment.payloads().flat_map(entries).map(|entry| entry.unwrap().key.to_owned()).collect()
}

const KEYS: [&str; 4] = ["one", "two", "three", "four"];

#[test]
fn what_was_appended_is_read_in_its_order() {
    let (bytes, _) = journal(&KEYS);
    let segment = Segment::parse(bytes).unwrap().unwrap();
    assert_eq!((segment.number, segment.first, segment.next, segment.is_unfinished), (7, 41, 45, false));
    assert_eq!(keys(&segment), KEYS);
    let (bytes, _) = journal(&[]);
    let empty = Segment::parse(bytes).unwrap().unwrap();
    assert_eq!((empty.first, empty.next, empty.is_unfinished), (41, 41, false));
    assert!(Segment::parse(Vec::new()).unwrap().is_none(), "none was begun");
}

#[test]
fn a_process_killed_at_any_byte_leaves_every_frame_that_was_flushed_before() {
    let (bytes, ends) = journal(&KEYS);
    let last = *ends.last().unwrap();
    for written in 0..=last {
        let mut left = bytes.clone();
        left[written..].fill(0);
        let segment = Segment::parse(left).unwrap_or_else(|reason| panic!("killed at {written}: {reason}"));
        if written < HEADER_BYTES - 1 {
            assert!(segment.is_none(), "killed at {written}");
            continue;
        }
        // The last byte of the header may be a zero, and so be there already.
        let Some(segment) = segment else { continue };
        let whole = ends.iter().skip(1).filter(|end| **end <= written).count();
        assert_eq!(keys(&segment), KEYS[..whole], "killed at {written}");
        assert_eq!(segment.is_unfinished, written > ends[whole], "killed at {written}");
    }
}

#[test]
fn a_machine_that_lost_any_sector_of_the_last_frame_leaves_every_frame_before() {
    let file = tempfile::tempfile().unwrap();
    let mut journal = Journal::begin(&file, 7, 41).unwrap();
    journal.append(&mut frame("kept", Some(&[b'x'; 300]))).unwrap();
    let begun = usize::try_from(journal.bytes()).unwrap();
    journal.append(&mut frame("lost", Some(&[b'y'; 3000]))).unwrap();
    let end = usize::try_from(journal.bytes()).unwrap();
    let bytes = start(&file);
    for sector in begun / SECTOR_BYTES..=end / SECTOR_BYTES {
        let mut left = bytes.clone();
        let from = (sector * SECTOR_BYTES).max(begun);
        left[from..(sector + 1) * SECTOR_BYTES].fill(0);
        let segment = Segment::parse(left).unwrap_or_else(|reason| panic!("sector {sector}: {reason}")).unwrap();
        assert!(segment.is_unfinished, "sector {sector}");
        assert_eq!(keys(&segment), ["kept"], "sector {sector}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_what_was_written_is_told_with_its_place() {
    let (bytes, ends) = journal(&KEYS);
    let last = *ends.last().unwrap();
    for place in 0..last {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << bit;
            let told = Segment::parse(damaged);
            let reason = told.expect_err(&format!("bit {bit} of byte {place} went unnoticed"));
            let frame = ends.iter().position(|end| place < *end).unwrap();
            let expected = match frame {
                0 => "its header is damaged".to_owned(),
                frame => format!("its frame {} at byte {} is damaged", 40 + frame, ends[frame - 1]),
            };
            assert_eq!(reason, expected);
        }
    }
}

#[test]
fn a_file_that_was_cut_or_made_longer_is_told() {
    let (bytes, ends) = journal(&KEYS);
    for size in [1, ends[0], ends[2], ends[4], LOOKED_AT] {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes[..size], 0).unwrap();
        assert_eq!(Segment::read(&file).unwrap_err(), format!("it was cut to {size} bytes"));
    }
    let mut longer = bytes.clone();
    longer.extend([b'#'; SECTOR_BYTES]);
    assert!(Segment::parse(longer).is_ok_and(|segment| segment.is_some_and(|segment| segment.is_unfinished)));
    let mut behind = bytes;
    behind[ends[4]..].fill(b'#');
    assert_eq!(Segment::parse(behind).unwrap_err(), format!("its frame 45 at byte {} is damaged", ends[4]));
}

#[test]
fn a_journal_grows_by_whole_rooms_and_frames_larger_than_one_are_kept() {
    let file = tempfile::tempfile().unwrap();
    let mut journal = Journal::begin(&file, 1, 1).unwrap();
    let large = vec![b'x'; usize::try_from(ROOM_BYTES).unwrap() * 3];
    for key in ["small", "large", "behind"] {
        let record = if key == "large" { &large[..] } else { b"r" };
        journal.append(&mut frame(key, Some(record))).unwrap();
        assert!(file.metadata().unwrap().len().is_multiple_of(ROOM_BYTES));
    }
    journal.append(&mut frame("gone", None)).unwrap();
    let segment = Segment::read(&file).unwrap().unwrap();
    assert_eq!(keys(&segment), ["small", "large", "behind", "gone"]);
    let lengths: Vec<_> =
        segment.payloads().flat_map(entries).map(|entry| entry.unwrap().record.map(<[u8]>::len)).collect();
    assert_eq!(lengths, [Some(1), Some(large.len()), Some(1), None]);
    // Begun again in the same file, nothing of the old one is left.
    drop(journal);
    let journal = Journal::begin(&file, 2, 5).unwrap();
    assert_eq!((journal.segment(), journal.next()), (2, 5));
    let segment = Segment::read(&file).unwrap().unwrap();
    assert_eq!((segment.number, segment.next, segment.payloads().count()), (2, 5, 0));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        mut start in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
        headed in proptest::bool::ANY,
    ) {
        if headed {
            start.splice(..0, header(1, 1));
        }
        start.resize(1024, 0);
        if let Ok(Some(segment)) = Segment::parse(start) {
            segment.payloads().flat_map(entries).for_each(drop);
        }
    }

    #[test]
    fn no_payload_makes_the_entries_panic(payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        entries(&payload).for_each(drop);
    }
}
