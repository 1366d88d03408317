//! What every hub behind [`WriteTwins`] does: one suite, run against the hub without a socket and, through the REST
//! client, against the embedded hub over HTTPS; and against any hub that `GEMINID_CONTRACT_HUB` names. What they must
//! not differ in is what floors above rely on.

#![expect(clippy::unwrap_used, reason = "a test unwraps, and so do its helpers")]

use std::collections::BTreeSet;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use geminid::emulator::identity::IdentitySpec;
use geminid::emulator::if_match::IfMatch;
use geminid::emulator::{EmbeddedHub, HubOptions, ServiceOptions, SimHub};
use geminid::hub::{
    ConnectionString, Continuation, HubError, PageError, Pages, QueryPage, ReadTwins, RestHub, RestOptions, WriteTwins,
};
use geminid::twin::{DeviceId, ETag, MergePatch, ModuleId, Object, Twin, TwinRef, TwinTrace, Value};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::ExposeSecret as _;
use sha2::Sha256;

/// A REST client and the hub it talks to, whose folder goes when this does.
struct Served {
    rest: RestHub,
    hub: EmbeddedHub,
    _folder: tempfile::TempDir,
}

#[expect(clippy::disallowed_methods, reason = "client and hub run on the real clock here, as they do in production")]
const CLOCK: fn() -> jiff::Timestamp = jiff::Timestamp::now;

impl Served {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = HubOptions {
            https: "127.0.0.1:0".parse().unwrap(),
            mqtts: None,
            host: "localhost".to_owned(),
            state_dir: folder.path().join("state"),
            ephemeral: false,
            allow_remote: false,
            now: CLOCK,
            service: ServiceOptions::default(),
        };
        let hub = EmbeddedHub::start(options).await.unwrap();
        let rest = client(&hub, hub.connection_info().owner_connection_string.expose_secret());
        Self { rest, hub, _folder: folder }
    }
}

fn client(hub: &EmbeddedHub, connection_string: &str) -> RestHub {
    let mut options = RestOptions::new(CLOCK);
    options.extra_ca_pem = Some(std::fs::read(&hub.connection_info().ca_file).unwrap());
    RestHub::new(ConnectionString::parse(connection_string).unwrap(), &options).unwrap()
}

/// A hub on which another client can register modules.
trait WithModules: WriteTwins {
    async fn make_module(&self, device: &DeviceId, module: &ModuleId);
}

impl WithModules for SimHub {
    async fn make_module(&self, device: &DeviceId, module: &ModuleId) {
        self.create_module(device, module).unwrap();
    }
}

impl WithModules for Served {
    async fn make_module(&self, device: &DeviceId, module: &ModuleId) {
        let spec = IdentitySpec::default();
        let hub = self.hub.handle();
        let put =
            hub.write(|registry, random, now| registry.put_module(device, module, spec, &IfMatch::Absent, random, now));
        put.await.unwrap();
    }
}

impl ReadTwins for Served {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.rest.get_twin(twin).await
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        self.rest.query_page(query, page_size, from).await
    }
}

impl WriteTwins for Served {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.rest.patch_twin(twin, patch, etag).await
    }

    async fn patch_twin_for_trace(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
        tag: &str,
    ) -> Result<TwinTrace, HubError> {
        self.rest.patch_twin_for_trace(twin, patch, etag, tag).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.rest.create_device(device).await
    }
}

/// A hub in Azure, or another one that somebody named; devices of a check have a prefix of their own there and are
/// deleted in the end.
struct Named {
    rest: RestHub,
    connection_string: String,
    ca_pem: Option<Vec<u8>>,
    prefix: String,
    created: Mutex<Vec<DeviceId>>,
}

impl Named {
    /// The hub of `GEMINID_CONTRACT_HUB`, the connection string of a policy that may register devices; with
    /// `GEMINID_CONTRACT_CA`, its authority's file. `None` when no hub is named.
    #[expect(clippy::disallowed_methods, reason = "whoever has a hub says so in the environment")]
    fn find(check: &str) -> Option<Self> {
        let connection_string = std::env::var("GEMINID_CONTRACT_HUB").ok()?;
        let ca_pem = std::env::var("GEMINID_CONTRACT_CA").ok().map(|file| std::fs::read(file).unwrap());
        let mut options = RestOptions::new(CLOCK);
        options.extra_ca_pem.clone_from(&ca_pem);
        let rest = RestHub::new(ConnectionString::parse(&connection_string).unwrap(), &options).unwrap();
        let prefix = format!("geminid-contract-{:08x}-{check}-", fastrand::u32(..));
        Some(Self { rest, connection_string, ca_pem, prefix, created: Mutex::default() })
    }

