//! What is kept, over closing, crashing and damage.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::super::configuration::{Configuration, ConfigurationId, ConfigurationSpec, Content};
use super::super::identity::{AuthenticationSpec, IdentitySpec, Thumbprints};
use super::super::if_match::IfMatch;
use super::super::job::{JobAction, JobId, JobSpec};
use super::super::registry::{CONFIGURATIONS_MAX, Device, JobsNext, Registry};
use super::*;
use crate::twin::{DeviceId, MergePatch, ModuleId, Object, TwinRef, Value};

/// The state folder in `folder`, and its store.
fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(&StateDir::open(&folder.join("state")).unwrap())
}

/// Copies the files of the store in `from` to a state folder in `to`: what a kill at this moment would leave behind.
fn copy(from: &Path, to: &Path) {
    let to = StateDir::open(&to.join("state")).unwrap();
    for name in [TABLES_FILE, JOURNAL_FILES[0], JOURNAL_FILES[1]] {
        fs::copy(from.join("state").join(name), to.path(name)).unwrap();
    }
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn own(text: &str) -> TwinRef {
    TwinRef::device(id(text))
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn at(nanosecond: i128) -> Timestamp {
    Timestamp::from_nanosecond(1_700_000_000_000_000_000 + nanosecond).unwrap()
}

fn create(registry: &mut Registry, device: &str) {
    let mut random = |bytes: &mut [u8]| bytes.fill(5);
    registry.put_identity(&id(device), IdentitySpec::default(), &IfMatch::Absent, &mut random, at(123)).unwrap();
}

/// Devices of every kind of authentication and a module, two of them written to on every side, one deleted again.
fn changes(registry: &mut Registry) -> Vec<Kept> {
    let content = r#"{"a":{"b":[1,{"c":0.1}],"e":{}},"f":1.0,"g":5e-324,"h":1.7976931348623157e308,"i":-0.0,"j":"ä"}"#;
    let patch = MergePatch { tags: Some(object(content)), desired: Some(object(content)) };
    let reported = object(content);
    create(registry, "d1");
    create(registry, "d2");
    create(registry, "d3");
    let prints = Thumbprints::new(None, Some("ab".repeat(20))).unwrap();
    let mut random = |bytes: &mut [u8]| bytes.fill(6);
    for (device, authentication) in
        [("x1", AuthenticationSpec::SelfSigned(prints)), ("x2", AuthenticationSpec::CertificateAuthority)]
    {
        let spec = IdentitySpec { authentication, iot_edge: device == "x2", ..IdentitySpec::default() };
        registry.put_identity(&id(device), spec, &IfMatch::Absent, &mut random, at(5)).unwrap();
    }
    let module = ModuleId::new("m").unwrap();
    for device in ["d1", "d3"] {
        let managed = IdentitySpec { managed_by: Some("me".to_owned()), ..IdentitySpec::default() };
        registry.put_module(&id(device), &module, managed, &IfMatch::Absent, &mut random, at(7)).unwrap();
    }
    for twin in [own("d1"), TwinRef::module(id("d1"), module)] {
        registry.patch_twin(&twin, &patch, &IfMatch::Absent, at(999_999)).unwrap();
        registry.report(&twin, &reported, at(1_234_567)).unwrap();
    }
    registry.delete_identity(&id("d3"), &IfMatch::Any).unwrap();
    registry.take_log()
}

fn content(registry: &Registry) -> Vec<(String, Device)> {
    let record =
        |record: Arc<Device>| (record.identity.twin_ref().to_string(), Device { change: 0, ..Device::clone(&record) });
    registry.devices_after(None).chain(registry.modules_after(None)).map(record).collect()
}

#[test]
fn a_store_opened_again_holds_all_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    let store = open(folder.path()).unwrap();
    store.put_policies(b"keys").unwrap();
    store.commit(&changes(&mut registry), &[]).unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.policies().unwrap().as_deref(), Some(b"keys".as_slice()));
    let restored = store.registry().unwrap();
    assert_eq!(content(&restored), content(&registry));
    let printed = |registry: &Registry| format!("{:?}", content(registry));
    assert_eq!(printed(&restored), printed(&registry), "numbers print as they did");
}

