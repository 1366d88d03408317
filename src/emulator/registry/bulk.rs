//! Bulk operations: up to a hundred identities and twins in one call (`iot-hub.md` 2.6).
//!
//! Invariant: each item is done or refused by itself, in the order of the call; a refused item changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::error::Refusal;
use super::super::identity::{IdentitySpec, Random};
use super::super::if_match::IfMatch;
use super::super::twin_record::TwinRecord;
use super::{Device, Registry, check_identity_etag};
use crate::twin::{MergePatch, TwinRef};

/// The most items of a call (`iot-hub.md` 2.6).
const ITEMS_MAX: usize = 100;

/// What is done with an item (`iot-hub.md` 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// Registers what is not there, with its twin.
    Create,
    /// Replaces the identity of what is there.
    Update,
    /// The same, when the etag is the live one.
    UpdateIfMatchEtag,
    /// Registers, or replaces the identity and writes the twin.
    CreateOrUpdate,
    /// The same, when the etag is the live one.
    CreateOrUpdateIfMatchEtag,
    /// Deletes.
    Delete,
    /// Deletes when the etag is the live one.
    DeleteIfMatchEtag,
    /// Writes the twin.
    UpdateTwin,
    /// Writes the twin when its etag is the live one.
    UpdateTwinIfMatchEtag,
}

impl ImportMode {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Update,
        Self::UpdateIfMatchEtag,
        Self::CreateOrUpdate,
        Self::CreateOrUpdateIfMatchEtag,
        Self::Delete,
        Self::DeleteIfMatchEtag,
        Self::UpdateTwin,
        Self::UpdateTwinIfMatchEtag,
    ];

    /// As the documentation writes it; requests come in any case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::UpdateIfMatchEtag => "updateIfMatchETag",
            Self::CreateOrUpdate => "createOrUpdate",
            Self::CreateOrUpdateIfMatchEtag => "createOrUpdateIfMatchETag",
            Self::Delete => "delete",
            Self::DeleteIfMatchEtag => "deleteIfMatchETag",
            Self::UpdateTwin => "updateTwin",
            Self::UpdateTwinIfMatchEtag => "updateTwinIfMatchETag",
        }
    }

    /// The mode of its name, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(text))
    }

    const fn guards_identity(self) -> bool {
        matches!(self, Self::UpdateIfMatchEtag | Self::CreateOrUpdateIfMatchEtag | Self::DeleteIfMatchEtag)
    }
}

/// What `updateTwin` does with the twin that is there; which of the two a hub does is unproven (`iot-hub.md` 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BulkTwinWrite {
    /// Merges, as PATCH does.
    #[default]
    Merge,
    /// Replaces, as PUT does.
    Replace,
}

/// One item of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkItem {
    /// The device or module.
    pub twin_ref: TwinRef,
    /// What is done with it.
    pub mode: ImportMode,
    /// The identity it is to have, or why the item's is none.
    pub spec: Result<IdentitySpec, Refusal>,
    /// The identity's etag.
    pub etag: IfMatch,
    /// The twin's etag.
    pub twin_etag: IfMatch,
    /// Tags and desired, or why the item's are none.
    pub twin: Result<MergePatch, Refusal>,
}

/// One refused item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkError {
    /// The device or module.
    pub twin_ref: TwinRef,
    /// Why.
    pub refusal: Refusal,
    /// What was to be done.
    pub mode: ImportMode,
}

