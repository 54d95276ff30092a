//! Names that repeat, are odd, or would mean more to PM2 than themselves.

use anyhow::{Context, Result};
use e2e::scene::{self, metrics, wait_for_instances};
use e2e::{Client, Pm2, Port};
use serde_json::{Value, json};
use wire::Status;

/// What identifies every run of every process, as PM2 has it.
fn lives(pm2: &Pm2) -> Result<Vec<(Value, Value, Value, Value)>> {
    let lives = pm2.processes()?.into_iter().map(|process| {
        let env = &process["pm2_env"];
        (
            process["pm_id"].clone(),
            process["pid"].clone(),
            env["status"].clone(),
            env["restart_time"].clone(),
        )
    });
    Ok(lives.collect())
}

#[tokio::test]
async fn same_names_stay_apart_and_totals_are_right() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let port = Port::free()?;
    let web = e2e::setup::app("web.js").display().to_string();
    pm2.start_apps(vec![
        json!({"name": "cluster", "script": "cluster.js", "exec_mode": "cluster", "instances": 4,
               "env": {"PORT": port.number().to_string()}}),
        json!({"name": "twin", "script": "web.js"}),
    ])
    .await?;
    pm2.cli(&["start", &web, "--name", "twin", "-f"]).await?;
    pm2.cli(&["start", &web, "--name", "twin", "-f", "--namespace", "other"]).await?;
    pm2.wait_for("twin", "online", 3).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "cluster", Status::Online, 4).await?;

    let twins = wait_for_instances(client, "twin", Status::Online, 3).await?;
    let mut pids: Vec<_> = twins.iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "{twins:?}");
    let names: Vec<String> = twins.iter().map(|process| process.instance.to_string()).collect();
    assert_eq!(names, ["default/twin/0", "default/twin/1", "other/twin/0"]);

    let list: wire::ProcessList = client.json("/api/processes").await?;
    assert_eq!((list.total, list.online), (7, 7));
    let page = metrics(client).await?;
    assert_eq!(page.all("pm2_process_up", &[]).len(), 7);
    assert_eq!(page.all("pm2_process_up", &[("name", "twin"), ("namespace", "other")]).len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_action_reaches_every_instance_of_the_name_and_nothing_else() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let web = e2e::setup::app("web.js").display().to_string();
    pm2.start_apps(vec![
        json!({"name": "twin", "script": "web.js"}),
        json!({"name": "twin-2", "script": "web.js"}),
        json!({"name": "win", "script": "web.js"}),
    ])
    .await?;
    pm2.cli(&["start", &web, "--name", "twin", "-f"]).await?;
    pm2.wait_for("twin", "online", 2).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "twin", Status::Online, 2).await?;

    let before = lives(&pm2)?;
    let record = exporter.control.post("/api/processes/twin/restart?wait=30s").await?;
    let record = scene::succeeded(&record)?;
    assert_eq!(record["before"].as_array().map(Vec::len), Some(2), "{record}");
    assert_eq!(record["after"].as_array().map(Vec::len), Some(2), "{record}");
    let names = |processes: Vec<Value>| -> Vec<String> {
        processes.iter().filter_map(|process| Some(process["name"].as_str()?.to_owned())).collect()
    };
    let changed: Vec<String> = names(pm2.processes()?)
        .into_iter()
        .zip(before.iter().zip(lives(&pm2)?))
        .filter(|(_, (before, after))| *before != after)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(changed, ["twin", "twin"]);
    Ok(())
}

async fn refused(client: &Client, name: &str) -> Result<()> {
    let path = format!("/api/processes/{}", encoded(name));
    client.get(&path).await?.problem(404, "unknown_app")?;
    for action in ["start", "stop", "restart", "reload", "delete", "reset"] {
        let answer = client.post(&format!("{path}/{action}?wait=10s")).await?;
        answer.problem(404, "unknown_app").with_context(|| format!("{name} {action}"))?;
        let body = json!({"target": {"app": name}, "action": action});
        let id = format!("id-{}", e2e::process::new_mark());
        let answer = client.put(&format!("/api/commands/{id}?wait=10s"), &body).await?;
        answer.problem(404, "unknown_app").with_context(|| format!("{name} {action} by id"))?;
    }
    Ok(())
}

fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn what_pm2_takes_for_more_than_a_name_acts_on_nothing() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js", "namespace": "shop"}),
        json!({"name": "api", "script": "web.js"}),
    ])
    .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let before = lives(&pm2)?;
    let names = [
        "all",
        "ALL",
        "/.*/",
        "/web/",
        "0",
        "1",
        "-1",
        "*",
        "shop",
        "default",
        "we",
        "web ",
        "Web",
        "web,api",
        "web api",
        "../web",
        "web;id",
        "$(id)",
        "--update-env",
        "id-0",
        "undefined",
        "__proto__",
        "null",
    ];
    for name in names {
        refused(&exporter.control, name).await?;
    }
    assert_eq!(lives(&pm2)?, before);
    Ok(())
}

#[tokio::test]
async fn an_app_may_be_called_all() -> Result<()> {
    let pm2 = Pm2::start().await?;
    // PM2's own command line takes these for something else; an ecosystem file does not.
    pm2.start_apps(vec![
        json!({"name": "all", "script": "web.js"}),
        json!({"name": "0", "script": "web.js"}),
        json!({"name": "web", "script": "web.js"}),
    ])
    .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "all", Status::Online, 1).await?;
    let (web, zero) = (pm2.pid_of("web")?, pm2.pid_of("0")?);
    let all = pm2.pid_of("all")?;
    scene::succeeded(&exporter.control.post("/api/processes/all/restart?wait=30s").await?)?;
    assert_ne!(pm2.wait_for("all", "online", 1).await?[0]["pid"], all);
    assert_eq!((pm2.pid_of("web")?, pm2.pid_of("0")?), (web, zero));
    Ok(())
}
