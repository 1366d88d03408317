//! `If-Match` as a hub reads it: one header, different rules for twins and identities (`iot-hub.md` 2.4).
//!
//! Invariant: the etags compared here are without quotes; only the parser knows quotes.

/// What the header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// No header, or the quoted empty text that one SDK sends on create.
    Absent,
    /// `*` or `"*"`.
    Any,
    /// An etag in quotes, given here without them.
    Quoted(String),
    /// An etag without quotes. Twins ignore it when it is stale, identities honour it.
    Unquoted(String),
}

impl IfMatch {
    /// Reads the header's value.
    #[must_use]
    pub fn parse(header: Option<&str>) -> Self {
        let Some(text) = header.map(str::trim) else { return Self::Absent };
        let unquoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match (text, unquoted) {
            ("", _) | (_, Some("")) => Self::Absent,
            ("*", _) | (_, Some("*")) => Self::Any,
            (_, Some(etag)) => Self::Quoted(etag.to_owned()),
            (_, None) => Self::Unquoted(text.to_owned()),
        }
    }

    /// Whether a twin with `etag` may be written: only a quoted other etag stops it.
    #[must_use]
    pub fn admits_twin(&self, etag: &str) -> bool {
        match self {
            Self::Absent | Self::Any | Self::Unquoted(_) => true,
            Self::Quoted(given) => given == etag,
        }
    }

    /// The etag a write of an identity must find, if it names one: quotes do not matter there.
    #[must_use]
    pub fn identity_etag(&self) -> Option<&str> {
        match self {
            Self::Absent | Self::Any => None,
            Self::Quoted(etag) | Self::Unquoted(etag) => Some(etag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_in_every_form_that_sdks_send() {
        for (header, expected) in [
            (None, IfMatch::Absent),
            (Some(""), IfMatch::Absent),
            (Some("\"\""), IfMatch::Absent),
            (Some("*"), IfMatch::Any),
            (Some("\"*\""), IfMatch::Any),
            (Some(" \"AAAAAAAAAAE=\" "), IfMatch::Quoted("AAAAAAAAAAE=".to_owned())),
            (Some("AAAAAAAAAAE="), IfMatch::Unquoted("AAAAAAAAAAE=".to_owned())),
            (Some("\""), IfMatch::Unquoted("\"".to_owned())),
        ] {
            assert_eq!(IfMatch::parse(header), expected, "{header:?}");
        }
    }
}
