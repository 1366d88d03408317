//! Asking the YAML library for a scalar's own text, and for a mapping or list only when it is one.
//!
//! Invariant: a probe that fails without having entered a scalar has consumed nothing.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess};

/// The next value of a mapping or of a list.
pub(super) trait Step<'de> {
    type Error: de::Error;
    fn step<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error>;
}

pub(super) struct MapValue<'a, A>(pub(super) &'a mut A);

impl<'de, A: MapAccess<'de>> Step<'de> for MapValue<'_, A> {
    type Error = A::Error;
    fn step<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_value_seed(seed).map(Some)
    }
}

pub(super) struct ListItem<'a, A>(pub(super) &'a mut A);

impl<'de, A: SeqAccess<'de>> Step<'de> for ListItem<'_, A> {
    type Error = A::Error;
    fn step<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(seed)
    }
}

/// A scalar before its meaning is decided.
pub(super) enum RawScalar<'de> {
    /// A piece of the file's text.
    Borrowed(&'de str),
    /// A block, folded or escaped text.
    Owned(String),
}

/// Takes a scalar; fails on a mapping or list *without consuming it*, so that the caller can ask again. Anchors,
/// aliases and tags are refused before, because this holds for no others.
pub(super) struct ScalarProbe<'a> {
    /// Set once a scalar was met: an error after that is real.
    pub(super) entered: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for ScalarProbe<'_> {
    type Value = RawScalar<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawScalar<'de>, D::Error> {
        deserializer.deserialize_enum("", &[], self)
    }
}

impl<'de> de::Visitor<'de> for ScalarProbe<'_> {
    type Value = RawScalar<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<RawScalar<'de>, A::Error> {
        self.entered.set(true);
        access.variant_seed(RawText).map(|(raw, _)| raw)
    }
}

struct RawText;

impl<'de> DeserializeSeed<'de> for RawText {
    type Value = RawScalar<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawScalar<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> de::Visitor<'de> for RawText {
    type Value = RawScalar<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<RawScalar<'de>, E> {
        Ok(RawScalar::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<RawScalar<'de>, E> {
        Ok(RawScalar::Owned(text.to_owned()))
    }
}
