//! `pm2-poller`: polls every `pm2-exporter`, keeps history, exports metrics, serves the status
//! page, forwards commands.
//!
//! `poll/` asks and checks, `store/` keeps (all SQL is there), `fleet` shows what is now,
//! `commands/` sends what somebody may do, `http/` asks all of these and decides nothing.

pub mod access;
mod apart;
pub mod app;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod fleet;
pub mod housekeeping;
pub mod http;
pub mod metrics;
pub mod notify;
mod owner;
mod pending;
pub mod pki;
pub mod poll;
pub mod program;
pub mod registry;
pub mod store;
pub mod trend;
pub mod watched;
mod world;

#[cfg(test)]
mod simulation;
