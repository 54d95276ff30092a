//! Wires arguments to what they ask for.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::exit("pm2-exporter", pm2_exporter::cli::run())
}
