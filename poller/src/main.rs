//! Wires arguments to what they ask for.

mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep_little();
    pm2_poller::cli::main()
}
