//! Commands for servers that are away: kept, sent once, expired, taken back.

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use pm2_poller::access::Role;
use pm2_poller::store::AuditFilter;
use serde_json::{Value, json};

use crate::support::exporter::{Manner, Obedience};
use crate::support::link::Link;
use crate::support::{Answer, Exporter, Poller, config, target, until};

const RESTART: &str = "/api/commands/vm1/apps/api/restart";

/// A poller whose only server is away.
async fn start() -> (Exporter, Poller, String) {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    poller.until_status("vm1", "online").await;
    let token = poller.token("ci", Role::Operator, &[]).await;
    exporter.set(Manner::Hang);
    until_away(&poller, &token).await;
    (exporter, poller, token)
}

async fn until_away(poller: &Poller, token: &str) {
    until("it is away", async || {
        let server = poller.get_as(token, "/api/servers/vm1").await.json();
        server["status"].as_str().is_some_and(|status| status != "online")
    })
    .await;
}

async fn queued(poller: &Poller, token: &str, path: &str) -> String {
    let answer = poller.post_as(token, path).await;
    let command = answer.json();
    assert_eq!((answer.status.as_u16(), &command["status"]), (202, &json!("queued")), "{command}");
    assert!(command["queued_until"].is_string());
    command["id"].as_str().unwrap().to_owned()
}

async fn until_ended(poller: &Poller, token: &str, id: &str) -> Value {
    let path = format!("/api/commands/{id}");
    let mut last = Value::Null;
    until("it ends", async || {
        last = poller.get_as(token, &path).await.json();
        last["finished_at"].is_string()
    })
    .await;
    last
}

async fn audit(poller: &Poller) -> Vec<String> {
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    // None where the store is busy: it is asked again.
    let rows = poller.app.store.audit(&filter).await.unwrap_or_default().into_iter().rev();
    rows.filter(|row| row.act == "command").map(|row| row.outcome).collect()
}

async fn cancel(poller: &Poller, token: &str, id: &str) -> Answer {
    poller.send(Method::DELETE, token, &format!("/api/commands/{id}"), &Value::Null).await
}

#[tokio::test]
async fn they_wait_over_a_restart_and_are_sent_once_and_in_order() {
    let (exporter, poller, token) = start().await;
    let mut ids = Vec::new();
    for action in ["stop", "start", "restart"] {
        let path = format!("/api/commands/vm1/apps/api/{action}?queue=10m");
        ids.push(queued(&poller, &token, &path).await);
    }
    until("they are counted", async || {
        poller.get_as(&token, "/metrics").await.body.contains("pm2_poller_commands_queued 3")
    })
    .await;
    let list = poller.get_as(&token, "/api/commands?status=queued").await.json();
    assert_eq!(list["commands"].as_array().unwrap().len(), 3);
    let poller = poller.restart(None).await;
    assert_eq!(audit(&poller).await, ["queued", "queued", "queued"]);
    assert!(exporter.lock().asked.is_empty());

    exporter.set(Manner::Good);
    for id in &ids {
        assert_eq!(until_ended(&poller, &token, id).await["status"], "succeeded");
    }
    assert_eq!(exporter.lock().ran, ids, "each once, one after the other");
    assert_eq!(audit(&poller).await[3..], ["requested", "succeeded"].repeat(3));
    // Where the server is there it is sent at once, and waited for.
    let answer = poller.post_as(&token, &format!("{RESTART}?queue=10m")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("succeeded")));
}

#[tokio::test]
async fn what_is_not_sent_in_time_expires_and_is_never_sent() {
    let (exporter, poller, token) = start().await;
    let answer = poller.post_as(&token, &format!("{RESTART}?queue=300ms&wait=30s")).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (504, "expired"));
    assert_eq!(answer.json()["command_status"], "expired");
    assert_eq!(audit(&poller).await, ["queued", "expired"]);
    // One that expires while the poller is away.
    let id = queued(&poller, &token, &format!("{RESTART}?queue=1s")).await;
    let config = poller.config.clone();
    let folder = poller.stop().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    exporter.set(Manner::Good);
    let poller = Poller::with_folder(folder, config).await;
    assert_eq!(until_ended(&poller, &token, &id).await["status"], "expired");
    assert!(exporter.lock().asked.is_empty());
}

