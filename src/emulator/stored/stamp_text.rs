//! The stamps of a section as the store keeps them, looked through without a tree.
//!
//! Invariant: a node that has no stamp of its own has the one of the node above it, and so has one that is not there.

use jiff::Timestamp;

use super::super::twin_record::Stamp;
use super::members::{Member, Members, NOTHING, Unusual};
use super::{ticks, time};

/// The stamp of a node, in the pieces of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnStamp<'t> {
    /// Ticks of 100 ns since 1970.
    pub at: &'t [u8],
    /// The `$version`.
    pub version: Option<&'t [u8]>,
    /// The configuration that made the write and its digest, as an array.
    pub by: Option<&'t [u8]>,
}

/// A node.
#[derive(Debug, Clone, Copy)]
pub struct NodeText<'t> {
    /// Its own stamp.
    pub own: Option<OwnStamp<'t>>,
    /// The nodes below it, an object.
    pub below: &'t [u8],
}

/// Nodes by name, to be looked up in the order of their names.
#[derive(Debug)]
pub struct StampNodes<'t> {
    members: Members<'t>,
    next: Option<Member<'t>>,
}

impl OwnStamp<'_> {
    /// Begins a node with this stamp of its own; `None` when a configuration made the write.
    #[must_use]
    pub fn begin(stamp: &Stamp, to: &mut Vec<u8>) -> Option<()> {
        if stamp.by.is_some() {
            return None;
        }
        let (at, version) = (ticks(stamp.at).to_string(), stamp.version.map(|version| version.to_string()));
        let version = version.as_ref().map(String::as_bytes);
        OwnStamp { at: at.as_bytes(), version, by: None }.write(to);
        Some(())
    }

    /// The time; `None` when it is none.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        time(std::str::from_utf8(self.at).ok()?.parse().ok()?).ok()
    }

    /// Begins a node with this stamp of its own. Its end is left open.
    pub fn write(self, to: &mut Vec<u8>) {
        to.extend_from_slice(b"{\"t\":");
        to.extend_from_slice(self.at);
        for (name, value) in [(&b",\"v\":"[..], self.version), (b",\"b\":", self.by)] {
            if let Some(value) = value {
                to.extend_from_slice(name);
                to.extend_from_slice(value);
            }
        }
    }
}

impl<'t> NodeText<'t> {
    /// One that says nothing.
    pub const NONE: Self = Self { own: None, below: NOTHING };

    /// Reads a node.
    ///
    /// # Errors
    /// [`Unusual`].
    pub fn of(text: &'t [u8]) -> Result<Self, Unusual> {
        let (mut at, mut version, mut by, mut below) = (None, None, None, NOTHING);
        let mut members = Members::in_any_order(text);
        while let Some(Member { name, value, .. }) = members.take_next()? {
            match (name, value) {
                (_, b"null") => return Err(Unusual),
                (b"t", _) => at = Some(value),
                (b"v", _) => version = Some(value),
                (b"b", _) => by = Some(value),
                (b"c", _) => below = value,
                _ => return Err(Unusual),
            }
        }
        Ok(Self { own: at.map(|at| OwnStamp { at, version, by }), below })
    }
}

impl<'t> StampNodes<'t> {
    /// The nodes of an object.
    #[must_use]
    pub const fn of(text: &'t [u8]) -> Self {
        Self { members: Members::of(text), next: None }
    }

    /// The node of this name, which comes behind all that were asked for.
    ///
    /// # Errors
    /// [`Unusual`].
    pub fn find(&mut self, name: &[u8]) -> Result<Option<Member<'t>>, Unusual> {
        loop {
            if self.next.is_none() {
                self.next = self.members.take_next()?;
            }
            match self.next {
                Some(node) if node.name < name => self.next = None,
                Some(node) if node.name == name => return Ok(self.next.take()),
                Some(_) | None => return Ok(None),
            }
        }
    }
}
