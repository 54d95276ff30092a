//! An application that logs without end, and nobody who listens.

use std::time::{Duration, Instant};

use e2e::bench::Bench;
use e2e::bench::measure::{cpu, mebibytes};
use e2e::bench::table::Table;
use e2e::scene::{self, metrics, wait_for_instances};
use e2e::{FakePm2, Pm2, pm2_process};
use serde_json::json;
use wire::Status;

/// Bytes a second that the application prints.
const RATE: f64 = 100e6;
/// Bytes of a line, as an application prints them at once.
const LINE: usize = 16 * 1024;
/// How long.
const TIME: Duration = Duration::from_secs(10);

/// What is seen of an exporter while it is flooded.
struct Seen {
    rate: f64,
    cpu: f64,
    before: f64,
    after: f64,
}

/// Measures at a bus that carries exactly so much, and at a real PM2 that is given so much to carry.
///
/// # Errors
/// Something does not run or does not answer.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<()> {
    bench.progress("a flood on the bus");
    let fake = bus().await?;
    bench.progress("a flood through PM2");
    let real = through_pm2().await?;
    let mut table = Table::new("100 MB/s of log, nobody listens", &["bus alone", "real PM2"]);
    let both = [&fake, &real];
    table.count("arrived, MB/s", both.map(|seen| seen.rate / 1e6));
    table.count("exporter, % of a core", both.map(|seen| seen.cpu * 100.0));
    table.count("memory before, MiB", both.map(|seen| seen.before));
    table.count("memory after, MiB", both.map(|seen| seen.after));
    bench.print(&table);
    bench.target("flood of 100 MB/s: exporter, % of a core", fake.cpu * 100.0, 10.0);
    bench.target("flood of 100 MB/s: memory it adds, MiB", fake.after - fake.before, 1.0);
    Ok(())
}

async fn bus() -> anyhow::Result<Seen> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let exporter = scene::exporter(fake.home()).await?;
    wait_for_instances(exporter.client(), "app-0", Status::Online, 1).await?;
    let line = json!({
        "process": {"pm_id": 0, "name": "app-0", "rev": null, "namespace": "default"},
        "at": 0,
        "data": "x".repeat(LINE),
    });
    let line = line.to_string();
    metrics(exporter.client()).await?;
    let (before, used, start) =
        (mebibytes(exporter.pid(), "Rss")?, cpu(exporter.pid())?, Instant::now());
    let sent = tokio::task::spawn_blocking(move || {
        let mut sent = 0usize;
        while start.elapsed() < TIME {
            let due = (start.elapsed().as_secs_f64() * RATE) as usize;
            while sent < due {
                fake.publish_text("log:out", &line);
                sent += LINE;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        (sent, fake)
    });
    let (sent, _fake) = sent.await?;
    let seconds = start.elapsed().as_secs_f64();
    let used = cpu(exporter.pid())? - used;
    let after = mebibytes(exporter.pid(), "Rss")?;
    Ok(Seen { rate: sent as f64 / seconds, cpu: used / seconds, before, after })
}

async fn through_pm2() -> anyhow::Result<Seen> {
    let pm2 = Pm2::start().await?;
    let script = pm2.folder().write(
        "flood.js",
        "const line = Buffer.alloc(16 * 1024, 'x'); line[line.length - 1] = 10;\n\
         const start = Date.now(); let sent = 0;\n\
         const more = () => {\n\
           while (sent < (Date.now() - start) * 1e5) {\n\
             sent += line.length;\n\
             if (!process.stdout.write(line)) return process.stdout.once('drain', more);\n\
           }\n\
           setTimeout(more, 2);\n\
         };\nmore();\n",
    )?;
    let app = json!({"name": "flood", "script": script, "out_file": "/dev/null"});
    let exporter = scene::exporter(pm2.home()).await?;
    pm2.start_apps(vec![app]).await?;
    wait_for_instances(exporter.client(), "flood", Status::Online, 1).await?;
    let bytes = async || {
        let page = metrics(exporter.client()).await?;
        page.value("pm2_process_log_bytes_total", &[("name", "flood"), ("stream", "out")])
    };
    let counted = bytes().await?;
    let (before, used, start) =
        (mebibytes(exporter.pid(), "Rss")?, cpu(exporter.pid())?, Instant::now());
    tokio::time::sleep(TIME).await;
    let seconds = start.elapsed().as_secs_f64();
    let used = cpu(exporter.pid())? - used;
    let after = mebibytes(exporter.pid(), "Rss")?;
    let counted = bytes().await? - counted;
    Ok(Seen { rate: counted / seconds, cpu: used / seconds, before, after })
}