#[tokio::test]
async fn what_waits_can_be_taken_back_and_nothing_else() {
    let (exporter, poller, token) = start().await;
    let viewer = poller.token("viewer", Role::Viewer, &[]).await;
    let elsewhere = poller.token("elsewhere", Role::Operator, &["vm2"]).await;
    let id = queued(&poller, &token, &format!("{RESTART}?queue=10m")).await;
    assert_eq!(cancel(&poller, &viewer, &id).await.problem(), "forbidden");
    assert_eq!(cancel(&poller, &elsewhere, &id).await.problem(), "unknown_command");
    assert_eq!(cancel(&poller, &token, "nope").await.problem(), "unknown_command");
    let answer = cancel(&poller, &token, &id).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("cancelled")));
    let again = cancel(&poller, &token, &id).await;
    assert_eq!((again.status.as_u16(), again.problem().as_str()), (409, "conflict"));
    assert_eq!(audit(&poller).await, ["queued", "cancelled"]);
    // From the page as well.
    let id = queued(&poller, &token, &format!("{RESTART}?queue=10m")).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let page = poller.get_as(&token, &format!("/commands/{id}")).await.body;
    assert!(page.contains(&format!("action=\"/commands/{id}/cancel\"")), "{page}");
    let answer = poller.form(&format!("/commands/{id}/cancel"), "", &headers).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (303, &*format!("/commands/{id}"))
    );
    assert_eq!(until_ended(&poller, &token, &id).await["status"], "cancelled");

    exporter.set(Manner::Good);
    let online =
        async || poller.get_as(&token, "/api/servers/vm1").await.json()["status"] == "online";
    until("it is back", online).await;
    exporter.lock().obedience = Obedience::Later(Duration::from_millis(500));
    let running = poller.post_as(&token, &format!("{RESTART}?queue=10m&wait=0")).await.json();
    let id = running["id"].as_str().unwrap().to_owned();
    until("it is sent", async || exporter.lock().ran.contains(&id)).await;
    let answer = cancel(&poller, &token, &id).await;
    assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "conflict".to_owned()));
    assert_eq!(until_ended(&poller, &token, &id).await["status"], "succeeded");
    assert_eq!(exporter.lock().ran, [id], "nothing that was taken back");
}

#[tokio::test]
async fn what_waits_for_a_server_goes_with_it() {
    let (away, exporter) = (Exporter::start().await, Exporter::start().await);
    away.set(Manner::Hang);
    let poller = Poller::start(Vec::new()).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let add = async |exporter: &Exporter| {
        let new = json!({"id": "vm9", "url": exporter.url()});
        let added = poller.send(Method::POST, &admin, "/api/servers", &new).await;
        assert_eq!(added.status, 201, "{added:?}");
    };
    add(&away).await;
    let path = "/api/commands/vm9/apps/api/stop?queue=10m";
    let ids = [queued(&poller, &admin, path).await, queued(&poller, &admin, path).await];
    let waits = poller.post_as(&admin, "/api/commands/vm9/apps/api/stop?queue=10m&wait=30s");
    let replaced = async {
        let three =
            async || poller.get_as(&admin, "/api/commands").await.json()["commands"][2].is_object();
        until("all wait", three).await;
        let gone = poller.send(Method::DELETE, &admin, "/api/servers/vm9", &Value::Null).await;
        assert_eq!(gone.status, 204);
        // The same name, and another machine.
        add(&exporter).await;
    };
    let (told, ()) = tokio::join!(waits, replaced);
    assert_eq!((told.status.as_u16(), told.problem().as_str()), (409, "unknown_server"));
    for id in &ids {
        let ended = until_ended(&poller, &admin, id).await;
        assert_eq!(
            (&ended["status"], &ended["reason"]),
            (&json!("cancelled"), &json!("unknown_server"))
        );
        assert_eq!(ended["error"], "vm9 was taken away");
    }
    assert_eq!(audit(&poller).await, [["queued"; 3], ["cancelled"; 3]].concat());
    let online =
        async || poller.get_as(&admin, "/api/servers/vm9").await.json()["status"] == "online";
    until("it answers", online).await;
    let done = poller.post_as(&admin, &path.replace("stop", "start")).await.json();
    assert_eq!(
        until_ended(&poller, &admin, done["id"].as_str().unwrap()).await["status"],
        "succeeded"
    );
    assert_eq!(exporter.lock().asked.len(), 1, "what waited for the other");
}

