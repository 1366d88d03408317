//! The sweep's question of each row: has anybody touched this twin since we last knew it was right?
//!
//! Invariant: a row is evidence only that a twin is untouched, by matching what we wrote or read exactly. It lags and
//! deleted devices linger (`iot-hub.md` 5.6), so it is never the base of a write and never proof of absence.

use std::time::Duration;

use super::seal::{counter_of, is_identity_hash};
use super::{DeclaredHash, ProfileTarget, SEAL_KEY, SealScope, etag_counter};
use crate::twin::{DeviceId, ETag, ModuleId, TwinRef, Value};

/// How long a row may be older than our own write without meaning anything: the documented lag of the query index
/// (`iot-hub.md` 5.6).
const ROW_LAG_MAX: Duration = Duration::from_secs(30 * 60);

/// The query that lists what we have sealed among devices or modules, with what [`judge_row`] needs of each twin and the
/// columns `more`, each a text for SELECT with the name it comes back under. Without seals it lists all.
#[must_use]
pub fn sweep_query(scope: &SealScope, target: ProfileTarget, more: &[(String, String)]) -> String {
    let more: String = more.iter().map(|(column, name)| format!(", {column} AS {name}")).collect();
    let seal = format!("tags.{SEAL_KEY}.[[{}]]", scope.owner);
    let (module, collection) = match target {
        ProfileTarget::Devices => ("", "devices"),
        ProfileTarget::Modules => ("moduleId AS m, ", "devices.modules"),
    };
    if !scope.seals {
        return format!("SELECT deviceId AS d, {module}etag AS t, deviceEtag AS y{more} FROM {collection}");
    }
    format!(
        "SELECT deviceId AS d, {module}etag AS t, deviceEtag AS y, {seal}.h AS h, {seal}.e AS e, {seal}.i AS i{more} \
         FROM {collection} WHERE IS_DEFINED({seal})"
    )
}

/// The twin that a row with the columns `d` and, for a module, `m` names.
#[must_use]
pub fn row_twin(row: &Value) -> Option<TwinRef> {
    let device = DeviceId::new(row.get(["d"])?.as_str()?).ok()?;
    match row.get(["m"]) {
        None | Some(Value::Null) => Some(TwinRef::device(device)),
        Some(module) => Some(TwinRef::module(device, ModuleId::new(module.as_str()?).ok()?)),
    }
}

/// The columns of [`sweep_query`] that hold texts, in the order in which [`SweepRow::new`] takes them.
pub const SWEEP_COLUMNS: [&str; 7] = ["d", "m", "t", "y", "h", "e", "i"];

/// One row of [`sweep_query`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepRow<'a> {
    /// The device's id, as the hub sent it.
    pub device: &'a str,
    /// The module's, for the twin of a module.
    pub module: Option<&'a str>,
    /// Its etag, possibly an old one.
    pub etag: &'a str,
    /// The identity's etag.
    pub device_etag: Option<&'a str>,
    /// `h` of our seal.
    pub declared: Option<&'a str>,
    /// `e` of our seal.
    pub seal_etag: Option<&'a str>,
    /// `i` of our seal.
    pub seal_identity: Option<&'a str>,
}

impl<'a> SweepRow<'a> {
    /// The row with these texts in the columns of [`SWEEP_COLUMNS`]; `None` when it names no device or no etag.
    #[must_use]
    pub fn new(columns: [Option<&'a str>; SWEEP_COLUMNS.len()]) -> Option<Self> {
        let [device, module, etag, device_etag, declared, seal_etag, seal_identity] = columns;
        Some(Self { device: device?, module, etag: etag?, device_etag, declared, seal_etag, seal_identity })
    }

    /// The twin; `None` when the hub sent something that is no id.
    #[must_use]
    pub fn twin(&self) -> Option<TwinRef> {
        let device = DeviceId::new(self.device).ok()?;
        Some(TwinRef { device, module: self.module.map(ModuleId::new).transpose().ok()? })
    }
}

/// What this process knows of a twin from its own last read or write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The etag seen last.
    pub etag: ETag,
    /// The identity's etag seen last.
    pub device_etag: Option<String>,
    /// What was declared then, and was in the twin; `None` when something was held.
    pub declared: Option<DeclaredHash>,
    /// A mark of our seal as it was then ([`SealState::mark`](super::SealState::mark)); `None` when there was none.
    pub seal: Option<u64>,
    /// When it was read or written, since the start of the process.
    pub at: Duration,
}

impl Verified {
    /// Whether both know the same; the time does not matter.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.etag, &self.device_etag, &self.declared) == (&other.etag, &other.device_etag, &other.declared)
    }

    /// Whether `row` shows the twin as it is known, written by nobody since.
    #[must_use]
    pub fn is_shown_by(&self, row: &SweepRow<'_>) -> bool {
        self.etag.as_str() == row.etag && self.device_etag.as_deref() == row.device_etag
    }
}

