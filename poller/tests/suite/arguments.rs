//! Commands that take something: passed on whole, and their secrets kept nowhere.

use std::time::Duration;

use crate::support::exporter::Obedience;
use crate::support::{Exporter, Poller, config, until};
use pm2_poller::access::Role;
use serde_json::{Value, json};

const API: &str = "/api/commands/vm1/apps/api";
const SLOT: &str = "/api/commands/vm1/slots/a";

async fn start() -> (Exporter, Poller, String) {
    start_with(Duration::from_secs(20)).await
}

/// Where a command may take so long.
async fn start_with(timeout: Duration) -> (Exporter, Poller, String) {
    let exporter = Exporter::start().await;
    let mut config = config(vec![exporter.target("vm1")]);
    config.command_timeout = timeout;
    let poller = Poller::with(config).await;
    poller.until_status("vm1", "online").await;
    let token = poller.token("ci", Role::Operator, &[]).await;
    (exporter, poller, token)
}

#[tokio::test]
async fn each_action_is_passed_on_with_what_it_takes() {
    let (exporter, poller, token) = start().await;
    let app = json!({"app": "api"});
    let slot = json!({"slot": "a"});
    let deploy = json!({
        "repository": "https://git.test/shop.git", "branch": "main", "install": ["npm", "ci"],
        "env": {"KEY": "v"}, "timeout": "5m", "reclaim": true,
    });
    let cases: [(&str, Value, Value); 10] = [
        (
            "/apps/api/env",
            json!({"env": {"A": "1", "B": ""}}),
            json!({"target": app, "action": "env", "arguments": {"A": "1", "B": ""}}),
        ),
        (
            "/apps/api/signal?save=false",
            json!({"signal": "SIGUSR2"}),
            json!({"target": app, "action": "signal", "arguments": {"signal": "SIGUSR2"}}),
        ),
        (
            "/apps/api/trigger",
            json!({"action": "clean", "params": {"deep": true}}),
            json!({"target": app, "action": "trigger",
                   "arguments": {"action": "clean", "params": "{\"deep\":true}"}}),
        ),
        (
            "/apps/api/scale?save=true",
            json!({"instances": 4}),
            json!({"target": app, "action": "scale", "save": true,
                   "arguments": {"instances": "4"}}),
        ),
        ("/apps/api/flush", json!({}), json!({"target": app, "action": "flush"})),
        (
            "/apps/api/restart?save=true",
            json!({}),
            json!({"target": app, "action": "restart", "save": true}),
        ),
        (
            "/slots/a/deploy",
            deploy.clone(),
            json!({"target": slot, "action": "deploy", "deploy": deploy}),
        ),
        (
            "/slots/a/rollback",
            json!({"deployment": "d1"}),
            json!({"target": slot, "action": "rollback", "arguments": {"deployment": "d1"}}),
        ),
        (
            "/slots/a/stop",
            json!({"reclaim": true}),
            json!({"target": slot, "action": "stop", "arguments": {"reclaim": "true"}}),
        ),
        (
            "/slots/a/env",
            json!({"env": {"A": "1", "OLD": null}}),
            json!({"target": slot, "action": "env", "env": {"env": {"A": "1", "OLD": null}}}),
        ),
    ];
    for (path, body, sent) in cases {
        let path = format!("/api/commands/vm1{path}");
        let answer = poller.post_json(&token, &path, &body, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.json()["status"], "succeeded");
        assert_eq!(exporter.lock().asked.last(), Some(&sent), "{path}");
    }
    let ran = exporter.lock().asked.len();
    for (path, body) in [
        ("/apps/api/env", json!({"env": {"A": 1}})),
        ("/apps/api/scale", json!({"instances": "4"})),
        ("/apps/api/signal", json!({})),
        ("/apps/api/scale?save=perhaps", json!({"instances": 4})),
        ("/slots/a/deploy", json!({})),
        ("/slots/a/env", json!({})),
        ("/slots/a/env", json!({"env": {"A": 1}})),
        ("/slots/a/stop", json!({"deployment": "d1"})),
        ("/slots/a/stop?save=true", json!({})),
    ] {
        let answer =
            poller.post_json(&token, &format!("/api/commands/vm1{path}"), &body, None).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (400, "bad_request"),
            "{path}"
        );
    }
    let viewer = poller.token("viewer", Role::Viewer, &[]).await;
    let body = json!({"env": {"A": "1"}});
    let answer = poller.post_json(&viewer, &format!("{API}/env"), &body, None).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"));
    assert_eq!(exporter.lock().asked.len(), ran, "nothing wrong was sent");
}

