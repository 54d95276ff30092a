//! What the end-to-end tests, the benchmark and `make run` stand on: real PM2, a PM2 that
//! breaks on demand, the two programs, real Prometheus; each started on a port and in a
//! folder of its own, each ended by its process id whatever happens.

pub mod amp;
pub mod client;
pub mod fake_pm2;
pub mod fleet;
pub mod folder;
pub mod metrics;
pub mod pm2;
pub mod pm2_metrics;
pub mod pm2_process;
pub mod port;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod rpc;
pub mod scene;
pub mod setup;
pub mod wait;

pub use client::{Answer, Client};
pub use fake_pm2::{FakePm2, Mode};
pub use fleet::Fleet;
pub use folder::Folder;
pub use metrics::Metrics;
pub use pm2::Pm2;
pub use pm2_metrics::Pm2Metrics;
pub use port::Port;
pub use program::{Launch, Program};
pub use prometheus::Prometheus;
pub use wait::wait_until;