impl Registry {
    /// Does each of `items`, and gives the refused ones.
    ///
    /// # Errors
    /// [`Refusal::BulkTooLarge`] for more than 100 items, [`Refusal::DefinedMultipleTimes`] when two name one device or
    /// module; nothing is done then.
    pub fn bulk(
        &mut self,
        items: Vec<BulkItem>,
        twin_write: BulkTwinWrite,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<Vec<BulkError>, Refusal> {
        if items.len() > ITEMS_MAX {
            return Err(Refusal::BulkTooLarge(ITEMS_MAX));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = items.iter().find(|item| !seen.insert(&item.twin_ref)) {
            return Err(Refusal::DefinedMultipleTimes(twice.twin_ref.clone()));
        }
        let mut errors = Vec::new();
        for item in items {
            let (twin_ref, mode) = (item.twin_ref.clone(), item.mode);
            if let Err(refusal) = self.bulk_item(item, twin_write, &mut *random, now) {
                errors.push(BulkError { twin_ref, refusal, mode });
            }
        }
        Ok(errors)
    }

    fn bulk_item(
        &mut self,
        item: BulkItem,
        twin_write: BulkTwinWrite,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let found = self.find_identity(&item.twin_ref);
        if item.mode.guards_identity()
            && let Ok(before) = &found
        {
            check_identity_etag(before, &item.etag)?;
        }
        match (item.mode, found) {
            (ImportMode::Create, Ok(_)) => Err(already_exists(item.twin_ref)),
            (ImportMode::Create, Err(_)) => self.bulk_create(item, random, now),
            (ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchEtag, Err(_)) => {
                self.bulk_create(item, random, now)
            }
            (_, Err(missing)) => Err(missing),
            (ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchEtag, Ok(before)) => {
                let twin = item.twin.clone()?;
                if !twin.is_empty() {
                    self.check_bulk_twin(&before, &item, &twin, twin_write, now)?;
                }
                self.bulk_replace(&before, item.spec?, random, now)?;
                self.bulk_twin(&item.twin_ref, &twin, &IfMatch::Absent, twin_write, now)
            }
            (ImportMode::Update | ImportMode::UpdateIfMatchEtag, Ok(before)) => {
                if !item.twin?.is_empty() {
                    let what = format!("twin data with {}; send it with updateTwin", item.mode.as_str());
                    return Err(Refusal::NotImplemented(what));
                }
                self.bulk_replace(&before, item.spec?, random, now)
            }
            (ImportMode::Delete | ImportMode::DeleteIfMatchEtag, Ok(_)) => {
                match item.twin_ref.module {
                    None => self.delete_device(&item.twin_ref.device),
                    Some(_) => self.removed(item.twin_ref),
                };
                Ok(())
            }
            (ImportMode::UpdateTwin, Ok(_)) => {
                self.bulk_twin(&item.twin_ref, &item.twin?, &IfMatch::Absent, twin_write, now)
            }
            (ImportMode::UpdateTwinIfMatchEtag, Ok(_)) => {
                self.bulk_twin(&item.twin_ref, &item.twin?, &item.twin_etag, twin_write, now)
            }
        }
    }

    fn bulk_create(&mut self, item: BulkItem, random: Random<'_>, now: Timestamp) -> Result<(), Refusal> {
        let (spec, twin) = (item.spec?, item.twin?);
        match item.twin_ref {
            TwinRef { device, module: None } => {
                let record = TwinRecord::imported_device(&twin, now)?;
                self.create_device(&device, spec, Some(record), random, now)
            }
            TwinRef { device, module: Some(module) } => {
                self.device(&device)?;
                let record = TwinRecord::imported_module(&twin, now)?;
                self.create_module(&device, &module, spec, record, random, now)
            }
        }
        .map(|_| ())
    }

    fn bulk_replace(
        &mut self,
        before: &Device,
        spec: IdentitySpec,
        random: Random<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let replaced = match before.identity.module {
            None => self.replace_device(before, spec, random, now),
            Some(_) => self.replace_module(before, spec, random, now),
        };
        replaced.map(|_| ())
    }

    /// Whether the twin of an item could be written. It is asked before the identity is, so that both are or neither.
    fn check_bulk_twin(
        &self,
        before: &Device,
        item: &BulkItem,
        twin: &MergePatch,
        twin_write: BulkTwinWrite,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if !item.twin_etag.admits_twin(&before.twin.etag()) {
            return Err(Refusal::TwinChanged(item.twin_ref.device.clone()));
        }
        let written = match twin_write {
            BulkTwinWrite::Merge => before.twin.patched(twin, now),
            BulkTwinWrite::Replace => before.twin.replaced(twin, now),
        };
        written.map(|_| ())
    }

    /// A twin without tags and desired is not written.
    fn bulk_twin(
        &mut self,
        twin_ref: &TwinRef,
        twin: &MergePatch,
        if_match: &IfMatch,
        twin_write: BulkTwinWrite,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if twin.is_empty() {
            return Ok(());
        }
        let written = match twin_write {
            BulkTwinWrite::Merge => self.patch_twin(twin_ref, twin, if_match, now),
            BulkTwinWrite::Replace => self.replace_twin(twin_ref, twin, if_match, now),
        };
        written.map(|_| ())
    }

    /// One record, as identities are asked for.
    fn find_identity(&self, twin: &TwinRef) -> Result<Arc<Device>, Refusal> {
        let missing = || match &twin.module {
            None => Refusal::DeviceNotFound(twin.device.clone()),
            Some(_) => Refusal::ModuleNotFound(twin.clone()),
        };
        self.find(twin).ok_or_else(missing)
    }
}

fn already_exists(twin: TwinRef) -> Refusal {
    match twin.module {
        None => Refusal::DeviceAlreadyExists(twin.device),
        Some(_) => Refusal::ModuleAlreadyExists(twin),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::identity::{AuthenticationSpec, Status};
    use super::super::super::twin_record::never;
    use super::*;
    use crate::twin::{DeviceId, ModuleId, Object, Value};

    fn device(text: &str) -> TwinRef {
        TwinRef::device(DeviceId::new(text).unwrap())
    }

    fn module(device: &str, module: &str) -> TwinRef {
        TwinRef::module(DeviceId::new(device).unwrap(), ModuleId::new(module).unwrap())
    }

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn item(mode: ImportMode, twin_ref: TwinRef) -> BulkItem {
        BulkItem {
            twin_ref,
            mode,
            spec: Ok(IdentitySpec::default()),
            etag: IfMatch::Absent,
            twin_etag: IfMatch::Absent,
            twin: Ok(MergePatch::default()),
        }
    }

    fn twin(json: &str) -> Result<MergePatch, Refusal> {
        Ok(MergePatch { tags: Some(object(json)), desired: Some(object(json)) })
    }

    fn run_as(registry: &mut Registry, items: Vec<BulkItem>, write: BulkTwinWrite) -> Vec<String> {
        let mut random = |bytes: &mut [u8]| bytes.fill(1);
        let errors = registry.bulk(items, write, &mut random, at(1)).unwrap();
        errors.iter().map(|error| format!("{} {}", error.twin_ref, error.refusal.code())).collect()
    }

    fn run(registry: &mut Registry, items: Vec<BulkItem>) -> Vec<String> {
        run_as(registry, items, BulkTwinWrite::Merge)
    }

    /// The devices `d` and `e`, and the module `d/m`.
    fn registry() -> Registry {
        let mut registry = Registry::default();
        let made = [device("d"), module("d", "m"), device("e")].map(|twin| item(ImportMode::Create, twin));
        assert_eq!(run(&mut registry, made.into()), Vec::<String>::new());
        registry
    }

    fn counters(record: &Device) -> (u64, u64, u64, u64) {
        let twin = &record.twin;
        (twin.etag_number, twin.version, twin.desired.version, twin.reported.version)
    }

    #[test]
    fn modes_are_known_in_any_case() {
        for mode in ImportMode::ALL {
            assert_eq!(ImportMode::parse(&mode.as_str().to_uppercase()), Some(mode));
        }
        assert_eq!(ImportMode::parse("UpdateIfMatchETag"), Some(ImportMode::UpdateIfMatchEtag), "as node writes it");
        assert_eq!(ImportMode::parse("upsert"), None);
    }

    #[test]
    fn each_mode_does_what_its_name_says_to_what_is_there_and_to_what_is_not() {
        use ImportMode as Mode;
        for (mode, existing, missing) in [
            (Mode::Create, "DeviceAlreadyExists", ""),
            (Mode::Update, "", "DeviceNotFound"),
            (Mode::UpdateIfMatchEtag, "", "DeviceNotFound"),
            (Mode::CreateOrUpdate, "", ""),
            (Mode::CreateOrUpdateIfMatchEtag, "", ""),
            (Mode::Delete, "", "DeviceNotFound"),
            (Mode::DeleteIfMatchEtag, "", "DeviceNotFound"),
            (Mode::UpdateTwin, "", "DeviceNotFound"),
            (Mode::UpdateTwinIfMatchEtag, "", "DeviceNotFound"),
        ] {
            let expected =
                |code: &str, twin: &str| if code.is_empty() { vec![] } else { vec![format!("{twin} {code}")] };
            assert_eq!(run(&mut registry(), vec![item(mode, device("d"))]), expected(existing, "d"), "{mode:?}");
            assert_eq!(run(&mut registry(), vec![item(mode, device("x"))]), expected(missing, "x"), "{mode:?}");
            let (existing, missing) = (existing.replace("DeviceA", "ModuleA"), missing.replace("Device", "Module"));
            let existing = existing.replace("Exists", "ExistsOnDevice");
            assert_eq!(
                run(&mut registry(), vec![item(mode, module("d", "m"))]),
                expected(&existing, "d/m"),
                "{mode:?}"
            );
            assert_eq!(run(&mut registry(), vec![item(mode, module("d", "x"))]), expected(&missing, "d/x"), "{mode:?}");
        }
        let orphan = vec![item(ImportMode::Create, module("x", "m"))];
        assert_eq!(run(&mut registry(), orphan), ["x/m DeviceNotFound"]);
        let mut registry = registry();
        assert_eq!(run(&mut registry, vec![item(ImportMode::Delete, device("d"))]), Vec::<String>::new());
        assert!(registry.record(&module("d", "m")).is_err(), "its module went too");
    }

    #[test]
    fn only_the_guarded_modes_look_at_etags() {
        use ImportMode as Mode;
        let stale = IfMatch::Quoted("MQ==".to_owned());
        for (mode, refused) in [
            (Mode::Update, false),
            (Mode::Delete, false),
            (Mode::CreateOrUpdate, false),
            (Mode::UpdateTwin, false),
            (Mode::UpdateIfMatchEtag, true),
            (Mode::DeleteIfMatchEtag, true),
            (Mode::CreateOrUpdateIfMatchEtag, true),
            (Mode::UpdateTwinIfMatchEtag, true),
        ] {
            let writes_twin = matches!(mode, Mode::UpdateTwin | Mode::UpdateTwinIfMatchEtag);
            let twin = if writes_twin { twin(r#"{"a":1}"#) } else { Ok(MergePatch::default()) };
            let guarded = BulkItem { etag: stale.clone(), twin_etag: stale.clone(), twin, ..item(mode, device("d")) };
            let mut registry = registry();
            let before = registry.device(&device("d").device).unwrap();
            let errors = run(&mut registry, vec![guarded.clone()]);
            assert_eq!(errors, if refused { vec!["d PreconditionFailed"] } else { vec![] }, "{mode:?}");
            if refused {
                assert_eq!(registry.device(&device("d").device), Ok(Arc::clone(&before)), "{mode:?}");
                let current = BulkItem {
                    etag: IfMatch::Unquoted(before.identity.etag()),
                    twin_etag: IfMatch::Quoted(before.twin.etag()),
                    ..guarded
                };
                assert_eq!(run(&mut registry, vec![current]), Vec::<String>::new(), "{mode:?}");
            }
        }
    }

    #[test]
    fn what_is_created_with_twin_data_begins_with_it() {
        let mut registry = Registry::default();
        let content = r#"{"a":{"b":1},"gone":null}"#;
        let made = [device("d"), module("d", "m")]
            .map(|twin_ref| BulkItem { twin: twin(content), ..item(ImportMode::Create, twin_ref) });
        assert_eq!(run(&mut registry, made.into()), Vec::<String>::new());
        for (twin_ref, stamped) in [(device("d"), never()), (module("d", "m"), at(1))] {
            let record = registry.record(&twin_ref).unwrap();
            assert_eq!(counters(&record), (1, 2, 1, 1), "{twin_ref}");
            assert_eq!(record.twin.tags, Some(object(r#"{"a":{"b":1}}"#).into()));
            assert_eq!(record.twin.desired.values, object(r#"{"a":{"b":1}}"#));
            let leaf = &record.twin.desired.stamps.children["a"].children["b"].stamp;
            assert_eq!((leaf.at, leaf.version), (stamped, Some(1)), "{twin_ref}");
        }
        let plain = run(&mut registry, vec![item(ImportMode::Create, device("plain"))]);
        assert_eq!(plain, Vec::<String>::new());
        let record = registry.device(&device("plain").device).unwrap();
        assert_eq!((record.twin.tags.clone(), record.twin.desired.stamps.stamp.version), (None, None));
    }

    #[test]
    fn a_twin_is_merged_unless_the_switch_says_replaced() {
        for (write, tags) in [(BulkTwinWrite::Merge, r#"{"a":1,"c":3}"#), (BulkTwinWrite::Replace, r#"{"c":3}"#)] {
            let mut registry = registry();
            let first = BulkItem { twin: twin(r#"{"a":1,"b":2}"#), ..item(ImportMode::UpdateTwin, device("d")) };
            assert_eq!(run_as(&mut registry, vec![first], write), Vec::<String>::new());
            let change = if write == BulkTwinWrite::Merge { r#"{"b":null,"c":3}"# } else { r#"{"c":3}"# };
            let second = BulkItem { twin: twin(change), ..item(ImportMode::UpdateTwin, device("d")) };
            assert_eq!(run_as(&mut registry, vec![second], write), Vec::<String>::new());
            let record = registry.device(&device("d").device).unwrap();
            assert_eq!(record.twin.tags, Some(object(tags).into()), "{write:?}");
            assert_eq!(counters(&record), (3, 4, 3, 1), "each item is one write");
        }
    }

    #[test]
    fn a_refused_item_stops_no_other_and_changes_nothing() {
        let mut registry = registry();
        let long = twin(&format!(r#"{{"a":"{}"}}"#, "x".repeat(4097)));
        let disabled = IdentitySpec { status: Status::Disabled, ..IdentitySpec::default() };
        let bad_key = Refusal::ArgumentInvalid("a bad key".to_owned());
        let none = IdentitySpec { authentication: AuthenticationSpec::None, ..IdentitySpec::default() };
        let before = registry.device(&device("d").device).unwrap();
        let items = vec![
            BulkItem { twin: long.clone(), spec: Ok(disabled), ..item(ImportMode::CreateOrUpdate, device("d")) },
            BulkItem { twin: twin("{}"), ..item(ImportMode::Update, device("e")) },
            BulkItem { twin: long, ..item(ImportMode::Create, device("f")) },
            BulkItem { spec: Err(bad_key), ..item(ImportMode::Create, device("g")) },
            BulkItem { spec: Ok(none), ..item(ImportMode::Create, device("h")) },
            item(ImportMode::Create, device("i")),
        ];
        let errors = run(&mut registry, items);
        let expected = ["d ArgumentInvalid", "e NotImplemented", "f ArgumentInvalid", "g ArgumentInvalid"];
        assert_eq!(errors, [&expected[..], &["h NotImplemented"]].concat());
        assert_eq!(registry.device(&device("d").device), Ok(before));
        let there: Vec<String> = registry.list(None).iter().map(|device| device.identity.device.to_string()).collect();
        assert_eq!(there, ["d", "e", "i"]);
    }

    #[test]
    fn a_call_with_too_many_items_or_one_twice_does_nothing() {
        let mut random = |bytes: &mut [u8]| bytes.fill(1);
        let items = |count: usize| (0..count).map(|n| item(ImportMode::Create, device(&format!("d{n}")))).collect();
        let mut registry = Registry::default();
        let refused = registry.bulk(items(101), BulkTwinWrite::Merge, &mut random, at(1)).unwrap_err();
        assert_eq!((refused.status(), refused.code()), (413, "TooManyDevices"));
        let twice = vec![item(ImportMode::Create, device("d")), item(ImportMode::Delete, device("d"))];
        let refused = registry.bulk(twice, BulkTwinWrite::Merge, &mut random, at(1)).unwrap_err();
        assert_eq!((refused.status(), refused.code()), (400, "DeviceDefinedMultipleTimes"));
        assert_eq!(registry.changes(), 0);
        assert_eq!(registry.bulk(items(100), BulkTwinWrite::Merge, &mut random, at(1)), Ok(Vec::new()));
        assert_eq!(registry.take_log().len(), 100, "all in one batch");
    }
}
