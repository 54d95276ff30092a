//! Commands: on record before they are sent, sent once, closed with what became of them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::exporter::{Manner, Obedience};
use crate::support::{Answer, Exporter, Poller, target, until};
use axum::http::{Method, StatusCode};
use pm2_poller::access::Role;
use pm2_poller::store::{AuditFilter, Inserted, NewCommand};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use wire::{Action, CommandStatus, Severity, Time};

const RESTART: &str = "/api/commands/vm1/apps/api/restart";

async fn start() -> (Exporter, Poller, String) {
    let exporter = Exporter::start().await;
    let servers = vec![exporter.target("vm1"), target("gone", "http://127.0.0.1:9")];
    let poller = Poller::start(servers).await;
    poller.until_status("vm1", "online").await;
    let token = poller.token("ci", Role::Operator, &[]).await;
    (exporter, poller, token)
}

async fn with_key(poller: &Poller, token: &str, path: &str, key: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
    poller.ask(Method::POST, path, &headers).await
}

async fn audit(poller: &Poller) -> Vec<(String, String)> {
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    let rows = poller.app.store.audit(&filter).await.unwrap();
    rows.into_iter()
        .rev()
        .filter(|row| row.act == "command")
        .map(|row| (row.who, row.outcome))
        .collect()
}

/// Status of a command and outcome of its line in the audit, read from outside.
fn on_record(database: &Path, id: &str) -> Option<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database).read_only(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::query_as(
            "SELECT commands.status, audit.outcome FROM commands \
             JOIN audit ON audit.command = commands.id WHERE commands.id = ?",
        )
        .bind(id)
        .fetch_optional(&mut connection)
        .await
        .unwrap()
    })
}

#[tokio::test]
async fn a_command_is_on_record_before_it_is_sent_and_closed_with_its_outcome() {
    let (exporter, poller, token) = start().await;
    let database = poller.database();
    // Looked at from outside, at the moment when the exporter hears of it.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let rows = Arc::clone(&seen);
    exporter.lock().on_command = Some(Box::new(move |id| {
        let (database, id) = (database.clone(), id.to_owned());
        let look = std::thread::spawn(move || on_record(&database, &id));
        rows.lock().unwrap().push(look.join().unwrap());
    }));
    let answer = poller.post_as(&token, RESTART).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(*seen.lock().unwrap(), [Some(("running".to_owned(), "requested".to_owned()))]);
    let command = answer.json();
    assert_eq!(command["status"], "succeeded");
    assert_eq!(command["requested_by"], "ci");
    assert_eq!(command["requested_from"], "127.0.0.1");
    assert_eq!(command["target"], json!({"app": "api"}));
    assert_eq!(command["before"][0]["name"], "api");
    assert_eq!(command["after"][0]["pid"], 77);
    let path = answer.header("location").to_owned();
    assert_eq!(poller.get_as(&token, &path).await.json()["status"], "succeeded");
    let list = poller.get_as(&token, "/api/commands?server=vm1&app=api&status=succeeded").await;
    assert_eq!(list.json()["commands"][0]["id"], command["id"]);
    let expected = [("ci", "requested"), ("ci", "succeeded")];
    assert_eq!(audit(&poller).await, expected.map(|(who, how)| (who.into(), how.into())));
    assert_eq!(exporter.lock().ran.len(), 1);
}

#[tokio::test]
async fn slots_are_commanded_through_their_process() {
    let (exporter, poller, token) = start().await;
    let answer = poller.post_as(&token, "/api/commands/vm1/slots/a/restart").await;
    assert_eq!(answer.json()["target"], json!({"slot": "a"}), "{answer:?}");
    assert_eq!(exporter.lock().ran.len(), 1);
    let answer = poller.post_as(&token, "/api/commands/vm1/slots/a/delete").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "unknown_action"));
}

