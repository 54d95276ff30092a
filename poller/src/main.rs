//! Wires arguments to what they ask for.

use std::process::ExitCode;

/// A poll is some hundred small pieces of memory, taken and given back: a sixth of its CPU by the
/// system's allocator.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pm2_poller::cli::main()
}
