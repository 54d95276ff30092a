//! What one address may ask for in a time, so that it keeps nobody else from anything. Memory is
//! bounded, however many addresses there are.

mod allowance;
mod body;
mod client;
mod connections;
mod files;
mod network;
mod phase;
mod settings;
mod shares;
mod turns;

pub use allowance::Allowance;
pub(crate) use body::{Followed, Timed};
pub(crate) use client::client;
pub(crate) use connections::{Connections, Place};
pub(crate) use files::connections;
pub use files::raise_open_files;
pub use network::Network;
pub use phase::Waits;
pub(crate) use phase::{Doing, Phase};
pub use settings::Reach;
pub use shares::{Share, Shares};
pub use turns::{Busy, Turns};

use std::net::IpAddr;
use std::time::Duration;

/// Wrong passwords and tokens that an address may try at a login: ten, and then one every six
/// seconds.
pub fn bad_logins() -> Allowance {
    Allowance::new(10, Duration::from_secs(6))
}

/// Whom an address stands for. Of IPv6, whoever has one address has all of its /64.
pub fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}