/// Whoever lost the answer and asks again is not told that nothing was done.
#[tokio::test]
async fn a_key_gives_what_came_of_it_though_it_would_be_refused_now() {
    let (exporter, poller, token) = start().await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let server = json!({"id": "vm9", "url": exporter.url(), "group": "eu"});
    let added = poller.post_json(&admin, "/api/servers", &server, None).await;
    assert_eq!(added.status, 201, "{added:?}");
    poller.until_status_as(&token, "vm9", "online").await;
    let path = "/api/commands/vm9/apps/api/restart";
    let first = with_key(&poller, &token, path, "k").await;
    assert_eq!(first.json()["status"], "succeeded", "{first:?}");
    let eu = json!({"name": "eu", "role": "operator", "groups": ["eu"]});
    let eu = poller.post_json(&admin, "/api/tokens", &eu, None).await.json();
    let eu = eu["token"].as_str().unwrap().to_owned();
    let limited = with_key(&poller, &eu, path, "k").await;
    assert_eq!(limited.json()["status"], "succeeded", "{limited:?}");
    let path_of_waiting = "/api/commands/vm9/apps/api/stop?queue=10m";
    exporter.set(Manner::Say(StatusCode::BAD_GATEWAY, String::new()));
    poller.until_status_as(&token, "vm9", "offline").await;
    let waiting = with_key(&poller, &token, path_of_waiting, "w").await;
    assert_eq!(waiting.json()["status"], "queued", "{waiting:?}");
    let taken = poller.send(Method::DELETE, &admin, "/api/servers/vm9", &Value::Null).await;
    assert_eq!(taken.status, 204, "{taken:?}");

    let again = with_key(&poller, &token, path, "k").await;
    assert_eq!(
        (again.status.as_u16(), again.json()["id"].clone()),
        (200, first.json()["id"].clone())
    );
    assert_eq!(again.json()["status"], "succeeded");
    // What is gone has no group any more.
    let again = with_key(&poller, &eu, path, "k").await;
    assert_eq!(again.json()["id"], limited.json()["id"], "{again:?}");
    until("what waited is cancelled with its server", async || {
        let again = with_key(&poller, &token, path_of_waiting, "w").await;
        assert_eq!(again.status, 409, "{again:?}");
        assert_eq!(again.header("location"), waiting.header("location"));
        again.problem() == "unknown_server" && again.body.contains("vm9 was taken away")
    })
    .await;
    let other = with_key(&poller, &token, "/api/commands/vm9/apps/api/stop", "k").await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));
    for key in ["new", "w2"] {
        let new = with_key(&poller, &token, path, key).await;
        assert_eq!((new.status.as_u16(), new.problem().as_str()), (404, "unknown_server"));
    }
    let theirs = poller.token("cd", Role::Operator, &[]).await;
    assert_eq!(with_key(&poller, &theirs, path, "k").await.status, 404, "a key is its token's own");
    let elsewhere = poller.token("elsewhere", Role::Operator, &["vm1"]).await;
    assert_eq!(with_key(&poller, &elsewhere, path, "k").await.status, 404);
    assert_eq!(exporter.lock().ran.len(), 2);
}

