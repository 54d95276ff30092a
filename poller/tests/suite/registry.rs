//! Which servers there are: added over HTTP, listed in files, retired with their history.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use axum::http::Method;
use pm2_poller::access::Role;
use pm2_poller::store::AuditFilter;
use serde_json::{Value, json};
use service::token::TokenHash;
use wire::EventKind;

use crate::support::{Exporter, Poller, config, until};

const TOKEN: &str = "pm2x_canarycanary";

/// The files of exporters' tokens.
fn tokens(poller: &Poller) -> Vec<PathBuf> {
    let folder = poller.database().with_file_name("exporter-tokens");
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn audit(poller: &Poller) -> Vec<(String, String, String)> {
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    let rows = poller.app.store.audit(&filter).await.unwrap().into_iter().rev();
    let rows = rows.filter(|row| row.act.starts_with("server "));
    rows.map(|row| (row.who, row.act, row.outcome)).collect()
}

/// Whether any file beside the tokens' own holds the token.
fn leaks(poller: &Poller) -> bool {
    let folder = poller.database().parent().unwrap().to_owned();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).any(|path| {
        fs::read(path).unwrap().windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes())
    })
}

#[tokio::test]
async fn servers_are_added_changed_and_taken_away() {
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "before");
    exporter.sample(1.0);
    let poller = Poller::start(Vec::new()).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let new = json!({
        "id": "vm9", "url": exporter.url(), "group": "us", "tags": ["b", "a"], "note": "new",
        "token": TOKEN,
    });
    let added = poller.send(Method::POST, &admin, "/api/servers", &new).await;
    assert_eq!((added.status.as_u16(), added.header("location")), (201, "/api/servers/vm9"));
    let server = added.json();
    assert_eq!((&server["origin"], &server["tags"]), (&json!("database"), &json!(["a", "b"])));
    let path = "/api/servers/vm9";
    let is_online = async || poller.get_as(&admin, path).await.json()["status"] == "online";
    until("it is polled", is_online).await;
    assert_eq!(exporter.lock().authorization.as_deref(), Some(&*format!("Bearer {TOKEN}")));
    let files = tokens(&poller);
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!leaks(&poller) && !added.body.contains("canary"), "{added:?}");

    let again = poller.send(Method::POST, &admin, "/api/servers", &new).await;
    assert_eq!((again.status.as_u16(), again.problem().as_str()), (409, "conflict"));
    let body = json!({"group": "eu", "tags": [], "note": ""});
    let changed = poller.send(Method::PATCH, &admin, path, &body).await;
    assert_eq!((changed.status.as_u16(), &changed.json()["group"]), (200, &json!("eu")));
    assert_eq!(changed.json()["note"], Value::Null);
    // As for users: null takes away, and what is not named stays.
    let body = json!({"tags": ["a"], "note": "b"});
    assert_eq!(poller.send(Method::PATCH, &admin, path, &body).await.json()["group"], "eu");
    let body = json!({"group": null, "tags": null, "note": null});
    let cleared = poller.send(Method::PATCH, &admin, path, &body).await.json();
    assert_eq!((&cleared["tags"], &cleared["note"]), (&json!([]), &Value::Null), "{cleared}");
    assert_eq!(cleared["group"], Value::Null, "{cleared}");
    let body = json!({"group": "eu"});
    assert_eq!(poller.send(Method::PATCH, &admin, path, &body).await.status, 200);

    // Elsewhere somebody may be listening: the token does not go there by itself.
    let other = Exporter::start().await;
    let moved = poller.send(Method::PATCH, &admin, path, &json!({"url": other.url()})).await;
    assert_eq!((moved.status.as_u16(), moved.problem().as_str()), (422, "token_needed"));
    assert_eq!(other.lock().authorization, None);
    let body = json!({"url": other.url(), "make_token": true});
    let moved = poller.send(Method::PATCH, &admin, path, &body).await;
    assert_eq!(moved.status, 200, "{moved:?}");
    let files = tokens(&poller);
    let [file] = &files[..] else { panic!("the old one is gone: {files:?}") };
    let made = fs::read_to_string(file).unwrap();
    let block = moved.json()["exporter_tokens"].as_str().unwrap().to_owned();
    assert!(block.contains(&TokenHash::of(made.trim()).to_string()), "{block}");
    assert!(block.contains("scopes = [\"read\", \"control\", \"deploy\"]"), "{block}");
    assert!(!moved.body.contains(made.trim()));
    until("the new one is asked", async || {
        other.lock().authorization.as_deref() == Some(&*format!("Bearer {}", made.trim()))
    })
    .await;

    assert_eq!(poller.send(Method::DELETE, &admin, path, &Value::Null).await.status, 204);
    assert!(tokens(&poller).is_empty());
    let gone = async || poller.get_as(&admin, "/api/servers").await.json()["total"] == 0;
    until("it is gone", gone).await;
    assert!(!poller.get_as(&admin, "/metrics").await.body.contains("vm9"));
    let did = |act: &str| ("admin".to_owned(), format!("server {act}"), "succeeded".to_owned());
    let all: Vec<_> =
        ["add", "change", "change", "change", "change", "change", "remove"].map(did).into();
    assert_eq!(audit(&poller).await, all);
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    let rows = poller.app.store.audit(&filter).await.unwrap();
    let told = "group \"eu\", before \"us\", tags [], before [\"a\", \"b\"], note";
    assert!(rows.iter().any(|row| row.detail.as_deref() == Some(told)), "{rows:?}");
}

