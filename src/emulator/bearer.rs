//! Bearer tokens of a test issuer, in the place of Entra ID (`iot-hub.md` 7.4).
//!
//! Invariant: without an issuer's key no bearer token is taken. A token counts only after its signature was compared in
//! constant time, and only for the hub's audience and until it ends.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::identity::SharedKey;
use super::route::{Area, Operation};
use crate::twin::{Object, Value};

/// What stands before the token in `Authorization`.
pub const SCHEME: &str = "Bearer ";
/// The audience of every IoT hub (`iot-hub.md` 7.4).
const AUDIENCE: &str = "https://iothubs.azure.net";
/// The header of every token here.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// The longest token looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// The roles of `iot-hub.md` 7.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads everything.
    DataReader,
    /// Everything.
    DataContributor,
    /// Identities, no twins.
    RegistryContributor,
    /// Twins, no identities.
    TwinContributor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::DataReader, Self::DataContributor, Self::RegistryContributor, Self::TwinContributor];

    /// The name in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DataReader => "IoT Hub Data Reader",
            Self::DataContributor => "IoT Hub Data Contributor",
            Self::RegistryContributor => "IoT Hub Registry Contributor",
            Self::TwinContributor => "IoT Hub Twin Contributor",
        }
    }

    /// Whether the role may do `operation`.
    #[must_use]
    pub fn allows(self, operation: &Operation) -> bool {
        match self {
            Self::DataReader => !operation.writes(),
            Self::DataContributor => true,
            Self::RegistryContributor => operation.area() == Area::Registry,
            Self::TwinContributor => operation.area() == Area::Twins,
        }
    }
}

/// A token for `role` that ends at `expiry`, in seconds since 1970: the value of `Authorization`.
#[must_use]
pub fn mint(issuer: &SharedKey, role: Role, expiry: i64) -> String {
    let claims = Object::from([
        ("aud".to_owned(), Value::from(AUDIENCE)),
        ("exp".to_owned(), Value::from(expiry)),
        ("roles".to_owned(), Value::Array(vec![Value::from(role.as_str())])),
    ]);
    let claims = Value::Object(claims).to_string();
    let signed = format!("{}.{}", BASE64_URL.encode(HEADER), BASE64_URL.encode(claims));
    let signature = mac(issuer, &signed).map(|mac| BASE64_URL.encode(mac.finalize().into_bytes())).unwrap_or_default();
    format!("{SCHEME}{signed}.{signature}")
}

/// The role that `token`, the value of `Authorization`, was given; `now` is in seconds since 1970.
#[must_use]
pub fn role(issuer: &SharedKey, token: &str, now: i64) -> Option<Role> {
    let token = token.strip_prefix(SCHEME)?.trim();
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    mac(issuer, signed)?.verify_slice(&BASE64_URL.decode(signature).ok()?).ok()?;
    let text = |part: &str| String::from_utf8(BASE64_URL.decode(part).ok()?).ok();
    if text(header)? != HEADER {
        return None;
    }
    let claims = Value::parse_json(&text(claims)?).ok()?;
    let valid = claims.get(["aud"]) == Some(&Value::from(AUDIENCE))
        && matches!(claims.get(["exp"]), Some(Value::Number(expiry)) if *expiry > crate::twin::Number::Integer(now));
    let Some(Value::Array(roles)) = claims.get(["roles"]).filter(|_| valid) else { return None };
    Role::ALL.into_iter().find(|role| roles.contains(&Value::from(role.as_str())))
}

fn mac(issuer: &SharedKey, signed: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64.decode(issuer.expose()).ok()?).ok()?;
    mac.update(signed.as_bytes());
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_for_its_role_until_it_ends_and_not_when_anything_was_changed() {
        let issuer = SharedKey::generate(&mut |bytes| bytes.fill(7));
        let other = SharedKey::generate(&mut |bytes| bytes.fill(8));
        for expected in Role::ALL {
            assert_eq!(role(&issuer, &mint(&issuer, expected, 100), 99), Some(expected));
        }
        let good = mint(&issuer, Role::DataReader, 100);
        let forged = mint(&issuer, Role::DataContributor, 100);
        let (claims, signature) = (forged.rsplit_once('.').unwrap().0, good.rsplit_once('.').unwrap().1);
        for (what, token, now) in [
            ("ended", good.clone(), 100),
            ("another issuer", mint(&other, Role::DataReader, 100), 99),
            ("other claims", format!("{claims}.{signature}"), 99),
            ("no signature", good.rsplit_once('.').unwrap().0.to_owned(), 99),
            ("no scheme", good.replace(SCHEME, ""), 99),
            ("no parts", format!("{SCHEME}x"), 99),
        ] {
            assert_eq!(role(&issuer, &token, now), None, "{what}");
        }
    }
}