/// What a row says of its twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowVerdict {
    /// Nobody has written since our seal was written: nothing to do, without a read.
    SealMatches,
    /// Nobody has written since this process last looked: nothing to do, without a read.
    MemoryMatches,
    /// The row is older than what we already know: it means nothing.
    Older,
    /// Read the twin.
    Read,
}

/// Judges a row against what is `declared` now and what this process `verified` last. `trust_seals` is off once the
/// hub's etags turned out not to be foretellable.
#[must_use]
pub fn judge_row(
    row: &SweepRow<'_>,
    declared: Option<&DeclaredHash>,
    verified: Option<&Verified>,
    trust_seals: bool,
    now: Duration,
) -> RowVerdict {
    let Some(declared) = declared else { return RowVerdict::Read };
    if let Some(known) = verified {
        let same = known.is_shown_by(row);
        if same && known.declared.as_ref() == Some(declared) {
            return RowVerdict::MemoryMatches;
        }
        let fresh = now.saturating_sub(known.at) < ROW_LAG_MAX;
        if !same && fresh && known.declared.as_ref() == Some(declared) && is_older(row, known) {
            return RowVerdict::Older;
        }
    }
    let same_identity = || {
        row.seal_identity.zip(row.device_etag).is_some_and(|(hash, device_etag)| is_identity_hash(hash, device_etag))
    };
    let untouched = row.seal_etag == Some(row.etag) && row.declared == Some(declared.as_str()) && same_identity();
    if trust_seals && verified.is_none() && untouched { RowVerdict::SealMatches } else { RowVerdict::Read }
}

