//! Secrets of the programs' own, planted wherever people give one: in no answer, page, table, error, file,
//! copy of the database, or log at trace level is one of them told.

use std::path::Path;

use anyhow::{Context, Result};
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Client, FakePm2, Launch, Port, SOON, pm2_process, wait_until};
use reqwest::Method;
use serde_json::{Value, json};
use wire::Status;

/// How every one of them begins; what follows says from where it came.
const PLANTED: &str = "canary-of-";

fn clean(place: &str, text: &str) -> Result<()> {
    let Some((before, found)) = text.split_once(PLANTED) else { return Ok(()) };
    let found: String = found.chars().take(30).collect();
    let before: String = before.chars().rev().take(80).collect();
    let before: String = before.chars().rev().collect();
    anyhow::bail!("{PLANTED}{found:?} in {place} after {before:?}");
}

/// Everything in a folder but the files that are there to hold a secret.
fn clean_files(folder: &Path, kept: &[&str]) -> Result<u32> {
    let mut checked = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if kept.contains(&name.as_str()) {
            continue;
        }
        checked += 1;
        if path.is_dir() {
            checked += clean_files(&path, kept)?;
        } else if let Ok(bytes) = std::fs::read(&path) {
            clean(&path.display().to_string(), &String::from_utf8_lossy(&bytes))?;
        }
    }
    Ok(checked)
}

/// What is answered, whatever it is, tells nothing.
async fn sent(client: &Client, method: Method, path: &str, body: &Value) -> Result<u16> {
    let answer = client.send(client.request(method, path).json(body)).await?;
    clean(path, &answer.text)?;
    clean(path, &format!("{:?}", answer.headers))?;
    Ok(answer.status)
}