#[test]
fn a_copy_taken_while_the_store_is_open_holds_every_finished_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut registry = Registry::default();
    let changes = changes(&mut registry);
    let mut journal = store.begin_journal().unwrap();
    for (number, kept) in changes.into_iter().enumerate() {
        // By turns straight into the tables, as a hub is filled, and into the journal, as one runs.
        let mut frame = Frame::new();
        frame.change(&kept);
        journal.append(&mut frame).unwrap();
        let Kept::Twin(last) = kept else { continue };
        let other = folder.path().join(format!("copy-{number}"));
        copy(folder.path(), &other);
        let restored = open(&other).unwrap().registry().unwrap();
        let expected = last.after.map(|device| Device { change: 0, ..Device::clone(&device) });
        assert_eq!(restored.record(&last.twin).ok().map(|device| Device::clone(&device)), expected);
    }
}

#[test]
fn a_damaged_store_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    drop(StateDir::open(&folder.path().join("state")).unwrap());
    let path = folder.path().join("state").join(TABLES_FILE);
    fs::write(&path, b"this is no store").unwrap();
    let message = open(folder.path()).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()) && message.contains("store.* of the folder away"), "{message}");
    assert_eq!(fs::read(&path).unwrap(), b"this is no store", "the file is left as it was");

    fs::remove_file(&path).unwrap();
    let store = open(folder.path()).unwrap();
    let mut registry = Registry::default();
    store.commit(&changes(&mut registry), &[]).unwrap();
    drop(store);
    let good = fs::read(&path).unwrap();
    let place = good.windows(4).position(|window| window == b"\"p\":").unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(place as u64)).unwrap();
    file.write_all(b"#").unwrap();
    drop(file);
    let result = open(folder.path()).and_then(|store| store.registry());
    assert!(matches!(result, Err(StoreError::Damaged { .. })), "{result:?}");
}

/// A journal in two segments, the first of which is not in the tables.
fn two_segments(folder: &Path) -> (Registry, Vec<Kept>) {
    let store = open(folder).unwrap();
    let mut registry = Registry::default();
    let changes = changes(&mut registry);
    let mut journal = store.begin_journal().unwrap();
    for (number, kept) in changes.iter().enumerate() {
        if number == changes.len() / 2 {
            journal = store.begin_segment(FIRST + 1, journal.next()).unwrap();
        }
        let mut frame = Frame::new();
        frame.change(kept);
        journal.append(&mut frame).unwrap();
    }
    (registry, changes)
}

#[test]
fn a_hub_killed_between_two_segments_loses_nothing_of_either() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, _) = two_segments(folder.path());
    // Killed again at the next start, before the journal was emptied.
    let again = folder.path().join("again");
    copy(folder.path(), &again);
    let store = open(folder.path()).unwrap();
    assert_eq!(content(&store.registry().unwrap()), content(&registry));
    drop(store);
    fs::copy(folder.path().join("state").join(TABLES_FILE), again.join("state").join(TABLES_FILE)).unwrap();
    let store = open(&again).unwrap();
    assert_eq!(content(&store.registry().unwrap()), content(&registry));
    // A journal begun now has nothing to do with the old one.
    store.begin_journal().unwrap();
    drop(store);
    assert_eq!(content(&open(&again).unwrap().registry().unwrap()), content(&registry));
}

#[test]
fn a_journal_that_is_missing_or_misses_writes_is_named() {
    type Break = fn(&Path);
    let first = |folder: &Path| folder.join("state").join(JOURNAL_FILES[1]);
    let cases: [(&str, &str, Break); 4] = [
        ("the first segment is gone", "is missing", |folder| {
            fs::remove_file(folder.join("state").join(JOURNAL_FILES[1])).unwrap();
        }),
        ("the second one lies in its place", "is missing", |folder| {
            let state = folder.join("state");
            fs::copy(state.join(JOURNAL_FILES[0]), state.join(JOURNAL_FILES[1])).unwrap();
        }),
        ("the first one lost its last frames", "its last writes are missing", |folder| {
            let path = folder.join("state").join(JOURNAL_FILES[1]);
            let mut bytes = fs::read(&path).unwrap();
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[last] = 0;
            fs::write(&path, bytes).unwrap();
        }),
        ("a bit of the first one flipped", "its frame 1 at byte 36 is damaged", |folder| {
            let path = folder.join("state").join(JOURNAL_FILES[1]);
            let mut bytes = fs::read(&path).unwrap();
            bytes[100] ^= 1;
            fs::write(&path, bytes).unwrap();
        }),
    ];
    for (what, reason, damage) in cases {
        let folder = tempfile::tempdir().unwrap();
        two_segments(folder.path());
        damage(folder.path());
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}");
        let message = error.to_string();
        assert!(message.contains(first(folder.path()).to_str().unwrap()) && message.contains(reason), "{message}");
    }
}

