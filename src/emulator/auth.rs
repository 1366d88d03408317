//! Who may do what: shared access policies and the tokens signed with their keys (`iot-hub.md` section 7).
//!
//! Invariant: a token counts only after its signature, over the `sr` text exactly as sent, was compared in constant
//! time; whatever fails gives the one answer 401, which does not say why. Keys are never printed.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use super::error::Refusal;
use super::identity::{Random, SharedKey};
use super::verified::{Verified, VerifiedTokens};
use crate::twin::TwinRef;

const SCHEME: &str = "SharedAccessSignature ";
/// The longest token looked at, in bytes; real ones have about 200.
const TOKEN_BYTES_MAX: usize = 4096;

/// What a policy may allow (`iot-hub.md` 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Reading identities.
    RegistryRead,
    /// Writing identities.
    RegistryWrite,
    /// Twins and queries.
    ServiceConnect,
    /// The device's side.
    DeviceConnect,
}

/// The policies a hub is made with (`iot-hub.md` 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyName {
    /// `iothubowner`: everything.
    Owner,
    /// `service`: twins and queries.
    Service,
    /// `device`: the device's side.
    Device,
    /// `registryRead`.
    RegistryRead,
    /// `registryReadWrite`.
    RegistryReadWrite,
}

impl PolicyName {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Service, Self::Device, Self::RegistryRead, Self::RegistryReadWrite];

    /// The name in `skn` and in connection strings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "iothubowner",
            Self::Service => "service",
            Self::Device => "device",
            Self::RegistryRead => "registryRead",
            Self::RegistryReadWrite => "registryReadWrite",
        }
    }

    /// Whether the policy gives `right`.
    #[must_use]
    pub fn allows(self, right: Right) -> bool {
        match self {
            Self::Owner => true,
            Self::Service => right == Right::ServiceConnect,
            Self::Device => right == Right::DeviceConnect,
            Self::RegistryRead => right == Right::RegistryRead,
            Self::RegistryReadWrite => matches!(right, Right::RegistryRead | Right::RegistryWrite),
        }
    }
}

/// The key of every policy, in the order of [`PolicyName::ALL`].
#[derive(Debug, Clone)]
pub struct Policies([SharedKey; 5]);

impl Policies {
    /// New keys.
    #[must_use]
    pub fn generate(random: Random<'_>) -> Self {
        Self(PolicyName::ALL.map(|_| SharedKey::generate(random)))
    }

    /// The keys as one text, for the store.
    #[must_use]
    pub fn to_stored(&self) -> Vec<u8> {
        self.0.each_ref().map(SharedKey::expose).join("\n").into_bytes()
    }

    /// The keys of such a text; `None` when it is not one.
    #[must_use]
    pub fn from_stored(stored: &[u8]) -> Option<Self> {
        let keys = std::str::from_utf8(stored).ok()?.split('\n').map(|key| SharedKey::new(key).ok());
        let keys: Vec<SharedKey> = keys.collect::<Option<_>>()?;
        keys.try_into().ok().map(Self)
    }

    /// The key of a policy.
    #[must_use]
    pub fn key(&self, policy: PolicyName) -> &SharedKey {
        // The variants stand in the order of `ALL`; a test holds them to it.
        &self.0[policy as usize]
    }
}

/// Checks tokens.
#[derive(Debug, Clone)]
pub struct Gate {
    policies: Policies,
    hosts: BTreeSet<String>,
    verified: VerifiedTokens,
}

impl Gate {
    /// A gate of the hub `host`, served on `port`: tokens may name it with the port or without.
    #[must_use]
    pub fn new(policies: Policies, host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let hosts = BTreeSet::from([format!("{host}:{port}"), host]);
        Self { policies, hosts, verified: VerifiedTokens::default() }
    }

    /// The same gate, for clients that name `port` too.
    #[must_use]
    pub fn also_on(mut self, port: u16) -> Self {
        let ports: Vec<String> =
            self.hosts.iter().filter(|host| !host.contains(':')).map(|host| format!("{host}:{port}")).collect();
        self.hosts.extend(ports);
        self
    }

    /// Whether `host`, with a port or without, is this hub.
    #[must_use]
    pub fn is_host(&self, host: &str) -> bool {
        self.hosts.contains(&host.to_ascii_lowercase())
    }

    /// Admits `who` to connect with `token`, signed with one of `keys` for its own scope or with the key of a policy
    /// that has [`Right::DeviceConnect`]. Gives when the token ends; both times are in seconds since 1970.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`].
    pub fn admit_device(
        &self,
        token: &str,
        who: &TwinRef,
        keys: Option<[&SharedKey; 2]>,
        now: i64,
    ) -> Result<i64, Refusal> {
        let token = Token::parse(token).ok_or(Refusal::Unauthorized)?;
        let mut path = vec!["devices".to_owned(), who.device.to_string()];
        path.extend(who.module.iter().flat_map(|module| ["modules".to_owned(), module.to_string()]));
        let signed = match &token.policy {
            Some(name) => PolicyName::ALL
                .into_iter()
                .filter(|policy| policy.as_str() == name && policy.allows(Right::DeviceConnect))
                .any(|policy| token.is_signed_with(self.policies.key(policy))),
            // A device's key admits to nothing above the device.
            None => {
                Self::reaches(token.resource, path.len())
                    && keys.into_iter().flatten().any(|key| token.is_signed_with(key))
            }
        };
        let admitted = signed && token.expiry > now && self.covers(token.resource, &path);
        if admitted { Ok(token.expiry) } else { Err(Refusal::Unauthorized) }
    }

