//! Wires arguments to what they ask for.

use std::process::ExitCode;

fn main() -> ExitCode {
    pm2_poller::cli::main()
}
