use std::net::SocketAddr;

use super::Network;
use crate::config::{Form, Key, Reader};
use crate::host::{self, Hosts};

const MOST: usize = 100_000;

/// Settings of who may ask how much, and by which name; the same keys in both programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Connections at a time.
    pub connections: usize,
    /// Of one address.
    pub connections_of_address: usize,
    /// Requests of an address in a second; none for no limit.
    pub requests: Option<u32>,
    /// Proxies that are believed when they say who asks.
    pub proxies: Vec<Network>,
    /// Names that the program is asked by.
    pub hosts: Hosts,
}

impl Reach {
    /// Their keys.
    pub const KEYS: [Key; 5] = [
        Key {
            name: "max_connections",
            form: Form::Text,
            value: "NUMBER",
            help: "Connections at a time (default: 4096)",
        },
        Key {
            name: "max_connections_per_address",
            form: Form::Text,
            value: "NUMBER",
            help: "Connections of one address at a time (default: 512)",
        },
        Key {
            name: "max_requests_per_second",
            form: Form::Text,
            value: "NUMBER",
            help: "Requests of one address, 0 for no limit; not of this machine (default: 500)",
        },
        Key {
            name: "trusted_proxies",
            form: Form::List,
            value: "NETWORKS",
            help: "Addresses of proxies whose X-Forwarded-For is believed",
        },
        Key {
            name: "allowed_hosts",
            form: Form::List,
            value: "NAMES",
            help: "Names that reading without a credential goes by, beside localhost",
        },
    ];

    /// Takes them out of the settings.
    pub fn read(reader: &mut Reader, listen: SocketAddr) -> Self {
        let connections = reader.parsed("max_connections", number).unwrap_or(4096);
        let of_address = reader.parsed("max_connections_per_address", number);
        let requests = reader.parsed("max_requests_per_second", |text| match text.parse() {
            Ok(requests @ 0..=1_000_000) => Ok(requests),
            _ => Err(format!("{text:?} is not a number of requests: 0 (no limit) to 1000000")),
        });
        let hosts = reader.list("allowed_hosts", host::allowed).unwrap_or_default();
        Self {
            connections,
            connections_of_address: of_address.unwrap_or(512).min(connections),
            requests: Some(requests.unwrap_or(500)).filter(|requests| *requests > 0),
            proxies: reader.list("trusted_proxies", str::parse).unwrap_or_default(),
            hosts: Hosts::new(listen, hosts),
        }
    }
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(number),
        _ => Err(format!("{text:?} is not a number of connections: 1 to {MOST}")),
    }
}
