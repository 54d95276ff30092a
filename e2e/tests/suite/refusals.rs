//! What is not known, not allowed or not understood: each with a status of its own, and
//! nothing done.

use anyhow::{Context, Result};
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Client, Pm2, SOON, fleet, wait_until};
use reqwest::Method;
use serde_json::{Value, json};
use wire::Status;

fn run_of(pm2: &Pm2) -> Result<(Value, Value)> {
    let web = &pm2.processes_of("web")?[0];
    Ok((web["pid"].clone(), web["pm2_env"]["restart_time"].clone()))
}

async fn web() -> Result<Pm2> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    Ok(pm2)
}

async fn put(client: &Client, path: &str, body: impl Into<reqwest::Body>) -> Result<e2e::Answer> {
    let request = client.request(Method::PUT, path).header("content-type", "application/json");
    client.send(request.body(body)).await
}

#[tokio::test]
async fn the_exporter_refuses_each_in_its_own_way() -> Result<()> {
    let pm2 = web().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    let control = &exporter.control;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let before = run_of(&pm2)?;

    control.post("/api/processes/nobody/restart").await?.problem(404, "unknown_app")?;
    control.post("/api/processes/web/explode").await?.problem(404, "unknown_action")?;
    control.get("/api/slots/zz").await?.problem(404, "unknown_slot")?;
    control.get("/api/commands/never-heard-of").await?.problem(404, "unknown_command")?;
    control.get("/api/nothing").await?.problem_of(404)?;
    control.send(control.request(Method::DELETE, "/api/state")).await?.problem_of(405)?;
    control.post("/api/processes/web/restart?wait=soon").await?.problem_of(400)?;
    control.post("/api/processes/web/restart?wiat=1s").await?.problem_of(400)?;
    control.get("/api/journal?after=-1").await?.problem_of(400)?;
    control.get("/api/journal?limit=10001").await?.problem_of(400)?;
    control.get("/api/journal?limit=0").await?.problem_of(400)?;

    let good = r#"{"target":{"app":"web"},"action":"restart"}"#;
    for id in ["%20", "a%2Fb", "..%2F..%2Fetc", &"x".repeat(129), "%00", "-x"] {
        let answer = put(control, &format!("/api/commands/{id}"), good).await?;
        answer.problem_of(400).with_context(|| format!("id {id}"))?;
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"restart\"",
        r#"{"target":{"app":"web"}}"#,
        r#"{"target":{"app":"web"},"action":"explode"}"#,
        r#"{"target":{"process":"web"},"action":"restart"}"#,
        r#"{"target":{"app":"web"},"action":"restart","force":true}"#,
        r#"{"target":{"app":""},"action":"restart"}"#,
        r#"{"target":{"app":"a\nb"},"action":"restart"}"#,
        r#"{"target":{"app":0},"action":"restart"}"#,
    ] {
        let answer = put(control, "/api/commands/one", body).await?;
        answer.problem_of(400).with_context(|| format!("body {body}"))?;
    }
    let answer = put(control, "/api/commands/one", vec![0xff, 0xfe]).await?;
    answer.problem_of(400)?;
    let slot = json!({"target": {"slot": "zz"}, "action": "restart"});
    control.put("/api/commands/one", &slot).await?.problem(404, "unknown_slot")?;
    let large = vec![b' '; 300 << 10];
    put(control, "/api/commands/one", large).await?.problem_of(413)?;

    control.get("/api/commands/one").await?.problem(404, "unknown_command")?;
    assert_eq!(run_of(&pm2)?, before);
    Ok(())
}

#[tokio::test]
async fn the_exporter_asks_who_you_are() -> Result<()> {
    let pm2 = web().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let before = run_of(&pm2)?;
    let nobody = exporter.program.client();
    let reads = [
        "/",
        "/metrics",
        "/api/state",
        "/api/processes",
        "/api/processes/web",
        "/api/journal",
        "/api/slots",
        "/api/slots/a",
        "/api/commands/x",
    ];
    let strangers = [
        nobody.clone(),
        nobody.with_token("pm2x_000000000000000000000000000000000000"),
        nobody.with_token(format!("{} ", exporter.token.to_uppercase())),
        nobody.with_token(&exporter.token[..40]),
        nobody.with_token("\u{80}"),
        nobody.with_token("x".repeat(4000)),
    ];
    for stranger in &strangers {
        for path in reads {
            stranger.get(path).await?.problem(401, "unauthorized")?;
        }
        stranger.post("/api/processes/web/restart").await?.problem(401, "unauthorized")?;
        let body = json!({"target": {"app": "web"}, "action": "restart"});
        stranger.put("/api/commands/one", &body).await?.problem(401, "unauthorized")?;
        stranger.get("/healthz").await?.ok()?;
        wait_until("it is ready", SOON, async || {
            (stranger.get("/readyz").await.ok()?.status == 200).then_some(())
        })
        .await?;
    }
    for path in reads {
        let answer = exporter.read.get(path).await?;
        assert!(matches!(answer.status, 200 | 404), "{path}: {}", answer.text);
    }
    // Who may read may not control; and who is not even known learns nothing of what exists.
    exporter.read.post("/api/processes/web/restart").await?.problem(403, "forbidden")?;
    exporter.read.post("/api/processes/nobody/restart").await?.problem(403, "forbidden")?;
    let body = json!({"target": {"app": "web"}, "action": "restart"});
    exporter.read.put("/api/commands/one", &body).await?.problem(403, "forbidden")?;
    assert_eq!(run_of(&pm2)?, before);
    Ok(())
}

