//! How to sign in to a hub: a connection string, a ready-made token, or Entra ID.
//!
//! Invariant: which Entra credential is used never depends on what happens to answer; it is named, or follows from the
//! variables that Azure's own tools set.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use super::{Secret, SettingsError};

/// How to sign in to one hub.
#[derive(Debug, Clone)]
pub enum LoginSettings {
    /// As a shared access policy.
    ConnectionString(Secret),
    /// With a token made elsewhere.
    SasToken {
        /// The hub's host name, perhaps with a port.
        host: String,
        /// The file with the token.
        file: PathBuf,
    },
    /// As an identity of Entra ID.
    Entra {
        /// The hub's host name, perhaps with a port.
        host: String,
        /// Which credential.
        credential: EntraKind,
        /// What Azure's variables say.
        environment: AzureEnvironment,
    },
}

/// The kinds of Entra credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntraKind {
    /// A federated Kubernetes service account.
    WorkloadIdentity,
    /// The identity of the machine.
    ManagedIdentity,
    /// An application's secret.
    ClientSecret,
    /// An application's certificate.
    ClientCertificate,
    /// Whoever is signed in with the Azure CLI or the Azure Developer CLI.
    DeveloperTools,
}

impl EntraKind {
    const ALL: [Self; 5] = [
        Self::WorkloadIdentity,
        Self::ManagedIdentity,
        Self::ClientSecret,
        Self::ClientCertificate,
        Self::DeveloperTools,
    ];

    /// The word of the settings for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkloadIdentity => "workload-identity",
            Self::ManagedIdentity => "managed-identity",
            Self::ClientSecret => "client-secret",
            Self::ClientCertificate => "client-certificate",
            Self::DeveloperTools => "developer-tools",
        }
    }
}

/// The variables by which Azure's own tools and webhooks hand an identity on.
#[derive(Debug, Clone, Default)]
pub struct AzureEnvironment {
    /// `AZURE_TENANT_ID`
    pub tenant_id: Option<String>,
    /// `AZURE_CLIENT_ID`
    pub client_id: Option<String>,
    /// `AZURE_CLIENT_SECRET`
    pub client_secret: Option<SecretString>,
    /// `AZURE_CLIENT_CERTIFICATE_PATH`
    pub client_certificate: Option<PathBuf>,
    /// `AZURE_FEDERATED_TOKEN_FILE`
    pub federated_token_file: Option<PathBuf>,
    /// `AZURE_AUTHORITY_HOST`
    pub authority_host: Option<String>,
    /// Whether `IDENTITY_ENDPOINT` is set, as where the platform serves an identity.
    pub identity_endpoint: bool,
}

