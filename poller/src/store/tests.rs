use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use service::token::TokenHash;
use tempfile::TempDir;
use wire::{
    Action, AppName, CommandId, CommandStatus, CustomMetric, Entry, Event, EventKind, Instance,
    Readings, Record, Sample, SampledProcess, ServerId, Severity, Status, Target, Time,
};

use super::*;
use crate::access::{Limits, Role};

mod audit;
mod commands;
mod files;
mod history;
mod marks;
mod power;
mod reads;

use commands::{command, ended};

const SECOND: i64 = 1000;

async fn fresh() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("test.db")).await.unwrap();
    (folder, store)
}

fn server() -> ServerId {
    "vm1".parse().unwrap()
}

fn cursor(epoch: &str, after: u64) -> Cursor {
    Cursor { epoch: epoch.into(), after }
}

fn at(millis: i64) -> Time {
    Time::from_millis(1_700_000_000_000 + millis)
}

fn sample(seq: u64, millis: i64, cpu: Option<f64>, restarts: u64) -> Entry {
    let readings = Readings {
        cpu_seconds: cpu,
        memory_bytes: Some(1000 + seq),
        node: [("heap_used".into(), 5.0)].into(),
        custom: vec![CustomMetric { name: "users".into(), value: -2.0, unit: "people".into() }],
        ..Readings::default()
    };
    let instance = Instance {
        name: "api".parse().unwrap(),
        namespace: "default".into(),
        instance_id: 0,
        pm2_home: None,
    };
    let process = SampledProcess { instance, status: Status::Online, restarts, readings };
    let sample = Sample { host: None, processes: vec![process] };
    Entry { seq, time: at(millis), record: Record::Sample(sample) }
}

fn event(seq: u64, millis: i64, kind: EventKind) -> Entry {
    let mut event = Event::new(kind, Severity::Warning, format!("number {seq}"));
    event.app = Some("api".parse().unwrap());
    Entry { seq, time: at(millis), record: Record::Event(event) }
}

fn ingest(from: Cursor, to: Cursor, entries: Vec<Entry>) -> Ingest {
    Ingest {
        patience: Duration::ZERO,
        server: server(),
        from,
        to,
        entries,
        state: None,
        told: Vec::new(),
        answered: Some(at(0)),
        online: None,
        keep_from: Time::from_millis(0),
    }
}

fn query(metrics: &[&str], step_millis: i64) -> HistoryQuery {
    HistoryQuery {
        server: server(),
        subject: Subject::App("api".parse().unwrap()),
        metrics: metrics.iter().map(|metric| (*metric).to_owned()).collect(),
        from: at(0),
        to: at(3_600_000),
        step_millis,
    }
}

async fn messages(store: &Store) -> Vec<String> {
    let filter = EventFilter { limit: 100, ..EventFilter::default() };
    let events = store.events(&filter).await.unwrap();
    events.into_iter().rev().map(|stored| stored.event.message).collect()
}

#[tokio::test]
async fn the_same_page_counts_once() {
    let (_folder, store) = fresh().await;
    let page = ingest(
        cursor("", 0),
        cursor("e", 2),
        vec![event(1, 1, EventKind::EXIT), sample(2, 2, Some(1.0), 0)],
    );
    assert_eq!(store.ingest(page.clone()).await.unwrap().len(), 1);
    assert_eq!(store.ingest(page).await, Err(StoreError::Moved));
    assert_eq!(messages(&store).await, ["number 1"]);
    assert_eq!(store.known_server(&server()).await.unwrap().cursor, cursor("e", 2));
    let points = store.history(&query(&["memory"], SECOND)).await.unwrap();
    assert_eq!(points[0].points.len(), 1);
}

