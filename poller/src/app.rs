//! Everything that is built once and shared by all that serves requests.

use std::sync::Arc;

use service::shutdown::Shutdown;
use tokio::sync::broadcast;

use crate::access::Access;
use crate::commands::Commands;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::store::{Store, StoredEvent};

/// Events that a slow reader of the live stream may be behind by before it is dropped.
pub const STREAM_QUEUE: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct App {
    /// What outlives the process.
    pub store: Store,
    /// What is known now.
    pub fleet: Arc<Fleet>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// What was asked to be done.
    pub commands: Arc<Commands>,
    /// The poller's metrics of itself.
    pub metrics: Arc<Metrics>,
    /// Events as they are stored.
    pub events: broadcast::Sender<Arc<StoredEvent>>,
    /// Ends waits and streams when the program stops.
    pub shutdown: Shutdown,
}