    /// Whether the scope of a token has at least so many segments below the host.
    fn reaches(resource: &str, segments: usize) -> bool {
        decoded(resource).is_some_and(|scope| scope.split('/').filter(|part| !part.is_empty()).count() > segments)
    }

    /// The policy that signed `token`, the value of `Authorization`, for the resource at `path` (the decoded segments
    /// of the request's path). `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] for a token that is missing, malformed, expired, wrongly signed, for another host or
    /// resource, or signed with a device's key: services need a policy.
    pub fn admit(&self, token: Option<&str>, path: &[String], now: i64) -> Result<PolicyName, Refusal> {
        let verified = |token| self.verified.get(token).or_else(|| self.verify(token));
        let admitted = |verified: &Verified| verified.expiry > now && self.covers(&verified.resource, path);
        let verified = token.and_then(verified).filter(admitted).ok_or(Refusal::Unauthorized)?;
        Ok(verified.policy)
    }

    /// What `token` says when a policy's key signed it.
    fn verify(&self, text: &str) -> Option<Verified> {
        let token = Token::parse(text)?;
        let name = token.policy.as_deref()?;
        let policy = PolicyName::ALL.into_iter().find(|policy| policy.as_str() == name)?;
        if !token.is_signed_with(self.policies.key(policy)) {
            return None;
        }
        let verified = Verified { policy, resource: token.resource.to_owned(), expiry: token.expiry };
        self.verified.remember(text, verified.clone());
        Some(verified)
    }

    /// Whether the scope of a token is this hub, or a part of it that holds `path`.
    fn covers(&self, resource: &str, path: &[String]) -> bool {
        let Some(scope) = decoded(resource) else { return false };
        let mut scope = scope.split('/');
        let host = scope.next().unwrap_or_default().to_ascii_lowercase();
        let mut above = path.iter();
        let mut rest = scope.filter(|segment| !segment.is_empty());
        self.hosts.contains(&host) && rest.all(|part| above.next().is_some_and(|segment| segment == part))
    }
}

/// The fields of a token, in any order (`iot-hub.md` 7.1).
struct Token<'a> {
    /// As sent: the signature covers this text.
    resource: &'a str,
    signature: SecretSlice<u8>,
    expiry: i64,
    /// As sent.
    expiry_text: &'a str,
    policy: Option<String>,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        let (mut resource, mut signature, mut expiry, mut policy) = (None, None, None, None);
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        for field in token.strip_prefix(SCHEME)?.trim().split('&') {
            let (name, value) = field.split_once('=')?;
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let expiry_text = expiry?;
        Some(Self {
            resource: resource?,
            signature: BASE64.decode(decoded(signature?)?).ok()?.into(),
            expiry: expiry_text.parse().ok()?,
            expiry_text,
            policy: policy.map_or(Some(None), |name| decoded(name).map(Some))?,
        })
    }
}

impl Token<'_> {
    /// Compares in constant time.
    fn is_signed_with(&self, key: &SharedKey) -> bool {
        let mac = BASE64.decode(key.expose()).ok().and_then(|key| Hmac::<Sha256>::new_from_slice(&key).ok());
        let Some(mut mac) = mac else { return false };
        mac.update(format!("{}\n{}", self.resource, self.expiry_text).as_bytes());
        mac.verify_slice(self.signature.expose_secret()).is_ok()
    }
}

