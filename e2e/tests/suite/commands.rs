//! Commands: what they do, what they tell, and that each runs once.

use anyhow::{Context, Result};
use e2e::scene::{self, Guarded, Server, Watcher, succeeded, wait_for_instances};
use e2e::{FakePm2, Mode, Pm2, SOON, pm2_process, wait_until};
use serde_json::{Value, json};
use wire::Status;

struct Scene {
    pm2: Pm2,
    exporter: Guarded,
    poller: Watcher,
}

/// Two instances of `web` and one of `other`, an exporter and a poller.
async fn scene() -> Result<Scene> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js", "instances": 2, "exec_mode": "fork"}),
        json!({"name": "other", "script": "web.js"}),
    ])
    .await?;
    pm2.wait_for("web", "online", 2).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 2).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    Ok(Scene { pm2, exporter, poller })
}

fn pids(processes: &[Value]) -> Vec<u64> {
    let mut pids: Vec<u64> =
        processes.iter().filter_map(|process| process["pid"].as_u64()).collect();
    pids.sort_unstable();
    pids
}

fn list<'a>(record: &'a Value, key: &str) -> Result<&'a [Value]> {
    Ok(record[key].as_array().with_context(|| format!("no {key}: {record}"))?)
}

#[tokio::test]
async fn a_restart_through_the_poller_is_done_and_can_be_read_back() -> Result<()> {
    let Scene { pm2, exporter, poller } = scene().await?;
    let before = pids(&pm2.processes_of("web")?);
    let other = pids(&pm2.processes_of("other")?);

    let answer = poller.admin.post("/api/commands/vm1/apps/web/restart?wait=30s").await?;
    let record = succeeded(&answer)?;
    let after = pids(&pm2.processes_of("web")?);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    assert_eq!(pids(&pm2.processes_of("other")?), other);

    let id = record["id"].as_str().context("no id")?;
    let back: Value = poller.admin.json(&format!("/api/commands/{id}")).await?;
    for record in [&record, &back] {
        assert_eq!(record["server"], "vm1");
        assert_eq!(record["target"], json!({"app": "web"}));
        assert_eq!(record["action"], "restart");
        assert_eq!(record["status"], "succeeded");
        assert_eq!(record["requested_by"], "admin");
        assert_eq!(pids(list(record, "before")?), before);
        assert_eq!(pids(list(record, "after")?), after);
        let requested: wire::Time = serde_json::from_value(record["requested_at"].clone())?;
        let finished: wire::Time = serde_json::from_value(record["finished_at"].clone())?;
        assert!((0..60_000).contains(&finished.millis_since(requested)), "{record}");
    }
    // The exporter tells for whom the poller asked.
    let there: Value = exporter.read.json(&format!("/api/commands/{id}")).await?;
    assert_eq!(there["requested_by"], "admin via poller");
    let path = "/api/commands/other?by=%20a%0a";
    let wrong = exporter.control.put(path, &json!({"target": {"app": "web"}})).await?;
    let problem = wrong.problem(400, "bad_request")?;
    assert!(problem.detail.starts_with("by: "), "{problem:?}");
    let all: Value = poller.admin.json("/api/commands?server=vm1").await?;
    assert_eq!(list(&all, "commands")?.len(), 1);
    assert_eq!(all["commands"][0]["id"], id);
    let none: Value = poller.admin.json("/api/commands?status=failed").await?;
    assert_eq!(list(&none, "commands")?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn every_action_does_what_it_says_on_every_instance() -> Result<()> {
    let Scene { pm2, exporter, poller } = scene().await?;
    let other = pids(&pm2.processes_of("other")?);
    let run = async |action: &str| -> Result<Value> {
        let path = format!("/api/commands/vm1/apps/web/{action}?wait=30s");
        succeeded(&poller.admin.post(&path).await?).context(action.to_owned())
    };
    let statuses = |record: &Value, key: &str| -> Result<Vec<String>> {
        let statuses = list(record, key)?.iter().filter_map(|process| process["status"].as_str());
        Ok(statuses.map(str::to_owned).collect())
    };

    let record = run("stop").await?;
    assert_eq!(statuses(&record, "before")?, ["online", "online"]);
    assert_eq!(statuses(&record, "after")?, ["stopped", "stopped"]);
    pm2.wait_for("web", "stopped", 2).await?;
    wait_for_instances(&exporter.read, "web", Status::Stopped, 2).await?;

    let record = run("start").await?;
    assert_eq!(statuses(&record, "before")?, ["stopped", "stopped"]);
    assert_eq!(statuses(&record, "after")?, ["online", "online"]);
    pm2.wait_for("web", "online", 2).await?;
    // What is wanted is so already.
    let started = pids(&pm2.processes_of("web")?);
    run("start").await?;
    assert_eq!(pids(&pm2.processes_of("web")?), started);

    for action in ["restart", "reload"] {
        let before = pids(&pm2.processes_of("web")?);
        let record = run(action).await?;
        let after = pids(&pm2.processes_of("web")?);
        assert!(before.iter().all(|pid| !after.contains(pid)), "{action}: {before:?} {after:?}");
        assert_eq!(statuses(&record, "after")?, ["online", "online"]);
    }

    let counters = |pm2: &Pm2| -> Result<Vec<Value>> {
        let all = pm2.processes_of("web")?;
        Ok(all.iter().map(|process| process["pm2_env"]["restart_time"].clone()).collect())
    };
    assert!(counters(&pm2)?.iter().all(|counter| *counter != 0));
    run("reset").await?;
    assert_eq!(counters(&pm2)?, [0, 0]);

    let record = run("delete").await?;
    assert_eq!(statuses(&record, "before")?, ["online", "online"]);
    assert_eq!(record.get("after").and_then(Value::as_array).map_or(0, Vec::len), 0);
    assert!(pm2.processes_of("web")?.is_empty());
    wait_for_instances(&exporter.read, "web", Status::Online, 0).await?;
    poller
        .admin
        .post("/api/commands/vm1/apps/web/restart?wait=30s")
        .await?
        .problem(404, "unknown_app")?;
    assert_eq!(pids(&pm2.processes_of("other")?), other);
    Ok(())
}

#[tokio::test]
async fn a_cluster_is_reloaded_without_being_down_as_a_whole() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let port = e2e::Port::free()?;
    pm2.start_apps(vec![json!({
        "name": "web", "script": "cluster.js", "exec_mode": "cluster", "instances": 2,
        // So that PM2 ends no old one before a slow new one is there.
        "listen_timeout": 60_000, "env": {"PORT": port.number().to_string()},
    })])
    .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 2).await?;
    let before = pids(&pm2.processes_of("web")?);
    let asking = tokio::spawn({
        let control = exporter.control.clone();
        async move { control.post("/api/processes/web/reload?wait=30s").await }
    });
    let mut looks = 0;
    while !asking.is_finished() {
        let mut online = pm2.processes_of("web")?;
        online.retain(|process| process["pm2_env"]["status"] == "online");
        assert!(!online.is_empty(), "no instance is online");
        looks += 1;
        tokio::task::yield_now().await;
    }
    succeeded(&asking.await??)?;
    let after = pids(&pm2.processes_of("web")?);
    assert!(looks > 5, "looked {looks} times only");
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    Ok(())
}

