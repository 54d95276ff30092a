//! From what PM2 tells on its bus to the entry in the hands of a poller that waits.

use std::sync::mpsc;
use std::time::Instant;

use anyhow::Context;
use e2e::bench::Bench;
use e2e::bench::measure::Samples;
use e2e::scene::{self, wait_for_instances};
use e2e::{FakePm2, pm2_process};
use wire::Status;

/// Events that are told.
const EVENTS: usize = 500;

/// Measures it.
///
/// # Errors
/// Something does not run or does not answer.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<()> {
    let processes = pm2_process::processes(6);
    let mut process = processes[0].clone();
    let fake = FakePm2::start(processes)?;
    let exporter = scene::exporter(fake.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "app-0", Status::Online, 1).await?;
    let first: wire::JournalPage = client.json("/api/journal?limit=10000").await?;
    let (epoch, mut after) = (first.journal.epoch, first.after);
    let mut revision = first.state_revision;
    bench.progress(format_args!("{EVENTS} events"));
    // Another thread tells, a moment after the question is out.
    let (ask, asked) = mpsc::channel::<&'static str>();
    let (tell, told) = mpsc::channel::<Instant>();
    let teller = std::thread::spawn(move || {
        for word in asked {
            std::thread::sleep(std::time::Duration::from_millis(15));
            if word == "online" {
                // Another run: the end and the start of one are told once.
                process["pm2_env"]["pm_uptime"] = wire::Time::now().as_millis().into();
            }
            let now = Instant::now();
            fake.publish_event(word, &process);
            if tell.send(now).is_err() {
                return;
            }
        }
    });
    let mut seconds = Samples::default();
    for number in 0..EVENTS {
        ask.send(if number % 2 == 0 { "exit" } else { "online" })?;
        loop {
            let path =
                format!("/api/journal?epoch={epoch}&after={after}&wait=5s&known_state={revision}");
            let page: wire::JournalPage = client.json(&path).await?;
            let here = Instant::now();
            (after, revision) = (page.after, page.state_revision);
            let is_event =
                page.entries.iter().any(|entry| matches!(entry.record, wire::Record::Event(_)));
            if is_event {
                let sent = told.recv().context("the teller is gone")?;
                seconds.push(here.saturating_duration_since(sent).as_secs_f64());
                break;
            }
        }
    }
    drop(ask);
    teller.join().ok().context("the teller failed")?;
    let (p50, p99) = (seconds.median() * 1e3, seconds.percentile(0.99) * 1e3);
    bench.print(format_args!("event to a waiting poller: p50 {p50:.3} ms, p99 {p99:.3} ms"));
    bench.target("event to a waiting poller, p99, ms", p99, 20.0);
    Ok(())
}