/// A server that nobody knew yet, and whose first words are refused.
#[tokio::test]
async fn a_server_with_too_many_names_harms_nobody_else() {
    let (_folder, store) = fresh().await;
    let mut entry = sample(1, 1, Some(1.0), 0);
    if let Record::Sample(sample) = &mut entry.record {
        sample.processes[0].readings.custom = (0..10_001)
            .map(|n| CustomMetric { name: format!("m{n}").into(), value: 0.0, unit: "".into() })
            .collect();
    }
    let too_many = ingest(cursor("", 0), cursor("e", 1), vec![entry]);
    let refused = store.ingest(too_many.clone()).await;
    assert_eq!(refused, Err(StoreError::TooMany("metric names")));
    let other = Ingest {
        server: "vm2".parse().unwrap(),
        ..ingest(cursor("", 0), cursor("e", 1), vec![sample(1, 1, None, 0)])
    };
    // In one commit.
    let (again, other) = tokio::join!(store.ingest(too_many), store.ingest(other));
    assert_eq!(again, Err(StoreError::TooMany("metric names")));
    other.unwrap();
    let page = ingest(cursor("", 0), cursor("e", 1), vec![event(1, 1, EventKind::EXIT)]);
    store.ingest(page).await.unwrap();
    assert_eq!(store.known_server(&server()).await.unwrap().cursor, cursor("e", 1));
}

#[tokio::test]
async fn one_app_in_two_pm2s_is_two() {
    let (_folder, store) = fresh().await;
    let mut entry = sample(1, 1, Some(1.0), 0);
    if let Record::Sample(sample) = &mut entry.record {
        let mut other = sample.processes[0].clone();
        sample.processes[0].instance.pm2_home = Some("/a/.pm2".into());
        other.instance.pm2_home = Some("/b/.pm2".into());
        sample.processes.push(other);
    }
    store.ingest(ingest(cursor("", 0), cursor("e", 1), vec![entry])).await.unwrap();
    let series = store.history(&query(&["memory"], SECOND)).await.unwrap();
    let homes: Vec<_> =
        series.iter().filter_map(|it| it.instance.as_ref()?.pm2_home.as_deref()).collect();
    assert_eq!(homes, ["/a/.pm2", "/b/.pm2"]);
}

#[tokio::test]
async fn many_at_once_are_each_whole() {
    let (_folder, store) = fresh().await;
    let page = |n: u64| {
        let entry = event(n, n as i64, EventKind::EXIT);
        ingest(cursor(if n == 1 { "" } else { "e" }, n - 1), cursor("e", n), vec![entry])
    };
    // Queued together, so that they share a commit; every second one is a repeat.
    let all = (1..=50).flat_map(|n| [store.ingest(page(n)), store.ingest(page(n))]);
    let results = futures_util::future::join_all(all).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 50);
    assert_eq!(messages(&store).await.len(), 50);
}

#[tokio::test]
async fn cpu_is_made_by_difference_and_never_over_a_restart() {
    let (_folder, store) = fresh().await;
    let counters = [
        (0, Some(10.0), 0),
        (10, Some(15.0), 0),
        (20, Some(16.0), 1), // started again
        (30, Some(17.0), 1),
        (40, Some(1.0), 1), // fell
        (50, None, 1),
        (60, Some(9.0), 1),
        (3000, Some(99.0), 1), // nobody looked meanwhile
        (3010, Some(100.0), 1),
    ];
    let entries = counters.iter().enumerate().map(|(index, (second, cpu, restarts))| {
        sample(index as u64 + 1, second * SECOND, *cpu, *restarts)
    });
    let page = ingest(cursor("", 0), cursor("e", 9), entries.collect());
    store.ingest(page).await.unwrap();
    let series = store.history(&query(&["cpu"], 10 * SECOND)).await.unwrap();
    let cpu: Vec<(i64, f64)> =
        series[0].points.iter().map(|p| (p.time.millis_since(at(0)) / SECOND, p.mean)).collect();
    assert_eq!(cpu, [(10, 0.5), (30, 0.1), (3010, 0.1)]);
    assert_eq!((series.len(), series[0].unit.as_str()), (1, "cores"));
}

#[tokio::test]
async fn the_sample_before_the_range_gives_the_first_rate() {
    let (_folder, store) = fresh().await;
    let entries = vec![sample(1, -10 * SECOND, Some(1.0), 0), sample(2, 0, Some(2.0), 0)];
    store.ingest(ingest(cursor("", 0), cursor("e", 2), entries)).await.unwrap();
    let series = store.history(&query(&["cpu", "memory"], SECOND)).await.unwrap();
    assert_eq!(series[0].points.len(), 1);
    assert_eq!(series[1].points.len(), 1, "what is before the range is not in it");
}