/// Whether the row shows a state of the same device before the one we know.
fn is_older(row: &SweepRow<'_>, known: &Verified) -> bool {
    match (counter_of(row.etag), etag_counter(&known.etag)) {
        (Some(row_counter), Some(known_counter)) => {
            row.device_etag == known.device_etag.as_deref() && row_counter < known_counter
        }
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::plan::{Declared, FileSpan, Owner, RemovalPolicy, identity_hash};

    fn etag(counter: u8) -> ETag {
        use base64::Engine as _;
        ETag::new(&base64::engine::general_purpose::STANDARD.encode(u64::from(counter).to_be_bytes())).unwrap()
    }

    fn hash(owner: &str) -> DeclaredHash {
        let declared = Declared {
            leaves: BTreeMap::new(),
            create: false,
            named: true,
            left: BTreeMap::new(),
            joined: BTreeSet::new(),
            removal_policy: RemovalPolicy::Orphan,
            source: FileSpan { file: "a".into(), line: 1, column: 1 },
        };
        let twin = TwinRef::device(DeviceId::new("d").unwrap());
        DeclaredHash::of(&SealScope::new(Owner::new(owner).unwrap(), "h"), &twin, &declared)
    }

    /// The texts of a row of a twin nobody touched since it was sealed with etag 5.
    struct Texts {
        etags: [String; 2],
        hash: String,
        identity: String,
    }

    impl Texts {
        fn new(counter: u8) -> Self {
            let etags = [etag(counter).to_string(), etag(5).to_string()];
            Self { etags, hash: hash("demo").as_str().to_owned(), identity: identity_hash("MQ==") }
        }

        fn row(&self) -> SweepRow<'_> {
            SweepRow {
                device: "d",
                module: None,
                etag: &self.etags[0],
                device_etag: Some("MQ=="),
                declared: Some(&self.hash),
                seal_etag: Some(&self.etags[1]),
                seal_identity: Some(&self.identity),
            }
        }
    }

    fn verified(counter: u8, declared: Option<DeclaredHash>) -> Verified {
        Verified {
            etag: etag(counter),
            device_etag: Some("MQ==".to_owned()),
            declared,
            seal: None,
            at: Duration::from_secs(100),
        }
    }

    fn judge(row: &SweepRow<'_>, known: Option<&Verified>, now: u64) -> RowVerdict {
        judge_row(row, Some(&hash("demo")), known, true, Duration::from_secs(now))
    }

    #[test]
    fn a_row_that_matches_its_seal_needs_no_read() {
        let (texts, later) = (Texts::new(5), Texts::new(6));
        let row = texts.row();
        assert_eq!(judge(&row, None, 0), RowVerdict::SealMatches);
        assert_eq!(judge_row(&row, Some(&hash("demo")), None, false, Duration::ZERO), RowVerdict::Read);
        assert_eq!(judge_row(&row, None, None, true, Duration::ZERO), RowVerdict::Read);
        assert_eq!(judge_row(&row, Some(&hash("other")), None, true, Duration::ZERO), RowVerdict::Read);
        for touched in [
            later.row(),
            SweepRow { device_etag: Some("Mg=="), ..row },
            SweepRow { declared: None, ..row },
            SweepRow { seal_etag: None, ..row },
            SweepRow { seal_identity: None, device_etag: None, ..row },
            SweepRow { device_etag: None, ..row },
            SweepRow { seal_identity: None, ..row },
        ] {
            assert_eq!(judge(&touched, None, 0), RowVerdict::Read, "{touched:?}");
        }
    }

    #[test]
    fn a_row_that_matches_the_last_read_needs_no_read() {
        let texts = Texts::new(9);
        let foreign_write = texts.row();
        assert_eq!(judge(&foreign_write, Some(&verified(9, Some(hash("demo")))), 200), RowVerdict::MemoryMatches);
        assert_eq!(judge(&foreign_write, Some(&verified(9, None)), 200), RowVerdict::Read);
        assert_eq!(judge(&foreign_write, Some(&verified(9, Some(hash("other")))), 200), RowVerdict::Read);
        assert_eq!(judge(&foreign_write, Some(&verified(8, Some(hash("demo")))), 200), RowVerdict::Read);
    }

    #[test]
    fn a_row_older_than_our_own_write_means_nothing_for_half_an_hour() {
        let known = verified(6, Some(hash("demo")));
        let (texts, first) = (Texts::new(5), Texts::new(1));
        assert_eq!(judge(&texts.row(), Some(&known), 101), RowVerdict::Older);
        assert_eq!(judge(&texts.row(), Some(&known), 100 + 30 * 60), RowVerdict::Read);
        let recreated = SweepRow { device_etag: Some("Nw=="), ..first.row() };
        assert_eq!(judge(&recreated, Some(&known), 101), RowVerdict::Read);
    }

    #[test]
    fn the_sweep_asks_only_for_what_it_judges_and_reads_it_back() {
        let mut scope = SealScope::new(Owner::new("fleet-prod").unwrap(), "h");
        let query = sweep_query(&scope, ProfileTarget::Devices, &[]);
        assert_eq!(
            query,
            "SELECT deviceId AS d, etag AS t, deviceEtag AS y, tags.geminid.[[fleet-prod]].h AS h, \
             tags.geminid.[[fleet-prod]].e AS e, tags.geminid.[[fleet-prod]].i AS i \
             FROM devices WHERE IS_DEFINED(tags.geminid.[[fleet-prod]])"
        );
        for column in SWEEP_COLUMNS {
            let asked = query.contains(&format!(" AS {column}"));
            assert!(asked || column == "m", "{column}");
        }
        let more = [("tags.a".to_owned(), "c0".to_owned()), ("status".to_owned(), "c1".to_owned())];
        let query = sweep_query(&scope, ProfileTarget::Devices, &more);
        assert!(query.contains(".i AS i, tags.a AS c0, status AS c1 FROM devices WHERE"), "{query}");
        let modules = sweep_query(&scope, ProfileTarget::Modules, &[]);
        assert!(modules.starts_with("SELECT deviceId AS d, moduleId AS m, etag AS t,"), "{modules}");
        assert!(modules.contains(" FROM devices.modules WHERE "), "{modules}");
        scope.seals = false;
        let all = sweep_query(&scope, ProfileTarget::Modules, &[]);
        assert_eq!(all, "SELECT deviceId AS d, moduleId AS m, etag AS t, deviceEtag AS y FROM devices.modules");
    }

    #[test]
    fn a_row_names_a_twin_and_an_etag_or_is_none() {
        let row = |device, module, etag| SweepRow::new([device, module, etag, None, None, None, None]);
        let named = |row: Option<SweepRow<'_>>| row.and_then(|row| row.twin()).map(|twin| twin.to_string());
        assert_eq!(named(row(Some("d"), None, Some("e"))).as_deref(), Some("d"));
        assert_eq!(named(row(Some("d"), Some("x"), Some("e"))).as_deref(), Some("d/x"));
        assert_eq!((row(None, None, Some("e")), row(Some("d"), None, None)), (None, None));
        assert_eq!(named(row(Some("a b"), None, Some("e"))), None);
        assert_eq!(named(row(Some("d"), Some(""), Some("e"))), None);
        for (json, twin) in [(r#"{"d":"d","m":null}"#, Some("d")), (r#"{"d":"d","m":7}"#, None), ("[]", None)] {
            let of_value = row_twin(&Value::parse_json(json).unwrap()).map(|twin| twin.to_string());
            assert_eq!(of_value.as_deref(), twin, "{json}");
        }
    }
}
