//! Where a hub answers.
//!
//! Invariant: a [`HubAddress`] can stand in a URL, a token and a label as it is: no scheme, no path, no secrets.

use std::fmt;

/// The longest host name, in characters (RFC 1035).
const HOST_LENGTH_MAX: usize = 253;
/// The port of HTTPS, which addresses leave out.
const HTTPS_PORT: u16 = 443;

/// A host name, in lower case, and the port when it is not 443.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubAddress {
    host: Box<str>,
    port: u16,
}

/// Why a text is not the address of a hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No host name, or one with characters a host name does not have.
    #[error("the host name is not one: expected a name such as myhub.azure-devices.net, without https:// or a path")]
    Host,
    /// The text behind the colon is no port.
    #[error("the port is not one: expected a number from 1 to 65535 behind the colon")]
    Port,
}

impl HubAddress {
    /// Takes `host` or `host:port`. IPv6 addresses stand in brackets.
    ///
    /// # Errors
    /// [`AddressError`] with what is wrong; the text itself is not repeated.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        // Its colon would be taken for that of a port.
        if text.contains("://") {
            return Err(AddressError::Host);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, parse_port(port)?),
            Some(_) | None => (text, HTTPS_PORT),
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match inner {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
                !host.is_empty() && host.bytes().all(plain) && host.starts_with(|first: char| first.is_alphanumeric())
            }
        };
        if !good || host.len() > HOST_LENGTH_MAX {
            return Err(AddressError::Host);
        }
        Ok(Self { host: host.to_ascii_lowercase().into(), port })
    }

    /// The host without its port: what labels and seals call the hub.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or(AddressError::Port)
}

impl fmt::Display for HubAddress {
    /// `host`, or `host:port` when the port is not 443.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            HTTPS_PORT => f.write_str(&self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        for (text, host, printed) in [
            ("myhub.azure-devices.net", "myhub.azure-devices.net", "myhub.azure-devices.net"),
            ("MyHub.Azure-Devices.net:443", "myhub.azure-devices.net", "myhub.azure-devices.net"),
            ("localhost:8443", "localhost", "localhost:8443"),
            ("127.0.0.1:1", "127.0.0.1", "127.0.0.1:1"),
            ("[::1]:8443", "[::1]", "[::1]:8443"),
            ("[::1]", "[::1]", "[::1]"),
        ] {
            let address = HubAddress::parse(text).unwrap();
            assert_eq!((address.host(), address.to_string().as_str()), (host, printed), "{text}");
        }
        for (text, error) in [
            ("", AddressError::Host),
            (":8443", AddressError::Host),
            ("https://x.azure-devices.net", AddressError::Host),
            ("x/y", AddressError::Host),
            ("x y", AddressError::Host),
            ("user@x", AddressError::Host),
            ("-x", AddressError::Host),
            ("x#y", AddressError::Host),
            ("[::1", AddressError::Host),
            ("[x]", AddressError::Host),
            ("::1", AddressError::Host),
            ("x:", AddressError::Port),
            ("x:0", AddressError::Port),
            ("x:+1", AddressError::Port),
            ("x:65536", AddressError::Port),
            (&"x".repeat(254), AddressError::Host),
        ] {
            assert_eq!(HubAddress::parse(text), Err(error), "{text}");
        }
    }
}
