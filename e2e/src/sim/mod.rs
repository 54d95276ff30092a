//! A fleet that is not there: one process that answers as thousands of `pm2-exporter`s do.
//!
//! Every server has an address of its own in 127.0.0.0/8, all on one port; which one is meant
//! is what the `Host` header says. Each has the six default processes, whose readings change as
//! real ones do, and a crash now and then. Nothing runs for a server that nobody asks: what
//! happened since is made up at the next request, as a function of seed and time, so that a
//! thousand servers cost next to nothing beside the program that polls them.

mod answers;
pub mod child;
mod commands;
mod http;
pub mod machine;
mod noise;
mod processes;
mod readings;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use service::serve::Limits;
use service::shutdown::Shutdown;
use service::tls::Acceptor;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use wire::Time;

pub use child::SimulatorProcess;
pub use machine::Machine;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers.
    pub servers: u32,
    /// From one sample of a server to the next.
    pub sample_interval: Duration,
    /// How long they have run already: so much of their journal is there to be taken in.
    pub past: Duration,
    /// From one crash of a server's to the next, on average; zero for none.
    pub crash_every: Duration,
    /// How long a command takes.
    pub command_time: Duration,
    /// Entries that a journal keeps.
    pub entries: usize,
    /// The token that every server wants to see; none for open ones.
    pub token: Option<String>,
    /// Fleets of the same seed tell the same.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: 1000,
            sample_interval: Duration::from_secs(10),
            past: Duration::ZERO,
            crash_every: Duration::from_secs(3600),
            command_time: Duration::ZERO,
            entries: 400,
            token: None,
            seed: 1,
        }
    }
}

/// A simulated server with those who wait for its next event.
#[derive(Debug)]
pub(crate) struct Place {
    machine: Mutex<Machine>,
    changed: Notify,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fleet: shared by all requests.
#[derive(Debug)]
pub(crate) struct Sim {
    settings: Settings,
    places: Vec<Place>,
}

/// A fleet that answers until it is dropped.
#[derive(Debug)]
pub struct SimulatedFleet {
    sim: Arc<Sim>,
    port: u16,
    scheme: &'static str,
    shutdown: Shutdown,
}

impl SimulatedFleet {
    /// Listens on `port` of all of 127.0.0.0/8; on a free one for 0.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start(settings: Settings, port: u16) -> anyhow::Result<Self> {
        Self::start_with(settings, port, None).await
    }

    /// The same over TLS, with one certificate for all, where there is an acceptor.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start_with(
        settings: Settings,
        port: u16,
        tls: Option<Arc<Acceptor>>,
    ) -> anyhow::Result<Self> {
        // All addresses of the block are the machine's own, and one listener has them all. It
        // would have the machine's other addresses as well: `http` answers none of those.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("port {port}"))?;
        let port = listener.local_addr()?.port();
        let begun = Time::now().plus_millis(-(settings.past.as_millis() as i64));
        let places = (0..settings.servers)
            .map(|number| Place {
                machine: Mutex::new(Machine::new(number, &settings, begun)),
                changed: Notify::new(),
            })
            .collect();
        let sim = Arc::new(Sim { settings, places });
        let shutdown = Shutdown::default();
        let limits = Limits {
            connections: usize::MAX >> 4,
            // A poller has one address for all of its servers.
            connections_of_address: usize::MAX >> 4,
            idle_timeout: Duration::from_secs(600),
            ..Limits::default()
        };
        let (app, stop) = (http::router(Arc::clone(&sim)), shutdown.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        tokio::spawn(service::serve::serve(listener, tls, app, limits, stop));
        Ok(Self { sim, port, scheme, shutdown })
    }

    /// The port of every server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.1.0.7:10209`
    pub fn address(&self, number: u32) -> String {
        format!("{}:{}", address(number), self.port)
    }

    /// `http://…`, or `https://…` over TLS.
    pub fn url(&self, number: u32) -> String {
        format!("{}://{}", self.scheme, self.address(number))
    }

    /// The poller's `[[servers]]` block for one of them.
    pub fn block(&self, number: u32) -> String {
        let group = ["eu", "us", "asia", "test"][number as usize % 4];
        format!(
            "[[servers]]\nid = \"vm{number}\"\nurl = \"{}\"\ngroup = \"{group}\"\ntags = [\"sim\"]\n",
            self.url(number)
        )
    }

    /// One of the servers, to be looked at or changed; `None` for a number that none has.
    pub fn with<T>(&self, number: u32, look: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let place = self.sim.places.get(number as usize)?;
        let result = look(&mut place.lock());
        place.changed.notify_waiters();
        Some(result)
    }
}

impl Drop for SimulatedFleet {
    fn drop(&mut self) {
        self.shutdown.drain.cancel();
        self.shutdown.abort.cancel();
    }
}

/// Where server `number` is: 127.1.0.1, 127.1.0.2, …
pub fn address(number: u32) -> Ipv4Addr {
    let [high, middle, low] = [number / 62_500, number / 250 % 250, number % 250];
    Ipv4Addr::new(127, high as u8 + 1, middle as u8, low as u8 + 1)
}

/// The server that is at an address.
fn number(address: Ipv4Addr) -> Option<u32> {
    let [_, high, middle, low] = address.octets().map(u32::from);
    let number = high.checked_sub(1)? * 62_500 + middle * 250 + low.checked_sub(1)?;
    (self::address(number) == address).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_an_address_of_its_own() {
        for wanted in [0, 1, 249, 250, 62_499, 62_500, 100_000] {
            assert_eq!(number(address(wanted)), Some(wanted), "{}", address(wanted));
        }
        assert_eq!(number(Ipv4Addr::new(127, 0, 0, 1)), None);
        assert_eq!(number(Ipv4Addr::new(10, 1, 0, 1)), None);
    }
}
