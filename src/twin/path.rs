//! Paths inside a section of a twin.

use std::fmt;

use super::Section;

/// Where a value stands inside a section: the keys from the section down. Empty means the section itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path(Vec<String>);

impl Path {
    /// The section itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A path of the given keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(keys.into_iter().map(Into::into).collect())
    }

    /// The keys, outermost first.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.0
    }

    /// This path with one key more.
    #[must_use]
    pub fn child(&self, key: &str) -> Self {
        let mut keys = Vec::with_capacity(self.0.len() + 1);
        keys.extend_from_slice(&self.0);
        keys.push(key.to_owned());
        Self(keys)
    }

    /// The path above this one; `None` for the section itself.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, above)| Self(above.to_vec()))
    }

    /// Whether this path is `other` or lies above it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The path as manifests and messages write it: `tags.location.plant`, `properties.desired.power_level`.
    #[must_use]
    pub fn in_section(&self, section: Section) -> String {
        if self.0.is_empty() { section.as_str().to_owned() } else { format!("{}.{self}", section.as_str()) }
    }
}

impl fmt::Display for Path {
    /// The keys joined by dots; unambiguous, since no key of a twin may hold a dot (`iot-hub.md` section 4).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_covers_itself_and_what_lies_below() {
        let location = Path::new(["location"]);
        assert!(location.covers(&location));
        assert!(location.covers(&location.child("plant")));
        assert!(!location.child("plant").covers(&location));
        assert!(!Path::new(["loc"]).covers(&location));
        assert!(Path::root().covers(&location));
    }

    #[test]
    fn a_path_prints_with_its_section() {
        assert_eq!(Path::new(["a", "b"]).in_section(Section::Desired), "properties.desired.a.b");
        assert_eq!(Path::root().in_section(Section::Tags), "tags");
        assert_eq!(Path::new(["a"]).parent(), Some(Path::root()));
        assert_eq!(Path::root().parent(), None);
    }
}
