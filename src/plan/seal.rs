//! The seal: our record inside the twin, written by the same guarded patch as what it records.
//!
//! ```text
//!   tags.geminid.<owner> = { v: 1, h: "16 chars", o: ["7 chars a leaf ..."], e: "etag", i: "7 chars", p: "clear" }
//!     v  format                                        h  hash of everything declared; left out while anything is held
//!     o  hashes of the leaf paths we own               e  the etag this very write produces
//!     i  short hash of the identity's etag             p  the removal policy, when it is `clear`
//!     s  why somebody suspended the twin at run time
//! ```
//!
//! Invariant: `h` and `o` are hashed with owner, hub and twin, so a seal copied elsewhere matches nothing and owns
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::{Declared, DeclaredLeaf, Leaf, RemovalPolicy, Salt};
use crate::twin::{ETag, Number, Object, Path, Section, Twin, TwinRef, Value};

/// The key in `tags` under which every owner keeps its seal. Manifests may not declare it.
pub const SEAL_KEY: &str = "geminid";
/// The format this version writes, and the newest it reads.
pub const SEAL_VERSION: i64 = 1;
/// Base64url characters of `h`: 96 bits.
const HASH_LENGTH: usize = 16;
/// Base64url characters of a path hash and of `i`: 42 bits.
const SHORT_HASH_LENGTH: usize = 7;
/// Bytes of one string of `o`: as many whole hashes as fit 4,000, under the hub's 4,096 (`iot-hub.md` section 4), so that no
/// hash is cut in two.
const OWNED_CHUNK_MAX: usize = 4000 / SHORT_HASH_LENGTH * SHORT_HASH_LENGTH;

/// Why a text is not an owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an owner is 1 to 32 of a-z, 0-9 and -, beginning and ending with a letter or digit; {0:?} is not")]
pub struct OwnerError(String);

/// Who owns leaves: one per running instance (`[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(Box<str>);

impl Owner {
    /// Takes `text` as an owner.
    ///
    /// # Errors
    /// [`OwnerError`] when the text has another shape.
    pub fn new(text: &str) -> Result<Self, OwnerError> {
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let fits = (1..=32).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-');
        if plain && fits { Ok(Self(text.into())) } else { Err(OwnerError(text.to_owned())) }
    }

    /// The owner as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where seals of ours hold: one owner on one hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealScope {
    /// The owner.
    pub owner: Owner,
    /// The hub's host name without port, in lower case.
    pub host: String,
    /// Whether seals are written and read at all; without them nothing is ours and nothing is removed.
    pub seals: bool,
    /// What sensitive values are hidden with in everything shown.
    pub salt: Salt,
}

impl SealScope {
    /// The scope of `owner` on the hub at `host`; a port and the case of the name do not matter.
    #[must_use]
    pub fn new(owner: Owner, host: &str) -> Self {
        let name = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
        Self { owner, host: name.to_ascii_lowercase(), seals: true, salt: Salt::default() }
    }
}

/// The hash of everything declared for one twin by one owner on one hub: `h`, 96 bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeclaredHash([u8; HASH_LENGTH]);

impl DeclaredHash {
    /// The hash of `declared` for `twin`.
    #[must_use]
    pub fn of(scope: &SealScope, twin: &TwinRef, declared: &Declared) -> Self {
        Self::of_leaves(scope, twin, declared.removal_policy, &declared.leaves)
    }

    /// The hash of these leaves and this policy for `twin`.
    pub(super) fn of_leaves(
        scope: &SealScope,
        twin: &TwinRef,
        policy: RemovalPolicy,
        leaves: &BTreeMap<Leaf, DeclaredLeaf>,
    ) -> Self {
        let mut hasher = scoped("h", scope.owner.as_str(), &scope.host, twin);
        hasher.update(policy.as_str());
        for (leaf, want) in leaves {
            hasher.update([0x1e]);
            hash_leaf(&mut hasher, leaf.section, &leaf.path);
            hasher.update([0x1f]);
            hasher.update(normalised(&want.value).to_string());
            if want.initial_only {
                // Once it is no longer so, a live value that was let be must be corrected.
                hasher.update([0x1d]);
            }
        }
        Self(shortened(hasher))
    }

