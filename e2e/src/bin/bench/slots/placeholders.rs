//! Five free slots beside five pages by Express, as one would write them for Node.js.

use e2e::bench::Bench;
use e2e::bench::measure::{at_rest, mebibytes_of_tree};
use e2e::bench::table::Table;
use e2e::{Pm2, Port, SOON, wait_until};
use serde_json::json;

use super::load::answers;
use super::stage::Stage;

const SLOTS: usize = 5;

pub(super) async fn run(bench: &Bench) -> anyhow::Result<()> {
    bench.progress("five placeholders beside five pages by Express");
    let ours = Stage::start(SLOTS, "").await?;
    let theirs = Pm2::start().await?;
    let express = e2e::setup::here().join("npm/node_modules/express");
    let page = format!(
        "const app = require({:?})();\n\
         app.get('/', (q, r) => r.send('<h1>This slot is ready for deployment</h1>'));\n\
         app.get('/health', (q, r) => r.json({{status: 'healthy', type: 'placeholder'}}));\n\
         app.use((q, r) => r.redirect('/'));\n\
         app.listen(process.env.PORT);\n",
        express.display().to_string()
    );
    let script = theirs.folder().write("placeholder.js", &page)?;
    let ports = (0..SLOTS).map(|_| Port::free()).collect::<anyhow::Result<Vec<_>>>()?;
    let apps = ports.iter().enumerate().map(|(number, port)| {
        json!({"name": format!("express-{number}"), "script": script,
               "env": {"PORT": port.number().to_string()}})
    });
    theirs.start_apps(apps.collect()).await?;
    wait_until("all pages answer", SOON, async || {
        let all = ports.iter().chain(&ours.ports);
        all.map(Port::number).all(answers).then_some(())
    })
    .await?;
    let mut pids = [Vec::new(), Vec::new()];
    for number in 0..SLOTS {
        let slot = ('a'..='z').nth(number).unwrap_or('a');
        pids[0].push(ours.pm2.pid_of(&format!("slot-{slot}"))?);
        pids[1].push(theirs.pid_of(&format!("express-{number}"))?);
    }
    let sum = |pids: &[u32], line: &str| -> anyhow::Result<f64> {
        pids.iter().map(|pid| mebibytes_of_tree(*pid, line)).sum()
    };
    let mut table = Table::new("five free slots", &["placeholder", "Express"]);
    let (rss, theirs_rss) = (sum(&pids[0], "Rss")?, sum(&pids[1], "Rss")?);
    table.row("resident memory, MiB", [rss, theirs_rss]);
    table.row("proportional memory, MiB", [sum(&pids[0], "Pss")?, sum(&pids[1], "Pss")?]);
    let most = pids[0].iter().map(|pid| mebibytes_of_tree(*pid, "Rss"));
    let most = most.collect::<anyhow::Result<Vec<_>>>()?.into_iter().fold(0.0, f64::max);
    let all = [pids[0].clone(), pids[1].clone()].concat();
    let rest = at_rest(&all, bench.rest).await?;
    let (own, other) = rest.split_at(SLOTS);
    table.row("CPU at rest, ms/s", [own, other].map(|it| it.iter().sum::<f64>() * 1000.0));
    bench.print(&table);
    bench.target("five placeholders together, MiB", rss, 20.0);
    bench.target("the largest placeholder, MiB", most, 4.0);
    Ok(())
}
