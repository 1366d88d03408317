//! What a seal is worth in the running loop: when a row needs no read, and what others do to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use geminid::controller::Page;
use geminid::emulator::SimHub;
use geminid::hub::{Continuation, HubError, Paced, QueryPage, ReadTwins, WriteTwins};
use geminid::plan::TwinState;
use geminid::twin::{DeviceId, ETag, MergePatch, Twin, TwinRef, Value};

use crate::fleet::{Daemon, device, object, options, settle, state, tags, twin};

const ONE: &str = r#"{"a":1}"#;
/// Just over the time from one sweep to the next.
const SWEEP: u64 = 610;

async fn settled(count: usize) -> SimHub {
    let hub = SimHub::new();
    let daemon = Daemon::start(hub.clone(), options("demo", 4), &state(count, ONE));
    settle(60).await;
    daemon.stop().await;
    hub
}

/// Reads and writes since `before`.
fn spent(hub: &SimHub, before: (u64, usize)) -> (u64, usize) {
    (hub.calls().reads - before.0, hub.applied().len() - before.1)
}

fn now(hub: &SimHub) -> (u64, usize) {
    (hub.calls().reads, hub.applied().len())
}

#[tokio::test(start_paused = true)]
async fn a_foreign_write_costs_one_read_for_each_process_and_no_write() {
    let hub = settled(4).await;
    for life in 1..=3 {
        let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(4, ONE));
        let before = now(&hub);
        settle(SWEEP).await;
        // The first life finds every seal as it was written; then one of them is behind its etag for good.
        assert_eq!(spent(&hub, before), (u64::from(life > 1), 0), "life {life}");
        if life == 1 {
            hub.edit(&device("d01"), &tags(r#"{"theirs":1}"#)).unwrap();
            settle(SWEEP).await;
            assert_eq!(spent(&hub, before), (1, 0));
        }
        let before = now(&hub);
        settle(6 * SWEEP).await;
        assert_eq!(spent(&hub, before), (0, 0), "life {life} has read it");
        assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_seal_is_written_again_and_a_half_written_or_forged_one_takes_nothing() {
    let hub = settled(3).await;
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(3, ONE));
    settle(SWEEP).await;
    let sealed = hub.twin(&device("d00")).unwrap().tags["geminid"].clone();
    hub.edit(&device("d00"), &tags(r#"{"geminid":null,"theirs":1}"#)).unwrap();
    // Somebody claims in our name what is theirs, and hides what is ours.
    hub.edit(&device("d01"), &tags(r#"{"geminid":{"demo":{"o":["AAAAAAABBBBBBB"],"h":null}},"theirs":1}"#)).unwrap();
    hub.edit(&device("d02"), &tags(r#"{"geminid":{"demo":null}}"#)).unwrap();
    hub.edit(&device("d02"), &tags(r#"{"geminid":{"demo":{"v":"?"}},"theirs":1}"#)).unwrap();
    settle(4 * SWEEP).await;
    for id in ["d00", "d01", "d02"] {
        let live = hub.twin(&device(id)).unwrap();
        assert_eq!(
            (live.tags.get("a"), live.tags.get("theirs")),
            (Some(&Value::from(1)), Some(&Value::from(1))),
            "{id}"
        );
        let owned = |seal: &Value| seal.get(["demo", "o"]).cloned();
        let seal = live.tags.get("geminid").unwrap();
        // Each device has hashes of its own.
        assert_eq!(
            owned(seal).map(|paths| paths.to_string().len()),
            owned(&sealed).map(|paths| paths.to_string().len())
        );
    }
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_deleted_and_registered_again_gets_its_values_whatever_its_etag_counts() {
    let hub = settled(3).await;
    for n in 0..5 {
        hub.edit(&device("d00"), &tags(&format!(r#"{{"theirs":{n}}}"#))).unwrap();
    }
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(3, ONE));
    settle(SWEEP).await;
    hub.delete(&device("d00")).unwrap();
    hub.create(&device("d00")).unwrap();
    settle(SWEEP).await;
    let live = hub.twin(&device("d00")).unwrap();
    assert_eq!(live.tags.get("a"), Some(&Value::from(1)));
    assert_eq!(live.tags.get("theirs"), None, "nothing of its former life comes back");
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 3);
}

#[tokio::test(start_paused = true)]
async fn an_imported_twin_is_read_before_its_seal_is_believed() {
    let hub = settled(2).await;
    let exported = hub.twin(&device("d00")).unwrap();
    hub.delete(&device("d00")).unwrap();
    hub.create(&device("d00")).unwrap();
    hub.edit(&device("d00"), &MergePatch { tags: Some(exported.tags.clone()), desired: None }).unwrap();
    assert_eq!(hub.twin(&device("d00")).unwrap().etag, exported.etag, "the counter stands where it stood");
    assert_ne!(hub.twin(&device("d00")).unwrap().device_etag, exported.device_etag);
    let before = now(&hub);
    let daemon = Daemon::start(hub.clone(), options("demo", 2), &state(2, ONE));
    settle(3 * SWEEP).await;
    assert_eq!(spent(&hub, before), (1, 0), "its identity is another one");
    assert_eq!(daemon.stop().await.statuses.count(TwinState::InSync), 2);
}

/// A hub on which each etag of these devices counts in twos, so that no seal foretells it.
#[derive(Debug, Clone)]
struct Unforeseen {
    hub: SimHub,
    devices: [&'static str; 3],
}

impl Unforeseen {
    fn concerns(&self, device: &DeviceId) -> bool {
        self.devices.contains(&device.as_str())
    }

    fn shown(etag: &str) -> String {
        let count = u64::from_be_bytes(STANDARD.decode(etag).unwrap().try_into().unwrap());
        STANDARD.encode((2 * count).to_be_bytes())
    }

    fn show(&self, twin: Twin) -> Twin {
        if !self.concerns(&twin.twin_ref.device) {
            return twin;
        }
        let etag = ETag::new(&Self::shown(twin.etag.as_str())).unwrap();
        Twin { etag, ..twin }
    }

    fn show_row(&self, row: Value) -> Value {
        let Some(mut columns) = row.as_object().cloned() else { return row };
        let text = |column: &str| columns.get(column).and_then(Value::as_str);
        if let (Some(device), Some(etag)) = (text("d"), text("t"))
            && self.devices.contains(&device)
        {
            let etag = Self::shown(etag);
            columns.insert("t".to_owned(), Value::from(etag.as_str()));
        }
        Value::Object(columns)
    }
}

impl Paced for Unforeseen {}

impl ReadTwins for Unforeseen {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.hub.get_twin(twin).await.map(|twin| self.show(twin))
    }

    async fn query_page(&self, query: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        let mut page = self.hub.query_page(query, size, from).await?;
        page.rows = page.rows.into_iter().map(|row| self.show_row(row)).collect();
        Ok(page)
    }
}

impl WriteTwins for Unforeseen {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        let live = self.hub.twin(&twin.device).unwrap();
        let etag = if self.show(live.clone()).etag == *etag { live.etag } else { etag.clone() };
        self.hub.patch_twin(twin, patch, &etag).await.map(|twin| self.show(twin))
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.hub.create_device(device).await
    }
}

#[tokio::test(start_paused = true)]
async fn three_wrong_predictions_in_a_row_switch_the_shortcut_off() {
    let hub = settled(4).await;
    for wrong in 0..=3 {
        let unforeseen = Unforeseen { hub: hub.clone(), devices: ["d00", "d01", "d02"] };
        let mut wanted = state(4, ONE);
        let daemon = Daemon::start(unforeseen, options("demo", 1), &wanted);
        settle(SWEEP).await;
        for n in 0..wrong {
            let id = format!("d{n:02}");
            let other = state(4, &format!(r#"{{"a":1,"rev":{wrong}}}"#));
            wanted.twins.insert(twin(&id), other.twins.get(&twin(&id)).unwrap().clone());
            daemon.declare(&wanted);
            settle(30).await;
        }
        let foretold = daemon.registry.gather();
        let misses = foretold.iter().find(|family| family.name() == "geminid_seal_mispredictions_total").unwrap();
        assert!((misses.get_metric()[0].get_counter().get_value() - f64::from(wrong)).abs() < 0.1);
        let before = now(&hub);
        settle(SWEEP).await;
        // The untouched d03 was believed at the first sweep; now it is read once, like everything that was only believed.
        assert_eq!(spent(&hub, before), (u64::from(wrong == 3), 0), "after {wrong} wrong predictions");
        let page = Page { only: Some(twin("d03")), ..Page::default() };
        assert_eq!(daemon.commands.overview(page).await.unwrap().twins[0].condition.reason, "InSync");
        daemon.stop().await;
        let again = Daemon::start(hub.clone(), options("demo", 2), &state(4, ONE));
        settle(2 * SWEEP).await;
        again.stop().await;
    }
    assert_eq!(hub.twin(&device("d03")).unwrap().tags.get("a"), object(ONE).get("a"));
}