/// It is not done only to be answered with 406.
#[tokio::test]
async fn who_takes_no_coding_at_all_gets_answers_as_they_are() {
    let (exporter, poller, token) = start().await;
    let bearer = format!("Bearer {token}");
    for (count, coding) in ["identity;q=0", "*;q=0", "br, identity;q=0"].into_iter().enumerate() {
        let headers = [("authorization", bearer.as_str()), ("accept-encoding", coding)];
        let answer = poller.ask(Method::POST, RESTART, &headers).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("succeeded")));
        assert_eq!(exporter.lock().ran.len(), count + 1);
        for path in ["/metrics", "/", "/api/servers"] {
            assert_eq!(
                poller.ask(Method::GET, path, &headers).await.status,
                200,
                "{coding} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_key_names_one_command() {
    let (exporter, poller, token) = start().await;
    let first = with_key(&poller, &token, RESTART, "k1").await;
    assert_eq!(first.status, 200);
    let again = with_key(&poller, &token, RESTART, "k1").await;
    let (mut one, mut two) = (first.json(), again.json());
    // When it ended is taken down twice, a moment apart.
    for json in [&mut one, &mut two] {
        json.as_object_mut().unwrap().remove("finished_at");
    }
    assert_eq!((again.status, two), (StatusCode::OK, one), "the stored outcome");
    let other = with_key(&poller, &token, "/api/commands/vm1/apps/api/stop", "k1").await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "key_reused"));
    let told = "Idempotency-Key: was used for restart of app api on vm1";
    assert_eq!(other.json()["detail"], told);
    assert_eq!(exporter.lock().ran.len(), 1);

    let another = poller.token("cd", Role::Operator, &[]).await;
    let theirs = with_key(&poller, &another, RESTART, "k1").await;
    assert_ne!(theirs.json()["id"], first.json()["id"], "a key is its token's own");

    exporter.lock().obedience = Obedience::Slow(Duration::from_secs(2));
    let path = format!("{RESTART}?wait=0");
    let slow = with_key(&poller, &token, &path, "k2").await;
    assert_eq!((slow.status.as_u16(), slow.json()["status"].as_str()), (202, Some("running")));
    let meanwhile = with_key(&poller, &token, &path, "k2").await;
    assert_eq!((meanwhile.status.as_u16(), meanwhile.problem().as_str()), (409, "in_progress"));
    let place = format!("/api/commands/{}", slow.json()["id"].as_str().unwrap());
    assert_eq!(meanwhile.header("location"), place);
    until("it ends", async || with_key(&poller, &token, &path, "k2").await.status == 200).await;
    assert_eq!(exporter.lock().ran.len(), 3);
    for wrong in ["", "a b", &"x".repeat(256)] {
        let answer = with_key(&poller, &token, RESTART, wrong).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "bad_request"));
    }
}

#[tokio::test]
async fn a_reply_that_is_lost_is_asked_for_and_nothing_runs_twice() {
    let (exporter, poller, token) = start().await;
    exporter.lock().obedience = Obedience::Mute;
    // A thousand in the long form; eight at a time.
    let all = if std::env::var_os("PM2_FLEET_LONG").is_some() { 1000 } else { 96 };
    let one_after_another = async |lane: usize| {
        for n in (lane..all).step_by(8) {
            // Whoever asked does not hear either, and asks again with the same key.
            let key = format!("k{n}");
            let answer = with_key(&poller, &token, RESTART, &key).await;
            assert_eq!(answer.json()["status"], "succeeded", "{answer:?}");
            let again = with_key(&poller, &token, RESTART, &key).await;
            assert_eq!(again.json()["id"], answer.json()["id"], "{again:?}");
        }
    };
    futures_util::future::join_all((0..8).map(one_after_another)).await;
    let inner = exporter.lock();
    let ids: std::collections::BTreeSet<&String> = inner.ran.iter().collect();
    assert_eq!((inner.ran.len(), ids.len()), (all, all), "each ran, and ran once");
    assert_eq!(inner.asked.len(), all, "each was sent once");
}

#[tokio::test]
async fn silence_is_unknown_and_never_sent_again() {
    let (exporter, poller, token) = start().await;
    exporter.lock().obedience = Obedience::Forget;
    let puts = Arc::new(Mutex::new(0));
    let count = Arc::clone(&puts);
    exporter.lock().on_command = Some(Box::new(move |_| *count.lock().unwrap() += 1));
    let answer = poller.post_as(&token, RESTART).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (504, "forgotten"));
    assert_eq!(answer.json()["command_status"], "unknown");
    assert_eq!((*puts.lock().unwrap(), exporter.lock().ran.len()), (1, 0));
    let id = answer.json()["command"].as_str().unwrap().to_owned();
    let stored = poller.get_as(&token, &format!("/api/commands/{id}")).await;
    assert_eq!((stored.status.as_u16(), stored.json()["status"].as_str()), (200, Some("unknown")));
}

