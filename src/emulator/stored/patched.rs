//! Merge patches of sections as the store keeps them: text is copied where a patch changes nothing, no tree is made.
//!
//! Invariant: what is made here reads as what the patch makes of the trees, under the limits of `iot-hub.md` section 4.
//! `None` stands for whatever only the trees can tell: text that is not as this version writes it, and every result that
//! may break a limit.

use serde_json::to_writer;

use super::super::twin_record::Stamp;
use super::members::{Beside, Member, Members, NOTHING, Unusual, is_object, separate, side_by_side};
use super::stamp_text::{NodeText, OwnStamp, StampNodes};
use super::{SectionText, Text};
use crate::twin::{Object, Section, Value, check_section, size_max};

/// At most so many bytes does the size rule count for a byte of text: a number of one digit and its comma count 8.
const COUNTED_FOR_A_BYTE: usize = 4;

/// An object after a merge patch; `None` when only the trees can tell. It holds to the limits of `section` already.
#[must_use]
pub fn object(before: &[u8], patch: &Object, section: Section) -> Option<Text> {
    let mut text = Vec::with_capacity(2 * before.len());
    write_object(before, patch, section, &mut text)?;
    Some(text.into())
}

/// A section after a merge patch whose stamp is `stamp`; `None` when only the trees can tell.
#[must_use]
pub fn section(before: &SectionText, patch: &Object, stamp: &Stamp) -> Option<SectionText> {
    let (values, node) = (before.values.bytes(), NodeText::of(before.stamps.bytes()).ok()?);
    let own = node.own?;
    // Both in one piece of memory.
    let mut text = Vec::with_capacity(2 * (values.len() + before.stamps.bytes().len()));
    write_object(values, patch, Section::Desired, &mut text)?;
    let values_end = text.len();
    OwnStamp::begin(stamp, &mut text)?;
    let begun = text.len();
    text.extend_from_slice(b",\"c\":{");
    let start = text.len();
    below(values, node.below, own, patch, &mut text).ok()?;
    if text.len() == start {
        text.truncate(begun);
    } else {
        text.push(b'}');
    }
    text.push(b'}');
    let [values, stamps] = Text::split(text, values_end);
    Some(SectionText { values, version: before.version + 1, stamps })
}

/// What two objects do not have in common, as trees; `None` when only the whole trees can tell.
#[must_use]
pub fn difference(before: &[u8], after: &[u8]) -> Option<(Object, Object)> {
    let (mut gone, mut new) = (Object::new(), Object::new());
    differ(before, after, &mut gone, &mut new).ok()?;
    Some((gone, new))
}

/// Appends an object after a merge patch, if it surely holds to the limits.
fn write_object(before: &[u8], patch: &Object, section: Section, to: &mut Vec<u8>) -> Option<()> {
    if !check_section(section, patch).is_empty() {
        return None;
    }
    let begun = to.len();
    merge(before, patch, to).ok()?;
    ((to.len() - begun) * COUNTED_FOR_A_BYTE <= size_max(section)).then_some(())
}

/// Appends the object after a merge patch (RFC 7386).
fn merge(before: &[u8], patch: &Object, to: &mut Vec<u8>) -> Result<(), Unusual> {
    to.push(b'{');
    let start = to.len();
    side_by_side(before, patch, |beside| {
        match beside {
            Beside::Kept(member) => {
                separate(to, start);
                to.extend_from_slice(member.whole);
            }
            Beside::Changed { change: Value::Null, .. } => {}
            Beside::Changed { name, before, change } => {
                separate(to, start);
                write(to, name)?;
                to.push(b':');
                match change {
                    Value::Object(inner) => {
                        merge(before.filter(|value| is_object(value)).unwrap_or(NOTHING), inner, to)?;
                    }
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                        write(to, change)?;
                    }
                }
            }
        }
        Ok(())
    })?;
    to.push(b'}');
    Ok(())
}

