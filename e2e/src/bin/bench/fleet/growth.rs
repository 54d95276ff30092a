//! How the cost grows with the fleet; and what TLS adds.

use std::time::Duration;

use anyhow::Context;
use e2e::bench::Bench;
use e2e::bench::table::Table;
use e2e::{Folder, Launch};
use sha2::{Digest, Sha256};

use super::settings::Settings;
use super::stage::{Stage, Used};

/// The size at which TLS is compared, and for how long at least.
const WITH_TLS: u32 = 1000;
const TLS_WINDOW: Duration = Duration::from_secs(60);

pub(super) async fn run(bench: &Bench, settings: &Settings) -> anyhow::Result<()> {
    let head = ["CPU a poll, ms", "% of a core", "RSS, MiB", "late p99, ms", "missed, %", "files"];
    let mut table = Table::new("servers, polled every 10 s", &head).without_ratios();
    let row = |used: Used| {
        let Used { cpu_per_poll, core, resident, late, missed, open_files } = used;
        [cpu_per_poll, core * 100.0, resident, late, missed * 100.0, open_files]
    };
    for servers in &settings.sizes {
        bench.progress(format_args!("{servers} servers"));
        let stage = Stage::start(*servers, &[], "", async |_| Ok(())).await?;
        let used = stage.over(settings.window).await?;
        table.row(servers.to_string(), row(used));
        if *servers >= 15_000 {
            bench.target("15,000 servers: lateness p99, ms", used.late, 250.0);
            bench.target("15,000 servers: part of the polls missed", used.missed, 0.01);
            bench.target("15,000 servers: cores", used.core, 1.0);
        }
    }
    bench.progress(format_args!("{WITH_TLS} servers, and as many over TLS beside them"));
    let beside = Stage::start(WITH_TLS, &[], "", async |_| Ok(())).await?;
    let (_pki, over) = over_tls().await?;
    // CPU is told to 10 ms, which is a twentieth of what is used in the usual time.
    let window = settings.window.max(TLS_WINDOW);
    let (plain, tls) = tokio::try_join!(beside.over(window), over.over(window))?;
    table.row(format!("{WITH_TLS} beside TLS"), row(plain));
    table.row(format!("{WITH_TLS} over TLS"), row(tls));
    bench.print(&table);
    let part = tls.cpu_per_poll / plain.cpu_per_poll;
    bench.target("TLS, connections kept open: CPU a poll, part of plain", part, 1.15);
    Ok(())
}

/// With the folder of its certificates.
async fn over_tls() -> anyhow::Result<(Folder, Stage)> {
    let pki = Folder::new()?;
    let folder = pki.path().display().to_string();
    for arguments in [vec!["init"], vec!["issue", "fleet", "--san", "fleet.example"]] {
        let all = [vec!["pki"], arguments, vec!["--dir", &folder]].concat();
        let ended = Launch::poller()?.with(&all).run().await?;
        anyhow::ensure!(ended.code == Some(0), "pm2-poller pki: {}", ended.stderr);
    }
    let file = |name: &str| pki.join(name);
    let chain =
        service::tls::files::certificates(&file("fleet.pem")).map_err(anyhow::Error::msg)?;
    // One certificate for all addresses, so it is known by its fingerprint.
    let digest = Sha256::digest(chain.first().context("no certificate")?);
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    let known = format!("[exporter_tls]\nfingerprint = \"{}\"\n", hex.join(":"));
    let (cert, key) = (file("fleet.pem"), file("fleet-key.pem"));
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let simulator = ["--tls-cert", cert.as_str(), "--tls-key", key.as_str()];
    let stage = Stage::start(WITH_TLS, &simulator, &known, async |_| Ok(())).await?;
    Ok((pki, stage))
}
