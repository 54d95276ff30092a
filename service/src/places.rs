//! Where nothing is ever asked, whatever an address or a name says: cloud providers hand out credentials
//! at link-local addresses, and some more, to whoever can make a server ask.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Alibaba's, Azure's, Oracle's former one; by IPv6 Google's, Scaleway's, Linode's and Oracle's. Most
/// others are link-local, and Amazon's are a network.
const METADATA: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
];
/// Amazon's services on an instance's own network: instance metadata, credentials of pods.
const AMAZON: [u16; 2] = [0xfd00, 0xec2];

/// Whether that is one of them. Loopback and private networks are where fleets are.
pub fn is_forbidden(address: IpAddr) -> bool {
    let address = embedded(address).unwrap_or(address);
    METADATA.contains(&address)
        || match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => {
                address.is_unicast_link_local() || address.segments()[..2] == AMAZON
            }
        }
}

/// An IPv4 address that stands in one of IPv6: mapped, or for a translator (RFC 6052), whose network
/// may be a local one (RFC 8215).
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped.into());
    }
    let (a, b) = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x64, 0xff9b, 1, _, _, _, a, b] => (a, b),
        _ => return None,
    };
    Some(IpAddr::from((u32::from(a) << 16 | u32::from(b)).to_be_bytes()))
}

/// Whether the host of a URL is such an address.
pub fn is_forbidden_host(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse().is_ok_and(is_forbidden)
}

/// Of what a name leads to, where may be asked.
///
/// # Errors
/// It leads to nothing else.
pub fn allowed(found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let (no, yes): (Vec<_>, Vec<_>) = found.partition(|address| is_forbidden(address.ip()));
    if yes.is_empty() && !no.is_empty() {
        let words = "the name leads to a link-local address, where nothing is asked";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    Ok(yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleets_are_asked_and_those_who_hand_out_credentials_are_not() {
        for there in [
            "127.0.0.1",
            "10.0.0.19",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd12:3456::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "fd00::1",
        ] {
            assert!(!is_forbidden_host(there), "{there}");
        }
        for there in [
            "169.254.169.254",
            "169.254.0.1",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:2:3:4:a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            "fd00:c1::a9fe:a9fe",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
        ] {
            assert!(is_forbidden_host(there), "{there}");
        }
        assert!(!is_forbidden_host("vm1.example"), "a name is looked up when it is asked");
    }

    #[test]
    fn a_name_that_leads_there_leads_nowhere() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let both = [at("169.254.169.254"), at("10.0.0.1")];
        assert_eq!(allowed(both.into_iter()).unwrap(), [at("10.0.0.1")]);
        let error = allowed([at("fe80::1")].into_iter()).unwrap_err();
        assert!(error.to_string().contains("link-local"), "{error}");
        assert!(allowed(std::iter::empty()).unwrap().is_empty());
    }
}
