use serde_json::{Value, json};

use crate::stage::{Repo, Stage, server};
use e2e::SOON;

#[tokio::test]
async fn a_slot_is_deployed_rolled_back_stopped_and_restarted() {
    let stage = Stage::new().await;
    let repo = Repo::app("one");
    let first = stage.deployed("a", &repo).await;
    assert_eq!(stage.get("a", "/").await.unwrap(), "one");
    let slot = stage.slot("a").await;
    assert_eq!(slot["type"], "deployed");
    assert_eq!(slot["repository"], repo.url());
    assert_eq!(slot["commit"], first["commit"]);
    assert_eq!(slot["deployed_by"], "tester");

    repo.commit(&[("server.js", &server("two"))]);
    let second = stage.deployed("a", &repo).await;
    assert_eq!(stage.get("a", "/").await.unwrap(), "two");
    // Every process of the slot goes on with the same series.
    let page: Value = stage.client.get("/api/journal?limit=1000").await.unwrap().json().unwrap();
    let events = page["entries"].as_array().unwrap().iter().map(|it| &it["record"]["event"]);
    let online: Vec<&Value> = events
        .filter(|event| event["kind"] == "online" && event["app"] == "slot-a")
        .map(|event| &event["instance_id"])
        .collect();
    assert!(online.len() >= 2 && online.iter().all(|it| **it == 0), "{online:?}");
    // To the former, and back again; then to one by its id.
    for (body, text) in
        [(json!({}), "one"), (json!({}), "two"), (json!({"deployment": first["id"]}), "one")]
    {
        let answer = stage.post("/api/slots/a/rollback?wait=150s", &body).await;
        let record: Value = answer.json().unwrap();
        assert_eq!(record["status"], "succeeded", "{record:#}");
        let [before, after] = [&record["before"], &record["after"]];
        for side in [before, after] {
            let one = side.as_array().is_some_and(|it| it.len() == 1);
            assert!(one && side[0]["name"] == "slot-a" && side[0]["pid"].is_u64(), "{record:#}");
        }
        assert_ne!(before[0]["pid"], after[0]["pid"], "{record:#}");
        assert_eq!(stage.get("a", "/").await.unwrap(), text);
    }
    let answer =
        stage.post("/api/slots/a/rollback?wait=150s", &json!({"deployment": "nope"})).await;
    assert!(answer.text.contains("is not kept"), "{}", answer.text);

    let log = stage
        .client
        .get(&format!(
            "/api/slots/a/deployments/{}/log?follow=true",
            second["id"].as_str().unwrap()
        ))
        .await
        .unwrap();
    for word in ["==> cloning", "==> probing", "==> switching", "==> done"] {
        assert!(log.text.contains(word), "{}", log.text);
    }
    let stopped = stage.post("/api/slots/a/stop?wait=150s", &json!({})).await;
    assert!(stopped.text.contains("succeeded"), "{}", stopped.text);
    assert!(stage.get("a", "/health").await.unwrap().contains("placeholder"));
    assert_eq!(stage.slot("a").await["type"], "placeholder");
    let back = stage.post("/api/slots/a/rollback?wait=150s", &json!({})).await;
    assert!(back.text.contains("succeeded"), "{}", back.text);
    assert_eq!(stage.get("a", "/").await.unwrap(), "one");
    // The old admin panel's calls, with the bare slot id.
    let causes = async || {
        let state: Value = stage.client.json("/api/state").await.unwrap();
        let slot = state["processes"].as_array().unwrap().iter().find(|it| it["name"] == "slot-a");
        let restarts = &slot.unwrap()["restarts"];
        ["deploy", "manual"].map(|cause| restarts[cause].as_u64().unwrap_or_default())
    };
    let [deploys, by_hand] = causes().await;
    assert!(deploys >= 7, "each switch, the stop and back again: {deploys}");
    let old = stage.post("/api/restart/a", &json!({})).await;
    assert_eq!(old.json::<Value>().unwrap()["success"], true, "{}", old.text);
    // What is started anew as it was is restarted, by whichever address.
    assert_eq!(causes().await, [deploys, by_hand + 1]);
    let env = json!({"env": {"OWN": "x"}});
    for (path, body) in [("restart", json!({})), ("env", env)] {
        let path = format!("/api/slots/a/{path}?wait=150s");
        let answer = match body.get("env") {
            None => stage.post(&path, &body).await,
            Some(_) => stage.client.put(&path, &body).await.unwrap(),
        };
        assert!(answer.text.contains("succeeded"), "{}", answer.text);
    }
    assert_eq!(causes().await, [deploys, by_hand + 3]);
    let status: Value = stage.client.json("/api/processes/a/status").await.unwrap();
    assert_eq!(status["type"], "deployed");
    assert_eq!(status["pm2"]["name"], "slot-a");
    let old = stage.post("/api/processes/a/stop", &json!({})).await;
    assert_eq!(old.json::<Value>().unwrap()["success"], true, "{}", old.text);
    assert!(stage.get("a", "/health").await.unwrap().contains("placeholder"));
    stage.at_rest("a").await;
    stage.at_rest("b").await;
}