#[tokio::test]
async fn what_is_retired_keeps_its_history_and_takes_it_up_again() {
    let exporter = Exporter::start().await;
    exporter.event(EventKind::EXIT, "before");
    let poller = Poller::start(Vec::new()).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let limited = poller.token("limited", Role::Viewer, &["vm1"]).await;
    let new = json!({"id": "vm9", "url": exporter.url(), "group": "us", "tags": ["a"]});
    assert_eq!(poller.send(Method::POST, &admin, "/api/servers", &new).await.status, 201);
    let path = "/api/servers/vm9";
    let is_online = async || poller.get_as(&admin, path).await.json()["status"] == "online";
    until("it is polled", is_online).await;
    exporter.sample(1.0);
    let history = "/api/servers/vm9/apps/api/metrics?metric=memory&from=5m&step=1h";
    let has_history = async |poller: &Poller| {
        let answer = poller.get_as(&admin, history).await.json();
        answer["series"].as_array().is_some_and(|series| !series.is_empty())
    };
    until("a sample", async || has_history(&poller).await).await;
    assert_eq!(poller.send(Method::DELETE, &admin, path, &Value::Null).await.status, 204);

    let retired = async |poller: &Poller, more: &str| {
        poller.get_as(&admin, &format!("/api/servers?retired=true{more}")).await.json()
    };
    // As well after a restart.
    let poller = poller.restart(None).await;
    let list = retired(&poller, "").await;
    assert_eq!((&list["total"], &list["servers"][0]["id"]), (&json!(1), &json!("vm9")), "{list}");
    assert_eq!(list["servers"][0]["status"], "retired");
    assert!(list["servers"][0]["retired_at"].is_string());
    for (filter, total) in [("&group=us", 1), ("&tag=b", 0), ("&q=VM9", 1), ("&status=online", 0)] {
        assert_eq!(retired(&poller, filter).await["total"], total, "{filter}");
    }
    assert!(has_history(&poller).await);
    assert_eq!(poller.get_as(&admin, path).await.problem(), "unknown_server");
    let shown = poller.get_as(&admin, &format!("{path}?retired=true")).await.json();
    assert_eq!((&shown["status"], &shown["url"]), (&json!("retired"), &json!(exporter.url())));
    assert_eq!(shown["state"]["processes"][0]["name"], "api");
    let events = poller.get_as(&admin, "/api/events?server=vm9&kind=exit").await.json();
    assert_eq!(events["events"][0]["message"], "before");
    for hidden in [&*format!("{path}?retired=true"), history] {
        assert_eq!(poller.get_as(&limited, hidden).await.status, 404, "{hidden}");
    }
    assert_eq!(poller.get_as(&limited, "/api/servers?retired=true").await.json()["total"], 0);
    let restart = "/api/commands/vm9/apps/api/restart";
    assert_eq!(poller.post_as(&admin, restart).await.problem(), "unknown_server");

    assert_eq!(poller.send(Method::POST, &admin, "/api/servers", &new).await.status, 201);
    until("it is back", async || retired(&poller, "").await["total"] == 0).await;
    assert!(has_history(&poller).await);
}

