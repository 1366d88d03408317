//! The `$metadata` of a section (`iot-hub.md` 1.2), out of the texts that the store keeps.
//!
//! Invariant: prints what the walk over the trees prints, or says that the texts are unusual.

use super::super::stored::{Members, NodeText, OwnStamp, StampNodes, Unusual, is_object};
use super::json::{date, write_json};

/// Appends the metadata of `values`, whose stamps are `stamps`.
pub(super) fn write_metadata(values: &[u8], stamps: &[u8], to: &mut Vec<u8>) -> Result<(), Unusual> {
    let node = NodeText::of(stamps)?;
    let own = node.own.ok_or(Unusual)?;
    let mut shown = Shown { of: own, text: Vec::new() };
    shown.make()?;
    write_node(values, node, own, &mut shown, to)
}

/// The text of the stamp that was shown last: most of those of a section are the same.
struct Shown<'t> {
    of: OwnStamp<'t>,
    text: Vec<u8>,
}

impl Shown<'_> {
    fn make(&mut self) -> Result<(), Unusual> {
        let (OwnStamp { version, by, .. }, text) = (self.of, &mut self.text);
        text.clear();
        text.extend_from_slice(b"{\"$lastUpdated\":\"");
        text.extend_from_slice(date(self.of.time().ok_or(Unusual)?).as_bytes());
        text.push(b'"');
        if let Some(version) = version {
            text.extend_from_slice(b",\"$lastUpdatedVersion\":");
            text.extend_from_slice(version);
        }
        if let Some(by) = by {
            let (configuration, digest): (String, u64) = serde_json::from_slice(by).map_err(|_| Unusual)?;
            text.extend_from_slice(b",\"$lastUpdatedBy\":");
            write_json(&configuration, text);
            text.extend_from_slice(b",\"$lastUpdatedByDigest\":");
            write_json(&digest.to_string(), text);
        }
        Ok(())
    }
}

fn write_node<'t>(
    value: &'t [u8],
    node: NodeText<'t>,
    above: OwnStamp<'t>,
    shown: &mut Shown<'t>,
    to: &mut Vec<u8>,
) -> Result<(), Unusual> {
    let own = node.own.unwrap_or(above);
    if shown.of != own {
        shown.of = own;
        shown.make()?;
    }
    to.extend_from_slice(&shown.text);
    if is_object(value) {
        let (mut members, mut nodes) = (Members::of(value), StampNodes::of(node.below));
        while let Some(member) = members.take_next()? {
            let below = nodes.find(member.name)?.map_or(Ok(NodeText::NONE), |node| NodeText::of(node.value))?;
            to.push(b',');
            to.extend_from_slice(member.name_as_written());
            write_node(member.value, below, own, shown, to)?;
        }
    }
    to.push(b'}');
    Ok(())
}