#[tokio::test]
async fn names_are_kept_and_values_nowhere() {
    let (exporter, poller, token) = start().await;
    let cases = [
        ("/apps/api/env", json!({"env": {"A": "canary-1", "B": "canary-2"}}), "env: A, B"),
        ("/apps/api/trigger", json!({"action": "clean", "params": "canary-3"}), "action: clean"),
        (
            "/slots/a/deploy",
            json!({"repository": "https://me:canary-4@git.test/shop.git", "env": {"KEY": "canary-5"}}),
            "repository: https://git.test/shop.git; env: KEY",
        ),
        ("/slots/a/env", json!({"env": {"A": "canary-6", "B": null}}), "env: A, B"),
    ];
    let mut said = String::new();
    for obedience in [Obedience::Good, Obedience::Echo, Obedience::Forget] {
        exporter.lock().obedience = obedience.clone();
        for (n, (path, body, kept)) in cases.iter().enumerate() {
            let key = format!("{obedience:?}{n}");
            let path = format!("/api/commands/vm1{path}");
            let answer = poller.post_json(&token, &path, body, Some(&key)).await;
            said.push_str(&answer.body);
            let list = poller.get_as(&token, "/api/commands?limit=1").await;
            assert_eq!(list.json()["commands"][0]["summary"], *kept, "{list:?}");
            said.push_str(&list.body);
        }
    }
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let audit = poller.get_as(&admin, "/api/audit?limit=100").await;
    assert!(audit.body.contains("env: A, B"), "{audit:?}");
    said.push_str(&audit.body);
    for path in ["/commands", "/metrics"] {
        said.push_str(&poller.get_as(&admin, path).await.body);
    }
    assert!(!said.contains("canary"), "{said}");
    let sent = exporter.lock().asked.iter().filter(|it| it.to_string().contains("canary")).count();
    assert_eq!(sent, 12, "they were passed on");
    let database = poller.database();
    let folder = poller.stop().await;
    for file in std::fs::read_dir(database.parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"canary"), "{}", path.display());
    }
    drop(folder);
}

#[tokio::test]
async fn a_key_names_one_body_also_after_a_restart() {
    let (exporter, poller, token) = start().await;
    let path = format!("{API}/env");
    let (one, two) = (json!({"env": {"A": "1", "B": "2"}}), json!({"env": {"A": "1", "B": "3"}}));
    let first = poller.post_json(&token, &path, &one, Some("k")).await;
    assert_eq!(first.status, 200);
    let id = first.json()["id"].clone();
    one_body(&poller, &token, &path, [&one, &two], &id).await;
    let poller = poller.restart(None).await;
    one_body(&poller, &token, &path, [&one, &two], &id).await;
    assert_eq!(exporter.lock().ran.len(), 1);
}

/// The key `k` stands for the first body and no other.
async fn one_body(poller: &Poller, token: &str, path: &str, [one, two]: [&Value; 2], id: &Value) {
    let same = poller.post_json(token, path, one, Some("k")).await;
    assert_eq!((same.status.as_u16(), &same.json()["id"]), (200, id));
    for (path, body) in [(path.to_owned(), two), (format!("{path}?save=true"), one)] {
        let other = poller.post_json(token, &path, body, Some("k")).await;
        assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));
        assert!(other.body.contains("another body"), "{other:?}");
    }
}

#[tokio::test]
async fn a_deployment_is_followed_beyond_the_time_of_other_commands() {
    let (exporter, poller, token) = start_with(Duration::from_secs(1)).await;
    let path = format!("{SLOT}/deploy?wait=100ms");
    let body = json!({"repository": "https://git.test/shop.git"});
    exporter.lock().obedience = Obedience::Later(Duration::from_millis(2500));
    let answer = poller.post_json(&token, &path, &body, None).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (202, &json!("running")));
    let location = answer.header("location").to_owned();
    assert_eq!(location, format!("/api/commands/{}", answer.json()["id"].as_str().unwrap()));
    until("it ends", async || {
        let status = poller.get_as(&token, &location).await.json()["status"].clone();
        assert_ne!(status, "unknown");
        status == "succeeded"
    })
    .await;
    // Another is under way while the poller is stopped and started.
    let answer = poller.post_json(&token, &path, &body, None).await;
    let location = answer.header("location").to_owned();
    exporter.lock().obedience = Obedience::Good;
    let poller = poller.restart(None).await;
    until("it ends", async || {
        let status = poller.get_as(&token, &location).await.json()["status"].clone();
        assert_ne!(status, "unknown");
        status == "succeeded"
    })
    .await;
    // What takes no longer than others is given up as they are.
    exporter.lock().obedience = Obedience::Later(Duration::from_secs(30));
    let answer = poller.post_json(&token, &format!("{SLOT}/restart"), &json!({}), None).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (504, "no_answer"));
}