#[tokio::test]
async fn only_admins_change_the_registry_and_wrong_bodies_are_told() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let operator = poller.token("operator", Role::Operator, &[]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let new = json!({"id": "vm9", "url": exporter.url()});
    for (method, path) in [
        (Method::POST, "/api/servers"),
        (Method::PATCH, "/api/servers/vm1"),
        (Method::DELETE, "/api/servers/vm1"),
    ] {
        let answer = poller.send(method.clone(), &operator, path, &new).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"));
        assert_eq!(poller.ask(method, path, &[]).await.status, 401);
    }
    let refused = |act: &str| ("operator".into(), format!("server {act}"), "refused".into());
    assert_eq!(audit(&poller).await, [refused("add"), refused("change"), refused("remove")]);

    for (body, word) in [
        (json!({"url": "http://a:1"}), "id"),
        (json!({"id": "a b", "url": "http://a:1"}), "id: "),
        (json!({"id": "pm2-poller", "url": "http://a:1"}), "own name"),
        (json!({"id": "a", "url": "ftp://a"}), "url: "),
        (json!({"id": "a", "url": "http://u:canary@a"}), "url: "),
        (json!({"id": "a", "url": "http://169.254.169.254"}), "link-local"),
        (json!({"id": "a", "url": "http://a:1", "tags": ["x,y"]}), "tags: "),
        (json!({"id": "a", "url": "http://a:1", "group": " "}), "group: "),
        (json!({"id": "a", "url": "http://a:1", "note": "\u{1b}"}), "note: "),
        (json!({"id": "a", "url": "http://a:1", "token": "canary canary"}), "token: "),
        (json!({"id": "a", "url": "http://a:1", "token": "x", "make_token": true}), "make_token: "),
        (json!({"id": "a", "url": "http://a:1", "canary": 1}), "body: "),
    ] {
        let answer = poller.send(Method::POST, &admin, "/api/servers", &body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "bad_request"));
        assert!(answer.body.contains(word) && !answer.body.contains("canary"), "{answer:?}");
    }
    assert!(tokens(&poller).is_empty());
    let answer = poller.send(Method::DELETE, &admin, "/api/servers/vm1", &Value::Null).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (409, "conflict"));
    assert!(answer.body.contains("the configuration"), "{answer:?}");
    let answer = poller.send(Method::PATCH, &admin, "/api/servers/vm7", &json!({})).await;
    assert_eq!(answer.problem(), "unknown_server");
}

#[tokio::test]
async fn files_of_servers_are_used_as_they_change() {
    let exporter = Exporter::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.json"), folder.path().join("b.yml"));
    let list = |labels: Value| json!([{"targets": [exporter.address], "labels": labels}]);
    let write = |path: &PathBuf, text: &str| fs::write(path, text).unwrap();
    write(&first, &list(json!({"server": "one", "group": "eu", "env": "prod"})).to_string());
    let mut config = config(vec![exporter.target("vm1")]);
    config.server_files = vec![folder.path().join("*.json"), folder.path().join("*.yml")];
    let poller = Poller::with(config).await;
    let one = poller.until_status("one", "online").await;
    assert_eq!((&one["origin"], &one["tags"]), (&json!("file"), &json!(["env=prod"])));
    let ids = async || -> Vec<String> {
        let list = poller.get("/api/servers").await.json();
        let ids = list["servers"].as_array().unwrap().iter();
        ids.map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    // What the configuration has wins; what a file has wins over what was added.
    let yaml = format!("- targets: ['{}']\n  labels: {{server: vm1}}\n", exporter.address);
    write(&second, &yaml);
    poller.until_server("vm1", |it| it["also_in"] == json!(["file"])).await;
    assert_eq!(poller.until_status("vm1", "online").await["origin"], "configuration");
    assert!(poller.get("/metrics").await.body.contains("pm2_poller_server_conflicts 1"));

    let good = |file: &PathBuf, good: u8| {
        let name = "pm2_poller_server_file_last_read_successful";
        format!("{name}{{file=\"{}\"}} {good}", file.display())
    };
    write(&first, "[{\"targets\": [\"nonsense\"]}]");
    let bad = good(&first, 0);
    until("it is told", async || poller.get("/metrics").await.body.contains(&bad)).await;
    assert_eq!(ids().await, ["one", "vm1"], "a bad file changes nothing");
    write(&first, &list(json!({"server": "two"})).to_string());
    until("it is read", async || ids().await == ["two", "vm1"]).await;
    let well = good(&first, 1);
    until("and told", async || poller.get("/metrics").await.body.contains(&well)).await;
    fs::remove_file(&first).unwrap();
    until("its servers go", async || ids().await == ["vm1"]).await;
    assert!(!poller.get("/metrics").await.body.contains("a.json"));
    let retired = async || {
        let list = poller.get("/api/servers?retired=true").await.json();
        let servers = list["servers"].as_array().into_iter().flatten();
        servers.map(|it| it["id"].clone()).collect::<Vec<_>>()
    };
    until("they are retired", async || retired().await == ["one", "two"]).await;
}

/// Nobody knows then what is in it: nothing is retired, and nothing that waits is cancelled.
#[tokio::test]
async fn a_folder_that_is_away_when_the_poller_starts_takes_no_server_away() {
    let exporter = Exporter::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (lists, away) = (folder.path().join("lists"), folder.path().join("away"));
    fs::create_dir(&lists).unwrap();
    let list = json!([
        {"targets": [exporter.address], "labels": {"server": "one"}},
        {"targets": ["127.0.0.1:9"], "labels": {"server": "dark"}},
    ]);
    fs::write(lists.join("a.json"), list.to_string()).unwrap();
    let mut config = config(Vec::new());
    config.server_files = vec![lists.join("*.json")];
    let poller = Poller::with(config.clone()).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "one", "online").await;
    let waits = poller.post_as(&admin, "/api/commands/dark/apps/api/restart?queue=1h").await;
    assert_eq!(waits.json()["status"], "queued", "{waits:?}");
    let history = "/api/servers/one/apps/api/metrics?metric=memory&from=1h";
    let points = async |poller: &Poller| {
        let answer = poller.get_as(&admin, history).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["series"][0]["points"].as_array().map_or(0, Vec::len)
    };
    exporter.sample(1.0);
    until("there is history", async || points(&poller).await > 0).await;

    fs::rename(&lists, &away).unwrap();
    let poller = poller.restart(None).await;
    let told = format!("{{file=\"{}\"}} 0", lists.join("*.json").display());
    let page = async || poller.get_as(&admin, "/metrics").await.body;
    until("it is told", async || page().await.contains(&told)).await;
    assert_eq!(poller.get_as(&admin, "/api/servers/one").await.status, 404);
    assert!(points(&poller).await > 0, "its history stays");
    let retired = poller.get_as(&admin, "/api/servers?retired=true").await.json();
    assert_eq!(retired["servers"], json!([]));
    let waiting = poller.get_as(&admin, waits.header("location")).await.json();
    assert_eq!(waiting["status"], "queued", "{waiting}");

    fs::rename(&away, &lists).unwrap();
    poller.until_status_as(&admin, "one", "online").await;
    // What leaves its file is retired, whatever else cannot be read.
    config.server_files.push(folder.path().join("never/*.json"));
    let poller = poller.restart(Some(config)).await;
    poller.until_status_as(&admin, "one", "online").await;
    fs::write(lists.join("a.json"), json!([list[0]]).to_string()).unwrap();
    until("it is retired, and what waited for it cancelled", async || {
        let waiting = poller.get_as(&admin, waits.header("location")).await.json();
        waiting["status"] == "cancelled"
    })
    .await;
}

