//! The audit from outside: what leaves a row, and that nothing is done without one.

use std::path::Path;

use crate::support::{Exporter, Poller, config, until};
use axum::http::Method;
use pm2_poller::access::Role;
use serde_json::Value;
use sqlx::{Connection, SqliteConnection, query};

const RESTART: &str = "/api/commands/vm1/apps/api/restart";

async fn rows(poller: &Poller, admin: &str, filter: &str) -> Vec<Value> {
    let list = poller.get_as(admin, &format!("/api/audit?limit=1000&{filter}")).await.json();
    list["audit"].as_array().expect("audit").clone()
}

/// From now on, SQLite itself refuses every row for the audit, and nothing else.
async fn refuse_rows(database: &Path) {
    let url = format!("sqlite://{}", database.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let sql = "CREATE TRIGGER no_audit BEFORE INSERT ON audit \
               BEGIN SELECT RAISE(ABORT, 'not writable'); END";
    query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn allow_rows(database: &Path) {
    let url = format!("sqlite://{}", database.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    query("DROP TRIGGER no_audit").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn nothing_runs_that_is_not_on_record() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    let database = poller.database();
    refuse_rows(&database).await;
    let refused = poller.post_as(&admin, RESTART).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "store_unavailable".into()));
    assert_eq!(refused.header("retry-after"), "1");
    assert!(exporter.lock().ran.is_empty());
    // No command without its row, either.
    let commands = poller.get_as(&admin, "/api/commands").await.json();
    assert_eq!(commands["commands"], serde_json::json!([]));
    allow_rows(&database).await;
    assert_eq!(poller.post_as(&admin, RESTART).await.status, 200);
    assert_eq!(exporter.lock().ran.len(), 1);
    assert_eq!(poller.app.store.check_audit().await.unwrap().fault, None);
}

#[tokio::test]
async fn a_command_has_a_row_as_it_begins_and_one_as_it_ends() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    assert_eq!(poller.post_as(&admin, RESTART).await.status, 200);
    let told = rows(&poller, &admin, "act=command").await;
    let outcomes: Vec<&str> = told.iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["succeeded", "requested"]);
    for row in &told {
        assert_eq!((&row["who"], &row["server"]), (&"admin".into(), &"vm1".into()));
        assert_eq!(
            (&row["subject"], &row["address"]),
            (&"restart app api".into(), &"127.0.0.1".into())
        );
    }
    assert_eq!(told[1]["via"], "token");
}

#[tokio::test]
async fn every_refusal_of_a_change_is_on_record_once() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1")]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let viewer = poller.token("viewer", Role::Viewer, &[]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    let elsewhere = [("sec-fetch-site", "cross-site")];
    assert_eq!(poller.ask(Method::POST, RESTART, &[]).await.status, 401);
    assert_eq!(poller.post_as("pm2p_wrong", "/api/odd%0A%1b[31m").await.status, 404);
    assert_eq!(poller.post_as("pm2p_wrong", RESTART).await.status, 401);
    assert_eq!(poller.post_as(&viewer, RESTART).await.status, 403);
    assert_eq!(poller.form("/login", "token=wrong", &[]).await.status, 401);
    assert_eq!(poller.ask(Method::POST, RESTART, &elsewhere).await.status, 403);
    assert_eq!(poller.form("/servers/vm1/apps/api/restart", "", &[]).await.status, 303);
    let told = rows(&poller, &admin, "outcome=refused").await;
    let told: Vec<(&str, &str, &str)> = told
        .iter()
        .rev()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            (text("who"), text("act"), text("subject"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("-", "request", "POST /api/commands/vm1/apps/api/restart"),
            ("-", "request", "POST /api/commands/vm1/apps/api/restart"),
            ("viewer", "command", "restart app api"),
            ("-", "request", "POST /login"),
            ("-", "request", "POST /api/commands/vm1/apps/api/restart"),
            ("-", "request", "POST /servers/vm1/apps/api/restart"),
        ]
    );
    assert!(exporter.lock().ran.is_empty());
}

