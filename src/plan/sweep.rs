//! The sweep's question of each row: has anybody touched this twin since we last knew it was right?
//!
//! Invariant: a row is evidence only that a twin is untouched, by matching what we wrote or read exactly. It lags and
//! deleted devices linger (`iot-hub.md` 5.6), so it is never the base of a write and never proof of absence.

use std::time::Duration;

use super::{DeclaredHash, ProfileTarget, SEAL_KEY, SealScope, identity_hash, seal::etag_counter};
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

/// One row of [`sweep_query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepRow {
    /// The twin.
    pub twin: TwinRef,
    /// Its etag, possibly an old one.
    pub etag: ETag,
    /// The identity's etag.
    pub device_etag: Option<String>,
    /// `h` of our seal.
    pub declared: Option<String>,
    /// `e` of our seal.
    pub seal_etag: Option<String>,
    /// `i` of our seal.
    pub seal_identity: Option<String>,
}

impl SweepRow {
    /// The row as the hub sent it; `None` when it names no device or no etag.
    #[must_use]
    pub fn from_value(row: &Value) -> Option<Self> {
        let text = |key: &str| row.get([key]).and_then(Value::as_str);
        Some(Self {
            twin: row_twin(row)?,
            etag: ETag::new(text("t")?)?,
            device_etag: text("y").map(str::to_owned),
            declared: text("h").map(str::to_owned),
            seal_etag: text("e").map(str::to_owned),
            seal_identity: text("i").map(str::to_owned),
        })
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
    pub fn is_shown_by(&self, row: &SweepRow) -> bool {
        self.etag == row.etag && self.device_etag == row.device_etag
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
    row: &SweepRow,
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
    let identity = row.device_etag.as_deref().map(identity_hash);
    let untouched = row.seal_etag.as_deref() == Some(row.etag.as_str())
        && row.seal_identity.is_some()
        && row.seal_identity == identity
        && row.declared.as_deref() == Some(declared.as_str());
    if trust_seals && untouched && verified.is_none() { RowVerdict::SealMatches } else { RowVerdict::Read }
}

/// Whether the row shows a state of the same device before the one we know.
fn is_older(row: &SweepRow, known: &Verified) -> bool {
    match (etag_counter(&row.etag), etag_counter(&known.etag)) {
        (Some(row_counter), Some(known_counter)) => row.device_etag == known.device_etag && row_counter < known_counter,
        (Some(_) | None, None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::{Declared, FileSpan, Owner, RemovalPolicy};

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
            removal_policy: RemovalPolicy::Orphan,
            source: FileSpan { file: "a".into(), line: 1, column: 1 },
        };
        let twin = TwinRef::device(DeviceId::new("d").unwrap());
        DeclaredHash::of(&SealScope::new(Owner::new(owner).unwrap(), "h"), &twin, &declared)
    }

    /// A row of a twin nobody touched since it was sealed with etag 5.
    fn row() -> SweepRow {
        SweepRow {
            twin: TwinRef::device(DeviceId::new("d").unwrap()),
            etag: etag(5),
            device_etag: Some("MQ==".to_owned()),
            declared: Some(hash("demo").as_str().to_owned()),
            seal_etag: Some(etag(5).to_string()),
            seal_identity: Some(identity_hash("MQ==")),
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

    fn judge(row: &SweepRow, known: Option<&Verified>, now: u64) -> RowVerdict {
        judge_row(row, Some(&hash("demo")), known, true, Duration::from_secs(now))
    }

    #[test]
    fn a_row_that_matches_its_seal_needs_no_read() {
        assert_eq!(judge(&row(), None, 0), RowVerdict::SealMatches);
        assert_eq!(judge_row(&row(), Some(&hash("demo")), None, false, Duration::ZERO), RowVerdict::Read);
        assert_eq!(judge_row(&row(), None, None, true, Duration::ZERO), RowVerdict::Read);
        assert_eq!(judge_row(&row(), Some(&hash("other")), None, true, Duration::ZERO), RowVerdict::Read);
        for touched in [
            SweepRow { etag: etag(6), ..row() },
            SweepRow { device_etag: Some("Mg==".to_owned()), ..row() },
            SweepRow { declared: None, ..row() },
            SweepRow { seal_etag: None, ..row() },
            SweepRow { seal_identity: None, device_etag: None, ..row() },
        ] {
            assert_eq!(judge(&touched, None, 0), RowVerdict::Read, "{touched:?}");
        }
    }

    #[test]
    fn a_row_that_matches_the_last_read_needs_no_read() {
        let foreign_write = SweepRow { etag: etag(9), ..row() };
        assert_eq!(judge(&foreign_write, Some(&verified(9, Some(hash("demo")))), 200), RowVerdict::MemoryMatches);
        assert_eq!(judge(&foreign_write, Some(&verified(9, None)), 200), RowVerdict::Read);
        assert_eq!(judge(&foreign_write, Some(&verified(9, Some(hash("other")))), 200), RowVerdict::Read);
        assert_eq!(judge(&foreign_write, Some(&verified(8, Some(hash("demo")))), 200), RowVerdict::Read);
    }

    #[test]
    fn a_row_older_than_our_own_write_means_nothing_for_half_an_hour() {
        let known = verified(6, Some(hash("demo")));
        assert_eq!(judge(&row(), Some(&known), 101), RowVerdict::Older);
        assert_eq!(judge(&row(), Some(&known), 100 + 30 * 60), RowVerdict::Read);
        let recreated = SweepRow { etag: etag(1), device_etag: Some("Nw==".to_owned()), ..row() };
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
        let json = r#"{"d":"d","t":"AAAAAAAAAAU=","y":"MQ==","e":"AAAAAAAAAAU="}"#;
        let read = SweepRow::from_value(&Value::parse_json(json).unwrap()).unwrap();
        assert_eq!(read, SweepRow { declared: None, seal_identity: None, ..row() });
        let more = [("tags.a".to_owned(), "c0".to_owned()), ("status".to_owned(), "c1".to_owned())];
        let query = sweep_query(&scope, ProfileTarget::Devices, &more);
        assert!(query.contains(".i AS i, tags.a AS c0, status AS c1 FROM devices WHERE"), "{query}");
        let modules = sweep_query(&scope, ProfileTarget::Modules, &[]);
        assert!(modules.starts_with("SELECT deviceId AS d, moduleId AS m, etag AS t,"), "{modules}");
        assert!(modules.contains(" FROM devices.modules WHERE "), "{modules}");
        let json = r#"{"d":"d","m":"x","t":"AAAAAAAAAAU="}"#;
        let read = SweepRow::from_value(&Value::parse_json(json).unwrap()).unwrap();
        assert_eq!(read.twin.to_string(), "d/x");
        scope.seals = false;
        let all = sweep_query(&scope, ProfileTarget::Modules, &[]);
        assert_eq!(all, "SELECT deviceId AS d, moduleId AS m, etag AS t, deviceEtag AS y FROM devices.modules");
        for odd in [
            r#"{"d":"d","m":7,"t":"AAAAAAAAAAU="}"#,
            "{}",
            "[]",
            r#"{"d":"a b","t":"x"}"#,
            r#"{"d":"d","t":"*"}"#,
            r#"{"d":"d"}"#,
        ] {
            assert_eq!(SweepRow::from_value(&Value::parse_json(odd).unwrap()), None, "{odd}");
        }
    }
}