/// The ends of commands that a server's journal told, the latest first.
async fn told(poller: &Poller, token: &str, server: &str) -> Vec<Value> {
    let path = format!("/api/events?server={server}&kind=command");
    poller.get_as(token, &path).await.json()["events"].as_array().unwrap().clone()
}

/// A command that is closed as unknown.
async fn unknown(poller: &Poller, token: &str) -> String {
    let answer = poller.post_as(token, RESTART).await.json();
    assert_eq!(answer["command_status"], "unknown", "{answer}");
    answer["command"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_nobody_answered_for_is_known_once_the_journal_tells() {
    let (exporter, other) = (Exporter::start().await, Exporter::start().await);
    let poller = Poller::start(vec![exporter.target("vm1"), other.target("vm2")]).await;
    poller.until_status("vm1", "online").await;
    let token = poller.token("ci", Role::Operator, &[]).await;
    exporter.lock().obedience = Obedience::Forget;
    let known = async |id: &str| poller.get_as(&token, &format!("/api/commands/{id}")).await.json();
    let status = async |id: &str| known(id).await["status"].as_str().unwrap().to_owned();
    let ids = [unknown(&poller, &token).await, unknown(&poller, &token).await];
    let ends = [
        (CommandStatus::Succeeded, Severity::Info, "restart of app api by ci succeeded"),
        (CommandStatus::Failed, Severity::Error, "restart of app api by ci failed: it is gone"),
    ];
    // Not its server.
    other.tell_end(&ids[0], Severity::Error, (CommandStatus::Failed, "a lie"));
    until("it is stored", async || told(&poller, &token, "vm2").await.len() == 1).await;
    // In the order of their numbers: once the second is known, the lie was looked at.
    for (id, (end, severity, message)) in ids.iter().zip(ends) {
        exporter.tell_end(id, severity, (end, message));
        until("it is known", async || status(id).await == end.as_str()).await;
        let record = known(id).await;
        assert_eq!(record.get("reason"), None, "{record}");
        let failed = end == CommandStatus::Failed;
        let error = record.get("error").and_then(Value::as_str);
        assert_eq!(error, failed.then_some(message), "{record}");
        let times = ["requested_at", "finished_at"].map(|name| record[name].as_str().unwrap());
        assert!(times[0] <= times[1] && times[1] <= &Time::now().to_string()[..], "{record}");
    }
    // What ended stays as it did.
    exporter.tell_end(&ids[0], Severity::Error, (CommandStatus::Failed, "changed its mind"));
    exporter.tell_end("nobody-knows-it", Severity::Info, (CommandStatus::Succeeded, "?"));
    let last = unknown(&poller, &token).await;
    exporter.tell_end(&last, Severity::Warning, (CommandStatus::Succeeded, "it was not saved"));
    until("it is known", async || status(&last).await == "succeeded").await;
    assert_eq!(known(&last).await["error"], "it was not saved");
    assert_eq!(status(&ids[0]).await, "succeeded");
    let expected = [
        "requested",
        "unknown",
        "requested",
        "unknown",
        "succeeded",
        "failed",
        "requested",
        "unknown",
        "succeeded",
    ];
    assert_eq!(audit(&poller).await, expected.map(|how| ("ci".to_owned(), how.to_owned())));
}

#[tokio::test]
async fn words_of_the_journal_are_not_kept_where_they_may_repeat_a_secret() {
    let (exporter, poller, token) = start().await;
    exporter.lock().obedience = Obedience::Forget;
    let body = json!({"env": {"KEY": "hunter2-hunter2"}});
    let path = "/api/commands/vm1/apps/api/env";
    let answer = poller.post_json(&token, path, &body, None).await;
    assert_eq!(answer.json()["command_status"], "unknown", "{answer:?}");
    let id = answer.json()["command"].as_str().unwrap().to_owned();
    let message = "env of app api by ci failed: hunter2-hunter2 is odd";
    exporter.tell_end(&id, Severity::Error, (CommandStatus::Failed, message));
    let path = format!("/api/commands/{id}");
    until("it is known", async || poller.get_as(&token, &path).await.json()["status"] == "failed")
        .await;
    let event = &told(&poller, &token, "vm1").await[0]["id"];
    let record = poller.get_as(&token, &path).await;
    assert_eq!(record.json()["error"], format!("see event {event}"));
    let admin = poller.token("root", Role::Admin, &[]).await;
    let audit = poller.get_as(&admin, "/api/audit").await;
    assert!(audit.body.contains(&format!("told by event {event}")), "{audit:?}");
    assert!(!audit.body.contains("hunter2") && !record.body.contains("hunter2"));
}

#[tokio::test]
async fn the_journal_may_tell_before_a_command_is_given_up() {
    let (exporter, poller, token) = start().await;
    let (answers, asked) = (Arc::new(Notify::new()), Arc::new(Mutex::new(None)));
    exporter.lock().obedience = Obedience::ForgetAfter(Arc::clone(&answers));
    let id = Arc::clone(&asked);
    exporter.lock().on_command =
        Some(Box::new(move |it| *id.lock().unwrap() = Some(it.to_owned())));
    let told = async {
        until("it was sent", async || asked.lock().unwrap().is_some()).await;
        let id = asked.lock().unwrap().clone().unwrap();
        exporter.tell_end(&id, Severity::Info, (CommandStatus::Succeeded, "done"));
        until("it is stored", async || told(&poller, &token, "vm1").await.len() == 1).await;
        answers.notify_one();
    };
    let (answer, ()) = tokio::join!(poller.post_as(&token, RESTART), told);
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("succeeded")));
    let expected = ["requested", "unknown", "succeeded"];
    assert_eq!(audit(&poller).await, expected.map(|how| ("ci".to_owned(), how.to_owned())));
}

