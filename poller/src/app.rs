//! Everything that is built once and shared by all that serves requests.

use std::sync::Arc;

use service::gzip::Gzip;
use service::shutdown::Shutdown;
use service::tls::Acceptor;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::client::Client;
use crate::commands::Commands;
use crate::fleet::Fleet;
use crate::http::Followers;
use crate::metrics::Metrics;
use crate::notify::{Board, Status};
use crate::registry::Registry;
use crate::store::Store;

/// See the module.
#[derive(Debug)]
pub struct App {
    /// What outlives the process.
    pub store: Store,
    /// TLS of the listener.
    pub tls: Option<Arc<Acceptor>>,
    /// Asks exporters.
    pub client: Client,
    /// Which servers there are.
    pub registry: Arc<Registry>,
    /// What is known now.
    pub fleet: Arc<Fleet>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// What was asked to be done.
    pub commands: Arc<Commands>,
    /// The poller's metrics of itself.
    pub metrics: Arc<Metrics>,
    /// The alerts that hold now.
    pub alerts: Board,
    /// How receivers of alerts fare.
    pub notify: Status,
    /// Who follows how much.
    pub followers: Followers,
    /// Pages of metrics that are made at a time.
    pub scrapes: Arc<Semaphore>,
    /// Packs pages of metrics.
    pub gzip: Gzip,
    /// Ends waits and streams when the program stops.
    pub shutdown: Shutdown,
}

impl App {
    /// The database is damaged: it is marked, and the program ends, to begin anew with another.
    pub fn damaged(&self) {
        tracing::error!("the database is damaged: beginning anew with another");
        self.store.mark_damaged();
        self.shutdown.drain.cancel();
    }
}