#[test]
fn a_hub_killed_at_any_byte_of_its_last_write_has_every_write_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut registry = Registry::default();
    create(&mut registry, "d1");
    let mut journal = store.begin_journal().unwrap();
    let mut append = |registry: &mut Registry| {
        let mut frame = Frame::new();
        registry.take_log().iter().for_each(|kept| frame.change(kept));
        journal.append(&mut frame).unwrap();
        usize::try_from(journal.bytes()).unwrap()
    };
    let begun = append(&mut registry);
    let before = content(&registry);
    let patch = MergePatch { tags: Some(object(r#"{"a":1}"#)), desired: None };
    registry.patch_twin(&own("d1"), &patch, &IfMatch::Absent, at(1)).unwrap();
    let end = append(&mut registry);
    let after = content(&registry);
    drop(store);
    let name = JOURNAL_FILES[1];
    let whole = fs::read(folder.path().join("state").join(name)).unwrap();
    let mut rng = fastrand::Rng::with_seed(3);
    let some = (0..20).map(|_| rng.usize(begun..end));
    for written in [begun, begun + 1, end - 1, end].into_iter().chain(some) {
        let killed = folder.path().join("killed");
        copy(folder.path(), &killed);
        let mut left = whole.clone();
        left[written..].fill(0);
        fs::write(killed.join("state").join(name), left).unwrap();
        let restored = content(&open(&killed).unwrap().registry().unwrap());
        assert_eq!(restored, if written < end { before.clone() } else { after.clone() }, "killed at {written}");
        fs::remove_dir_all(&killed).unwrap();
    }
}

#[test]
fn configurations_and_jobs_read_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut registry = Registry::default();
    let spec = ConfigurationSpec {
        schema_version: Some("1.0".to_owned()),
        labels: [("l".to_owned(), "v".to_owned())].into(),
        content: Content::new(object(r#"{"deviceContent":{"properties.desired.a":{"b":[1.0]}}}"#)).unwrap(),
        target_condition: "tags.a = 1".to_owned(),
        priority: 7,
        metrics: [("m".to_owned(), "SELECT * FROM devices".to_owned())].into(),
    };
    for name in ["kept", "deleted"] {
        let id = ConfigurationId::new(name).unwrap();
        registry.put_configuration(&id, spec.clone(), &IfMatch::Absent, CONFIGURATIONS_MAX, at(123)).unwrap();
    }
    registry.delete_configuration(&ConfigurationId::new("deleted").unwrap(), &IfMatch::Absent).unwrap();
    let patch = MergePatch { tags: Some(object(r#"{"a":null}"#)), desired: None };
    let document = object(r#"{"etag":"*","tags":{"a":null}}"#);
    let action = JobAction::UpdateTwin(patch);
    let spec = JobSpec { document, action, condition: "a b".to_owned(), start: Some(at(9)), seconds_max: Some(3) };
    let id = JobId::new("j").unwrap();
    registry.put_job(&id, spec, 1, at(5)).unwrap();
    registry.cancel_job(&id, at(6)).unwrap();
    let mut random = |bytes: &mut [u8]| bytes.fill(1);
    let device = DeviceId::new("d").unwrap();
    registry.put_identity(&device, IdentitySpec::default(), &IfMatch::Absent, &mut random, at(6)).unwrap();
    let action = JobAction::UpdateTwin(MergePatch { tags: Some(object(r#"{"a":1}"#)), desired: None });
    let spec =
        JobSpec { document: object("{}"), action, condition: "version > 0".to_owned(), start: None, seconds_max: None };
    registry.put_job(&JobId::new("run").unwrap(), spec, 1, at(7)).unwrap();
    while matches!(registry.step_jobs(9, at(7)), JobsNext::Step { .. }) {}
    store.commit(&registry.take_log(), &[]).unwrap();
    drop(store);
    let restored = open(folder.path()).unwrap().registry().unwrap();
    let configurations = |registry: &Registry| -> Vec<Configuration> {
        registry.list_configurations(None).iter().map(|(one, _)| Configuration::clone(one)).collect()
    };
    assert_eq!(configurations(&restored), configurations(&registry));
    assert_eq!(restored.job(&id), registry.job(&id));
    let rows = |registry: &Registry| registry.job_rows().cloned().collect::<Vec<_>>();
    assert_eq!((rows(&restored).len(), rows(&restored)), (1, rows(&registry)));
}

#[test]
fn a_store_from_before_modules_opens() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.put_about(FORMAT_KEY, FORMAT_BEFORE_JOURNALS).unwrap();
    // Byte for byte what the first version wrote.
    let key = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=";
    let record = format!(
        concat!(
            r#"{{"generation":637,"etag":7,"status":"disabled","reason":"bench","status_updated":5,"#,
            r#""connection_updated":null,"last_activity":null,"primary":"{key}","secondary":"{key}","twin_etag":3,"#,
            r#""twin_version":4,"tags":{{"a":1.0}},"desired":{{}},"desired_version":1,"desired_stamps":{{"t":9}},"#,
            r#""reported":{{"r":1}},"reported_version":2,"reported_stamps":{{"t":9,"c":{{"r":{{"t":9}}}}}}}}"#,
        ),
        key = key
    );
    let transaction = store.database.begin_write().unwrap();
    transaction.open_table(DEVICES).unwrap().insert("d1", record.as_bytes()).unwrap();
    transaction.commit().unwrap();
    assert!(store.open_table(MODULES).unwrap().is_none());
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!(store.about(FORMAT_KEY).unwrap().as_deref(), Some(FORMAT), "no older version takes it for its own now");
    let registry = store.registry().unwrap();
    let device = registry.device(&id("d1")).unwrap();
    assert_eq!(stored::read_device("d1", &stored::device(&device)).as_ref(), Ok(&*device), "nothing of it is lost");
    let [primary, _] = device.identity.authentication.keys().unwrap();
    assert_eq!((primary.expose(), device.twin.version), (key, 4));
}

#[test]
fn a_module_without_its_device_is_no_registry() {
    let mut registry = Registry::default();
    changes(&mut registry);
    let module = registry.modules_after(None).next().unwrap();
    let record = stored::device(&module);
    let outline = stored::outline("d1/m", &record).unwrap();
    let refused = Registry::default().restore("d1/m", record.as_slice().into(), &outline);
    assert_eq!(refused, Err("the module has no device".to_owned()));
}

#[test]
fn a_record_or_a_format_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let transaction = store.database.begin_write().unwrap();
    transaction.open_table(DEVICES).unwrap().insert("d1", b"{\"future\":1}".as_slice()).unwrap();
    transaction.commit().unwrap();
    let message = store.registry().unwrap_err().to_string();
    assert!(message.contains("the record of \"d1\""), "{message}");
    store.put_about(FORMAT_KEY, b"3").unwrap();
    drop(store);
    assert!(matches!(open(folder.path()), Err(StoreError::Format { .. })));
}

#[tokio::test]
async fn the_committer_keeps_the_order_and_closes_behind_what_came_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut registry = Registry::default();
    let changes = changes(&mut registry);
    let last = registry.changes();
    let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
    let (durable, mut seen) = watch::channel(Durable::UpTo(0));
    for (number, kept) in changes.into_iter().enumerate() {
        let (told, _) = tokio::sync::oneshot::channel();
        sender.send(Waiting::Changes { kept: vec![kept], up_to: number as u64 + 1, told }).await.unwrap();
    }
    sender.send(Waiting::Close).await.unwrap();
    let committer = tokio::task::spawn_blocking(|| run_committer(store, receiver, durable));
    seen.wait_for(|durable| *durable == Durable::UpTo(last)).await.unwrap();
    committer.await.unwrap();
    assert!(sender.send(Waiting::Close).await.is_err(), "nothing is taken any more");
    let store = open(folder.path()).unwrap();
    assert_eq!(store.about(JOURNAL_KEY).unwrap(), None, "all is in the tables");
    assert_eq!(content(&store.registry().unwrap()), content(&registry));
}

#[test]
fn a_flipped_bit_is_found_or_harmless_and_a_cut_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state").join(TABLES_FILE);
    let store = open(folder.path()).unwrap();
    let mut registry = Registry::default();
    store.commit(&changes(&mut registry), &[]).unwrap();
    drop(store);
    let good = fs::read(&path).unwrap();
    let expected = content(&registry);
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut found, mut harmless) = (0, 0);
    for _ in 0..80 {
        let mut bytes = good.clone();
        let place = rng.usize(..bytes.len());
        bytes[place] ^= 1 << rng.u8(..8);
        fs::write(&path, &bytes).unwrap();
        match open(folder.path()).and_then(|store| store.registry()) {
            Ok(registry) => {
                assert_eq!(content(&registry), expected, "the flip at {place} went unnoticed");
                harmless += 1;
            }
            Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => found += 1,
            Err(error @ (StoreError::Write { .. } | StoreError::File(_))) => panic!("{error}"),
        }
    }
    assert!(found > 0 && harmless > 0, "both kinds were met: {found} and {harmless}");
    for length in [1, 4096, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let result = open(folder.path()).and_then(|store| store.registry());
        assert!(matches!(result, Err(StoreError::Damaged { .. })), "cut to {length} bytes: {result:?}");
    }
}
