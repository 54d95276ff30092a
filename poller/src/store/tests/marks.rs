use super::*;

#[tokio::test]
async fn marks_are_what_explains_a_chart_and_are_told_short() {
    let (_folder, store) = fresh().await;
    let mut entries = vec![
        event(1, 1_000, EventKind::EXIT),
        event(2, 2_000, EventKind::ONLINE),
        event(3, 3_000, EventKind::DEPLOY_HEALTHY),
        event(4, 4_000, EventKind::PM2_DISCONNECTED),
    ];
    if let Record::Event(event) = &mut entries[3].record {
        event.app = None;
    }
    store.ingest(ingest(cursor("", 0), cursor("e", 4), entries)).await.unwrap();
    let read = async |app: Option<&str>, from: i64, limit: usize| -> Vec<(String, String)> {
        let app = app.map(|app| app.parse().unwrap());
        let query = MarkQuery { server: server(), app, pm2_home: None, from: at(from), limit };
        let marks = store.marks(&query).await.unwrap();
        assert!(marks.iter().all(|mark| mark.severity == Severity::Warning));
        marks.into_iter().map(|mark| (mark.kind, mark.message)).collect()
    };
    let own = |kind: &str, message: &str| (kind.to_owned(), message.to_owned());
    let all = [own("deploy_healthy", "number 3"), own("exit", "number 1")];
    assert_eq!(read(Some("api"), 0, 10).await, all, "newest first, and no online");
    assert_eq!(read(Some("api"), 2_000, 10).await, all[..1]);
    assert_eq!(read(Some("api"), 0, 1).await, all[..1]);
    assert_eq!(read(Some("other"), 0, 10).await, []);
    let machine = [own("pm2_disconnected", "number 4"), own("deploy_healthy", "number 3")];
    assert_eq!(read(None, 0, 10).await, machine);
}

#[tokio::test]
async fn an_event_is_found_by_its_number() {
    let (_folder, store) = fresh().await;
    let page = ingest(cursor("", 0), cursor("e", 1), vec![event(1, 1, EventKind::EXIT)]);
    let stored = store.ingest(page).await.unwrap();
    assert_eq!(store.event(stored[0].id).await.unwrap().as_ref(), Some(&stored[0]));
    assert_eq!(store.event(stored[0].id + 1).await, Ok(None));
}

/// However many events its neighbours have.
#[tokio::test]
async fn events_of_an_app_are_found_by_an_index() {
    let (_folder, store) = fresh().await;
    let one = "(SELECT id FROM servers WHERE server = 'vm1')";
    for (conditions, index) in [
        (format!("server = {one} AND app = 'api'"), "events_by_server_app (server=? AND app=?)"),
        (
            format!("server = {one} AND app = 'api' AND time >= 5"),
            "events_by_server_app (server=? AND app=? AND time>?)",
        ),
        ("app = 'api'".to_owned(), "events_by_app (app=?)"),
        ("app = 'api' AND (time, id) < (5, 5)".to_owned(), "events_by_app (app=? AND time<?)"),
    ] {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT event FROM events WHERE {conditions} \
             ORDER BY time DESC, id DESC LIMIT 10"
        );
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&store.readers).await.unwrap();
        let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
        assert!(steps[0].ends_with(index), "{conditions}: {steps:?}");
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:?}");
    }
}
