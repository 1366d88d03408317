//! An application's certificate as Entra takes it: a JSON Web Token signed with the certificate's key.
//!
//! Invariant: the key never leaves this file but as a signature, and no error or `Debug` text holds any of it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::pin::Pin;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PSS_SHA256;
use azure_core::Error;
use azure_core::error::ErrorKind;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::sas::Clock;
use crate::twin::{Object, Value};

/// How long an assertion is good, in seconds; it is sent at once.
const ASSERTION_LIFE: i64 = 10 * 60;
/// The largest file read, in bytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// A certificate with its key, for one application and one audience.
pub(super) struct Certificate {
    key: KeyPair,
    header: String,
    client_id: String,
    audience: String,
    clock: Clock,
    ends: Option<Timestamp>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads certificate and key, in PEM, from one file.
    ///
    /// # Errors
    /// One sentence with the file and the remedy.
    pub(super) fn read(file: &Path, client_id: &str, audience: String, clock: Clock) -> Result<Self, String> {
        let place = file.display();
        let unreadable = |error: std::io::Error| format!("cannot read the certificate {place}: {error}");
        if fs::metadata(file).map_err(unreadable)?.len() > FILE_SIZE_MAX {
            return Err(format!("the certificate {place} has more than {FILE_SIZE_MAX} bytes"));
        }
        let pem = fs::read(file).map_err(unreadable)?;
        let certificate = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| format!("{place} holds no certificate; expected -----BEGIN CERTIFICATE----- and its key"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            format!("{place} holds no key; expected -----BEGIN PRIVATE KEY----- beside the certificate")
        })?;
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(_) | _ => {
                return Err(format!("the key in {place} is no RSA key, which Entra asks for"));
            }
        };
        let key = key.map_err(|_| format!("the key in {place} is no RSA key of 2048 bits or more"))?;
        let thumbprint = BASE64_URL.encode(digest(&SHA256, certificate.as_ref()));
        let header = object(&[("alg", "PS256"), ("typ", "JWT"), ("x5t#S256", &thumbprint)]);
        let ends = end_of(certificate.as_ref());
        Ok(Self { key, header: header.to_string(), client_id: client_id.to_owned(), audience, clock, ends })
    }

    /// When the certificate ends; `None` when it never does, or says it in no way that is known.
    pub(super) const fn ends(&self) -> Option<Timestamp> {
        self.ends
    }

    /// The assertion at `now`, in seconds since 1970; `id` is used once.
    fn assertion(&self, now: i64, id: [u8; 16]) -> Option<String> {
        let id = BASE64_URL.encode(id);
        let text = |name: &str, value: &str| (name.to_owned(), Value::from(value));
        let claims = Object::from([
            text("aud", &self.audience),
            text("iss", &self.client_id),
            text("sub", &self.client_id),
            text("jti", &id),
            ("nbf".to_owned(), Value::from(now)),
            ("exp".to_owned(), Value::from(now.saturating_add(ASSERTION_LIFE))),
        ]);
        let claims = Value::Object(claims).to_string();
        let signed = format!("{}.{}", BASE64_URL.encode(&self.header), BASE64_URL.encode(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
        Some(format!("{signed}.{}", BASE64_URL.encode(signature)))
    }
}

impl ClientAssertion for Certificate {
    // The trait is made by a macro; this is what the macro makes of `async fn secret`.
    fn secret<'a, 'b, 'c>(
        &'a self,
        _: Option<ClientMethodOptions<'b>>,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<String>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let mut id = [0; 16];
            let drawn = SystemRandom::new().fill(&mut id).is_ok();
            let assertion = self.assertion((self.clock)().as_second(), id).filter(|_| drawn);
            assertion.ok_or_else(|| Error::with_message(ErrorKind::Credential, "the certificate's key cannot sign"))
        })
    }
}

/// The end of a certificate's validity (RFC 5280, 4.1.2.5), read from its DER.
fn end_of(certificate: &[u8]) -> Option<Timestamp> {
    let whole = Element::read(certificate)?;
    let mut rest = Element::read(whole.content)?.content;
    let mut next = || {
        let element = Element::read(rest)?;
        rest = element.rest;
        Some(element)
    };
    // The version may be left out; then come serial number, algorithm, issuer, and the validity.
    if next()?.tag == VERSION_TAG {
        next()?;
    }
    next()?;
    next()?;
    let end = Element::read(Element::read(next()?.content)?.rest)?;
    let text = std::str::from_utf8(end.content).ok()?;
    let text = match end.tag {
        // Of a year with two digits those from 50 on are of the last century.
        UTC_TIME_TAG => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME_TAG => text.to_owned(),
        _ => return None,
    };
    let date = DateTime::strptime("%Y%m%d%H%M%SZ", &text).ok()?;
    TimeZone::UTC.to_timestamp(date).ok()
}

const VERSION_TAG: u8 = 0xa0;
const UTC_TIME_TAG: u8 = 0x17;
const GENERALIZED_TIME_TAG: u8 = 0x18;

/// One element of DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// What stands behind it.
    rest: &'a [u8],
}

impl<'a> Element<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let (&[tag, first], behind) = der.split_first_chunk()?;
        let (length, behind) = match first {
            0..=0x7f => (usize::from(first), behind),
            // A length of so many bytes; four are more than any file that is read has.
            0x81..=0x84 => {
                let (digits, behind) = behind.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), behind)
            }
            _ => return None,
        };
        let (content, rest) = behind.split_at_checked(length)?;
        Some(Self { tag, content, rest })
    }
}

fn object(entries: &[(&str, &str)]) -> Value {
    Value::Object(entries.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_a_time_and_a_torn_one_has_none() {
        for (year, expected) in [(2030, "2030-01-02T00:00:00Z"), (2061, "2061-01-02T00:00:00Z")] {
            let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 2);
            let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            assert_eq!(end_of(made.der()).map(|end| end.to_string()).as_deref(), Some(expected));
            for length in 0..made.der().len() {
                assert_eq!(end_of(&made.der()[..length]), None, "{length}");
            }
            for index in 0..made.der().len() {
                let mut damaged = made.der().to_vec();
                damaged[index] ^= 0x83;
                // Whatever comes of it, it ends.
                let _ = end_of(&damaged);
            }
        }
    }
}