#[tokio::test]
async fn steps_have_least_mean_and_greatest() {
    let (_folder, store) = fresh().await;
    let entries = (1..=6).map(|n| sample(n, n as i64 * 10 * SECOND, None, n)).collect();
    store.ingest(ingest(cursor("", 0), cursor("e", 6), entries)).await.unwrap();
    let series = store.history(&query(&[], 30 * SECOND)).await.unwrap();
    let names: Vec<(&str, &str)> =
        series.iter().map(|series| (&*series.metric, &*series.unit)).collect();
    let expected = [
        ("heap_used", "bytes"),
        ("memory", "bytes"),
        ("restarts", ""),
        ("up", ""),
        ("users", "people"),
    ];
    assert_eq!(names, expected);
    let steps: Vec<(f64, f64, f64)> =
        series[2].points.iter().map(|point| (point.min, point.mean, point.max)).collect();
    assert_eq!(steps, [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]);
    assert_eq!(series[4].points[0].min, -2.0);
}

#[tokio::test]
async fn events_are_filtered_and_paged_by_time() {
    let (_folder, store) = fresh().await;
    let entries = vec![
        event(1, 30, EventKind::EXIT),
        event(2, 10, EventKind::ONLINE),
        event(3, 30, EventKind::ONLINE),
    ];
    store.ingest(ingest(cursor("", 0), cursor("e", 3), entries)).await.unwrap();
    let read = async |filter: EventFilter| -> Vec<String> {
        let events = store.events(&EventFilter { limit: 10, ..filter }).await.unwrap();
        events.into_iter().map(|stored| stored.event.message).collect()
    };
    assert_eq!(read(EventFilter::default()).await, ["number 3", "number 1", "number 2"]);
    let online = EventFilter { kind: Some("online".into()), ..EventFilter::default() };
    assert_eq!(read(online).await, ["number 3", "number 2"]);
    let bad = EventFilter { severity: Some(Severity::Error), ..EventFilter::default() };
    assert!(read(bad).await.is_empty());
    let newest = store.events(&EventFilter { limit: 1, ..EventFilter::default() }).await.unwrap();
    let before = Some((newest[0].time, newest[0].id));
    assert_eq!(
        read(EventFilter { before, ..EventFilter::default() }).await,
        ["number 1", "number 2"]
    );
    let others =
        EventFilter { visible: Some(vec!["vm2".parse().unwrap()]), ..EventFilter::default() };
    assert!(read(others).await.is_empty());
    let since = EventFilter { since: Some(at(20)), ..EventFilter::default() };
    assert_eq!(read(since).await.len(), 2);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (folder, store) = fresh().await;
    let state = serde_json::json!({
        "time": at(0), "revision": 7, "pm2": {"up": true, "home": "/h"},
        "exporter": {"version": "1", "started_at": at(0), "hostname": "h", "os": "linux", "arch": "x"},
        "processes": [], "slots": [], "journal": {"epoch": "e", "first": 1, "next": 2},
    });
    let state: wire::State = serde_json::from_value(state).unwrap();
    let mut page = ingest(cursor("", 0), cursor("e", 1), vec![event(1, 0, EventKind::EXIT)]);
    page.state = Some(Arc::new(state.clone()));
    page.online = Some(true);
    store.ingest(page).await.unwrap();
    store.close().await;
    assert!(store.ping().await.is_err());
    let store = Store::open(&folder.path().join("test.db")).await.unwrap();
    let known = store.known().await.unwrap().remove(&server()).unwrap();
    assert_eq!(known.cursor, cursor("e", 1));
    assert_eq!(known.state.as_deref(), Some(&state));
    assert_eq!((known.last_success, known.online), (Some(at(0)), Some(true)));
    assert_eq!(messages(&store).await, ["number 1"]);
    assert_eq!(store.integrity().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn other_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("text"), "this is no database, it is text\n".repeat(100)).unwrap();
    let error = Store::open(&path("text")).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    let error = Store::open(folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("not a file"), "{error}");
    let error = Store::open(&path("no/such/folder.db")).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    assert!(Store::look(&path("missing")).await.is_err());
    assert!(!path("missing").exists());

    use sqlx::ConnectOptions;
    let foreign =
        sqlx::sqlite::SqliteConnectOptions::new().filename(path("foreign")).create_if_missing(true);
    let mut connection = foreign.connect().await.unwrap();
    sqlx::query("CREATE TABLE recipes (name TEXT)").execute(&mut connection).await.unwrap();
    let before = std::fs::read(path("foreign")).unwrap();
    let error = Store::open(&path("foreign")).await.unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert_eq!(std::fs::read(path("foreign")).unwrap(), before);
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let (folder, store) = fresh().await;
    let later = store.writer.run(|writing| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', 1, x'00', 0)",
            )
            .execute(&mut writing.connection)
            .await?;
            Ok(())
        })
    });
    later.await.unwrap();
    store.close().await;
    let error = Store::open(&folder.path().join("test.db")).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { version: 9999, .. }), "{error}");
}

