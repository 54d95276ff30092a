//! Names that repeat, are odd, or would mean more to PM2 than themselves.

use anyhow::{Context, Result};
use e2e::scene::{self, metrics, wait_for_instances};
use e2e::{Client, FakePm2, Folder, Launch, Pm2, Port, SOON, pm2_process, wait_until};
use futures_util::future::join_all;
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

/// Names near those that there are, and what shells, patterns, addresses and PM2 take for more.
fn odd_names(count: usize) -> Vec<String> {
    const PIECES: [&str; 28] = [
        "/", "*", ".", "..", " ", "'", "\"", "%", "%00", ",", ";", "|", "&", "$(id)", "`id`", "\\",
        "\u{200b}", "\u{202e}", "\u{2011}", "\u{ff10}", "-", "--", "?", "#", "[0-9]", "{}", "\t",
        "0",
    ];
    let mut state = 17u64;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let name = move || {
        let mut name =
            ["app-0", "app-1", "app-2", "app", "all", "default", "0"][random(7)].to_owned();
        for _ in 0..=random(3) {
            let at = random(name.chars().count() + 1);
            let at = name.char_indices().nth(at).map_or(name.len(), |(at, _)| at);
            match random(8) {
                0 => name = format!("/{name}/"),
                1 => name = name.to_uppercase(),
                2 => name.truncate(at),
                3 => name = name.repeat(2),
                _ => name.insert_str(at, PIECES[random(PIECES.len())]),
            }
        }
        name
    };
    // A bare slot id is understood, as the old admin panel asked.
    let there = ["app-0", "app-1", "app-2", "", ".", "..", "a", "d"];
    std::iter::repeat_with(name).filter(|it| !there.contains(&&**it)).take(count).collect()
}

/// X1; NAMES=100000 is the long form.
#[tokio::test]
async fn odd_names_by_the_thousand_act_on_nothing_and_start_no_program() -> Result<()> {
    let count = std::env::var("NAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let fake = FakePm2::start(pm2_process::processes(3))?;
    let folder = Folder::new()?;
    let trace = folder.join("trace").display().to_string();
    let (token, block) = scene::exporter_token("all", &["read", "control", "deploy"])?;
    let traced = ["strace", "-D", "-f", "-q", "-e", "trace=execve,execveat", "-o", trace.as_str()];
    let launch = Launch::exporter()?.pm2_home(fake.home()).configuration(&block)?;
    let exporter = launch.within(&traced).start().await?;
    let client = exporter.client().with_token(&token);
    wait_for_instances(&client, "app-0", Status::Online, 1).await?;
    let actions = ["start", "stop", "restart", "reload", "delete", "reset", "flush"];
    for (round, names) in odd_names(count).chunks(16).enumerate() {
        let action = actions[round % actions.len()];
        let client = &client;
        let asked = names.iter().map(|name| async move {
            let path = format!("/api/processes/{}/{action}?wait=10s", encoded(name));
            // Where this machine stops for a second, PM2 seems to hang, which says nothing of a name.
            let answer = wait_until("PM2 does not hang", SOON, async || {
                let answer = client.post(&path).await.ok()?;
                (answer.status != 503).then_some(answer)
            });
            anyhow::Ok((name, answer.await?))
        });
        for answer in join_all(asked).await {
            let (name, answer) = answer?;
            let refused = matches!(answer.status, 400 | 404);
            anyhow::ensure!(refused, "{action} {name:?}: {} {}", answer.status, answer.text);
        }
    }
    let looks = |method: &str| method.starts_with("get") || method == "ping";
    let acts: Vec<_> = fake.calls().into_iter().filter(|(method, _)| !looks(method)).collect();
    assert!(acts.is_empty(), "{acts:?}");
    exporter.stop(SOON).await?;
    let trace = std::fs::read_to_string(&trace)?;
    let started = trace.lines().filter(|line| line.contains("execve")).count();
    assert_eq!(started, 1, "only itself: {trace}");
    Ok(())
}