#[tokio::test]
async fn one_id_runs_once() -> Result<()> {
    let Scene { pm2, exporter, .. } = scene().await?;
    let body = json!({"target": {"app": "other"}, "action": "restart"});
    let path = "/api/commands/0b7e5f3a-once?wait=30s";
    let first = succeeded(&exporter.control.put(path, &body).await?)?;
    let running = pids(&pm2.processes_of("other")?);
    // Ten repeats, some at once.
    for _ in 0..5 {
        let (one, two) =
            tokio::join!(exporter.control.put(path, &body), exporter.control.put(path, &body));
        assert_eq!(succeeded(&one?)?, first);
        assert_eq!(succeeded(&two?)?, first);
    }
    assert_eq!(pids(&pm2.processes_of("other")?), running);
    let back: Value = exporter.read.json("/api/commands/0b7e5f3a-once").await?;
    assert_eq!(back, first);

    let another = json!({"target": {"app": "other"}, "action": "stop"});
    exporter.control.put(path, &another).await?.problem_of(422)?;
    assert_eq!(pids(&pm2.processes_of("other")?), running);
    Ok(())
}

#[tokio::test]
async fn the_same_idempotency_key_runs_once() -> Result<()> {
    let Scene { pm2, exporter: _exporter, poller } = scene().await?;
    let ask = async |action: &str| {
        let path = format!("/api/commands/vm1/apps/other/{action}?wait=30s");
        let request = poller.admin.request(reqwest::Method::POST, &path);
        poller.admin.send(request.header("idempotency-key", "deploy-7")).await
    };
    let first = succeeded(&ask("restart").await?)?;
    let running = pids(&pm2.processes_of("other")?);
    let again = succeeded(&ask("restart").await?)?;
    assert_eq!(first["id"], again["id"]);
    assert_eq!(pids(&pm2.processes_of("other")?), running);
    ask("stop").await?.problem_of(422)?;
    assert_eq!(pids(&pm2.processes_of("other")?), running);
    Ok(())
}

