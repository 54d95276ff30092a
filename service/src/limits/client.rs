//! Who a request comes from, where proxies that are trusted say so.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};

use super::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The address of the client, and whether it speaks TLS to a trusted proxy: every proxy adds who
/// asked it at the end, so the last that is none of ours is whom the outermost of ours saw. What
/// stands before it anybody could have written.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> (IpAddr, bool) {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    if proxies.is_empty() || !is_proxy(peer) {
        return (peer, false);
    }
    let lines: Vec<&[u8]> =
        headers.get_all(FORWARDED_FOR).iter().map(|line| line.as_bytes()).collect();
    let mut client = peer;
    for part in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        // What makes no sense was not written by a proxy of ours.
        let text = std::str::from_utf8(part).ok();
        let Some(address) = text.and_then(|text| parse(text.trim())) else { break };
        client = address;
        if !is_proxy(address) {
            break;
        }
    }
    let encrypted = headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    (client.to_canonical(), encrypted)
}

/// An address, with a port where one is written.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_is_none_of_ours() {
        let proxies: Vec<Network> =
            ["127.0.0.1", "10.0.0.0/8"].iter().map(|it| it.parse().unwrap()).collect();
        for (peer, said, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.3"], "198.51.100.7"),
            ("127.0.0.1", &["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["1.1.1.1, evil, 10.0.0.3"], "10.0.0.3"),
            ("127.0.0.1", &["10.0.0.3"], "10.0.0.3"),
            ("10.1.1.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("::ffff:127.0.0.1", &["198.51.100.7:9"], "198.51.100.7"),
        ] {
            let mut headers = HeaderMap::new();
            for line in said {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            let found = client(peer.parse().unwrap(), &headers, &proxies).0;
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {said:?}");
        }
        // Bytes that are no text hide nothing that stands behind them.
        let mut headers = HeaderMap::new();
        let line = axum::http::HeaderValue::from_bytes(b"\xe9, 198.51.100.7").unwrap();
        headers.append(FORWARDED_FOR, line);
        let found = client([127, 0, 0, 1].into(), &headers, &proxies).0;
        assert_eq!(found, IpAddr::from([198, 51, 100, 7]));
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_PROTO, "https".parse().unwrap());
        assert!(client([127, 0, 0, 1].into(), &headers, &proxies).1);
        assert!(!client([192, 0, 2, 1].into(), &headers, &proxies).1);
    }
}
