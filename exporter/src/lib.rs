//! `pm2-exporter`: PM2's state, events, logs and control of one host over HTTP.
//!
//! `pm2/` speaks with the daemon and knows no HTTP; `journal`, `slots` and `pm2/table` decide
//! without I/O; `http/` calls them, never the reverse.

pub mod access;
pub mod app;
pub mod basic;
pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod filter;
pub mod http;
pub mod journal;
pub mod logs;
mod named;
pub mod placeholder;
pub mod pm2;
pub mod readings;
pub mod relay;
pub mod revision;
mod sampler;
pub mod slots;
pub mod web_config;
mod whole;
