//! What the end-to-end tests, the benchmark and `make run` stand on: real PM2, a PM2 that
//! breaks on demand, the two programs, real Prometheus; each started on a port and in a
//! folder of its own, each ended by its process id whatever happens.

pub mod alertmanager;
pub mod amp;
pub mod bench;
pub mod browser;
pub mod client;
pub mod contract;
pub mod fake_pm2;
pub mod fleet;
pub mod folder;
pub mod foreign;
pub mod grafana;
pub mod metrics;
pub mod openmetrics;
pub mod pm2;
pub mod pm2_metrics;
pub mod pm2_process;
pub mod port;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod rpc;
pub mod scene;
pub mod schemathesis;
pub mod setup;
pub mod sim;
pub mod slowhttptest;
pub mod soak;
pub mod stopwatch;
pub mod wait;

pub use alertmanager::Alertmanager;
pub use browser::Browser;
pub use client::{Answer, Client, Tls};
pub use fake_pm2::{FakePm2, Mode};
pub use fleet::Fleet;
pub use folder::Folder;
pub use foreign::Foreign;
pub use metrics::Metrics;
pub use pm2::Pm2;
pub use port::Port;
pub use program::{Launch, Program};
pub use prometheus::Prometheus;
pub use stopwatch::Stopwatch;
pub use wait::{SOON, wait_until};
