//! A token of the exporter may be limited to apps and slots and may end: on every route, what is not
//! named is refused, and the refusal says by which limit.

use anyhow::{Context, Result};
use e2e::scene::{self, metrics, succeeded, wait_for_instances};
use e2e::{Client, FakePm2, Folder, Launch, Pm2, Program, SOON, pm2_process, wait_until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::Status;

struct Scene {
    fake: FakePm2,
    program: Program,
    limited: Client,
    block: String,
    free: Client,
    free_block: String,
}

async fn scene() -> Result<Scene> {
    let mut processes = pm2_process::processes(2);
    for (pm_id, name) in [(2, "slot-a"), (3, "slot-b"), (4, "web-1")] {
        processes.push(pm2_process::process(pm_id, name, std::process::id()));
    }
    let fake = FakePm2::start(processes)?;
    let scopes = ["read", "control", "deploy"];
    let (free, free_block) = scene::exporter_token("free", &scopes)?;
    let (token, block) = scene::exporter_token("limited", &scopes)?;
    let limits = "apps = [\"app-1\", \"web-*\"]\nslots = [\"a\"]\n";
    let launch = Launch::exporter()?.pm2_home(fake.home());
    let launch = launch.configuration(&format!("{free_block}{block}{limits}"))?;
    let program = launch.start().await?;
    let (limited, free) = (program.client().with_token(token), program.client().with_token(free));
    wait_for_instances(&free, "web-1", Status::Online, 1).await?;
    Ok(Scene { fake, program, limited, block, free, free_block })
}

/// Refused, and told why.
fn refused(answer: &e2e::Answer) -> Result<()> {
    let told = answer.problem(403, "forbidden").with_context(|| answer.request.clone())?;
    for word in ["\"limited\"", "apps: app-1, web-*", "slots: a"] {
        anyhow::ensure!(told.detail.contains(word), "{}: {}", answer.request, told.detail);
    }
    Ok(())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str()).collect()
}