#[tokio::test]
async fn values_go_in_and_only_names_come_out() {
    let stage = Stage::new().await;
    let repo = Repo::app("one");
    let deployment = stage
        .deploy(
            "a",
            json!({"repository": repo.url(), "env": {"DEPLOYED": "canary-deployment\ncanary-line"},
                   "build": ["node", "-e", "console.log(process.env.DEPLOYED, JSON.stringify(process.env), 'printed')"],
                   "start": ["node", "server.js", "--token=canary-argument"],
                   "health_path": "/?canary-query"}),
        )
        .await;
    assert_eq!(deployment["status"], "healthy", "{deployment:#}");
    assert_eq!(deployment["env_names"], json!(["DEPLOYED"]));
    let request = json!({"env": {"OWN": "canary-own"}});
    let answer = stage.client.put("/api/slots/a/env?wait=150s", &request).await.unwrap();
    assert!(answer.text.contains("succeeded"), "{}", answer.text);
    let env: Value = serde_json::from_str(&stage.get("a", "/env").await.unwrap()).unwrap();
    for (name, value) in [
        ("WORKSPACE", "canary-workspace"),
        ("OWN", "canary-own"),
        ("DEPLOYED", "canary-deployment\ncanary-line"),
        ("SLOT_NAME", "a"),
        ("NODE_ENV", "production"),
        ("PORT", &stage.ports["a"].to_string()),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
    // A variable is taken away again.
    let request = json!({"env": {"OWN": null}});
    stage.client.put("/api/slots/a/env?wait=150s", &request).await.unwrap();
    assert!(!stage.get("a", "/env").await.unwrap().contains("canary-own"));
    stage
        .client
        .put("/api/slots/a/env?wait=150s", &json!({"env": {"OWN": "canary-own"}}))
        .await
        .unwrap();
    let id = deployment["id"].as_str().unwrap();
    let mut shown = stage.log();
    for path in [
        "/api/slots".to_owned(),
        "/api/slots/a".to_owned(),
        "/api/state".to_owned(),
        "/api/journal".to_owned(),
        "/metrics".to_owned(),
        "/api/slots/a/deployments".to_owned(),
        format!("/api/slots/a/deployments/{id}"),
        format!("/api/slots/a/deployments/{id}/log"),
        format!("/api/commands/{id}"),
    ] {
        let answer = stage.client.get(&path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        shown += &answer.text;
    }
    let wrong = json!({"env": {"OWN": ["canary-wrong"], "pm_exec_path": "canary-wrong"}});
    shown += &stage.client.put("/api/slots/a/env", &wrong).await.unwrap().text;
    let wrong = json!({"env": {"pm_exec_path": "canary-wrong"}});
    let refused = stage.client.put("/api/slots/a/env", &wrong).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text);
    shown += &refused.text;
    shown += &stage.slots(&["status"]).0;
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("OWN"));
    // Only their owner can read the files that hold them.
    use std::os::unix::fs::PermissionsExt;
    for file in ["state/a.json", "ecosystem.config.js"] {
        let mode = std::fs::metadata(stage.root().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
}

#[tokio::test]
async fn a_variable_is_what_it_was_set_to_last() {
    let stage = Stage::new().await;
    let repo = Repo::app("one");
    let deploy = |env: Value| stage.deploy("a", json!({"repository": repo.url(), "env": env}));
    let colour = async || -> Value {
        let env: Value = serde_json::from_str(&stage.get("a", "/env").await.unwrap()).unwrap();
        env["COLOR"].clone()
    };
    let set = async |value: Value| {
        let request = json!({"env": {"COLOR": value}});
        let answer = stage.client.put("/api/slots/a/env?wait=150s", &request).await.unwrap();
        assert!(answer.text.contains("succeeded"), "{}", answer.text);
    };
    let back = async || {
        let answer = stage.post("/api/slots/a/rollback?wait=150s", &json!({})).await;
        assert!(answer.text.contains("succeeded"), "{}", answer.text);
    };
    deploy(json!({"COLOR": "red"})).await;
    assert_eq!(colour().await, "red");
    set(json!("blue")).await;
    assert_eq!(colour().await, "blue");
    deploy(json!({"COLOR": "green"})).await;
    assert_eq!(colour().await, "green");
    // What was deployed with red was set to blue since; green was never taken back.
    back().await;
    assert_eq!(colour().await, "blue");
    back().await;
    assert_eq!(colour().await, "green");
    set(json!(null)).await;
    assert_eq!(colour().await, Value::Null);
    stage.at_rest("a").await;
}

#[tokio::test]
async fn a_folder_of_a_monorepo_a_branch_a_tag_and_a_commit_are_deployed() {
    let stage = Stage::new().await;
    let repo = Repo::new(&[
        ("package.json", "{}"),
        (
            "apps/web/package.json",
            r#"{"scripts":{"build":"node build.js","start":"node out/server.js"}}"#,
        ),
        (
            "apps/web/build.js",
            "require('fs').mkdirSync('out'); require('fs').copyFileSync('src.js', 'out/server.js')",
        ),
        ("apps/web/src.js", &server("built")),
    ]);
    let first = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["tag", "v1"]);
    repo.git(&["checkout", "-q", "-b", "feature/x"]);
    repo.commit(&[("apps/web/src.js", &server("feature"))]);
    for (more, text) in [
        (json!({"branch": "feature/x"}), "feature"),
        (json!({"branch": "v1"}), "built"),
        (json!({"branch": "feature/x", "commit": first}), "built"),
    ] {
        let mut body = json!({"repository": repo.url(), "subdir": "apps/web"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let deployment = stage.deploy("a", body).await;
        assert_eq!(deployment["status"], "healthy", "{deployment:#}");
        assert_eq!(stage.get("a", "/").await.unwrap(), text);
    }
}

#[tokio::test]
async fn ssh_is_run_without_a_shell_or_a_question() {
    let stage = Stage::new().await;
    let repo = Repo::app("over ssh");
    let seen = stage.pm2.folder().join("ssh-seen");
    // Stands in for ssh: does here what it is asked to do there.
    stage.program(
        "ssh",
        &format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\nfor last; do :; done\nexec sh -c \"$last\"\n",
            seen.display()
        ),
    );
    let path = repo.path().display().to_string();
    for address in
        [format!("ssh://git@host.example:2222{path}"), format!("git@host.example:{path}")]
    {
        let deployment = stage.deploy("a", json!({"repository": address})).await;
        assert_eq!(deployment["status"], "healthy", "{deployment:#}");
        assert_eq!(stage.get("a", "/").await.unwrap(), "over ssh");
    }
    let words = std::fs::read_to_string(seen).unwrap();
    assert!(words.starts_with("-oBatchMode=yes\n"), "{words}");
    assert!(words.contains("git@host.example\n") && words.contains("-p\n2222\n"), "{words}");
}

#[tokio::test]
async fn packages_are_installed_by_npm_and_commands_may_be_given() {
    let stage = Stage::new().await;
    // Dependencies within the repository need no registry.
    let repo = Repo::new(&[
        (
            "package.json",
            r#"{"name":"x","version":"1.0.0","main":"server","dependencies":{"word":"file:word"}}"#,
        ),
        ("word/package.json", r#"{"name":"word","version":"1.0.0","main":"index.js"}"#),
        ("word/index.js", "module.exports = 'installed'"),
        (
            "server.js",
            "require('http').createServer((q, r) => r.end(require('word'))).listen(process.env.PORT)",
        ),
    ]);
    let deployment = stage.deployed("a", &repo).await;
    assert_eq!(deployment["start"], "node server.js");
    assert_eq!(stage.get("a", "/").await.unwrap(), "installed");
    let given = Repo::new(&[
        ("make.js", "require('fs').writeFileSync(process.argv[2] + '.txt', process.argv[3])"),
        (
            "run.js",
            "const t = require('fs').readFileSync('a.txt') + process.argv[2]; require('http').createServer((q, r) => { r.statusCode = q.url === '/well' ? 200 : 500; r.end(t) }).listen(process.env.PORT)",
        ),
    ]);
    let deployment = stage
        .deploy(
            "a",
            json!({"repository": given.url(), "install": [], "build": "node make.js a 'b c'",
                   "start": ["node", "run.js", "d e"], "health_path": "/well"}),
        )
        .await;
    assert_eq!(deployment["status"], "healthy", "{deployment:#}");
    assert_eq!(stage.get("a", "/").await.unwrap(), "b cd e");
}

#[tokio::test]
async fn a_command_of_the_poller_runs_once_whatever_is_retried() {
    let mut stage = Stage::new().await;
    let repo = Repo::app("one");
    let command = json!({"target": {"slot": "a"}, "action": "deploy",
                         "deploy": {"repository": repo.url()}});
    let path = "/api/commands/the-id?wait=150s";
    let (one, two) =
        tokio::join!(stage.client.put(path, &command), stage.client.put(path, &command));
    for answer in [one.unwrap(), two.unwrap()] {
        assert_eq!(answer.json::<Value>().unwrap()["status"], "succeeded", "{}", answer.text);
    }
    let other = json!({"target": {"slot": "b"}, "action": "stop"});
    assert_eq!(stage.client.put(path, &other).await.unwrap().status, 422);
    let list = async |stage: &Stage| -> usize {
        let list: Value = stage.client.json("/api/slots/a/deployments").await.unwrap();
        list["deployments"].as_array().unwrap().len()
    };
    assert_eq!(list(&stage).await, 1);
    // The exporter's end is no reason to deploy again.
    stage.kill();
    stage.serve().await;
    let again = stage.client.put(path, &command).await.unwrap();
    assert_eq!(again.json::<Value>().unwrap()["status"], "succeeded", "{}", again.text);
    assert_eq!(list(&stage).await, 1);
    let metrics = stage.client.get("/metrics").await.unwrap().text;
    let line = "pm2_slot_deploys_total{slot=\"a\",result=\"healthy\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("pm2_slot_last_deploy_timestamp_seconds{slot=\"a\"}"), "{metrics}");
    let rollback = json!({"target": {"slot": "a"}, "action": "rollback"});
    let answer = stage.client.put("/api/commands/back?wait=150s", &rollback).await.unwrap();
    assert_eq!(answer.json::<Value>().unwrap()["status"], "succeeded", "{}", answer.text);
}

#[tokio::test]
async fn each_action_needs_its_scope() {
    let mut settings = crate::stage::QUICK.to_owned();
    let mut tokens = Vec::new();
    for scope in ["read", "control", "deploy"] {
        let token = service::token::Token::new(service::token::Issuer::Exporter).unwrap();
        settings += &format!(
            "[[tokens]]\nname = \"{scope}\"\nsha256 = \"{}\"\nscopes = [\"{scope}\"]\n",
            token.hash()
        );
        tokens.push((scope, token));
    }
    let stage = Stage::with(&settings).await;
    let wrong = json!({"repository": "ftp://x"});
    let nothing = json!({});
    let command = |action: &str| json!({"target": {"slot": "a"}, "action": action, "deploy": if action == "deploy" { wrong.clone() } else { Value::Null }});
    for (scope, token) in &tokens {
        let client = stage.client.with_token(token.reveal().to_owned());
        let mut answers = Vec::new();
        for (method, path, body, allowed) in [
            (reqwest::Method::POST, "/api/slots/a/deploy", wrong.clone(), vec!["deploy"]),
            (
                reqwest::Method::PUT,
                "/api/slots/a/env",
                json!({"env": {"PORT": "1"}}),
                vec!["deploy"],
            ),
            (
                reqwest::Method::POST,
                "/api/slots/a/rollback",
                nothing.clone(),
                vec!["control", "deploy"],
            ),
            (
                reqwest::Method::POST,
                "/api/slots/a/restart",
                nothing.clone(),
                vec!["control", "deploy"],
            ),
            (reqwest::Method::POST, "/api/restart/a", nothing.clone(), vec!["control", "deploy"]),
            (
                reqwest::Method::POST,
                "/api/processes/slot-a/reset",
                nothing.clone(),
                vec!["control"],
            ),
            (reqwest::Method::PUT, "/api/commands/x1", command("deploy"), vec!["deploy"]),
            (reqwest::Method::GET, "/api/slots/a/deployments", Value::Null, vec!["read"]),
        ] {
            let answer = client.send(client.request(method, path).json(&body)).await.unwrap();
            let may = allowed.contains(scope);
            answers.push((path, answer.status, may));
            assert_eq!(answer.status != 403, may, "{scope} {path}: {}", answer.text);
        }
        assert!(!answers.is_empty());
    }
}

#[tokio::test]
async fn only_five_releases_are_kept_and_many_deployments_wait_their_turn() {
    let stage =
        Stage::with("probe_attempts = 60\nprobe_interval = \"500ms\"\nsettle = \"0s\"\n").await;
    let repo = Repo::app("one");
    let body = json!({"repository": repo.url()});
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.push(stage.post("/api/slots/a/deploy", &body).await);
    }
    let busy = taken.iter().filter(|answer| answer.status == 503).count();
    assert!(busy > 0, "the queue has a bound");
    for answer in taken.iter().filter(|answer| answer.status != 503) {
        let id = answer.json::<Value>().unwrap()["id"].as_str().unwrap().to_owned();
        e2e::wait_until("each has its turn", SOON, async || {
            let path = format!("/api/slots/a/deployments/{id}");
            let value: Value = stage.client.json(&path).await.ok()?;
            (value["status"] == "healthy").then_some(())
        })
        .await
        .unwrap();
    }
    stage.at_rest("a").await;
    let releases = std::fs::read_dir(stage.root().join("releases/a")).unwrap().count();
    assert_eq!(releases, 5);
}