#[tokio::test]
async fn what_cannot_be_done_says_so_with_its_own_status() {
    let (exporter, poller, token) = start().await;
    let cases = [
        ("/api/commands/gone/apps/api/restart", 502, "unreachable"),
        ("/api/commands/vm1/apps/nope/restart", 404, "unknown_app"),
        ("/api/commands/vm9/apps/api/restart", 404, "unknown_server"),
        ("/api/commands/v%20m/apps/api/restart", 404, "unknown_server"),
        ("/api/commands/vm1/apps/api/explode", 404, "unknown_action"),
        ("/api/commands/vm1/apps/a%0Ab/stop", 404, "unknown_app"),
        ("/api/commands/vm1/slots/..%2F/stop", 404, "unknown_slot"),
        ("/api/commands/vm1/apps/api/restart?wait=2h", 400, "bad_request"),
        ("/api/commands/vm1/apps/api/restart?waiting=1", 400, "bad_request"),
        ("/api/commands/vm1/apps/api", 404, "unknown_path"),
    ];
    for (path, status, kind) in cases {
        let answer = poller.post_as(&token, path).await;
        let seen = (answer.status.as_u16(), answer.problem());
        assert_eq!(seen, (status, kind.to_owned()), "{path}: {answer:?}");
    }
    let refusals = [
        (StatusCode::SERVICE_UNAVAILABLE, "busy", 503, "busy"),
        (StatusCode::SERVICE_UNAVAILABLE, "pm2_unavailable", 503, "pm2_unavailable"),
        (StatusCode::FORBIDDEN, "forbidden", 502, "exporter_denied"),
        (StatusCode::UNAUTHORIZED, "unauthorized", 502, "exporter_denied"),
        (StatusCode::BAD_REQUEST, "bad_request", 422, "exporter_refused"),
        (StatusCode::INTERNAL_SERVER_ERROR, "internal", 502, "exporter_failed"),
    ];
    for (said, word, status, kind) in refusals {
        exporter.lock().obedience = Obedience::Refuse(said, word);
        let answer = poller.post_as(&token, RESTART).await;
        let seen = (answer.status.as_u16(), answer.problem());
        assert_eq!(seen, (status, kind.to_owned()), "{word}: {answer:?}");
    }
    assert!(exporter.lock().ran.is_empty());
    let body = [("authorization", format!("Bearer {token}"))];
    let headers = [("authorization", body[0].1.as_str())];
    let answer = poller.form(RESTART, "surprise=1", &headers).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "bad_request"));
    let answer = poller.form(RESTART, &"x".repeat(100_000), &headers).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (413, "body_too_large"));
    assert_eq!(answer.json()["detail"], "body: is larger than 64 KiB");
}