#[tokio::test]
async fn without_tokens_reading_is_open_and_every_change_refused() -> Result<()> {
    let pm2 = web().await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "web", Status::Online, 1).await?;
    let before = run_of(&pm2)?;
    client.post("/api/processes/web/restart").await?.problem(401, "unauthorized")?;
    let body = json!({"target": {"app": "web"}, "action": "restart"});
    client.put("/api/commands/one", &body).await?.problem(401, "unauthorized")?;
    let guess = client.with_token("guess");
    guess.post("/api/processes/web/restart").await?.problem(401, "unauthorized")?;

    let server = Server::open("vm1", exporter.launch().base());
    let open = scene::poller_launch(std::slice::from_ref(&server), "")?.start().await?;
    open.client().get("/api/servers").await?.ok()?;
    let path = "/api/commands/vm1/apps/web/restart";
    open.client().post(path).await?.problem(401, "unauthorized")?;

    // A poller that has a token for nobody's exporter says so, and does not wait for it.
    let poller = scene::poller(&[server], "").await?;
    poller.wait_for("vm1", "online").await?;
    let answer = poller.admin.post(&format!("{path}?wait=30s")).await?;
    assert!(answer.status >= 400 || answer.text.contains("refused"), "{}", answer.text);
    assert_eq!(run_of(&pm2)?, before);
    Ok(())
}

#[tokio::test]
async fn the_poller_refuses_each_in_its_own_way() -> Result<()> {
    let pm2 = web().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let before = run_of(&pm2)?;
    let admin = &poller.admin;

    let path = "/api/commands/vm1/apps";
    admin.post("/api/commands/vm9/apps/web/restart").await?.problem(404, "unknown_server")?;
    admin.post("/api/commands/..%2Fvm1/apps/web/restart").await?.problem(404, "unknown_server")?;
    admin.post(&format!("{path}/nobody/restart?wait=30s")).await?.problem(404, "unknown_app")?;
    admin.post(&format!("{path}/all/restart?wait=30s")).await?.problem(404, "unknown_app")?;
    admin.post(&format!("{path}/web/explode")).await?.problem(404, "unknown_action")?;
    admin
        .post("/api/commands/vm1/slots/zz/restart?wait=30s")
        .await?
        .problem(404, "unknown_slot")?;
    admin.get("/api/commands/never-heard-of").await?.problem(404, "unknown_command")?;
    admin.get("/api/servers/vm9").await?.problem(404, "unknown_server")?;
    admin.get("/api/servers/vm9/apps").await?.problem(404, "unknown_server")?;
    admin.get("/api/servers/vm1/apps/nobody").await?.problem(404, "unknown_app")?;
    admin.get("/api/nothing").await?.problem_of(404)?;
    admin.send(admin.request(Method::PUT, "/metrics")).await?.problem_of(405)?;
    admin.post(&format!("{path}/web/restart?wait=soon")).await?.problem_of(400)?;
    admin.get("/api/events?limit=10001").await?.problem_of(400)?;
    admin.get("/api/events?severity=loud").await?.problem_of(400)?;
    admin.get("/api/events?since=yesterday").await?.problem_of(400)?;
    admin.get("/api/commands?status=odd").await?.problem_of(400)?;
    admin.get("/api/servers?status=odd").await?.problem_of(400)?;
    let history = "/api/servers/vm1/apps/web/metrics";
    admin.get(&format!("{history}?metric=memory&from=never")).await?.problem_of(400)?;
    assert_eq!(run_of(&pm2)?, before);

    // What was refused is on record where it was asked for in earnest.
    let refused: Value = admin.json("/api/commands?status=refused").await?;
    let refused = refused["commands"].as_array().context("no commands")?;
    assert!(!refused.is_empty(), "nothing is on record");
    assert!(refused.iter().all(|record| record["requested_by"] == "admin"), "{refused:?}");
    let succeeded: Value = admin.json("/api/commands?status=succeeded").await?;
    assert_eq!(succeeded["commands"].as_array().map(Vec::len), Some(0));
    Ok(())
}