    fn there(&self, twin: &TwinRef) -> TwinRef {
        TwinRef { device: self.device(&twin.device), module: twin.module.clone() }
    }

    fn device(&self, device: &DeviceId) -> DeviceId {
        id(&format!("{}{device}", self.prefix))
    }

    /// An answer as if the device had no prefix.
    fn here<T>(&self, twin: &TwinRef, answer: Result<T, HubError>) -> Result<T, HubError> {
        answer.map_err(|error| {
            if matches!(error, HubError::NotFound(_)) {
                HubError::NotFound(twin.clone())
            } else if matches!(error, HubError::AlreadyExists(_)) {
                HubError::AlreadyExists(twin.device.clone())
            } else {
                error
            }
        })
    }

    /// Deletes what was registered.
    async fn clean_up(self) {
        let part =
            |name: &str| self.connection_string.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let (address, policy) = (part("HostName").unwrap(), part("SharedAccessKeyName").unwrap());
        let host = address.split(':').next().unwrap();
        let end = CLOCK().as_second() + 600;
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&BASE64.decode(part("SharedAccessKey").unwrap()).unwrap()).unwrap();
        mac.update(format!("{host}\n{end}").as_bytes());
        let signature = BASE64.encode(mac.finalize().into_bytes());
        let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
        let token = format!("SharedAccessSignature sr={host}&sig={signature}&se={end}&skn={policy}");
        let authority = self.ca_pem.iter().map(|pem| reqwest::Certificate::from_pem(pem).unwrap());
        let http = authority.fold(reqwest::Client::builder().no_proxy(), reqwest::ClientBuilder::add_root_certificate);
        let http = http.build().unwrap();
        for device in self.created.into_inner().unwrap() {
            let address = format!("https://{address}/devices/{device}?api-version=2021-04-12");
            let answer = http.delete(address).header("Authorization", &token).header("If-Match", "*").send().await;
            assert_eq!(answer.unwrap().status().as_u16(), 204, "{device} is left behind");
        }
    }
}

impl ReadTwins for Named {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        let answer = self.rest.get_twin(&self.there(twin)).await;
        self.here(twin, answer.map(|live| Twin { twin_ref: twin.clone(), ..live }))
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        self.rest.query_page(query, page_size, from).await
    }
}

impl WriteTwins for Named {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        let answer = self.rest.patch_twin(&self.there(twin), patch, etag).await;
        self.here(twin, answer.map(|live| Twin { twin_ref: twin.clone(), ..live }))
    }

    async fn patch_twin_for_trace(
        &self,
        twin: &TwinRef,
        patch: &MergePatch,
        etag: &ETag,
        tag: &str,
    ) -> Result<TwinTrace, HubError> {
        let answer = self.rest.patch_twin_for_trace(&self.there(twin), patch, etag, tag).await;
        self.here(twin, answer)
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        let there = self.device(device);
        let answer = self.rest.create_device(&there).await;
        if answer.is_ok() {
            self.created.lock().unwrap().push(there);
        }
        self.here(&TwinRef::device(device.clone()), answer)
    }
}

/// Runs each check against the hub that the environment names, and nothing where it names none: a hub that is used by
/// others has rows of its own, so only what is about single twins is asked there.
macro_rules! on_a_named_hub {
    ($($check:ident)*) => {
        mod on_a_named_hub {
            $(#[tokio::test]
            async fn $check() {
                if let Some(hub) = super::Named::find(stringify!($check)) {
                    super::$check(&hub).await;
                    hub.clean_up().await;
                }
            })*
        }
    };
}

on_a_named_hub! {
    what_is_not_registered_is_not_found
    a_device_is_created_once
    a_fresh_twin_is_empty
    a_patch_merges_and_null_deletes
    the_trace_of_a_write_is_that_of_the_twin_after_it
    values_come_back_as_they_were_written
    a_stale_etag_writes_nothing
    of_two_writers_one_wins
    the_etag_counts_the_writes_of_services
    a_patch_beyond_the_limits_writes_nothing
}