#[tokio::test]
async fn refusals_are_on_record_too() {
    let (exporter, poller, _) = start().await;
    let viewer = poller.token("viewer", Role::Viewer, &[]).await;
    let elsewhere = poller.token("elsewhere", Role::Admin, &["gone"]).await;
    let answer = poller.post_as(&viewer, RESTART).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"));
    let answer = poller.post_as(&elsewhere, RESTART).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "unknown_server"));
    let expected = [("viewer", "refused"), ("elsewhere", "refused")];
    assert_eq!(audit(&poller).await, expected.map(|(who, how)| (who.into(), how.into())));
    assert_eq!(poller.ask(Method::POST, RESTART, &[]).await.status, 401);
    assert_eq!(audit(&poller).await.len(), 2, "nobody in particular leaves no row");
    assert!(exporter.lock().ran.is_empty());
}

#[tokio::test]
async fn what_cannot_be_put_on_record_is_not_sent() {
    let (exporter, poller, token) = start().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(poller.database());
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let start = Instant::now();
    let answer = poller.post_as(&token, RESTART).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "store_unavailable"));
    // The lock is not waited for without end.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(exporter.lock().ran.is_empty());
    // Polling and showing go on meanwhile.
    poller.until_status_as(&token, "vm1", "online").await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    until("it is well again", async || poller.post_as(&token, RESTART).await.status == 200).await;
}

#[tokio::test]
async fn commands_left_by_a_crash_are_settled_by_asking() {
    let (exporter, poller, token) = start().await;
    // As a crash between sending and closing leaves them: some that ran, one nobody knows.
    for (id, action) in [("ran", Action::Restart), ("odd", Action::Env), ("lost", Action::Restart)]
    {
        left(&poller, id, action).await;
    }
    let now = wire::Time::now();
    exporter.lock().commands.extend([
        (
            "ran".into(),
            json!({
                "id": "ran", "target": {"app": "api"}, "action": "restart", "status": "succeeded",
                "requested_by": "poller", "requested_at": now,
            }),
        ),
        (
            "odd".into(),
            json!({
                "id": "odd", "target": {"app": "api"}, "action": "env", "status": "failed",
                "requested_by": "poller", "requested_at": now, "error": "hunter2-hunter2 is odd",
                "outcomes": [{"pm_id": 1, "error": "what is hunter2-hunter2?"}],
            }),
        ),
    ]);
    let poller = poller.restart(None).await;
    for (id, status) in [("ran", "succeeded"), ("odd", "failed"), ("lost", "unknown")] {
        let path = format!("/api/commands/{id}");
        until(id, async || poller.get_as(&token, &path).await.json()["status"] == status).await;
    }
    assert!(exporter.lock().ran.is_empty(), "nothing is sent again");
    // What it was sent is not known any more, and so not what may be kept of what it said.
    let odd = poller.get_as(&token, "/api/commands/odd").await;
    let words = odd.json()["error"].as_str().unwrap().to_owned();
    assert!(words.starts_with("not kept, since the poller was stopped"), "{words}");
    assert_eq!(odd.json()["outcomes"], json!([{"pm_id": 1, "error": words}]));
    let admin = poller.token("root", Role::Admin, &[]).await;
    let audit = poller.get_as(&admin, "/api/audit").await;
    assert!(audit.body.contains(&words) && !audit.body.contains("hunter2"), "{audit:?}");
}