#[tokio::test]
async fn what_people_give_in_confidence_is_told_nowhere() -> Result<()> {
    // An exporter that relays a page by a secret address, whose reader has a password.
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let (page, nowhere) = (Port::free()?, Port::free()?);
    let relay = format!(
        "log_level = \"trace\"\n[[relay]]\napp = \"app-0\"\n\
         url = \"http://{}/metrics?key=canary-of-relay\"\n",
        page.address()
    );
    let exporter = scene::guarded_exporter(fake.home(), &relay).await?;
    wait_for_instances(&exporter.read, "app-0", Status::Online, 1).await?;

    // A poller that tells alerts to secret addresses, and makes copies of itself.
    let servers = [Server::of("vm1", &exporter)];
    let hooks = "log_level = \"trace\"\n[backup]\ndir = \"copies\"\nevery = \"1h\"\nkeep = 2\n\
         [[notify]]\nname = \"chat\"\ntype = \"slack\"\nurl_file = \"chat.url\"\n\
         [[notify]]\nname = \"hook\"\ntype = \"webhook\"\nurl_file = \"hook.url\"\n\
         token_file = \"hook.token\"\nheader_files = { X-Key = \"hook.key\" }\n";
    let launch = Launch::poller()?;
    let base = format!("http://{}", nowhere.address());
    for (file, text) in [
        ("chat.url", format!("{base}/services/T0/B0/canary-of-slack")),
        ("hook.url", format!("{base}/hook?secret=canary-of-hook")),
        ("hook.token", "canary-of-hook-token".to_owned()),
        ("hook.key", "canary-of-hook-key".to_owned()),
    ] {
        e2e::fleet::write_secret(&launch.folder().join(file), &text)?;
    }
    let text = scene::poller_configuration(&launch, &servers, hooks)?;
    let launch = launch.configuration(&text)?;
    let folder = launch.folder().path().to_owned();
    let file = folder.join("configuration.toml").display().to_string();
    let token = e2e::fleet::new_poller_token(&file, "admin", "admin").await?;
    for arguments in [vec!["notify", "test", "chat"], vec!["notify", "test", "hook"], vec!["check"]]
    {
        let all = [arguments, vec!["--config", &file]].concat();
        let ended = Launch::poller()?.with(&all).run().await?;
        clean(&format!("{all:?}"), &(ended.stdout + &ended.stderr))?;
    }
    let poller = launch.start().await?;
    let admin = poller.client().with_token(&token);
    let anybody = poller.client();
    wait_until("vm1 is online", SOON, async || {
        let server: Value = admin.json("/api/servers/vm1").await.ok()?;
        (server["status"] == "online").then_some(())
    })
    .await?;

    // Passwords and sessions.
    let password = "canary-of-password";
    let user = json!({"name": "alice", "role": "operator", "password": password});
    assert_eq!(sent(&admin, Method::POST, "/api/users", &user).await?, 201);
    let wrong = json!({"name": "bob", "role": "canary-of-role", "password": [password]});
    assert_eq!(sent(&admin, Method::POST, "/api/users", &wrong).await?, 400);
    let new = json!({"password": "canary-of-new-password"});
    assert_eq!(sent(&admin, Method::PATCH, "/api/users/alice", &new).await?, 200);
    let sign_in = async |form: &[(&str, &str)]| {
        let fields: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = anybody
            .request(Method::POST, "/login")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(fields.join("&"));
        let answer = anybody.send(request).await?;
        clean("POST /login", &answer.text)?;
        anyhow::Ok(answer)
    };
    sign_in(&[("name", "alice"), ("password", "canary-of-a-guess")]).await?;
    sign_in(&[("token", "canary-of-a-token")]).await?;
    let signed_in = sign_in(&[("name", "alice"), ("password", "canary-of-new-password")]).await?;
    let cookie = signed_in.header("set-cookie").split(';').next().context("none")?.to_owned();
    let cookie_value = cookie.split('=').nth(1).context("no value")?.to_owned();
    let own = json!({"old": "canary-of-old", "new": "canary-of-newer"});
    let request = anybody.request(Method::PUT, "/api/me/password").json(&own);
    let with = request.header("cookie", &cookie).header("sec-fetch-site", "same-origin");
    let answer = anybody.send(with).await?;
    clean("PUT /api/me/password", &answer.text)?;
    for wrong in ["Bearer canary-of-bearer", "Basic Y2FuYXJ5LW9mLWJhc2lj", "canary-of-scheme"] {
        for client in [anybody, exporter.program.client()] {
            let path = if client.url("") == anybody.url("") { "/api/me" } else { "/api/state" };
            let request = client.request(Method::GET, path).header("authorization", wrong);
            let answer = client.send(request).await?;
            assert_eq!(answer.status, 401, "{wrong}");
            clean(path, &answer.text)?;
        }
    }

    // Tokens of exporters, and addresses that hold secrets.
    let secret = |name: &str| format!("{PLANTED}{name}");
    let added = json!({"id": "vm2", "url": base, "token": secret("exporter-token")});
    assert_eq!(sent(&admin, Method::POST, "/api/servers", &added).await?, 201);
    let changed = json!({"token": secret("another-token")});
    assert_eq!(sent(&admin, Method::PATCH, "/api/servers/vm2", &changed).await?, 200);
    for wrong in [
        json!({"id": "vm3", "url": format!("http://u:{}@127.0.0.1:1", secret("url"))}),
        json!({"id": "vm3", "url": format!("http://127.0.0.1:1?{}", secret("query"))}),
        json!({"id": "vm3", "url": base, "token": format!("{} {}", secret("a"), secret("b"))}),
        json!({"id": "vm3", "url": base, "make_token": secret("not-a-truth")}),
        json!({"id": "vm3", "url": base, "token": {"is": secret("an-object")}}),
    ] {
        assert_eq!(sent(&admin, Method::POST, "/api/servers", &wrong).await?, 400);
    }

    // Values of commands, at both programs, taken and refused, at once and to be kept.
    let deploy = json!({
        "repository": format!("https://u:{}@git.test/x.git", secret("repository")),
        "env": {"A": secret("deploy-env")}, "build": format!("make KEY={}", secret("build")),
    });
    for (path, body) in [
        ("apps/app-0/env", json!({"env": {"KEY": secret("env")}})),
        ("apps/app-0/env", json!({"env": secret("no-table")})),
        ("apps/app-0/env", json!({"env": {"KEY": {"a": secret("no-text")}}})),
        ("apps/app-0/trigger", json!({"action": "x", "params": secret("params")})),
        ("apps/app-0/restart", json!({"env": secret("not-taken")})),
        ("slots/a/env", json!({"env": {"KEY": secret("slot-env")}})),
        ("slots/a/deploy", deploy.clone()),
        ("slots/a/deploy", json!({"repository": "https://git.test/x.git", "env": secret("no")})),
        ("slots/a/deploy", json!({"repository": [secret("list")]})),
    ] {
        for query in ["wait=5s", "queue=10m&wait=1s", "queue=8d"] {
            let path = format!("/api/commands/vm1/{path}?{query}");
            sent(&admin, Method::POST, &path, &body).await?;
        }
        let own = match path.split_once('/') {
            Some(("apps", rest)) => (Method::POST, format!("/api/processes/{rest}?wait=5s")),
            _ if path.ends_with("env") => (Method::PUT, "/api/slots/a/env?wait=5s".to_owned()),
            _ => (Method::POST, "/api/slots/a/deploy?wait=5s".to_owned()),
        };
        sent(&exporter.control, own.0, &own.1, &body).await?;
    }
    let many = json!({"select": {"app": "app-0"}, "action": "env", "save": false,
                      "body": {"env": {"KEY": secret("selection")}}});
    sent(&admin, Method::POST, "/api/commands?wait=5s", &many).await?;
    let put = json!({"target": {"app": "app-0"}, "action": "env",
                     "arguments": {"KEY": secret("arguments")}, "deploy": deploy});
    sent(&exporter.control, Method::PUT, "/api/commands/one?wait=5s", &put).await?;
    let admins_own = [token.as_str(), &exporter.token, &cookie_value];

    // Everything that there is to read.
    let command: Value = admin.json("/api/commands").await?;
    let command = command["commands"][0]["id"].as_str().context("no command")?.to_owned();
    for path in [
        "/",
        "/servers/vm1",
        "/servers/vm2",
        "/servers/vm1/apps/app-0",
        "/servers/vm1/apps/app-0/env",
        "/events",
        "/commands",
        &format!("/commands/{command}"),
        "/audit",
        "/sessions",
        "/metrics",
        "/sd/prometheus",
        "/api/me",
        "/api/servers",
        "/api/servers/vm1",
        "/api/servers/vm2",
        "/api/users",
        "/api/tokens?all=true",
        "/api/sessions",
        "/api/commands?limit=1000",
        &format!("/api/commands/{command}"),
        "/api/selections",
        "/api/events?limit=1000",
        "/api/audit?limit=1000",
        "/api/audit?format=csv",
        "/api/audit?format=jsonl",
    ] {
        let answer = admin.get(path).await?;
        assert_eq!(answer.status, 200, "{path}");
        clean(path, &answer.text)?;
        for own in admins_own {
            assert!(!answer.text.contains(own), "a token or cookie in {path}");
        }
    }
    for path in ["/", "/metrics", "/api/state", "/api/journal?after=0&limit=10000", "/readyz"] {
        clean(path, &exporter.control.get(path).await?.text)?;
    }
    let copy = folder.join("by-hand.db").display().to_string();
    let ended = Launch::poller()?.with(&["backup", &copy, "--config", &file]).run().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    for (name, program, kept) in [
        // A slot's own variables are in a file that only its user reads.
        ("exporter", exporter.program, &["configuration.toml", "a.json"][..]),
        (
            "poller",
            poller,
            &["chat.url", "hook.url", "hook.token", "hook.key", "vm1.token", "exporter-tokens"][..],
        ),
    ] {
        let launch = program.launch();
        let ended = program.stop(SOON).await?;
        let level = if name == "poller" { "TRACE" } else { "INFO" };
        assert!(ended.stderr.contains(level), "the {name} logs too little to show anything");
        clean(&format!("the log of the {name}"), &(ended.stderr.clone() + &ended.stdout))?;
        for own in admins_own {
            assert!(!ended.stderr.contains(own), "a token or cookie in the log of the {name}");
        }
        let checked = clean_files(launch.folder().path(), kept)?;
        assert!(name != "poller" || checked > 4, "{checked} files of the {name}");
    }
    Ok(())
}
