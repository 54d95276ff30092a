//! The simulated fleet answers as real exporters do: one list of what holds, asked of both.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::prometheus::check_metrics;
use e2e::scene;
use e2e::sim::{Settings, SimulatedFleet};
use e2e::{Client, FakePm2, SOON, pm2_process, wait_until};
use serde_json::{Value, json};
use wire::{CommandRecord, CommandStatus, JournalPage, State};

const FAR: u64 = 1 << 60;

async fn page(client: &Client, query: &str) -> Result<JournalPage> {
    client.json(&format!("/api/journal?{query}")).await
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

/// Waits until two samples are there, and gives the page with them.
async fn two_samples(client: &Client) -> Result<JournalPage> {
    wait_until("two entries", SOON, async || {
        page(client, "after=0").await.ok().filter(|page| page.entries.len() >= 2)
    })
    .await
}

async fn journal_holds(client: &Client) -> Result<()> {
    let all = two_samples(client).await?;
    let epoch = &all.journal.epoch;
    assert!(all.state.is_some() && all.lost == 0 && !all.more);
    assert_eq!(all.entries[0].seq, all.journal.first);
    assert_eq!(all.after + 1, all.journal.next);
    let revision = all.state_revision;

    let one = page(client, &format!("epoch={epoch}&limit=1&known_state={revision}")).await?;
    assert_eq!((one.entries.len(), one.more), (1, true));
    assert_eq!(one.after, one.entries[0].seq);
    assert!(one.state.is_none(), "the state is known");
    let foreign = page(client, &format!("known_state={revision}")).await?;
    assert!(foreign.state.is_some(), "a revision means nothing without its epoch");
    let other = page(client, "epoch=other&after=5&wait=30s").await?;
    assert_eq!(other.entries[0].seq, other.journal.first, "another epoch begins anew, at once");
    assert!(other.anew && !one.anew && !foreign.anew);
    let never = page(client, &format!("epoch={epoch}&after={FAR}&wait=30s")).await?;
    assert_eq!(never.entries[0].seq, never.journal.first, "so does what was never told");
    assert!(never.anew);

    let begun = Instant::now();
    let wait = format!("epoch={epoch}&after={}&known_state={revision}&wait=400ms", all.after);
    let waited = page(client, &wait).await?;
    assert!(begun.elapsed() >= Duration::from_millis(390), "samples end no wait");
    assert!(waited.lost == 0 && waited.state.is_none());

    for query in ["limit=0", "limit=10001", "wait=forever", "wait=301s", "after=-1", "ever=1"] {
        let answer = client.get(&format!("/api/journal?{query}")).await?;
        answer.problem(400, "bad_request").with_context(|| query.to_owned())?;
    }
    Ok(())
}

async fn commands_hold(client: &Client, app: &str) -> Result<()> {
    let path = "/api/commands/c1?wait=10s";
    let restart = json!({"target": {"app": app}, "action": "restart"});
    let position = two_samples(client).await?;
    let (epoch, after) = (&position.journal.epoch, position.after);
    let waiting = format!("/api/journal?epoch={epoch}&after={after}&wait=30s");
    let waiting = client.json::<JournalPage>(&waiting);
    let (told, done) = tokio::join!(waiting, client.put(path, &restart));
    let (told, done) = (told?, done?);
    assert_eq!(done.status, 200);
    let record: CommandRecord = done.json()?;
    assert_eq!(record.status, CommandStatus::Succeeded);
    assert!(!record.before.is_empty() && !record.after.is_empty());
    assert!(!told.entries.is_empty(), "the wait ended with an event");

    let again: CommandRecord = client.put(path, &restart).await?.json()?;
    assert_eq!(again, record, "an id runs once");
    let known: CommandRecord = client.json("/api/commands/c1").await?;
    assert_eq!(known, record);
    let stop = json!({"target": {"app": app}, "action": "stop"});
    client.put(path, &stop).await?.problem(422, "id_reused")?;
    client.get("/api/commands/c2").await?.problem(404, "unknown_command")?;
    let nobody = json!({"target": {"app": "nobody"}, "action": "restart"});
    client.put("/api/commands/c3", &nobody).await?.problem(404, "unknown_app")?;
    Ok(())
}

#[tokio::test]
async fn it_answers_as_real_exporters_do() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(6))?;
    let token = "pm2x_test";
    let guarded = scene::guarded_exporter(fake.home(), "sample_interval = \"1s\"").await?;
    let settings = Settings {
        servers: 3,
        sample_interval: Duration::from_secs(1),
        crash_every: Duration::ZERO,
        token: Some(token.to_owned()),
        ..Settings::default()
    };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let open = Client::new(fleet.url(2))?;
    let simulated = open.with_token(token);

    for client in [guarded.program.client(), &open] {
        client.get("/api/journal").await?.problem(401, "unauthorized")?;
    }
    for (client, app) in [(&guarded.control, "app-0"), (&simulated, "admin-server")] {
        journal_holds(client).await.context(app)?;
        commands_hold(client, app).await.context(app)?;
        client.get("/api/nothing").await?.problem(404, "unknown_path")?;
        check_metrics(&client.get("/metrics").await?.ok()?)?;
    }

    // The shapes: nothing that the real one does not say, and what it always says.
    let real: Value = guarded.control.json("/api/journal").await?;
    let ours: Value = simulated.json("/api/journal").await?;
    assert_eq!(keys(&real), keys(&ours));
    let process = |page: &Value| {
        let entries = page["entries"].as_array().into_iter().flatten();
        let samples = entries.filter(|entry| entry["record"]["sample"].is_object());
        samples.map(|entry| entry["record"]["sample"]["processes"][0].clone()).next_back()
    };
    let (real, ours) = (process(&real).context("none")?, process(&ours).context("none")?);
    for key in ["name", "namespace", "instance_id", "status", "restarts", "node"] {
        assert!(keys(&real).contains(key) && keys(&ours).contains(key), "{key}: {real} {ours}");
    }
    let state: State = simulated.json("/api/state").await?;
    assert_eq!((state.processes.len(), state.slots.len()), (6, 5));
    Ok(())
}

#[tokio::test]
async fn a_poller_takes_it_for_a_fleet() -> Result<()> {
    let settings = Settings {
        servers: 40,
        sample_interval: Duration::from_secs(1),
        crash_every: Duration::from_secs(20),
        ..Settings::default()
    };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let servers: Vec<_> =
        (0..40).map(|n| scene::Server::open(&format!("vm{n}"), fleet.url(n))).collect();
    let poller = scene::poller(&servers, "").await?;
    wait_until("all are online", SOON, async || {
        let list: Value = poller.admin.json("/api/servers?status=online").await.ok()?;
        (list["servers"].as_array()?.len() == 40).then_some(())
    })
    .await?;
    fleet.with(7, |machine| machine.crash(wire::Time::now())).context("no server 7")?;
    wait_until("the crash is told", SOON, async || {
        let events = poller.events("vm7").await.ok()?;
        let of = |kind| events.iter().any(|event| event["kind"] == kind);
        (of("exit") && of("online")).then_some(())
    })
    .await?;
    let page = wait_until("every process of every server is told", SOON, async || {
        let page = poller.metrics().await.ok()?;
        (page.all("pm2_process_up", &[]).len() == 240).then_some(page)
    })
    .await?;
    assert_eq!(page.value("pm2_poller_polls_total", &[("result", "journal")])?, 0.0);
    Ok(())
}
