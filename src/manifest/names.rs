//! What names a document, also when the rest of it is refused.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess};

use super::tree::Node;

/// What names a document.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
    /// `spec.device`, which a module's twin needs.
    pub(super) device: Option<String>,
}

/// The names in a document that was read.
pub(super) fn names_of(root: &Node) -> Names {
    let text = |node: Option<&Node>| node.and_then(Node::text).map(str::to_owned);
    Names {
        api_version: text(root.get("apiVersion")),
        kind: text(root.get("kind")),
        name: text(root.get("metadata").and_then(|metadata| metadata.get("name"))),
        device: text(root.get("spec").and_then(|spec| spec.get("device"))),
    }
}

/// The names in a document that is refused for its anchors, aliases or tags; as far as they can be read. Values
/// beside the names are skipped without following aliases, so an alias bomb stays cold.
pub(super) fn read_names<'de>(deserializer: impl Deserializer<'de>) -> Names {
    let mut names = Names::default();
    let seed = NamesSeed { names: &mut names, place: Place::Root };
    // What was read before an error counts.
    drop(seed.deserialize(deserializer));
    names
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    ApiVersion,
    Kind,
    Metadata,
    Name,
    Spec,
    Device,
    Elsewhere,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "apiVersion") => Self::ApiVersion,
            (Self::Root, "kind") => Self::Kind,
            (Self::Root, "metadata") => Self::Metadata,
            (Self::Root, "spec") => Self::Spec,
            (Self::Metadata, "name") => Self::Name,
            (Self::Spec, "device") => Self::Device,
            _ => Self::Elsewhere,
        }
    }
}

struct NamesSeed<'a> {
    names: &'a mut Names,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for NamesSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.place == Place::Elsewhere {
            return IgnoredAny::deserialize(deserializer).map(|_| ());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for NamesSeed<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match self.place {
            Place::ApiVersion => self.names.api_version = Some(text.to_owned()),
            Place::Kind => self.names.kind = Some(text.to_owned()),
            Place::Name => self.names.name = Some(text.to_owned()),
            Place::Device => self.names.device = Some(text.to_owned()),
            Place::Root | Place::Metadata | Place::Spec | Place::Elsewhere => {}
        }
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(NamesSeed { names: self.names, place: self.place.below(&key) })?;
        }
        Ok(())
    }
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let (_, tagged) = access.variant::<IgnoredAny>()?;
        de::VariantAccess::newtype_variant_seed(tagged, self)
    }
}
