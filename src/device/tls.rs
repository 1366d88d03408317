//! Whom a device trusts.
//!
//! Invariant: a certificate is always checked, against the system's authorities or against given ones alone.

use std::sync::Arc;

use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The system's authorities.
    System,
    /// These alone, in PEM.
    Authorities(Vec<u8>),
}

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the authorities to trust: {0}")]
pub struct TrustError(String);

/// What connects with TLS; any number of devices may share one.
#[derive(Clone)]
pub struct Connector(pub(super) TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// A connector that trusts so.
    ///
    /// # Errors
    /// [`TrustError`] when the PEM holds no certificate, or the system gives no authorities.
    pub fn new(trust: &Trust) -> Result<Self, TrustError> {
        connector(trust).map(Self)
    }
}

fn connector(trust: &Trust) -> Result<TlsConnector, TrustError> {
    let error = |error: &dyn std::fmt::Display| TrustError(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|why| error(&why))?;
    let builder = match trust {
        Trust::System => builder.with_platform_verifier().map_err(|why| error(&why))?,
        Trust::Authorities(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|why| error(&why))?).map_err(|why| error(&why))?;
            }
            if roots.is_empty() {
                return Err(TrustError("the file holds no certificate".to_owned()));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(TlsConnector::from(Arc::new(builder.with_no_client_auth())))
}