#[tokio::test]
async fn what_pm2_refuses_has_failed_and_says_why() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    wait_for_instances(&exporter.read, "app-0", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    // Gone, and PM2 does not tell it on the bus.
    fake.set_processes(pm2_process::processes(1));
    let answer = poller.admin.post("/api/commands/vm1/apps/app-1/restart?wait=30s").await?;
    if answer.status == 404 {
        // The exporter looked before it acted.
        answer.problem(404, "unknown_app")?;
    } else {
        let record: Value = answer.json()?;
        assert_eq!(record["status"], "failed", "{record}");
        assert!(
            record["error"].as_str().is_some_and(|text| text.contains("1 id unknown")),
            "{record}"
        );
    }
    fake.set_mode(Mode::Refuses)?;
    wait_until("PM2 is gone", SOON, async || {
        let state: wire::State = exporter.read.json("/api/state").await.ok()?;
        (!state.pm2.up).then_some(())
    })
    .await?;
    exporter.control.post("/api/processes/app-0/restart?wait=5s").await?.problem_of(503)?;
    Ok(())
}

/// Starts an app that PM2 waits so long for, in milliseconds, before it kills it; from now on it does
/// not end by itself.
async fn stubborn(scene: &Scene, poller: &Watcher, kill_timeout: u64) -> Result<()> {
    let app = json!({"name": "stubborn", "script": "stubborn.js", "kill_timeout": kill_timeout});
    scene.pm2.start_apps(vec![app]).await?;
    wait_until("it says that it ignores signals", SOON, async || {
        let it = scene::instances(&scene.exporter.read, "stubborn").await.ok()?.pop()?;
        it.readings.log_out_bytes.filter(|bytes| *bytes > 0)
    })
    .await?;
    wait_until("the poller knows it", SOON, async || {
        let answer = poller.admin.get("/api/servers/vm1/apps/stubborn").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
}

#[tokio::test]
async fn no_answer_in_time_is_202_and_the_outcome_is_there_later() -> Result<()> {
    let scene = scene().await?;
    let poller = &scene.poller;
    // PM2's own kill_timeout.
    stubborn(&scene, poller, 1600).await?;
    let answer = poller.admin.post("/api/commands/vm1/apps/stubborn/restart?wait=100ms").await?;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let record: Value = answer.json()?;
    assert!(matches!(record["status"].as_str(), Some("queued" | "running")), "{record}");
    let path = format!("/api/commands/{}", record["id"].as_str().context("no id")?);
    let ended = wait_until("it ends", SOON, async || {
        let record: Value = poller.admin.json(&path).await.ok()?;
        (record["status"] == "succeeded").then_some(record)
    })
    .await?;
    assert_eq!(list(&ended, "after")?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_took_too_long_is_known_once_its_server_tells() -> Result<()> {
    let scene = scene().await?;
    let servers = [Server::of("vm1", &scene.exporter)];
    let poller = scene::poller(&servers, "command_timeout = \"1s\"\n").await?;
    stubborn(&scene, &poller, 4000).await?;
    let before = pids(&scene.pm2.processes_of("stubborn")?);
    let answer = poller.admin.post("/api/commands/vm1/apps/stubborn/restart?wait=30s").await?;
    answer.problem(504, "no_answer")?;
    let given_up: Value = serde_json::from_str(&answer.text)?;
    assert_eq!(given_up["command_status"], "unknown");
    let path = format!("/api/commands/{}", given_up["command"].as_str().context("no id")?);
    let known = wait_until("its server tells", SOON, async || {
        let record: Value = poller.admin.json(&path).await.ok()?;
        (record["status"] != "unknown").then_some(record)
    })
    .await?;
    assert_eq!((&known["status"], known.get("error")), (&json!("succeeded"), None), "{known}");
    assert_ne!(pids(&scene.pm2.processes_of("stubborn")?), before);
    let audit: Value = poller.admin.json("/api/audit?server=vm1").await?;
    let outcomes: Vec<&Value> = list(&audit, "audit")?.iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["succeeded", "unknown", "requested"]);
    Ok(())
}

#[tokio::test]
async fn silence_after_sending_is_unknown_and_not_sent_again() -> Result<()> {
    let Scene { pm2, exporter, poller } = scene().await?;
    let running = pids(&pm2.processes_of("other")?);
    // Taken, and never answered: the exporter is stopped before it can.
    e2e::process::signal(exporter.program.pid(), rustix::process::Signal::STOP);
    let answer = poller.admin.post("/api/commands/vm1/apps/other/restart?wait=100ms").await?;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let record: Value = answer.json()?;
    exporter.program.kill();
    let path = format!("/api/commands/{}", record["id"].as_str().context("no id")?);
    let ended = wait_until("it is closed", SOON, async || {
        let record: Value = poller.admin.json(&path).await.ok()?;
        (!matches!(record["status"].as_str()?, "queued" | "running")).then_some(record)
    })
    .await?;
    assert_eq!(ended["status"], "unknown", "{ended}");
    assert_eq!(pids(&pm2.processes_of("other")?), running);
    Ok(())
}