/// Puts a command on record as one that was sent and not closed.
async fn left(poller: &Poller, id: &str, action: Action) {
    let new = NewCommand {
        id: id.parse().unwrap(),
        server: "vm1".parse().unwrap(),
        target: wire::Target::App("api".parse().unwrap()),
        action,
        pm2_home: None,
        status: wire::CommandStatus::Running,
        requested_by: "ci".into(),
        token: None,
        requested_from: "127.0.0.1".into(),
        requested_via: None,
        requested_at: wire::Time::now(),
        refusal: None,
        idempotency_key: None,
        summary: None,
        body_hash: None,
        follow_until: None,
        queued_until: None,
        body: None,
        part_of: None,
    };
    assert!(matches!(poller.app.store.insert_command(new).await, Ok(Inserted::New)));
}

#[tokio::test]
async fn who_is_limited_to_some_actions_runs_no_code_and_takes_back_no_other() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    let new = json!({"name": "env", "role": "operator", "actions": ["env"]});
    let limited = poller.send(Method::POST, &admin, "/api/tokens", &new).await.json();
    let limited = limited["token"].as_str().unwrap().to_owned();
    let path = "/api/commands/vm1/apps/api/env";
    for name in ["NODE_OPTIONS", "LD_PRELOAD", "PATH"] {
        let body = json!({"env": {"LEVEL": "debug", name: "x"}});
        let refused = poller.post_json(&limited, path, &body, None).await;
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (403, "forbidden"));
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(&format!("env: {name:?} can run any code")), "{detail}");
        let body = json!({"select": {"app": "api"}, "action": "env", "body": {"env": {name: "x"}}});
        let refused = poller.post_json(&limited, "/api/commands", &body, None).await;
        assert_eq!(refused.status, 403, "{refused:?}");
    }
    assert!(exporter.lock().asked.is_empty());
    let body = json!({"env": {"LEVEL": "debug"}});
    assert_eq!(poller.post_json(&limited, path, &body, None).await.status, 200);
    let body = json!({"env": {"NODE_OPTIONS": "--max-old-space-size=512"}});
    assert_eq!(poller.post_json(&admin, path, &body, None).await.status, 200);

    exporter.set(Manner::Hang);
    let away =
        async || poller.get_as(&admin, "/api/servers/vm1").await.json()["status"] != "online";
    until("it is away", away).await;
    let waits = poller.post_as(&admin, "/api/commands/vm1/apps/api/stop?queue=10m").await.json();
    let cancel = format!("/api/commands/{}", waits["id"].as_str().unwrap());
    let refused = poller.send(Method::DELETE, &limited, &cancel, &Value::Null).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (403, "forbidden"));
    assert_eq!(poller.send(Method::DELETE, &admin, &cancel, &Value::Null).await.status, 200);
}

/// A command that is put on record while nobody waits for it any more.
#[tokio::test]
async fn who_goes_away_while_it_is_put_on_record_leaves_no_command_behind() {
    let (exporter, poller, token) = start().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(poller.database());
    let mut other = options.connect().await.unwrap();
    let rollout = json!({"select": {"app": "api"}, "action": "restart"});
    for (path, body) in [(RESTART, json!({})), ("/api/commands", rollout)] {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let before = exporter.lock().ran.len();
        // Far longer than a request needs to get there, and shorter than the lock is waited for.
        let asked = poller.post_json(&token, path, &body, None);
        let gone = tokio::time::timeout(Duration::from_secs(2), asked).await;
        assert!(gone.is_err(), "it was answered: {gone:?}");
        sqlx::query("COMMIT").execute(&mut other).await.unwrap();
        until(path, async || exporter.lock().ran.len() == before + 1).await;
        let ended = async || {
            let list = poller.get_as(&token, "/api/commands?limit=1").await.json();
            list["commands"][0]["status"] == "succeeded"
        };
        until("it ends", ended).await;
    }
    other.close().await.unwrap();
}