/// `text` without percent-encoding; a `+` stays one.
fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// A token as an SDK makes it, for tests of the front door.
#[cfg(test)]
pub(super) fn sign(key: &SharedKey, resource: &str, expiry: i64, policy: Option<&str>) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64.decode(key.expose()).unwrap()).unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = BASE64.encode(mac.finalize().into_bytes());
    let signature = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
    let policy = policy.map(|name| format!("&skn={name}")).unwrap_or_default();
    format!("{SCHEME}sr={resource}&sig={signature}&se={expiry}{policy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn policies() -> Policies {
        let mut rng = fastrand::Rng::with_seed(3);
        Policies::generate(&mut |bytes| rng.fill(bytes))
    }

    fn gate() -> Gate {
        Gate::new(policies(), "Localhost", 8443)
    }

    fn path(text: &str) -> Vec<String> {
        text.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    }

    fn token(resource: &str, expiry: i64, policy: PolicyName) -> String {
        sign(policies().key(policy), resource, expiry, Some(policy.as_str()))
    }

    #[test]
    fn tokens_are_taken_in_every_form_that_sdks_make() {
        let plain = token("localhost", NOW + 1, PolicyName::Service);
        let fields: Vec<&str> = plain.strip_prefix(SCHEME).unwrap().split('&').collect();
        let reordered = format!("{SCHEME}{}&{}&{}&{}", fields[0], fields[1], fields[3], fields[2]);
        let backwards = format!("{SCHEME}{}&{}&{}&{}", fields[3], fields[2], fields[1], fields[0]);
        // Python leaves the slashes of a signature as they are.
        let unescaped = plain.replace("%2F", "/");
        for (what, token) in [
            ("as python sends it", plain.clone()),
            ("as node orders it", reordered),
            ("backwards", backwards),
            ("slashes unescaped", unescaped),
            ("hex in lower case", plain.replace("%2B", "%2b").replace("%3D", "%3d")),
            ("with the port", token("localhost%3A8443", NOW + 1, PolicyName::Service)),
            ("the port's colon unencoded", token("localhost:8443", NOW + 1, PolicyName::Service)),
            ("the host in upper case", token("LOCALHOST", NOW + 1, PolicyName::Service)),
            ("a far expiry", token("localhost", i64::MAX, PolicyName::Service)),
            ("a scope with a slash behind", token("localhost%2F", NOW + 1, PolicyName::Service)),
        ] {
            assert_eq!(gate().admit(Some(&token), &path("/twins/d1"), NOW), Ok(PolicyName::Service), "{what}: {token}");
        }
    }

    #[test]
    fn everything_else_is_refused_alike() {
        let good = token("localhost", NOW + 1, PolicyName::Service);
        let keys = policies();
        let service = keys.key(PolicyName::Service);
        let signature = |token: &str| token.split("&sig=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        for (what, token) in [
            ("empty", String::new()),
            ("a bearer token", "Bearer abc".to_owned()),
            ("no signature", good.replace(&format!("&sig={}", signature(&good)), "")),
            ("a broken signature", good.replace(&signature(&good), "AAAA")),
            ("no expiry", good.replace(&format!("&se={}", NOW + 1), "")),
            ("a longer life than signed", good.replace(&format!("se={}", NOW + 1), &format!("se={}", NOW + 9))),
            ("another resource than signed", good.replace("sr=localhost", "sr=localhost%3A8443")),
            ("a field twice", format!("{good}&skn=iothubowner")),
            ("another policy than signed", good.replace("skn=service", "skn=iothubowner")),
            ("an unknown policy", sign(service, "localhost", NOW + 1, Some("root"))),
            ("a device's key", sign(service, "localhost%2Fdevices%2Fd1", NOW + 1, None)),
            ("expired", token("localhost", NOW, PolicyName::Service)),
            ("expiry is no number", good.replace(&format!("se={}", NOW + 1), "se=soon")),
            ("another host", token("example.org", NOW + 1, PolicyName::Service)),
            ("another port", token("localhost%3A1", NOW + 1, PolicyName::Service)),
            ("another device's scope", token("localhost%2Ftwins%2Fd2", NOW + 1, PolicyName::Service)),
            ("a scope that ends inside a segment", token("localhost%2Ftwins%2Fd", NOW + 1, PolicyName::Service)),
            ("a scope below the resource", token("localhost%2Ftwins%2Fd1%2Fmodules", NOW + 1, PolicyName::Service)),
            ("too long", format!("{good}&x={}", "y".repeat(TOKEN_BYTES_MAX))),
        ] {
            assert_eq!(gate().admit(Some(&token), &path("/twins/d1"), NOW), Err(Refusal::Unauthorized), "{what}");
        }
        assert_eq!(gate().admit(None, &path("/twins/d1"), NOW), Err(Refusal::Unauthorized));
    }

    #[test]
    fn a_scope_covers_what_lies_beneath_it_by_segment() {
        let scoped = token("localhost%2ftwins%2fd1", NOW + 1, PolicyName::Owner);
        for (resource, admitted) in
            [("/twins/d1", true), ("/twins/d1/modules/m", true), ("/twins/d10", false), ("/devices/d1", false)]
        {
            assert_eq!(gate().admit(Some(&scoped), &path(resource), NOW).is_ok(), admitted, "{resource}");
        }
    }

    #[test]
    fn each_policy_has_the_rights_of_its_row() {
        use Right::{DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
        for (policy, rights) in [
            (PolicyName::Owner, vec![RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect]),
            (PolicyName::Service, vec![ServiceConnect]),
            (PolicyName::Device, vec![DeviceConnect]),
            (PolicyName::RegistryRead, vec![RegistryRead]),
            (PolicyName::RegistryReadWrite, vec![RegistryRead, RegistryWrite]),
        ] {
            let all = [RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect];
            let found: Vec<Right> = all.into_iter().filter(|right| policy.allows(*right)).collect();
            assert_eq!(found, rights, "{policy:?}");
        }
    }

    #[test]
    fn keys_survive_the_store_and_stay_out_of_debug_output() {
        let policies = policies();
        let again = Policies::from_stored(&policies.to_stored()).unwrap();
        for (place, name) in PolicyName::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, place);
            assert_eq!(again.key(name), policies.key(name));
            assert!(!format!("{again:?}").contains(policies.key(name).expose()));
        }
        assert!(Policies::from_stored(b"one\ntwo").is_none());
    }
}