/// Runs each check against both hubs, a new one each.
macro_rules! contract {
    ($($check:ident)*) => {
        mod without_a_socket {
            $(#[tokio::test]
            async fn $check() {
                super::$check(&super::SimHub::new()).await;
            })*
        }
        mod over_https {
            $(#[tokio::test]
            async fn $check() {
                let served = super::Served::start().await;
                super::$check(&served).await;
                served.hub.shutdown().await;
            })*
        }
    };
}

contract! {
    what_is_not_registered_is_not_found
    a_device_is_created_once
    a_fresh_twin_is_empty
    a_patch_merges_and_null_deletes
    the_trace_of_a_write_is_that_of_the_twin_after_it
    values_come_back_as_they_were_written
    a_stale_etag_writes_nothing
    of_two_writers_one_wins
    the_etag_counts_the_writes_of_services
    a_patch_beyond_the_limits_writes_nothing
    every_id_of_the_charset_can_be_used
    a_query_is_read_page_by_page
    rows_say_what_the_twin_says
    a_query_that_is_none_is_rejected
    a_missing_module_is_not_found
    a_module_s_twin_is_written_under_its_own_etag
    a_module_s_twin_keeps_the_limits_and_the_counters_of_a_device_s
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

fn tags(json: &str) -> MergePatch {
    MergePatch { tags: Some(object(json)), desired: None }
}

fn desired(json: &str) -> MergePatch {
    MergePatch { tags: None, desired: Some(object(json)) }
}

/// The number in an etag, which counts from 1 (`iot-hub.md` 1.4).
fn count(etag: &ETag) -> u64 {
    let bytes = BASE64.decode(etag.as_str()).unwrap();
    u64::from_be_bytes(bytes.try_into().unwrap())
}

async fn create(hub: &impl WriteTwins, device: &str) -> Twin {
    hub.create_device(&id(device)).await.unwrap();
    hub.get_twin(&own(device)).await.unwrap()
}

/// Writes `patch` over the twin as it is.
async fn write(hub: &impl WriteTwins, device: &str, patch: &MergePatch) -> Result<Twin, HubError> {
    let before = hub.get_twin(&own(device)).await.unwrap();
    hub.patch_twin(&own(device), patch, &before.etag).await
}

async fn what_is_not_registered_is_not_found(hub: &impl WriteTwins) {
    let etag = ETag::new("AAAAAAAAAAE=").unwrap();
    create(hub, "d").await;
    for twin in [own("gone"), own("D")] {
        assert_eq!(hub.get_twin(&twin).await, Err(HubError::NotFound(twin.clone())));
        let written = hub.patch_twin(&twin, &tags(r#"{"a":1}"#), &etag).await;
        assert_eq!(written, Err(HubError::NotFound(twin)));
    }
}

async fn a_device_is_created_once(hub: &impl WriteTwins) {
    let fresh = create(hub, "d").await;
    let written = write(hub, "d", &tags(r#"{"a":1}"#)).await.unwrap();
    assert_eq!(hub.create_device(&id("d")).await, Err(HubError::AlreadyExists(id("d"))));
    assert_eq!(hub.get_twin(&own("d")).await.unwrap(), written);
    assert_eq!(written.device_etag, fresh.device_etag, "the identity did not change");
}

async fn a_fresh_twin_is_empty(hub: &impl WriteTwins) {
    let twin = create(hub, "d").await;
    assert_eq!((twin.etag.as_str(), twin.version), ("AAAAAAAAAAE=", 2));
    assert!(twin.tags.is_empty() && twin.desired.is_empty() && twin.reported.is_empty());
    assert!(twin.device_etag.is_some());
    let other = create(hub, "other").await;
    assert_eq!(other.etag, twin.etag);
    assert_eq!(other.twin_ref, own("other"));
}

async fn a_patch_merges_and_null_deletes(hub: &impl WriteTwins) {
    create(hub, "d").await;
    let first = MergePatch {
        tags: Some(object(r#"{"location":{"region":"US","plant":"Redmond43"},"old":1}"#)),
        desired: Some(object(r#"{"list":[1,2,3],"power_level":1}"#)),
    };
    write(hub, "d", &first).await.unwrap();
    let second = tags(r#"{"location":{"plant":"Leeds","floor":{"x":null}},"old":null,"never":null}"#);
    let answered = write(hub, "d", &second).await.unwrap();
    assert_eq!(answered.tags, object(r#"{"location":{"region":"US","plant":"Leeds","floor":{}}}"#));
    assert_eq!(answered.desired, object(r#"{"list":[1,2,3],"power_level":1}"#), "the other section stays");
    let answered = write(hub, "d", &desired(r#"{"list":[4],"power_level":{"low":1}}"#)).await.unwrap();
    assert_eq!(answered.desired, object(r#"{"list":[4],"power_level":{"low":1}}"#));
    assert_eq!(hub.get_twin(&own("d")).await.unwrap(), answered, "the answer is the twin after the write");
}

async fn the_trace_of_a_write_is_that_of_the_twin_after_it(hub: &impl WriteTwins) {
    let fresh = create(hub, "d").await;
    let patch = MergePatch {
        tags: Some(object(r#"{"geminid":{"me":{"v":1,"o":["x"]}},"a":{"geminid":2}}"#)),
        desired: Some(object(r#"{"list":[1,{"geminid":3}]}"#)),
    };
    let trace = hub.patch_twin_for_trace(&own("d"), &patch, &fresh.etag, "geminid").await.unwrap();
    assert_eq!(trace.tag, Some(Value::Object(object(r#"{"me":{"v":1,"o":["x"]}}"#))));
    let after = hub.get_twin(&own("d")).await.unwrap();
    assert_eq!(trace, TwinTrace::of(after, "geminid"));
    let refused = hub.patch_twin_for_trace(&own("d"), &patch, &fresh.etag, "geminid").await;
    assert_eq!(refused, Err(HubError::PreconditionFailed), "the write is guarded");
    let without = hub.patch_twin_for_trace(&own("d"), &tags(r#"{"geminid":null}"#), &trace.etag, "geminid").await;
    assert_eq!(without.unwrap().tag, None);
}

async fn values_come_back_as_they_were_written(hub: &impl WriteTwins) {
    create(hub, "d").await;
    let values = r#"{"":"empty key","big":4503599627370495,"float":1.0,"int":1,"list":[1,"x",true,{"a":[]}],"small":-4503599627370496,"tiny":1e-7,"ключ":"\u0001 \" \\ 😀"}"#;
    let written = write(hub, "d", &desired(values)).await.unwrap();
    // As text, for numbers compare as numbers.
    let text = |object: &Object| Value::Object(object.clone()).to_string();
    assert_eq!(text(&written.desired), text(&object(values)));
    assert_eq!(text(&hub.get_twin(&own("d")).await.unwrap().desired), text(&object(values)));
}

async fn a_stale_etag_writes_nothing(hub: &impl WriteTwins) {
    let fresh = create(hub, "d").await;
    let theirs = hub.patch_twin(&own("d"), &tags(r#"{"theirs":1}"#), &fresh.etag).await.unwrap();
    for stale in [fresh.etag, ETag::new("AAAAAAAAAAk=").unwrap(), ETag::new("not-a-counter").unwrap()] {
        let refused = hub.patch_twin(&own("d"), &tags(r#"{"ours":1,"theirs":null}"#), &stale).await;
        assert_eq!(refused, Err(HubError::PreconditionFailed), "{stale}");
    }
    assert_eq!(hub.get_twin(&own("d")).await.unwrap(), theirs);
}

async fn of_two_writers_one_wins(hub: &impl WriteTwins) {
    let fresh = create(hub, "d").await;
    let (twin, patch) = (own("d"), [tags(r#"{"a":1}"#), tags(r#"{"b":1}"#)]);
    let writes =
        tokio::join!(hub.patch_twin(&twin, &patch[0], &fresh.etag), hub.patch_twin(&twin, &patch[1], &fresh.etag),);
    let winner = match writes {
        (Ok(winner), Err(HubError::PreconditionFailed)) | (Err(HubError::PreconditionFailed), Ok(winner)) => winner,
        other => panic!("{other:?}"),
    };
    assert_eq!(winner.tags.len(), 1);
    assert_eq!(hub.get_twin(&twin).await.unwrap(), winner);
    let (first, second) = (id("e"), id("e"));
    let creations = tokio::join!(hub.create_device(&first), hub.create_device(&second));
    let lost = Err(HubError::AlreadyExists(id("e")));
    assert!(creations == (Ok(()), lost.clone()) || creations == (lost, Ok(())), "{creations:?}");
}

async fn the_etag_counts_the_writes_of_services(hub: &impl WriteTwins) {
    let mut before = create(hub, "d").await;
    assert_eq!(count(&before.etag), 1);
    let both = MergePatch { tags: Some(object(r#"{"b":1}"#)), desired: Some(object(r#"{"b":1}"#)) };
    let again = tags(r#"{"a":1}"#);
    for patch in [again.clone(), desired(r#"{"a":1}"#), both, again] {
        let after = hub.patch_twin(&own("d"), &patch, &before.etag).await.unwrap();
        assert_eq!(count(&after.etag), count(&before.etag) + 1, "one write, one step, equal values too");
        assert_eq!(after.version, before.version + 1);
        assert_eq!(after.device_etag, before.device_etag);
        before = after;
    }
}

async fn a_patch_beyond_the_limits_writes_nothing(hub: &impl WriteTwins) {
    let fresh = create(hub, "d").await;
    let long = format!(r#"{{"s":"{}"}}"#, "x".repeat(4097));
    let full = format!(r#"{{"a":"{0}","b":"{0}","c":"{0}"}}"#, "x".repeat(4000));
    for bad in [r#"{"a.b":1}"#, r#"{"$x":1}"#, r#"{"n":4503599627370496}"#, r#"{"l":[null]}"#, &long, &full] {
        let refused = hub.patch_twin(&own("d"), &tags(bad), &fresh.etag).await.unwrap_err();
        assert!(matches!(&refused, HubError::Rejected { status: 400, .. }), "{bad}: {refused:?}");
    }
    assert_eq!(hub.get_twin(&own("d")).await.unwrap(), fresh);
}

async fn every_id_of_the_charset_can_be_used(hub: &impl WriteTwins) {
    for device in ["a-b:c.d+e%f_g#h*i?j!k(l)m,n=o@p;q$r's", "...", "%2e%2E", "a%2Fb", &"x".repeat(128)] {
        let fresh = create(hub, device).await;
        assert_eq!(fresh.twin_ref, own(device));
        let written = hub.patch_twin(&own(device), &tags(r#"{"a":1}"#), &fresh.etag).await.unwrap();
        assert_eq!(hub.get_twin(&own(device)).await.unwrap(), written);
    }
}

/// All rows of a query in pages of `page_size`, and how many pages there were.
async fn read_all(hub: &impl ReadTwins, query: &str, page_size: usize) -> (Vec<Value>, usize) {
    let mut pages = Pages::new(hub, query, page_size, 20);
    let mut rows = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert!(page.len() <= page_size);
        rows.extend(page);
    }
    assert!(pages.is_complete());
    (rows, pages.pages_read())
}

async fn a_query_is_read_page_by_page(hub: &impl WriteTwins) {
    let all: BTreeSet<String> = (0..5).map(|number| format!("d{number}")).collect();
    for device in &all {
        create(hub, device).await;
        let plant = if device < &"d3".to_owned() { "Redmond43" } else { "Leeds" };
        write(hub, device, &tags(&format!(r#"{{"location":{{"plant":"{plant}"}}}}"#))).await.unwrap();
    }
    let ids = |rows: &[Value]| -> BTreeSet<String> {
        rows.iter().map(|row| row.get(["deviceId"]).unwrap().as_str().unwrap().to_owned()).collect()
    };
    for (page_size, pages_min) in [(1, 5), (2, 3), (100, 1)] {
        let (rows, pages) = read_all(hub, "SELECT * FROM devices", page_size).await;
        assert_eq!((rows.len(), ids(&rows)), (5, all.clone()), "each row once, in pages of {page_size}");
        assert!(pages >= pages_min);
    }
    let (rows, _) = read_all(hub, "SELECT deviceId FROM devices WHERE tags.location.plant = 'Redmond43'", 1).await;
    assert_eq!(ids(&rows), BTreeSet::from(["d0".to_owned(), "d1".to_owned(), "d2".to_owned()]));
    let (rows, _) = read_all(hub, "SELECT * FROM devices WHERE tags.location.plant != 'x' AND tags.no = 1", 1).await;
    assert_eq!(rows, []);
    let (rows, _) = read_all(hub, "SELECT COUNT() AS n FROM devices WHERE tags.location.plant = 'Leeds'", 1).await;
    assert_eq!(rows, [Value::Object(object(r#"{"n":2}"#))]);

    let mut cut = Pages::new(hub, "SELECT * FROM devices", 1, 3);
    for _ in 0..3 {
        cut.next().await.unwrap().unwrap();
    }
    assert_eq!(cut.next().await, Some(Err(PageError::TooMany(3))));
    assert!(!cut.is_complete());
}

async fn rows_say_what_the_twin_says(hub: &impl WriteTwins) {
    create(hub, "d").await;
    let twin = write(hub, "d", &tags(r#"{"geminid":{"o":{"h":"x"}}}"#)).await.unwrap();
    let query = "SELECT deviceId, ETAG, deviceEtag, tags.geminid.o.h AS h, tags.geminid.other.h AS g FROM devices";
    let (rows, _) = read_all(hub, query, 100).await;
    let device_etag = twin.device_etag.unwrap();
    let row = format!(r#"{{"deviceEtag":"{device_etag}","deviceId":"d","etag":"{}","h":"x"}}"#, twin.etag);
    assert_eq!(rows, [Value::Object(object(&row))]);
    let (rows, _) = read_all(hub, "SELECT * FROM devices", 100).await;
    assert_eq!(rows[0].get(["etag"]), Some(&Value::from(twin.etag.as_str())));
    assert_eq!(rows[0].get(["tags"]), Some(&Value::Object(twin.tags)));
    assert_eq!(rows[0].get(["properties", "desired", "$version"]), Some(&Value::from(1)));
}

async fn a_query_that_is_none_is_rejected(hub: &impl WriteTwins) {
    create(hub, "d").await;
    create(hub, "e").await;
    let long = format!("SELECT * FROM devices WHERE deviceId = '{}'", "x".repeat(8192));
    for bad in ["", "SELECT", "SELECT * FROM nothing", "SELECT * FROM devices WHERE f(x)", &long] {
        let refused = hub.query_page(bad, 100, None).await.unwrap_err();
        assert!(matches!(&refused, HubError::Rejected { status: 400, .. }), "{bad}: {refused:?}");
    }
    let forged = Continuation("forged".to_owned());
    let refused = hub.query_page("SELECT * FROM devices", 1, Some(&forged)).await.unwrap_err();
    assert!(matches!(&refused, HubError::Rejected { status: 400, .. }), "{refused:?}");
    let first = hub.query_page("SELECT * FROM devices", 1, None).await.unwrap();
    let other = hub.query_page("SELECT deviceId FROM devices", 1, first.next.as_ref()).await.unwrap_err();
    assert!(matches!(&other, HubError::Rejected { status: 400, .. }), "a continuation of another query: {other:?}");
}

fn module_of(device: &str, module: &str) -> TwinRef {
    TwinRef::module(id(device), ModuleId::new(module).unwrap())
}

async fn a_missing_module_is_not_found(hub: &impl WithModules) {
    let etag = ETag::new("AAAAAAAAAAE=").unwrap();
    create(hub, "d").await;
    hub.make_module(&id("d"), &ModuleId::new("m").unwrap()).await;
    for twin in [module_of("d", "gone"), module_of("d", "M"), module_of("gone", "m")] {
        assert_eq!(hub.get_twin(&twin).await, Err(HubError::NotFound(twin.clone())));
        let written = hub.patch_twin(&twin, &tags(r#"{"a":1}"#), &etag).await;
        assert_eq!(written, Err(HubError::NotFound(twin)));
    }
}

async fn a_module_s_twin_is_written_under_its_own_etag(hub: &impl WithModules) {
    let device = create(hub, "d").await;
    let module = ModuleId::new("m:1%").unwrap();
    hub.make_module(&id("d"), &module).await;
    let twin = TwinRef::module(id("d"), module);
    let fresh = hub.get_twin(&twin).await.unwrap();
    assert_eq!((&fresh.twin_ref, fresh.etag.as_str(), fresh.version), (&twin, "AAAAAAAAAAE=", 2));
    assert!(fresh.device_etag.is_some() && fresh.device_etag != device.device_etag, "its own identity's");
    let written = hub.patch_twin(&twin, &desired(r#"{"interval":{"s":30},"x":null}"#), &fresh.etag).await.unwrap();
    assert_eq!(written.desired, object(r#"{"interval":{"s":30}}"#));
    assert_eq!(hub.get_twin(&twin).await.unwrap(), written);
    let stale = hub.patch_twin(&twin, &desired(r#"{"a":1}"#), &fresh.etag).await;
    assert_eq!(stale, Err(HubError::PreconditionFailed));
    assert_eq!(hub.get_twin(&own("d")).await.unwrap(), device, "the device's twin is another");
}

async fn a_module_s_twin_keeps_the_limits_and_the_counters_of_a_device_s(hub: &impl WithModules) {
    create(hub, "d").await;
    hub.make_module(&id("d"), &ModuleId::new("m").unwrap()).await;
    let twin = module_of("d", "m");
    let mut live = hub.get_twin(&twin).await.unwrap();
    for (number, patch) in [tags(r#"{"a":1}"#), desired(r#"{"a":1}"#), tags(r#"{"a":1}"#)].iter().enumerate() {
        live = hub.patch_twin(&twin, patch, &live.etag).await.unwrap();
        assert_eq!((count(&live.etag), live.version), (number as u64 + 2, number as u64 + 3));
    }
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(4097));
    for bad in [r#"{"a$b":1}"#, &long, r#"{"l":[null]}"#] {
        let refused = hub.patch_twin(&twin, &tags(bad), &live.etag).await.unwrap_err();
        assert!(matches!(refused, HubError::Rejected { status: 400, .. }), "{refused:?}");
    }
    assert_eq!(hub.get_twin(&twin).await.unwrap(), live);
}

/// A connection string with every letter of its key replaced.
fn with_wrong_key(connection_string: &str) -> String {
    let (start, key) = connection_string.split_once("SharedAccessKey=").unwrap();
    let wrong = BASE64.encode(vec![7; BASE64.decode(key).unwrap().len()]);
    format!("{start}SharedAccessKey={wrong}")
}

#[tokio::test]
async fn a_wrong_key_is_one_clear_error_without_the_key() {
    let served = Served::start().await;
    served.rest.create_device(&id("d")).await.unwrap();
    let string = with_wrong_key(served.hub.connection_info().service_connection_string.expose_secret());
    let rest = client(&served.hub, &string);
    let fresh = served.rest.get_twin(&own("d")).await.unwrap();
    for error in [
        rest.get_twin(&own("d")).await.unwrap_err(),
        rest.query_page("SELECT * FROM devices", 1, None).await.unwrap_err(),
        rest.patch_twin(&own("d"), &tags(r#"{"a":1}"#), &fresh.etag).await.unwrap_err(),
        rest.create_device(&id("e")).await.unwrap_err(),
    ] {
        assert_eq!(error.category(), "unauthorized");
        let text = error.to_string();
        let host = format!("hub {}", rest.address());
        assert!(text.contains(&host) && text.contains("policy service") && text.contains("check"), "{text}");
        let key = string.split_once("SharedAccessKey=").unwrap().1;
        assert!(!format!("{text}{error:?}").contains(key) && !text.contains("sig="), "{text}");
    }
    assert_eq!(served.rest.get_twin(&own("d")).await.unwrap(), fresh);
    served.hub.shutdown().await;
}

#[tokio::test]
async fn a_policy_without_the_right_is_unauthorized() {
    let served = Served::start().await;
    let service = client(&served.hub, served.hub.connection_info().service_connection_string.expose_secret());
    let error = service.create_device(&id("d")).await.unwrap_err();
    assert_eq!(error.category(), "unauthorized");
    assert!(error.to_string().contains("RegistryReadWrite to create devices"), "{error}");
    assert_eq!(served.rest.get_twin(&own("d")).await, Err(HubError::NotFound(own("d"))));
    served.hub.shutdown().await;
}

#[tokio::test]
async fn a_hub_that_is_down_is_a_transport_error() {
    let served = Served::start().await;
    served.rest.create_device(&id("d")).await.unwrap();
    let fresh = served.rest.get_twin(&own("d")).await.unwrap();
    served.hub.shutdown().await;
    for error in [
        served.rest.get_twin(&own("d")).await.unwrap_err(),
        served.rest.patch_twin(&own("d"), &tags(r#"{"a":1}"#), &fresh.etag).await.unwrap_err(),
    ] {
        assert!(matches!(error, HubError::Transport { timeout: false, .. }), "{error:?}");
        assert!(error.to_string().contains(&served.rest.address().to_string()), "{error}");
    }
}