#[tokio::test]
async fn what_may_be_secret_does_not_wait_and_who_lost_the_right_is_not_served() {
    let (exporter, poller, token) = start().await;
    let deploy = |more: Value| {
        let mut body = json!({"repository": "https://git.test/shop.git"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (path, body) in [
        ("apps/api/env", json!({"env": {"A": "canary-value"}})),
        ("apps/api/trigger", json!({"action": "x", "params": "canary-value"})),
        ("slots/a/env", json!({"env": {"A": "canary-value"}})),
        ("slots/a/deploy", deploy(json!({"env": {"A": "canary-value"}}))),
        ("slots/a/deploy", deploy(json!({"build": "canary-value"}))),
        ("slots/a/deploy", deploy(json!({"repository": "https://u:canary-value@git.test/x.git"}))),
    ] {
        let path = format!("/api/commands/vm1/{path}?queue=10m");
        let answer = poller.post_json(&token, &path, &body, None).await;
        let seen = (answer.status.as_u16(), answer.problem());
        assert_eq!(seen, (422, "not_queueable".to_owned()), "{body}");
    }
    let wrong = poller.post_as(&token, &format!("{RESTART}?queue=8d")).await;
    assert_eq!(wrong.problem(), "bad_request");
    let path = "/api/commands/vm1/slots/a/deploy?queue=10m";
    let answer = poller.post_json(&token, path, &deploy(json!({})), Some("k")).await;
    assert_eq!(answer.json()["status"], "queued", "{answer:?}");
    let again = poller.post_json(&token, path, &deploy(json!({})), Some("k")).await;
    assert_eq!((again.status.as_u16(), again.problem().as_str()), (409, "in_progress"));
    let other = poller.post_json(&token, path, &deploy(json!({"branch": "x"})), Some("k")).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));

    poller.app.store.revoke_token("ci".into(), Default::default(), true).await.unwrap();
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let revoked = async || poller.get_as(&token, "/api/me").await.status == 401;
    until("revoked", revoked).await;
    exporter.set(Manner::Good);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let ended = until_ended(&poller, &admin, &id).await;
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("refused"), &json!("forbidden")));
    assert!(exporter.lock().asked.is_empty());
    let folder = poller.stop().await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(12).any(|part| part == b"canary-value"));
    }
}