#[tokio::test]
async fn what_is_not_named_is_not_shown_and_not_done() -> Result<()> {
    let Scene { fake, program: _program, limited, free, .. } = scene().await?;
    let seen = ["app-1", "slot-a", "web-1"];

    // What shows all shows what is named.
    let state: Value = limited.json("/api/state").await?;
    assert_eq!(names(&state["processes"]), seen);
    assert!(state["slots"].as_array().context("no slots")?.iter().all(|slot| slot["slot"] == "a"));
    assert_eq!(names(&limited.json::<Value>("/api/processes").await?["processes"]), seen);
    let page = metrics(&limited).await?;
    let mut shown: Vec<&str> =
        page.all("pm2_process_up", &[]).iter().map(|it| it.labels["name"].as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, seen);
    assert!(page.iter().all(|it| it.labels.get("name").is_none_or(|name| seen.contains(&&**name))));
    let landing = limited.get("/").await?.ok()?;
    assert!(landing.contains("app-1") && !landing.contains("app-0") && !landing.contains("slot-b"));
    let slots: wire::SlotList = limited.json("/api/slots").await?;
    assert!(slots.slots.iter().all(|slot| slot.slot.as_str() == "a"));
    // What cannot be shown in part is not shown.
    refused(&limited.get("/api/journal").await?)?;

    let foreign = json!({"target": {"app": "app-0"}, "action": "restart"});
    succeeded(&free.put("/api/commands/others?wait=30s", &foreign).await?)?;
    for path in [
        "/api/processes/app-0",
        "/api/processes/nobody",
        "/api/processes/slot-b",
        "/api/processes/app-0/logs",
        "/api/processes/slot-b/logs",
        "/api/processes/b/status",
        "/api/commands/others",
        "/api/slots/b",
        "/api/slots/zz",
        "/api/slots/b/deployments",
        "/api/slots/b/deployments/x",
        "/api/slots/b/deployments/x/log",
    ] {
        refused(&limited.get(path).await?)?;
    }
    // It looks on its own as well.
    let acts = || {
        let looks = |method: &str| method.starts_with("get") || method == "ping";
        fake.calls().into_iter().filter(|(method, _)| !looks(method)).count()
    };
    let before = acts();
    for path in [
        "/api/processes/app-0/restart",
        "/api/processes/app-10/restart",
        "/api/processes/nobody/stop",
        // The slot is reached, and its process by its name is not.
        "/api/processes/slot-a/reload",
        "/api/processes/b/restart",
        "/api/restart/b",
        "/api/slots/b/restart",
        "/api/slots/b/stop",
        "/api/slots/b/rollback",
        "/api/slots/b/deploy",
    ] {
        refused(&limited.post(path).await?)?;
    }
    for (path, body) in [
        ("/api/commands/mine", foreign.clone()),
        ("/api/commands/mine", json!({"target": {"slot": "b"}, "action": "restart"})),
        ("/api/commands/mine", json!({"target": {"slot": "b"}, "action": "reload"})),
        ("/api/slots/b/env", json!({"env": {"A": "b"}})),
    ] {
        refused(&limited.put(path, &body).await?)?;
    }
    assert_eq!(acts(), before, "{:?}", fake.calls());

    // What is named is.
    for path in ["/api/processes/app-1", "/api/processes/slot-a", "/api/slots/a"] {
        limited.get(path).await?.ok()?;
    }
    succeeded(&limited.post("/api/processes/web-1/restart").await?)?;
    let mine = json!({"target": {"app": "app-1"}, "action": "restart"});
    succeeded(&limited.put("/api/commands/mine?wait=30s", &mine).await?)?;
    limited.get("/api/commands/mine").await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn variables_that_run_code_are_set_by_who_may_deploy() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let (token, block) = scene::exporter_token("deployer", &["read", "control", "deploy"])?;
    let exporter = scene::guarded_exporter(pm2.home(), &block).await?;
    let deployer = exporter.program.client().with_token(token);
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let pid = pm2.pid_of("web")?;
    let run = json!({"NODE_OPTIONS": "--import=data:text/javascript,process.exit(3)", "A": "b"});
    let post = async |client: &Client, variables: &Value| {
        let request = client.request(Method::POST, "/api/processes/web/env?wait=30s");
        client.send(request.json(&json!({"env": variables}))).await
    };
    let put = async |client: &Client, id: &str, variables: &Value| {
        let body = json!({"target": {"app": "web"}, "action": "env", "arguments": variables});
        client.put(&format!("/api/commands/{id}?wait=30s&by=somebody"), &body).await
    };

    for answer in [post(&exporter.control, &run).await?, put(&exporter.control, "run", &run).await?]
    {
        let told = answer.problem(403, "forbidden")?;
        for word in ["NODE_OPTIONS", "scope deploy"] {
            assert!(told.detail.contains(word), "{}", told.detail);
        }
    }
    for name in ["LD_PRELOAD", "PATH", "node_options", "axm_x"] {
        post(&exporter.control, &json!({name: "/tmp/x"})).await?.problem(403, "forbidden")?;
    }
    assert_eq!(pm2.pid_of("web")?, pid);
    succeeded(&post(&exporter.control, &json!({"A": "plain"})).await?)?;
    let less = json!({"NODE_OPTIONS": "--max-old-space-size=128"});
    succeeded(&put(&deployer, "less", &less).await?)?;
    let variable = |name| e2e::process::variable(pm2.pid_of("web").ok()?, name);
    assert_eq!(variable("A").as_deref(), Some("plain"));
    assert_eq!(variable("NODE_OPTIONS").as_deref(), Some("--max-old-space-size=128"));
    Ok(())
}

