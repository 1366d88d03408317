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
        Ok(Self { key, header: header.to_string(), client_id: client_id.to_owned(), audience, clock })
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

fn object(entries: &[(&str, &str)]) -> Value {
    Value::Object(entries.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect())
}