#[tokio::test]
async fn what_waits_is_sent_only_while_who_asked_may_do_that_to_that_server() {
    let (exporter, poller, _) = start().await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let send = async |method: Method, path: &str, body: Value| {
        poller.send(method, &admin, path, &body).await
    };
    let mut waiting = Vec::new();
    for (name, change) in [
        ("as-before", json!({"actions": ["restart", "stop"]})),
        ("other-actions", json!({"actions": ["stop"]})),
        ("other-servers", json!({"servers": ["vm2"]})),
        ("other-groups", json!({"groups": ["us"]})),
        ("viewer", json!({"role": "viewer"})),
    ] {
        let password = "correct horse battery";
        let user = json!({"name": name, "role": "operator", "password": password});
        assert_eq!(send(Method::POST, "/api/users", user).await.status, 201);
        let here = [("sec-fetch-site", "same-origin")];
        let form = format!("name={name}&password={}", password.replace(' ', "+"));
        let signed_in = poller.form("/login", &form, &here).await;
        let cookie = signed_in.header("set-cookie").split(';').next().unwrap().to_owned();
        let headers = [("cookie", cookie.as_str()), here[0]];
        let path = format!("{RESTART}?queue=10m");
        let asked = poller.ask(Method::POST, &path, &headers).await.json();
        assert_eq!(asked["status"], "queued", "{asked}");
        let changed = send(Method::PATCH, &format!("/api/users/{name}"), change).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
        waiting.push((name, asked["id"].as_str().unwrap().to_owned()));
    }
    exporter.set(Manner::Good);
    for (name, id) in &waiting {
        let ended = until_ended(&poller, &admin, id).await;
        let expected = if *name == "as-before" { "succeeded" } else { "refused" };
        assert_eq!(ended["status"], expected, "{name}: {ended}");
    }
    assert_eq!(exporter.lock().ran, [waiting[0].1.clone()]);
}

#[tokio::test]
async fn one_that_finds_no_connection_waits_on_and_is_sent_once_when_there_is_one() {
    let exporter = Exporter::start().await;
    let mut link = Link::to(exporter.address).await;
    let mut config = config(vec![target("vm1", &format!("http://{}", link.address))]);
    // It is taken for online until the next poll: so it is tried, and finds nobody.
    config.timing.interval = Duration::from_secs(8);
    let poller = Poller::with(config).await;
    let token = poller.token("ci", Role::Operator, &[]).await;
    // A poll was just made, and there is nothing between it and the cut.
    poller.until_status_as(&token, "vm1", "online").await;
    link.cut().await;
    let answer = poller.post_as(&token, &format!("{RESTART}?queue=10m&wait=0")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let tried = async || audit(&poller).await.len() >= 3;
    until("it was tried and waits again", tried).await;
    let shown = poller.get_as(&token, &format!("/api/commands/{id}")).await.json();
    assert_eq!(shown["status"], "queued", "{shown}");
    // Polls fail meanwhile, and it is not tried again before one of them does not.
    let polls = poller.app.metrics.polls.with_label_values(&["connect"]);
    let before = polls.get();
    until("polls fail", async || polls.get() > before + 1).await;
    assert_eq!(audit(&poller).await, ["queued", "requested", "queued"]);
    assert!(exporter.lock().asked.is_empty());
    link.mend().await;
    assert_eq!(until_ended(&poller, &token, &id).await["status"], "succeeded");
    assert_eq!(exporter.lock().ran, [id]);
    assert_eq!(exporter.lock().asked.len(), 1, "it was sent once");
    let all = ["queued", "requested", "queued", "requested", "succeeded"];
    assert_eq!(audit(&poller).await, all);
}

#[tokio::test]
async fn one_that_its_server_does_not_take_yet_waits_on_and_is_done_once_it_does() {
    let (exporter, mut poller, token) = start().await;
    let refuse = |problem| {
        let refusal = Obedience::Refuse(StatusCode::SERVICE_UNAVAILABLE, problem);
        exporter.lock().obedience = refusal;
    };
    let mut ids = Vec::new();
    for problem in ["pm2_unavailable", "busy"] {
        exporter.set(Manner::Hang);
        until_away(&poller, &token).await;
        let (begun, rows) = (Instant::now(), audit(&poller).await.len());
        let asked = exporter.lock().asked.len();
        let id = queued(&poller, &token, &format!("{RESTART}?queue=10m")).await;
        // The server is back before it can do anything.
        refuse(problem);
        exporter.set(Manner::Good);
        let again = async || exporter.lock().asked.len() >= asked + 2;
        until("it was tried, and tried again", again).await;
        let path = format!("/api/commands/{id}");
        let waits = async || poller.get_as(&token, &path).await.json()["status"] == "queued";
        until("it waits on", waits).await;
        // Over a restart too, and with all that it had.
        poller = poller.restart(None).await;
        exporter.lock().obedience = Obedience::Good;
        assert_eq!(until_ended(&poller, &token, &id).await["status"], "succeeded", "{problem}");
        ids.push(id);
        let tries = exporter.lock().asked.len() - asked;
        // A second lies between two of them at least, but where the poller was started anew.
        let most = 2 + begun.elapsed().as_secs() as usize;
        assert!((3..=most).contains(&tries), "{problem}: {tries} tries");
        let mut expected = vec!["queued"];
        expected.extend(["requested", "queued"].repeat(tries - 1));
        expected.extend(["requested", "succeeded"]);
        assert_eq!(audit(&poller).await[rows..], expected, "{problem}");
    }
    assert_eq!(exporter.lock().ran, ids, "each once");

    // Who will not take it in time is told as such.
    refuse("pm2_unavailable");
    let answer = poller.post_as(&token, &format!("{RESTART}?queue=5s&wait=60s")).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (504, "expired"));
    assert_eq!(answer.json()["detail"], "vm1 did not take it in time: no");
    assert_eq!(exporter.lock().ran.len(), 2);
}

