//! The hub's certificate and the authority that signed it.
//!
//! Invariant: the authority stays the same over restarts, so that a client trusts it once; the certificate is made
//! anew when it nears its end or the host's name changes. Both keys stay in the private folder.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::wire;

/// How long the authority is valid, in days.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a certificate is valid, in days; some clients take no more than 825.
const CERTIFICATE_DAYS: i64 = 365;
/// A certificate with less than this left is made anew at the next start, in days.
const RENEWAL_DAYS: i64 = 30;
/// Validity begins so much earlier, for clients whose clock is behind.
const BACKDATED_DAYS: i64 = 1;

/// Certificates and keys in PEM. `Debug` hides the keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// The authority, which clients trust.
    pub authority: String,
    #[serde(serialize_with = "wire::exposed")]
    authority_key: SecretString,
    /// In seconds since 1970, as is the other end.
    authority_ends: i64,
    /// The hub's own certificate.
    pub certificate: String,
    /// Its key.
    #[serde(serialize_with = "wire::exposed")]
    pub key: SecretString,
    ends: i64,
    host: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("cannot make or use the hub's certificate: {0}")]
pub struct CertificateError(pub String);

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl Certificates {
    /// The certificates kept as `stored`, as far as they still serve `host`; what does not is made anew.
    ///
    /// # Errors
    /// [`CertificateError`] when `host` cannot stand in a certificate.
    pub fn obtain(stored: Option<&[u8]>, host: &str, now: Timestamp) -> Result<Self, CertificateError> {
        let stored: Option<Self> = stored.and_then(|stored| serde_json::from_slice(stored).ok());
        let Some(stored) = stored.filter(|stored| stored.authority_ends > later(now, CERTIFICATE_DAYS).as_second())
        else {
            return Self::new_authority(host, now);
        };
        if stored.host == host && stored.ends > later(now, RENEWAL_DAYS).as_second() {
            return Ok(stored);
        }
        match KeyPair::from_pem(stored.authority_key.expose_secret()) {
            Ok(key) => Self::issue(host, stored.authority, &key, stored.authority_ends, now),
            Err(_) => Self::new_authority(host, now),
        }
    }

    /// The certificates as one text, to be kept.
    #[must_use]
    pub fn to_stored(&self) -> Vec<u8> {
        wire::json(self)
    }

    fn new_authority(host: &str, now: Timestamp) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let ends = later(now, AUTHORITY_DAYS);
        let mut params = authority_params();
        set_validity(&mut params, now, ends);
        let authority = params.self_signed(&key)?.pem();
        Self::issue(host, authority, &key, ends.as_second(), now)
    }

    fn issue(
        host: &str,
        authority: String,
        authority_key: &KeyPair,
        authority_ends: i64,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let mut names = vec![host.to_owned()];
        for name in ["localhost", "127.0.0.1", "::1"] {
            if name != host {
                names.push(name.to_owned());
            }
        }
        let ends = later(now, CERTIFICATE_DAYS);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("geminid embedded IoT hub");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, ends);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &Issuer::new(authority_params(), authority_key))?.pem();
        Ok(Self {
            authority,
            authority_key: authority_key.serialize_pem().into(),
            authority_ends,
            certificate,
            key: key.serialize_pem().into(),
            ends: ends.as_second(),
            host: host.to_owned(),
        })
    }
}

/// Always the same, so that a later certificate names its issuer as the authority names itself.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("geminid embedded IoT hub authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, ends: Timestamp) {
    let date = |at: Timestamp| {
        let date = at.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = date(later(now, -BACKDATED_DAYS));
    params.not_after = date(ends);
}

/// `now` and some days; the end of time when that is beyond it.
fn later(now: Timestamp, days: i64) -> Timestamp {
    now.saturating_add((days * 24).hours()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn certificates_are_kept_until_they_near_their_end_or_the_host_changes() {
        let start = at("2026-11-23T00:00:00Z");
        let first = Certificates::obtain(None, "localhost", start).unwrap();
        let stored = first.to_stored();
        for (what, host, now, same_certificate, same_authority) in [
            ("at the next start", "localhost", start, true, true),
            ("eleven months later", "localhost", at("2027-10-23T00:00:00Z"), true, true),
            ("a month before its end", "localhost", at("2027-10-25T00:00:00Z"), false, true),
            ("another host", "hub.example", start, false, true),
            ("an address as host", "10.0.0.1", start, false, true),
            ("when the authority ends too soon", "localhost", at("2036-01-01T00:00:00Z"), false, false),
        ] {
            let next = Certificates::obtain(Some(&stored), host, now).unwrap();
            assert_eq!(next.certificate == first.certificate, same_certificate, "{what}");
            assert_eq!(next.authority == first.authority, same_authority, "{what}");
        }
        let fresh = Certificates::obtain(Some(b"damaged"), "localhost", start).unwrap();
        assert!(fresh.authority != first.authority, "what cannot be read is made anew");
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }
}