    /// The text in the seal.
    ///
    /// # Panics
    /// Never: it was made of base64.
    #[must_use]
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

/// The hash of one owned path: an element of `o`, 42 bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathHash(Box<str>);

impl PathHash {
    /// The hash of `leaf` of `twin`, as `owner` on the hub at `host` would record it.
    #[must_use]
    pub fn of(owner: &str, host: &str, twin: &TwinRef, section: Section, path: &Path) -> Self {
        let mut hasher = scoped("o", owner, host, twin);
        hash_leaf(&mut hasher, section, path);
        Self(ascii(&shortened::<SHORT_HASH_LENGTH>(hasher)).into())
    }
}

/// The short hash of an identity's etag: `i`.
#[must_use]
pub fn identity_hash(device_etag: &str) -> String {
    ascii(&identity(device_etag)).to_owned()
}

/// Whether `hash` is the short hash of this identity's etag.
pub(super) fn is_identity_hash(hash: &str, device_etag: &str) -> bool {
    hash.as_bytes() == identity(device_etag)
}

fn identity(device_etag: &str) -> [u8; SHORT_HASH_LENGTH] {
    let mut hasher = Sha256::new();
    hasher.update("i\0");
    hasher.update(device_etag);
    shortened(hasher)
}

/// No part may hold NUL: ids by their charset, keys because the hub refuses control characters, hosts likewise.
fn scoped(kind: &str, owner: &str, host: &str, twin: &TwinRef) -> Sha256 {
    let mut hasher = Sha256::new();
    for part in [kind, owner, host, &twin.to_string()] {
        hasher.update(part);
        hasher.update([0]);
    }
    hasher
}

fn hash_leaf(hasher: &mut Sha256, section: Section, path: &Path) {
    hasher.update(section.as_str());
    for key in path.keys() {
        hasher.update([0]);
        hasher.update(key);
    }
}

/// The first characters of a hash in base64url: at most 16.
fn shortened<const LENGTH: usize>(hasher: Sha256) -> [u8; LENGTH] {
    /// Twelve bytes are sixteen characters.
    const BYTES: usize = 12;
    let mut text = [0; 16];
    let written = URL_SAFE_NO_PAD.encode_slice(&hasher.finalize()[..BYTES], &mut text);
    debug_assert_eq!(written.ok(), Some(text.len()));
    std::array::from_fn(|index| text[index])
}

fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("base64 is ASCII")
}

/// `value` with one form for equal numbers, so that `1` and `1.0` declare the same.
fn normalised(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(number.normalised()),
        Value::Array(items) => Value::Array(items.iter().map(normalised).collect()),
        Value::Object(object) => Value::Object(object.iter().map(|(k, v)| (k.clone(), normalised(v))).collect()),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

/// Who has sealed the twin, in order.
pub fn sealing_owners(twin: &Twin) -> impl Iterator<Item = &str> {
    let seals = twin.tags.get(SEAL_KEY).and_then(Value::as_object);
    seals.into_iter().flat_map(Object::keys).map(String::as_str)
}

/// A seal as read from a twin, or as it will be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seal {
    /// `h`: absent while anything of the twin is held.
    pub declared: Option<String>,
    /// `o`: the paths owned.
    pub owned: BTreeSet<PathHash>,
    /// `e`: the etag that the write of this seal produces; absent when it cannot be foretold.
    pub etag: Option<String>,
    /// `i`: short hash of the identity's etag at the time of the write.
    pub identity: Option<String>,
    /// `p`.
    pub removal_policy: RemovalPolicy,
    /// `s`: why somebody suspended the twin at run time.
    pub suspended: Option<String>,
}

/// What stands where an owner's seal belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealState {
    /// Nothing.
    Absent,
    /// A seal this version reads.
    Present(Seal),
    /// A seal of a later format: the twin is not ours to touch.
    Newer(i64),
    /// Something that is no seal; it owns nothing and is replaced.
    Unreadable,
}

impl SealState {
    /// The seal, if there is one to read.
    #[must_use]
    pub fn seal(&self) -> Option<&Seal> {
        match self {
            Self::Present(seal) => Some(seal),
            Self::Absent | Self::Newer(_) | Self::Unreadable => None,
        }
    }

    /// A short hash of what stands among `seals` where that of `owner` belongs; `None` for nothing. It tells one seal from another
    /// and is never written.
    #[must_use]
    pub fn mark(seals: Option<&Value>, owner: &str) -> Option<u64> {
        let place = seals?.get([owner])?;
        let digest = Sha256::digest(place.to_string());
        let first: [u8; 8] = digest.iter().take(8).copied().collect::<Vec<u8>>().try_into().ok()?;
        Some(u64::from_be_bytes(first))
    }

