//! An object as text, looked through member by member without a tree.
//!
//! Invariant: only text that was parsed before comes here. What is not as this version writes it, names with escapes or
//! out of order or white space, is [`Unusual`], never read wrongly; whoever meets it takes the way over the trees.

use crate::twin::{Object, Value};

/// An object without members.
pub(super) const NOTHING: &[u8] = b"{}";

/// The text is not as this version writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusual;

/// One member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'t> {
    /// Its name, without quotes.
    pub name: &'t [u8],
    /// Its value.
    pub value: &'t [u8],
    /// Both, as they stand there.
    pub whole: &'t [u8],
}

/// The members of an object, in their order.
#[derive(Debug, Clone)]
pub struct Members<'t> {
    text: &'t [u8],
    at: usize,
    /// The name of the last one, when names must ascend.
    last: Option<&'t [u8]>,
}

/// A member of an object and what a merge patch does to it, or one of both.
#[derive(Debug)]
pub(super) enum Beside<'t, 'p> {
    /// The patch does not name it.
    Kept(Member<'t>),
    /// The patch names it.
    Changed {
        /// Its name.
        name: &'p str,
        /// Its value, if it is there.
        before: Option<&'t [u8]>,
        /// What the patch says.
        change: &'p Value,
    },
}

impl<'t> Member<'t> {
    /// Its name as it stands there, with quotes and the colon.
    #[must_use]
    pub fn name_as_written(&self) -> &'t [u8] {
        &self.whole[..self.whole.len() - self.value.len()]
    }
}

impl<'t> Members<'t> {
    /// The members of an object whose names ascend.
    #[must_use]
    pub const fn of(text: &'t [u8]) -> Self {
        Self { text, at: 0, last: Some(b"") }
    }

    /// The members of an object in any order.
    #[must_use]
    pub const fn in_any_order(text: &'t [u8]) -> Self {
        Self { text, at: 0, last: None }
    }

    /// The next one.
    ///
    /// # Errors
    /// [`Unusual`].
    pub fn take_next(&mut self) -> Result<Option<Member<'t>>, Unusual> {
        let text = self.text;
        // What stands before a member: the brace, or a comma.
        let expected = if self.at == 0 { b'{' } else { b',' };
        if text.get(self.at) != Some(&expected) || text[self.at..] == *NOTHING {
            return if matches!(&text[self.at..], b"}" | b"{}") { Ok(None) } else { Err(Unusual) };
        }
        let begin = self.at + 1;
        let behind_name = end_of_string(text, begin).ok_or(Unusual)?;
        let name = &text[begin + 1..behind_name - 1];
        if text.get(behind_name) != Some(&b':') || name.contains(&b'\\') {
            return Err(Unusual);
        }
        let end = end_of_value(text, behind_name + 1).ok_or(Unusual)?;
        let value = &text[behind_name + 1..end];
        if value.is_empty() || value[0].is_ascii_whitespace() || value[value.len() - 1].is_ascii_whitespace() {
            return Err(Unusual);
        }
        if let Some(last) = self.last {
            if name <= last && self.at > 0 {
                return Err(Unusual);
            }
            self.last = Some(name);
        }
        self.at = end;
        Ok(Some(Member { name, value, whole: &text[begin..end] }))
    }
}

/// Hands the members of an object and the entries of a patch of it to `take`, in the order of the names.
///
/// # Errors
/// [`Unusual`], or what `take` says.
pub(super) fn side_by_side<'t, 'p>(
    object: &'t [u8],
    patch: &'p Object,
    mut take: impl FnMut(Beside<'t, 'p>) -> Result<(), Unusual>,
) -> Result<(), Unusual> {
    let mut members = Members::of(object);
    let mut changes = patch.iter().peekable();
    while let Some(member) = members.take_next()? {
        while let Some((name, change)) = changes.next_if(|(name, _)| name.as_bytes() < member.name) {
            take(Beside::Changed { name, before: None, change })?;
        }
        match changes.next_if(|(name, _)| name.as_bytes() == member.name) {
            Some((name, change)) => take(Beside::Changed { name, before: Some(member.value), change })?,
            None => take(Beside::Kept(member))?,
        }
    }
    changes.try_for_each(|(name, change)| take(Beside::Changed { name, before: None, change }))
}

/// Whether the value is an object.
#[must_use]
pub fn is_object(value: &[u8]) -> bool {
    value.first() == Some(&b'{')
}

/// Appends what stands before the next member of an object that was begun at `start`.
pub(super) fn separate(to: &mut Vec<u8>, start: usize) {
    if to.len() > start {
        to.push(b',');
    }
}

/// Behind the string that begins at `at`, if one does.
pub(super) fn end_of_string(text: &[u8], at: usize) -> Option<usize> {
    if *text.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Behind the value that begins at `at`: a string, or all up to the next comma or closing bracket of the level around.
pub(super) fn end_of_value(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match text.get(at)? {
            b'"' => {
                at = end_of_string(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<(&str, &str)>, Unusual> {
        let (mut members, mut found) = (Members::of(text.as_bytes()), Vec::new());
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        while let Some(member) = members.take_next()? {
            assert_eq!(text(member.whole), format!("\"{}\":{}", text(member.name), text(member.value)));
            found.push((text(member.name), text(member.value)));
        }
        Ok(found)
    }

    #[test]
    fn members_come_in_order_and_anything_unusual_is_told() {
        assert_eq!(names("{}"), Ok(vec![]));
        let text = r#"{"":1,"a":{"b":"}\",","c":[1,{}]},"ä":"\\"}"#;
        assert_eq!(names(text), Ok(vec![("", "1"), ("a", r#"{"b":"}\",","c":[1,{}]}"#), ("ä", r#""\\""#)]));
        for unusual in [
            r#"{ "a":1}"#,
            r#"{"a" :1}"#,
            r#"{"a": 1}"#,
            r#"{"a":1 }"#,
            r#"{"a":1, "b":2}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"":1,"":2}"#,
            r#"{"a\"":1}"#,
            "{ }",
            "[]",
            "",
            r#"{"a":1"#,
            r#"{"a"#,
        ] {
            assert_eq!(names(unusual), Err(Unusual), "{unusual}");
        }
        assert_eq!(
            Members::in_any_order(br#"{"b":1,"a":2}"#).take_next().map(|member| member.unwrap().name),
            Ok(&b"b"[..])
        );
    }

    #[test]
    fn a_patch_stands_beside_the_members_that_it_names() {
        let patch = Value::parse_json(r#"{"0":1,"b":2,"c":null}"#).unwrap();
        let mut seen = Vec::new();
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
        side_by_side(br#"{"a":5,"b":6,"d":7}"#, patch.as_object().unwrap(), |beside| {
            seen.push(match beside {
                Beside::Kept(member) => text(member.whole),
                Beside::Changed { name, before, change } => format!("{name} {:?} {change}", before.map(text)),
            });
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["0 None 1", "\"a\":5", "b Some(\"6\") 2", "c None null", "\"d\":7"]);
    }
}