#[tokio::test]
async fn a_limit_and_an_end_are_taken_up_by_a_reload() -> Result<()> {
    let Scene { fake: _fake, program, limited, block, free, free_block } = scene().await?;
    let launch = program.launch();
    let reload = |text: String| -> Result<()> {
        launch.folder().write("configuration.toml", &text)?;
        program.signal(Signal::HUP);
        Ok(())
    };
    let status = async |client: &Client, wanted: u16| {
        wait_until(&format!("the answer is {wanted}"), SOON, async || {
            (client.get("/api/journal").await.ok()?.status == wanted).then_some(())
        })
        .await
    };
    status(&limited, 403).await?;
    reload(format!("{free_block}{block}"))?;
    status(&limited, 200).await?;
    // Two at once are good, until one ends.
    status(&free, 200).await?;
    let soon = wire::Time::now().plus_millis(1_500);
    reload(format!("{free_block}{block}expires = \"{soon}\"\n"))?;
    status(&limited, 401).await?;
    let told = limited.get("/api/state").await?.problem(401, "unauthorized")?;
    assert!(told.detail.contains("expired at"), "{}", told.detail);
    let change = limited.request(Method::POST, "/api/processes/app-1/restart");
    limited.send(change).await?.problem(401, "unauthorized")?;
    status(&free, 200).await?;
    // A file that is being written, or could not be, changes nothing.
    reload(String::new())?;
    wait_until("the reload is refused", SOON, async || {
        let page = free.get("/metrics").await.ok()?;
        page.text.contains("pm2_exporter_config_last_reload_successful 0").then_some(())
    })
    .await?;
    assert_eq!(free.get("/api/journal").await?.status, 200);
    assert_eq!(limited.get("/api/journal").await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn a_log_that_is_followed_ends_with_its_token() -> Result<()> {
    let folder = Folder::new()?;
    let log = folder.write("out.log", "first\n")?;
    let mut processes = pm2_process::processes(1);
    processes[0]["pm2_env"]["pm_out_log_path"] = json!(log);
    let fake = FakePm2::start(processes)?;
    let mut tokens = Vec::new();
    for name in ["stays", "revoked", "limited", "expires"] {
        tokens.push(scene::exporter_token(name, &["read"])?);
    }
    let blocks: String = tokens.iter().map(|(_, block)| block.as_str()).collect();
    let launch = Launch::exporter()?.pm2_home(fake.home()).configuration(&blocks)?;
    let program = launch.start().await?;
    let mut followed = Vec::new();
    for (token, _) in &tokens {
        let client = program.client().with_token(token);
        wait_for_instances(&client, "app-0", Status::Online, 1).await?;
        let path = "/api/processes/app-0/logs?stream=out&follow=true";
        let response = client.request(Method::GET, path).send().await?;
        anyhow::ensure!(response.status() == 200, "{}", response.status());
        followed.push(response);
    }

    let [(_, stays), _, (_, limited), (_, expires)] = &tokens[..] else { anyhow::bail!("four") };
    let soon = wire::Time::now().plus_millis(1_500);
    let text = format!("{stays}{limited}apps = [\"other\"]\n{expires}expires = \"{soon}\"\n");
    program.launch().folder().write("configuration.toml", &text)?;
    program.signal(Signal::HUP);
    let mut goes_on = followed.remove(0);
    for mut response in followed {
        let end = async { while let Ok(Some(_)) = response.chunk().await {} };
        assert!(tokio::time::timeout(SOON, end).await.is_ok(), "it goes on");
    }
    std::fs::write(&log, "first\nsecond\n")?;
    let mut text = String::new();
    let told = async {
        while !text.contains("second") {
            let piece = goes_on.chunk().await?.context("it has ended")?;
            text += &String::from_utf8_lossy(&piece);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SOON, told).await.context("nothing is told")?
}

#[tokio::test]
async fn the_command_makes_limited_tokens() -> Result<()> {
    let arguments = [
        "token",
        "create",
        "--name",
        "ci",
        "--scope",
        "deploy",
        "--app",
        "a\"b*",
        "--slot",
        "a",
        "--expires",
        "90d",
    ];
    let ended = Launch::exporter()?.with(&arguments).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (block, token) = ended.stdout.trim_end().rsplit_once('\n').context("one line")?;
    for line in ["apps = [\"a\\\"b*\"]", "slots = [\"a\"]", "expires = \""] {
        assert!(block.contains(line), "{block}");
    }
    // What it prints is what it reads.
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let program = Launch::exporter()?.pm2_home(fake.home()).configuration(block)?.start().await?;
    let ci = program.client().with_token(token);
    let told = ci.get("/api/state").await?.problem(403, "forbidden")?;
    assert!(told.detail.contains("lacks the scope read"), "{}", told.detail);
    Ok(())
}

#[tokio::test]
async fn one_token_does_not_take_every_place_of_those_who_follow_logs() -> Result<()> {
    let folder = Folder::new()?;
    let log = folder.write("out.log", "first\n")?;
    let mut processes = pm2_process::processes(1);
    processes[0]["pm2_env"]["pm_out_log_path"] = json!(log);
    let fake = FakePm2::start(processes)?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    wait_for_instances(&exporter.read, "app-0", Status::Online, 1).await?;
    let path = "/api/processes/app-0/logs?stream=out&follow=true";
    let follow = async |client: &Client| client.request(Method::GET, path).send().await;
    let mut followed = Vec::new();
    for _ in 0..64 {
        followed.push(follow(&exporter.read).await?.error_for_status()?);
    }
    let told = exporter.read.get(path).await?.problem(503, "busy")?;
    assert!(told.detail.contains("\"reader\" reads or follows 64 logs"), "{}", told.detail);
    let other = follow(&exporter.control).await?.error_for_status()?;
    followed.pop();
    wait_until("the place is free again", SOON, async || {
        follow(&exporter.read).await.ok()?.error_for_status().ok()
    })
    .await?;
    drop(other);
    Ok(())
}