/// Appends the stamps below a node that a patch touched. What it did not touch keeps the stamp it had, which was
/// `above` where none stands; what it touched has the new one and needs none.
fn below(values: &[u8], stamps: &[u8], above: OwnStamp<'_>, patch: &Object, to: &mut Vec<u8>) -> Result<(), Unusual> {
    let (start, mut nodes) = (to.len(), StampNodes::of(stamps));
    side_by_side(values, patch, |beside| match beside {
        Beside::Kept(member) => {
            separate(to, start);
            let node = nodes.find(member.name)?;
            kept(member, node, above, to)
        }
        Beside::Changed { name, before: Some(before), change: Value::Object(inner) } if is_object(before) => {
            let node = nodes.find(name.as_bytes())?.map(|node| node.value).map_or(Ok(NodeText::NONE), NodeText::of)?;
            let begun = to.len();
            separate(to, start);
            write(to, name)?;
            to.extend_from_slice(b":{\"c\":{");
            let first = to.len();
            below(before, node.below, node.own.unwrap_or(above), inner, to)?;
            if to.len() == first {
                to.truncate(begun);
            } else {
                to.extend_from_slice(b"}}");
            }
            Ok(())
        }
        Beside::Changed { .. } => Ok(()),
    })
}

/// Appends the stamp of a member that keeps the one it has: its own, or the one above.
fn kept(member: Member<'_>, node: Option<Member<'_>>, above: OwnStamp<'_>, to: &mut Vec<u8>) -> Result<(), Unusual> {
    let text = node.map(|node| NodeText::of(node.value)).transpose()?;
    if let (Some(node), Some(NodeText { own: Some(_), .. })) = (node, text) {
        to.extend_from_slice(node.whole);
        return Ok(());
    }
    to.extend_from_slice(member.name_as_written());
    above.write(to);
    if let Some(text) = text {
        to.extend_from_slice(b",\"c\":");
        to.extend_from_slice(text.below);
    }
    to.push(b'}');
    Ok(())
}

fn differ(before: &[u8], after: &[u8], gone: &mut Object, new: &mut Object) -> Result<(), Unusual> {
    let (mut olds, mut news) = (Members::of(before), Members::of(after));
    let (mut old, mut other) = (olds.take_next()?, news.take_next()?);
    loop {
        match (old, other) {
            (None, None) => return Ok(()),
            (Some(one), Some(two)) if one.name == two.name => {
                if one.value != two.value {
                    differ_in(one, two, gone, new)?;
                }
                (old, other) = (olds.take_next()?, news.take_next()?);
            }
            (Some(one), two) if two.is_none_or(|two| one.name < two.name) => {
                put(one, gone)?;
                old = olds.take_next()?;
            }
            (_, Some(two)) => {
                put(two, new)?;
                other = news.take_next()?;
            }
            (Some(_), None) => return Err(Unusual),
        }
    }
}

/// Two members of one name.
fn differ_in(one: Member<'_>, two: Member<'_>, gone: &mut Object, new: &mut Object) -> Result<(), Unusual> {
    if !(is_object(one.value) && is_object(two.value)) {
        put(one, gone)?;
        return put(two, new);
    }
    let (mut gone_below, mut new_below) = (Object::new(), Object::new());
    differ(one.value, two.value, &mut gone_below, &mut new_below)?;
    gone.insert(name(one)?, Value::Object(gone_below));
    new.insert(name(two)?, Value::Object(new_below));
    Ok(())
}

fn put(member: Member<'_>, to: &mut Object) -> Result<(), Unusual> {
    let value = serde_json::from_slice(member.value).map_err(|_| Unusual)?;
    to.insert(name(member)?, value);
    Ok(())
}

fn name(member: Member<'_>) -> Result<String, Unusual> {
    std::str::from_utf8(member.name).map(str::to_owned).map_err(|_| Unusual)
}

fn write(to: &mut Vec<u8>, what: &(impl serde::Serialize + ?Sized)) -> Result<(), Unusual> {
    to_writer(to, what).map_err(|_| Unusual)
}
