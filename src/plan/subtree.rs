//! A path as manifests and settings write it: a section, or a place in one, with everything beneath.

use std::fmt;

use super::Leaf;
use crate::twin::{Path, Section, check_key};

/// Why a text is not a [`Subtree`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubtreeError {
    /// It names no section.
    #[error("a path begins with tags or properties.desired; {0:?} does not")]
    Section(String),
    /// A key of it cannot stand in a twin.
    #[error("the path {path:?} does not fit: {rule}")]
    Key {
        /// The path.
        path: String,
        /// The rule the key breaks.
        rule: String,
    },
}

/// A section of a twin, or a place in it, with everything beneath: `tags`, `properties.desired.wifi.password`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subtree {
    /// The section.
    pub section: Section,
    /// Where in it; empty for the whole section.
    pub path: Path,
}

impl Subtree {
    /// Takes a dotted path. No key of a twin holds a dot (`iot-hub.md` section 4), so this is unambiguous.
    ///
    /// # Errors
    /// [`SubtreeError`] when it begins with no section or holds a key that cannot stand in a twin.
    pub fn parse(text: &str) -> Result<Self, SubtreeError> {
        for section in Section::ALL {
            let Some(rest) = text.strip_prefix(section.as_str()) else { continue };
            if rest.is_empty() {
                return Ok(Self { section, path: Path::root() });
            }
            let Some(below) = rest.strip_prefix('.') else { continue };
            let keys: Vec<&str> = below.split('.').collect();
            let refused = keys.iter().find_map(|key| {
                if key.is_empty() { Some("a key is empty".to_owned()) } else { Some(check_key(key)?.to_string()) }
            });
            return match refused {
                Some(rule) => Err(SubtreeError::Key { path: text.to_owned(), rule }),
                None => Ok(Self { section, path: Path::new(keys) }),
            };
        }
        Err(SubtreeError::Section(text.to_owned()))
    }

    /// Whether the leaf stands here or beneath.
    #[must_use]
    pub fn covers(&self, leaf: &Leaf) -> bool {
        self.section == leaf.section && self.path.covers(&leaf.path)
    }

    /// Whether the leaf stands here, beneath, or above.
    #[must_use]
    pub fn touches(&self, leaf: &Leaf) -> bool {
        self.section == leaf.section && (self.path.covers(&leaf.path) || leaf.path.covers(&self.path))
    }
}

impl fmt::Display for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.in_section(self.section))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_section_or_a_place_in_it() {
        for good in ["tags", "properties.desired", "tags.location", "properties.desired.wifi.password"] {
            assert_eq!(Subtree::parse(good).unwrap().to_string(), good);
        }
        for bad in
            ["", "tag", "tagsx", "properties", "properties.reported.a", "tags.", "tags..a", "tags.a b", "tags.$x"]
        {
            assert!(Subtree::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_subtree_covers_what_is_beneath_and_touches_what_is_above_too() {
        let leaf = |text: &str| {
            let Subtree { section, path } = Subtree::parse(text).unwrap();
            Leaf { section, path }
        };
        let wifi = Subtree::parse("tags.wifi").unwrap();
        for (text, covers, touches) in [
            ("tags.wifi", true, true),
            ("tags.wifi.password", true, true),
            ("tags.wifix", false, false),
            ("properties.desired.wifi", false, false),
        ] {
            assert_eq!((wifi.covers(&leaf(text)), wifi.touches(&leaf(text))), (covers, touches), "{text}");
        }
        let deep = Subtree::parse("tags.wifi.password").unwrap();
        assert_eq!((deep.covers(&leaf("tags.wifi")), deep.touches(&leaf("tags.wifi"))), (false, true));
    }
}
