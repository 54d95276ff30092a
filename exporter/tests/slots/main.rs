//! Slots against real git, real npm and real PM2.

// Helpers of tests may end a test as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod crash;
mod deploy;
mod failures;
mod git_server;
mod guard;
mod hostile;
mod managers;
mod model;
mod rotation;
mod stage;
mod transports;
mod workspace;