#[tokio::test]
async fn a_pipe_in_place_of_a_list_holds_up_nothing() {
    let exporter = Exporter::start().await;
    let folder = tempfile::tempdir().unwrap();
    // Who opens it waits until somebody writes.
    let pipe = folder.path().join("pipe.json");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut config = config(vec![exporter.target("vm1")]);
    config.server_files = vec![pipe];
    let poller = Poller::with(config).await;
    poller.until_status("vm1", "online").await;
    let page = poller.get("/metrics").await.body;
    assert!(page.contains("pipe.json\"} 0"), "{page}");
    let token = poller.token("viewer", Role::Viewer, &[]).await;
    poller.app.store.revoke_token("viewer".into(), Default::default(), true).await.unwrap();
    let revoked = async || poller.get_as(&token, "/api/me").await.status == 401;
    until("a token that is revoked is refused", revoked).await;
}

#[tokio::test]
async fn long_lists_of_servers_come_in_pages() {
    let exporter = Exporter::start().await;
    let servers = (0..7).map(|n| exporter.target(&format!("vm{n}"))).collect();
    let poller = Poller::start(servers).await;
    let mut seen = Vec::new();
    let mut path = "/api/servers?limit=3&group=eu".to_owned();
    loop {
        let page = poller.get(&path).await.json();
        assert_eq!(page["total"], 7, "of all");
        let ids = page["servers"].as_array().unwrap().iter().map(|it| it["id"].clone());
        seen.extend(ids);
        let Some(cursor) = page["cursor"].as_str() else { break };
        path = format!("/api/servers?limit=3&group=eu&cursor={cursor}");
    }
    assert_eq!(seen, ["vm0", "vm1", "vm2", "vm3", "vm4", "vm5", "vm6"]);
    for wrong in ["limit=0", "cursor=a%20b", "retired=maybe"] {
        let answer = poller.get(&format!("/api/servers?{wrong}")).await;
        assert_eq!(answer.problem(), "bad_request", "{wrong}");
    }
}