#[tokio::test]
async fn what_waits_in_a_copy_that_is_put_back_is_asked_for_and_not_sent_again() {
    use pm2_poller::store;
    let (exporter, poller, token) = start().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(queued(&poller, &token, &format!("{RESTART}?queue=10m")).await);
    }
    let copied = poller.database().with_file_name("copy.db");
    store::copy(&poller.database(), &copied).await.unwrap();
    exporter.set(Manner::Good);
    for id in &ids {
        assert_eq!(until_ended(&poller, &token, id).await["status"], "succeeded");
    }
    // One it still knows, the other is of a former life of it.
    exporter.lock().commands.remove(&ids[1]);
    let (config, database) = (poller.config.clone(), poller.database());
    let folder = poller.stop().await;
    store::restore(&database, &copied).await.unwrap();
    let poller = Poller::with_folder(folder, config).await;
    assert_eq!(until_ended(&poller, &token, &ids[0]).await["status"], "succeeded");
    let forgotten = until_ended(&poller, &token, &ids[1]).await;
    assert_eq!(
        (&forgotten["status"], &forgotten["reason"]),
        (&json!("unknown"), &json!("forgotten"))
    );
    assert_eq!(exporter.lock().ran, ids, "each once");
}

/// PM2 brings its apps back one after another when the machine starts.
#[tokio::test]
async fn an_app_that_was_there_may_come_back_a_little_later_than_its_pm2() {
    let (exporter, poller, token) = start().await;
    exporter.set(Manner::Good);
    exporter.sample(1.0);
    until("it is stored", async || {
        let path = "/api/servers/vm1/apps/api/metrics?metric=memory";
        !poller.get_as(&token, path).await.json()["series"].as_array().unwrap().is_empty()
    })
    .await;
    let refusal = Obedience::Refuse(StatusCode::NOT_FOUND, "unknown_app");
    exporter.lock().obedience = refusal;
    let never = RESTART.replace("api/restart", "never/restart");
    let never = poller.post_as(&token, &format!("{never}?queue=10m")).await;
    assert_eq!((never.status.as_u16(), never.problem().as_str()), (404, "unknown_app"));
    let id = queued(&poller, &token, &format!("{RESTART}?queue=10m&wait=1s")).await;
    until("it was tried again", async || exporter.lock().asked.len() >= 3).await;
    exporter.lock().obedience = Obedience::Good;
    assert_eq!(until_ended(&poller, &token, &id).await["status"], "succeeded");
    assert_eq!(exporter.lock().ran, [id]);
}