fn audit() -> NewAudit {
    NewAudit { who: "me".into(), act: "test", ..NewAudit::default() }
}

#[tokio::test]
async fn tokens_are_kept_revoked_and_named_again() {
    let (_folder, store) = fresh().await;
    let token = |secret: &str| NewToken {
        name: "ci".into(),
        role: Role::Operator,
        hash: TokenHash::of(secret),
        limits: Limits { servers: Some([server()].into()), ..Limits::default() },
        expires_at: Some(at(0)),
    };
    store.create_token(token("one"), audit()).await.unwrap();
    let again = store.create_token(token("two"), audit()).await.unwrap_err();
    assert!(again.to_string().contains("\"ci\" is there already"), "{again}");
    assert!(store.revoke_token("ci".into(), audit(), true).await.unwrap());
    assert!(!store.revoke_token("ci".into(), audit(), true).await.unwrap());
    store.create_token(token("two"), audit()).await.unwrap();
    let tokens = store.tokens().await.unwrap();
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0].revoked_at.is_some() && !tokens[0].is_valid(at(-1)));
    assert!(tokens[1].is_valid(at(-1)) && !tokens[1].is_valid(at(0)));
    assert_eq!(tokens[1].limits.servers, Some([server()].into()));
    let rows = store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap();
    assert_eq!(rows.len(), 3, "a refused or empty change leaves no line");
}

#[tokio::test]
async fn limits_are_changed_from_what_they_are_or_not_at_all() {
    let (_folder, store) = fresh().await;
    let to = |server: &str| Limits {
        servers: Some([server.parse().unwrap()].into()),
        ..Limits::default()
    };
    let user = NewUser {
        name: "alice".into(),
        role: Role::Operator,
        password: "hash".into(),
        limits: Limits::default(),
        expires_at: None,
    };
    store.create_user(user, NewAudit::default()).await.unwrap();
    let change = async |before: Limits, after: Limits| {
        let change = UserChange { limits: Some((before, after)), ..UserChange::default() };
        store.change_user("alice".into(), change, NewAudit::default(), false).await
    };
    assert_eq!(change(Limits::default(), to("vm1")).await, Ok(true));
    // One that read them before.
    assert_eq!(change(Limits::default(), to("vm2")).await, Err(StoreError::Moved));
    let password = UserChange { password: Some("other".into()), ..UserChange::default() };
    let done = store.change_user("alice".into(), password, NewAudit::default(), false).await;
    assert_eq!(done, Ok(true));
    let kept = &store.users().await.unwrap()[0];
    assert_eq!((&kept.limits, kept.password.as_str()), (&to("vm1"), "other"));
    let nobody = UserChange { limits: Some((to("a"), to("b"))), ..UserChange::default() };
    let done = store.change_user("bob".into(), nobody, NewAudit::default(), false).await;
    assert_eq!(done, Ok(false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// However pages are repeated and mixed up, each entry is stored at most once and in order.
    #[test]
    fn no_order_of_pages_makes_a_double(order in proptest::collection::vec(0..4u64, 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_folder, store) = fresh().await;
            let mut done = 0;
            for page in order {
                let from = cursor(if page == 0 { "" } else { "e" }, page * 2);
                let entries = [1, 2].map(|n| event(page * 2 + n, (page * 2 + n) as i64, EventKind::EXIT));
                let result = store.ingest(ingest(from, cursor("e", page * 2 + 2), entries.into())).await;
                if page == done {
                    result.unwrap();
                    done += 1;
                } else {
                    assert_eq!(result, Err(StoreError::Moved));
                }
            }
            let expected: Vec<String> = (1..=done * 2).map(|n| format!("number {n}")).collect();
            assert_eq!(messages(&store).await, expected);
            store.close().await;
        });
    }
}