impl AzureEnvironment {
    pub(super) fn of(variables: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
        Self {
            tenant_id: text("AZURE_TENANT_ID"),
            client_id: text("AZURE_CLIENT_ID"),
            client_secret: text("AZURE_CLIENT_SECRET").map(SecretString::from),
            client_certificate: text("AZURE_CLIENT_CERTIFICATE_PATH").map(PathBuf::from),
            federated_token_file: text("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            authority_host: text("AZURE_AUTHORITY_HOST"),
            identity_endpoint: text("IDENTITY_ENDPOINT").is_some(),
        }
    }

    /// The credential that the variables are there for, most particular first.
    const fn kind(&self) -> Option<EntraKind> {
        if self.client_secret.is_some() {
            Some(EntraKind::ClientSecret)
        } else if self.client_certificate.is_some() {
            Some(EntraKind::ClientCertificate)
        } else if self.federated_token_file.is_some() {
            Some(EntraKind::WorkloadIdentity)
        } else if self.identity_endpoint {
            Some(EntraKind::ManagedIdentity)
        } else {
            None
        }
    }
}

/// What a hub's settings say of signing in.
#[derive(Debug, Default)]
pub(super) struct RawLogin {
    pub(super) connection_string_file: Option<PathBuf>,
    pub(super) connection_string: Option<SecretString>,
    pub(super) sas_token_file: Option<PathBuf>,
    pub(super) host: Option<String>,
    pub(super) auth: Option<String>,
    pub(super) credential: Option<String>,
}

/// The way to sign in that the settings of the hub `name` describe; exactly one.
pub(super) fn login_of(
    name: &str,
    raw: RawLogin,
    environment: &AzureEnvironment,
) -> Result<LoginSettings, SettingsError> {
    let wrong = |field: &str, problem: &str| {
        Err(SettingsError::Value { key: format!("hubs.{name}.{field}"), problem: problem.to_owned() })
    };
    let connection = match (raw.connection_string_file, raw.connection_string) {
        (Some(_), Some(_)) => {
            return wrong("connection_string_file", "given twice, as a file and in the environment; keep one");
        }
        (Some(file), None) => Some(Secret::File(file)),
        (None, Some(value)) => Some(Secret::Value(value)),
        (None, None) => None,
    };
    match (connection, raw.sas_token_file, raw.auth.as_deref(), raw.host) {
        (None, None, None, None) => {
            wrong("connection_string_file", "missing; name the file that holds the connection string, or host and auth")
        }
        (Some(_), None, None, Some(_)) => wrong("host", "is in the connection string already; leave one out"),
        (Some(connection), None, None, None) => match raw.credential {
            Some(_) => wrong("credential", "is for auth = \"entra\"; leave it out"),
            None => Ok(LoginSettings::ConnectionString(connection)),
        },
        (None, Some(file), None, Some(host)) => Ok(LoginSettings::SasToken { host, file }),
        (None, None, Some("entra"), Some(host)) => {
            let credential = entra_kind(name, raw.credential.as_deref(), environment)?;
            Ok(LoginSettings::Entra { host, credential, environment: environment.clone() })
        }
        (None, None, Some("entra"), None) | (None, Some(_), None, None) => {
            wrong("host", "missing; name the hub's host, such as myhub.azure-devices.net")
        }
        (None, None, Some(_), _) => wrong("auth", "is not known; the one value is \"entra\""),
        (None, None, None, Some(_)) => {
            wrong("auth", "missing; with host alone say auth = \"entra\", or name a sas_token_file")
        }
        (_, _, _, _) => {
            wrong("auth", "more than one way to sign in; keep connection_string_file, sas_token_file or auth")
        }
    }
}

fn entra_kind(name: &str, word: Option<&str>, environment: &AzureEnvironment) -> Result<EntraKind, SettingsError> {
    let words = EntraKind::ALL.map(EntraKind::as_str).join(", ");
    let wrong = |problem| Err(SettingsError::Value { key: format!("hubs.{name}.credential"), problem });
    match word {
        None => environment.kind().map_or_else(
            || wrong(format!("missing, and no AZURE_ variable says which credential to use; name one of {words}")),
            Ok,
        ),
        Some(word) => match EntraKind::ALL.into_iter().find(|kind| kind.as_str() == word) {
            Some(kind) => Ok(kind),
            None => wrong(format!("{word:?} is no credential; known are {words}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[&str]) -> AzureEnvironment {
        let of = |name: &&str| ((*name).to_owned(), "canary".to_owned());
        AzureEnvironment::of(&variables.iter().map(of).collect())
    }

    fn raw(fields: &str) -> RawLogin {
        let has = |field: &str| fields.split(' ').any(|given| given == field);
        let value = |field: &str| {
            fields.split(' ').find_map(|given| given.strip_prefix(field)?.strip_prefix('=')).map(str::to_owned)
        };
        RawLogin {
            connection_string_file: has("file").then(|| PathBuf::from("/c")),
            connection_string: has("value").then(|| SecretString::from("canary")),
            sas_token_file: has("token").then(|| PathBuf::from("/t")),
            host: has("host").then(|| "h.net".to_owned()),
            auth: value("auth"),
            credential: value("credential"),
        }
    }

    #[test]
    fn exactly_one_way_to_sign_in_is_taken() {
        for (fields, variables, expected) in [
            ("file", &[][..], "ConnectionString(File(\"/c\"))"),
            ("value", &[], "ConnectionString(Value("),
            ("token host", &[], "SasToken { host: \"h.net\", file: \"/t\" }"),
            ("host auth=entra credential=managed-identity", &[], "credential: ManagedIdentity"),
            ("host auth=entra", &["AZURE_FEDERATED_TOKEN_FILE"], "credential: WorkloadIdentity"),
            ("host auth=entra", &["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET"], "credential: ClientSecret"),
            ("host auth=entra", &["AZURE_CLIENT_CERTIFICATE_PATH"], "credential: ClientCertificate"),
            ("host auth=entra", &["IDENTITY_ENDPOINT"], "credential: ManagedIdentity"),
            ("", &[], "hubs.prod.connection_string_file: missing; name the file"),
            ("file value", &[], "hubs.prod.connection_string_file: given twice"),
            ("file host", &[], "hubs.prod.host: is in the connection string already"),
            ("file credential=developer-tools", &[], "hubs.prod.credential: is for auth"),
            ("file token", &[], "hubs.prod.auth: more than one way"),
            ("file host auth=entra", &[], "hubs.prod.auth: more than one way"),
            ("token", &[], "hubs.prod.host: missing; name the hub's host"),
            ("auth=entra", &[], "hubs.prod.host: missing; name the hub's host"),
            ("host", &[], "hubs.prod.auth: missing; with host alone"),
            ("host auth=aad", &[], "hubs.prod.auth: is not known"),
            ("host auth=entra", &[], "hubs.prod.credential: missing, and no AZURE_ variable"),
            ("host auth=entra credential=magic", &[], "\"magic\" is no credential; known are workload-identity, "),
        ] {
            let made = login_of("prod", raw(fields), &environment(variables));
            let text = made.map_or_else(|error| error.to_string(), |login| format!("{login:?}"));
            assert!(text.contains(expected) && !text.contains("Value(\"canary"), "{fields:?} {variables:?}: {text}");
        }
        let debug = format!("{:?}", environment(&["AZURE_CLIENT_SECRET"]));
        assert!(!debug.contains("canary"), "{debug}");
    }
}
