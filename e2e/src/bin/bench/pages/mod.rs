//! What people look at, beside a poller that polls a thousand servers: charts over a month, and five
//! hundred who watch live.

mod viewers;

use std::time::Duration;

use e2e::bench::Bench;
use e2e::bench::table::Table;

use crate::fleet::asks::{Asker, Took};
use crate::fleet::stage::Stage;
use crate::store::fill;

const SERVERS: u32 = 1000;
/// Those with a month behind them.
const WITH_HISTORY: u32 = 2;
const TIMES: usize = 200;
/// A crash is two events: so two a second on average, of all servers together, and hardly ever fewer than
/// the one that is asked for.
const CRASH_EVERY: &str = "1000s";
/// Who watches has a connection for the stream and one for the page, and all are of one address here.
const ALL_FROM_HERE: &str = "max_connections_per_address = 2000";
const WINDOW: Duration = Duration::from_secs(30);

/// See the module.
///
/// # Errors
/// Something that is measured does not run or does not answer.
pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    bench.progress(format_args!("a month of history of {WITH_HISTORY} servers"));
    let stage =
        Stage::start(SERVERS, &["--crash-every", CRASH_EVERY], ALL_FROM_HERE, async |folder| {
            fill::month(&folder.join("poller.db"), WITH_HISTORY).await
        })
        .await?;
    charts(bench, &stage).await?;
    viewers::run(bench, &stage, WINDOW).await
}

async fn charts(bench: &Bench, stage: &Stage) -> anyhow::Result<()> {
    let asker = Asker::new(stage.poller.launch().base(), &stage.admin)?;
    let mut table =
        Table::new("pages, ms", &["p50", "p99", "first byte p99", "KB"]).without_ratios();
    let mut month = f64::NAN;
    for (name, path, gzip) in [
        ("an app, an hour", "/servers/vm0/apps/slot-a", false),
        ("an app, 24 h", "/servers/vm0/apps/slot-a?range=24h", false),
        ("an app, 30 d", "/servers/vm0/apps/slot-a?range=30d", false),
        ("an app, 30 d, gzip", "/servers/vm0/apps/slot-a?range=30d", true),
        ("a server, 30 d, gzip", "/servers/vm0?range=30d", true),
    ] {
        let took = asker.get(path, TIMES, gzip).await?;
        let Took { first, whole, bytes } = &took;
        let (p99, kilobytes) = (whole.percentile(0.99), *bytes as f64 / 1e3);
        table.row(name, [whole.median(), p99, first.percentile(0.99), kilobytes]);
        if name == "an app, 30 d" {
            month = p99;
        }
    }
    bench.print(&table);
    bench.target("an app's page with charts over 30 d: p99, ms", month, 60.0);
    Ok(())
}