    /// The seal of `owner` in `twin`.
    #[must_use]
    pub fn read(twin: &Twin, owner: &str) -> Self {
        match twin.tags.get(SEAL_KEY).and_then(|seals| seals.get([owner])) {
            None => Self::Absent,
            Some(value) => Self::parse(value),
        }
    }

    fn parse(value: &Value) -> Self {
        let Some(object) = value.as_object() else { return Self::Unreadable };
        let version = match object.get("v") {
            Some(Value::Number(number)) => match number.normalised() {
                Number::Integer(version) => version,
                Number::Float(_) => return Self::Unreadable,
            },
            Some(Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) | None => {
                return Self::Unreadable;
            }
        };
        if version > SEAL_VERSION {
            return Self::Newer(version);
        }
        let Some(owned) = parse_owned(object.get("o")).filter(|_| version >= 1) else { return Self::Unreadable };
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let clear = object.get("p").and_then(Value::as_str) == Some(RemovalPolicy::Clear.as_str());
        Self::Present(Seal {
            declared: text("h"),
            owned,
            etag: text("e"),
            identity: text("i"),
            removal_policy: if clear { RemovalPolicy::Clear } else { RemovalPolicy::Orphan },
            suspended: text("s"),
        })
    }
}

/// `o` back to hashes. `None` when it is not what we write: a damaged list must not pass for a shorter one.
fn parse_owned(value: Option<&Value>) -> Option<BTreeSet<PathHash>> {
    let Some(Value::Array(chunks)) = value else { return None };
    let mut owned = BTreeSet::new();
    for chunk in chunks {
        let text = chunk.as_str().filter(|text| text.is_ascii() && text.len().is_multiple_of(SHORT_HASH_LENGTH))?;
        for start in (0..text.len()).step_by(SHORT_HASH_LENGTH) {
            owned.insert(PathHash(text[start..start + SHORT_HASH_LENGTH].into()));
        }
    }
    Some(owned)
}

impl Seal {
    /// The seal as it stands in the tags.
    #[must_use]
    pub fn to_object(&self) -> Object {
        let mut object = Object::from([
            ("v".to_owned(), Value::from(SEAL_VERSION)),
            ("o".to_owned(), Value::Array(owned_chunks(&self.owned))),
        ]);
        let texts = [("h", &self.declared), ("e", &self.etag), ("i", &self.identity), ("s", &self.suspended)];
        for (key, text) in texts {
            if let Some(text) = text {
                object.insert(key.to_owned(), Value::from(text.as_str()));
            }
        }
        if self.removal_policy == RemovalPolicy::Clear {
            object.insert("p".to_owned(), Value::from(RemovalPolicy::Clear.as_str()));
        }
        object
    }

    /// Whether a rewrite of `self` as `next` would record anything but a newer etag. A seal is never rewritten for
    /// `e` or `i` alone: a foreign write must cost one read, not a write in return.
    #[must_use]
    pub fn records_the_same_as(&self, next: &Self) -> bool {
        let recorded = |seal: &Self| (seal.declared.clone(), seal.removal_policy, seal.suspended.clone());
        self.owned == next.owned && recorded(self) == recorded(next)
    }
}

fn owned_chunks(owned: &BTreeSet<PathHash>) -> Vec<Value> {
    let mut chunks = Vec::new();
    let mut chunk = String::new();
    for hash in owned {
        if chunk.len() + SHORT_HASH_LENGTH > OWNED_CHUNK_MAX {
            chunks.push(Value::from(std::mem::take(&mut chunk)));
        }
        chunk.push_str(&hash.0);
    }
    if !chunk.is_empty() {
        chunks.push(Value::from(chunk));
    }
    chunks
}

/// The etag that the next service-side write of a twin will produce: the hub's etag is a counter in base64
/// (`iot-hub.md` 1.4). `None` when `etag` is not of that form; nothing is foretold then.
#[must_use]
pub fn next_etag(etag: &ETag) -> Option<ETag> {
    let counter = etag_counter(etag)?.checked_add(1)?;
    ETag::new(&STANDARD.encode(counter.to_be_bytes()))
}

/// The counter in an etag of the hub's form (`iot-hub.md` 1.4).
#[must_use]
pub fn etag_counter(etag: &ETag) -> Option<u64> {
    counter_of(etag.as_str())
}

/// The same of an etag that stands in a row.
pub(super) fn counter_of(etag: &str) -> Option<u64> {
    let bytes: [u8; 8] = STANDARD.decode(etag).ok()?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// Which leaves a seal of `owner` in one twin owns.
#[derive(Debug, Clone)]
pub(super) struct Ownership<'a> {
    owner: &'a str,
    host: &'a str,
    twin: &'a TwinRef,
    owned: &'a BTreeSet<PathHash>,
}

