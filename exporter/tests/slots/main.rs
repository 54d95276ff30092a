//! Slots against real git, real npm and real PM2.

// Helpers of tests may end a test as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod crash;
mod deploy;
mod failures;
mod hostile;
mod rotation;
mod stage;
mod workspace;
