//! `fleet-sim`: thousands of exporters in one process, to try a poller or Prometheus on.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use e2e::sim::{Settings, SimulatedFleet};
use service::quantity::duration;
use service::tls::server::{Acceptor, ClientAuth, MinVersion, ServerTls};

/// A fleet of pm2-exporters that is not there: every server has an address in 127.0.0.0/8.
#[derive(Debug, Parser)]
#[command(name = "fleet-sim")]
struct Arguments {
    /// How many servers
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    servers: u32,
    /// Their port; 0 for a free one
    #[arg(long, default_value_t = 10209)]
    port: u16,
    /// From one sample of a server to the next
    #[arg(long, default_value = "10s", value_parser = duration)]
    sample_interval: Duration,
    /// From one crash of a server's to the next, on average; 0 for none
    #[arg(long, default_value = "1h", value_parser = duration)]
    crash_every: Duration,
    /// How long a command takes
    #[arg(long, default_value = "0", value_parser = duration)]
    command_time: Duration,
    /// The token that every server wants to see
    #[arg(long)]
    token: Option<String>,
    /// Fleets of the same seed tell the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Serves TLS with this certificate, the same for all
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Writes `[[servers]]` blocks for pm2-poller to this file
    #[arg(long)]
    poller_servers: Option<PathBuf>,
    /// Writes a target list for Prometheus (`file_sd`) to this file
    #[arg(long)]
    prometheus_targets: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        servers: arguments.servers,
        sample_interval: arguments.sample_interval,
        crash_every: arguments.crash_every,
        command_time: arguments.command_time,
        token: arguments.token,
        seed: arguments.seed,
        ..Settings::default()
    };
    let shutdown = service::shutdown::Shutdown::on_signals()?;
    let tls = arguments.tls_cert.clone().zip(arguments.tls_key.clone());
    let tls = Acceptor::of(tls.map(|(cert_file, key_file)| ServerTls {
        cert_file,
        key_file,
        client_ca_file: None,
        client_auth: ClientAuth::default(),
        client_allowed_sans: Vec::new(),
        min_version: MinVersion::default(),
    }))?;
    let fleet = SimulatedFleet::start_with(settings, arguments.port, tls).await?;
    let numbers = 0..arguments.servers;
    if let Some(path) = &arguments.poller_servers {
        let blocks: String = numbers.clone().map(|number| fleet.block(number)).collect();
        std::fs::write(path, blocks).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &arguments.prometheus_targets {
        let targets: Vec<String> = numbers.map(|number| fleet.address(number)).collect();
        let list = serde_json::json!([{ "targets": targets }]);
        std::fs::write(path, list.to_string()).with_context(|| path.display().to_string())?;
    }
    // Who started it reads the port from here.
    let (first, last) = (fleet.url(0), fleet.url(arguments.servers - 1));
    writeln!(std::io::stdout(), "{} servers, {first} to {last}", arguments.servers)?;
    shutdown.drain.cancelled().await;
    Ok(())
}