#[tokio::test]
async fn a_flood_of_refusals_fills_no_disk_and_is_counted() {
    let poller = Poller::with(config(Vec::new())).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    for _ in 0..100 {
        assert_eq!(poller.ask(Method::POST, RESTART, &[]).await.status, 401);
    }
    assert_eq!(rows(&poller, &admin, "outcome=refused").await.len(), 30);
    let folder = poller.stop().await;
    let poller = Poller::with_folder(folder, config(Vec::new())).await;
    let told = rows(&poller, &admin, "outcome=refused").await;
    assert_eq!((told.len(), &told[0]["repeats"]), (31, &70.into()));
    assert_eq!(told[0]["address"], "127.0.0.1");
}

#[tokio::test]
async fn it_is_read_in_pages_and_as_files() {
    let poller = Poller::with(config(Vec::new())).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    // Many at once: they share a few waits for the disk.
    let record = |at: usize| {
        let row = pm2_poller::store::NewAudit {
            who: "=1+1".into(),
            act: "test",
            subject: format!("row {at}"),
            ..Default::default()
        };
        poller.app.store.record(row)
    };
    for part in 0..5 {
        let rows = (part * 500..(part + 1) * 500).map(record);
        futures_util::future::try_join_all(rows).await.unwrap();
    }
    let (mut cursor, mut seen) = (String::new(), 0);
    loop {
        let path = format!("/api/audit?act=test&limit=1000&cursor={cursor}");
        let page = poller.get_as(&admin, &path).await.json();
        seen += page["audit"].as_array().unwrap().len();
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 2500);
    let csv = poller.get_as(&admin, "/api/audit?act=test&format=csv").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8; header=present");
    let lines: Vec<&str> = csv.body.lines().collect();
    assert_eq!(lines.len(), 2501);
    assert!(lines[0].starts_with("id,time,who,via,"), "{}", lines[0]);
    assert!(lines[1].contains(",\"'=1+1\",,,test,,,row "), "{}", lines[1]);
    let bearer = format!("Bearer {admin}");
    let headers = [("accept", "application/x-ndjson"), ("authorization", bearer.as_str())];
    let text = poller.ask(Method::GET, "/api/audit?act=test&limit=1200", &headers).await;
    assert_eq!(text.header("content-type"), "application/x-ndjson");
    let rows: Vec<Value> =
        text.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The newest has the number 2501, after the token's.
    assert_eq!((rows.len(), &rows[0]["id"], &rows[1199]["id"]), (1200, &2501.into(), &1302.into()));
    let wrong = poller.get_as(&admin, "/api/audit?format=xml").await;
    assert_eq!(wrong.problem(), "bad_request");
    assert!(wrong.body.contains("json, csv or jsonl"), "{}", wrong.body);
}

#[tokio::test]
async fn an_admin_of_some_servers_sees_the_rows_about_these() {
    let exporter = Exporter::start().await;
    let poller = Poller::start(vec![exporter.target("vm1"), exporter.target("vm2")]).await;
    let admin = poller.token("admin", Role::Admin, &[]).await;
    let limited = poller.token("limited", Role::Admin, &["vm2"]).await;
    poller.until_status_as(&admin, "vm1", "online").await;
    assert_eq!(poller.post_as(&admin, RESTART).await.status, 200);
    let other = RESTART.replace("vm1", "vm2");
    until("vm2 restarts", async || poller.post_as(&admin, &other).await.status == 200).await;
    let all = rows(&poller, &admin, "").await;
    assert!(all.iter().any(|row| row["act"] == "token create"), "{all:?}");
    let seen = rows(&poller, &limited, "").await;
    assert!(!seen.is_empty() && seen.iter().all(|row| row["server"] == "vm2"), "{seen:?}");
}