#[tokio::test]
async fn the_poller_asks_who_you_are() -> Result<()> {
    let pm2 = web().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    let launch = scene::poller_launch(&[Server::of("vm1", &exporter)], "")?;
    let configuration = launch.folder().join("configuration.toml").display().to_string();
    let mut clients = Vec::new();
    for role in ["viewer", "operator", "admin"] {
        clients.push((role, fleet::new_poller_token(&configuration, role, role).await?));
    }
    let poller = launch.start().await?;
    let nobody = poller.client();
    let before = run_of(&pm2)?;
    let restart = "/api/commands/vm1/apps/web/restart?wait=30s";
    let reads = [
        "/metrics",
        "/api/servers",
        "/api/servers/vm1",
        "/api/servers/vm1/apps",
        "/api/events",
        "/api/commands",
        "/sd/prometheus",
        "/api/me",
        "/api/servers/vm1/slots",
        "/api/servers/vm1/apps/web/metrics?metric=memory",
    ];
    let strangers = [
        nobody.clone(),
        nobody.with_token("pm2p_000000000000000000000000000000000000"),
        // A token of the exporter is none of the poller.
        nobody.with_token(&exporter.token),
    ];
    for stranger in &strangers {
        for path in reads {
            stranger.get(path).await?.problem(401, "unauthorized")?;
        }
        stranger.post(restart).await?.problem(401, "unauthorized")?;
        stranger.get("/healthz").await?.ok()?;
        assert!(matches!(stranger.get("/readyz").await?.status, 200 | 503));
    }
    let client = |wanted: &str| -> Result<Client> {
        let (_, token) = clients.iter().find(|(role, _)| *role == wanted).context("no role")?;
        Ok(nobody.with_token(token))
    };
    let viewer = client("viewer")?;
    e2e::wait_until("it is polled", SOON, async || {
        let app = viewer.get("/api/servers/vm1/apps/web").await.ok()?;
        (app.status == 200).then_some(())
    })
    .await?;
    for path in reads {
        viewer.get(path).await?.ok()?;
    }
    viewer.post(restart).await?.problem(403, "forbidden")?;
    viewer.get("/api/audit").await?.problem(403, "forbidden")?;
    assert_eq!(run_of(&pm2)?, before);

    let operator = client("operator")?;
    operator.get("/api/audit").await?.problem(403, "forbidden")?;
    let record = scene::succeeded(&operator.post(restart).await?)?;
    assert_eq!(record["requested_by"], "operator");
    assert_ne!(run_of(&pm2)?, before);
    let audit: Value = client("admin")?.json("/api/audit?outcome=refused").await?;
    let refused = audit["audit"].as_array().context("no audit")?;
    assert!(refused.iter().any(|row| row["who"] == "viewer"), "{audit}");
    let me: Value = client("admin")?.json("/api/me").await?;
    assert_eq!(me["role"], "admin", "{me}");
    Ok(())
}

#[tokio::test]
async fn anonymous_read_opens_reading_and_nothing_else() -> Result<()> {
    let pm2 = web().await?;
    let exporter = scene::guarded_exporter(pm2.home(), "anonymous_read = true").await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "anonymous_read = true").await?;
    poller.wait_for("vm1", "online").await?;
    wait_for_instances(exporter.program.client(), "web", Status::Online, 1).await?;
    let before = run_of(&pm2)?;
    let (one, two) = (exporter.program.client(), poller.program.client());
    for path in ["/", "/metrics", "/api/state", "/api/processes"] {
        one.get(path).await?.ok()?;
    }
    for path in ["/", "/metrics", "/api/servers", "/api/events"] {
        two.get(path).await?.ok()?;
    }
    one.post("/api/processes/web/restart").await?.problem(401, "unauthorized")?;
    two.post("/api/commands/vm1/apps/web/restart").await?.problem(401, "unauthorized")?;
    // A wrong token is not taken for none.
    one.with_token("pm2x_wrong").get("/api/state").await?.problem(401, "unauthorized")?;
    two.with_token("pm2p_wrong").get("/api/servers").await?.problem(401, "unauthorized")?;
    assert_eq!(run_of(&pm2)?, before);
    Ok(())
}