impl<'a> Ownership<'a> {
    pub(super) fn new(owner: &'a str, host: &'a str, twin: &'a TwinRef, owned: &'a BTreeSet<PathHash>) -> Self {
        Self { owner, host, twin, owned }
    }

    pub(super) fn hash(&self, leaf: &Leaf) -> PathHash {
        PathHash::of(self.owner, self.host, self.twin, leaf.section, &leaf.path)
    }

    pub(super) fn holds(&self, leaf: &Leaf) -> bool {
        !self.owned.is_empty() && self.owned.contains(&self.hash(leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FileSpan, Subtree};
    use crate::twin::{DeviceId, ModuleId};

    fn twin(id: &str) -> TwinRef {
        TwinRef::device(DeviceId::new(id).unwrap())
    }

    fn scope() -> SealScope {
        SealScope::new(Owner::new("demo").unwrap(), "localhost:8443")
    }

    fn leaf_of(value: &str) -> DeclaredLeaf {
        let source = FileSpan { file: "a.yaml".into(), line: 1, column: 1 };
        DeclaredLeaf { value: Value::parse_json(value).unwrap(), initial_only: false, source }
    }

    fn declared(value: &str, policy: RemovalPolicy) -> Declared {
        let leaf = Leaf { section: Section::Tags, path: Path::new(["location", "plant"]) };
        Declared {
            leaves: BTreeMap::from([(leaf, leaf_of(value))]),
            create: false,
            named: true,
            left: BTreeMap::new(),
            joined: BTreeSet::new(),
            removal_policy: policy,
            source: FileSpan { file: "a.yaml".into(), line: 1, column: 1 },
        }
    }

    fn hash(scope: &SealScope, id: &str, value: &str, policy: RemovalPolicy) -> String {
        DeclaredHash::of(scope, &twin(id), &declared(value, policy)).as_str().to_owned()
    }

    #[test]
    fn an_owner_has_its_shape() {
        for good in ["a", "demo", "fleet-prod", "0-9", &"x".repeat(32)] {
            assert!(Owner::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(33)] {
            assert!(Owner::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_knows_a_hub_by_its_host_without_port() {
        for (host, name) in [
            ("localhost:8443", "localhost"),
            ("MyHub.azure-devices.net", "myhub.azure-devices.net"),
            ("[::1]:8443", "[::1]"),
        ] {
            assert_eq!(SealScope::new(Owner::new("a").unwrap(), host).host, name);
        }
    }

    /// `path=value;path=value`.
    fn leaves_of_vector(text: &str) -> BTreeMap<Leaf, DeclaredLeaf> {
        let one = |text: &str| {
            let (path, value) = text.split_once('=').unwrap();
            let Subtree { section, path } = Subtree::parse(path).unwrap();
            (Leaf { section, path }, leaf_of(value))
        };
        text.split(';').map(one).collect()
    }

    /// Vectors: a change here is a new seal format, not a refactoring.
    #[test]
    fn the_hashes_of_format_1_never_change() {
        let vectors = include_str!("../../docs/adr/0002-ownership-lives-in-the-twin.md");
        let rows: Vec<Vec<&str>> = vectors
            .lines()
            .filter_map(|line| line.strip_prefix("| `v1` |"))
            .map(|line| line.trim_end_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
            .collect();
        assert_eq!(rows.len(), 7, "the table of vectors is in the ADR");
        for row in rows {
            let [field, owner, host, twin_ref, input, expected] = row.as_slice() else { panic!("six cells: {row:?}") };
            if *field == "i" {
                assert_eq!(identity_hash(input), *expected);
                continue;
            }
            let scope = SealScope::new(Owner::new(owner).unwrap(), host);
            let (device, module) = twin_ref.split_once('/').map_or((*twin_ref, None), |(d, m)| (d, Some(m)));
            let device = DeviceId::new(device).unwrap();
            let twin = match module {
                Some(module) => TwinRef::module(device, ModuleId::new(module).unwrap()),
                None => TwinRef::device(device),
            };
            let found = if *field == "h" {
                let (policy, leaves) = input.split_once(' ').unwrap();
                let policy = [RemovalPolicy::Orphan, RemovalPolicy::Clear]
                    .into_iter()
                    .find(|known| known.as_str() == policy)
                    .unwrap();
                let mut all = declared("1", policy);
                all.leaves = leaves_of_vector(leaves);
                DeclaredHash::of(&scope, &twin, &all).as_str().to_owned()
            } else {
                let Subtree { section, path } = Subtree::parse(input).unwrap();
                PathHash::of(owner, &scope.host, &twin, section, &path).0.into()
            };
            assert_eq!(found, *expected, "{row:?}");
        }
    }

    #[test]
    fn everything_that_is_declared_moves_the_hash_and_nothing_else() {
        let base = hash(&scope(), "a", "1", RemovalPolicy::Orphan);
        let elsewhere = SealScope::new(Owner::new("demo").unwrap(), "otherhub");
        let other_owner = SealScope::new(Owner::new("other").unwrap(), "localhost");
        assert_eq!(base, hash(&scope(), "a", "1.0", RemovalPolicy::Orphan));
        for different in [
            hash(&scope(), "a", "2", RemovalPolicy::Orphan),
            hash(&scope(), "a", "\"1\"", RemovalPolicy::Orphan),
            hash(&scope(), "a", "1", RemovalPolicy::Clear),
            hash(&scope(), "b", "1", RemovalPolicy::Orphan),
            hash(&elsewhere, "a", "1", RemovalPolicy::Orphan),
            hash(&other_owner, "a", "1", RemovalPolicy::Orphan),
        ] {
            assert_ne!(base, different);
        }
    }

    #[test]
    fn a_seal_reads_back_as_written() {
        let leaf = |n: usize| PathHash::of("demo", "h", &twin("a"), Section::Tags, &Path::new([format!("k{n}")]));
        for count in [0, 1, 200, 571, 572, 1200] {
            let seal = Seal {
                declared: Some("h".repeat(16)),
                owned: (0..count).map(leaf).collect(),
                etag: Some("AAAAAAAAAAI=".to_owned()),
                identity: None,
                removal_policy: RemovalPolicy::Clear,
                suspended: (count > 200).then(|| "bench test".to_owned()),
            };
            let object = seal.to_object();
            let Some(Value::Array(chunks)) = object.get("o") else { panic!("o is an array") };
            assert!(chunks.iter().all(|chunk| chunk.as_str().is_some_and(|text| text.len() <= 4000)));
            assert_eq!(SealState::parse(&Value::Object(object)), SealState::Present(seal), "{count} leaves");
        }
    }

    #[test]
    fn two_hundred_leaves_fit_in_one_and_a_half_kilobytes() {
        let leaf = |n: usize| PathHash::of("demo", "h", &twin("a"), Section::Tags, &Path::new([format!("k{n}")]));
        let seal = Seal {
            declared: Some("h".repeat(16)),
            owned: (0..200).map(leaf).collect(),
            etag: Some("AAAAAAAAAAI=".to_owned()),
            identity: Some("i".repeat(7)),
            removal_policy: RemovalPolicy::Clear,
            suspended: None,
        };
        assert!(crate::twin::section_size(&seal.to_object()) < 1500);
    }

    #[test]
    fn what_is_no_seal_owns_nothing() {
        for (json, state) in [
            ("1", SealState::Unreadable),
            ("{}", SealState::Unreadable),
            (r#"{"v":"1","o":[]}"#, SealState::Unreadable),
            (r#"{"v":1}"#, SealState::Unreadable),
            (r#"{"v":0,"o":[]}"#, SealState::Unreadable),
            (r#"{"v":-1,"o":[]}"#, SealState::Unreadable),
            (r#"{"v":1,"o":["short"]}"#, SealState::Unreadable),
            (r#"{"v":1,"o":[7]}"#, SealState::Unreadable),
            (r#"{"v":2}"#, SealState::Newer(2)),
            (r#"{"v":1.0,"o":[]}"#, SealState::Present(Seal::default())),
        ] {
            assert_eq!(SealState::parse(&Value::parse_json(json).unwrap()), state, "{json}");
        }
    }

    #[test]
    fn the_next_etag_is_foretold_where_the_etag_is_a_counter() {
        let next = |text: &str| next_etag(&ETag::new(text).unwrap()).map(|etag| etag.to_string());
        assert_eq!(next("AAAAAAAAAAE=").as_deref(), Some("AAAAAAAAAAI="));
        assert_eq!(next("AAAAAAAAAP8=").as_deref(), Some("AAAAAAAAAQA="));
        assert_eq!(next("//////////8="), None);
        assert_eq!(next("MQ=="), None);
        assert_eq!(next("opaque"), None);
    }
}
