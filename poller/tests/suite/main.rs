//! The poller from outside: over HTTP and by its command line.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod access;
mod alerts;
mod arguments;
mod audit;
mod cli;
mod commands;
mod events;
mod follow;
mod matrix;
mod notify;
mod pages;
mod polling;
mod queue;
mod registry;
mod selections;
mod shapes;
mod slots;
mod support;
mod users;
mod waiting;
