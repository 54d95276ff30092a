//! The audit's chain, broken in every way.

use super::*;
use crate::store::AuditCheck;

async fn rows(store: &Store, count: i64) {
    for at in 0..count {
        let row = NewAudit {
            who: format!("w{at}"),
            via: (at % 2 == 0).then_some("token"),
            act: "test",
            detail: (at % 3 == 0).then(|| "more".to_owned()),
            repeats: (at % 5 == 0).then_some(at),
            ..NewAudit::default()
        };
        store.record(row).await.unwrap();
    }
}

async fn do_to(store: &Store, sql: &'static str) {
    store
        .writer
        .run(move |writing| {
            Box::pin(async move {
                sqlx::query(sql).execute(&mut writing.connection).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
}

async fn fault(store: &Store) -> (u64, Option<String>) {
    let AuditCheck { sound, fault, .. } = store.check_audit().await.unwrap();
    (sound, fault)
}

#[tokio::test]
async fn whatever_is_changed_the_first_such_row_is_named() {
    for (change, sound, words) in [
        ("UPDATE audit SET who = 'x' WHERE id = 4", 3, "row 4 was changed"),
        ("UPDATE audit SET time = time + 1 WHERE id = 1", 0, "row 1 was changed"),
        ("UPDATE audit SET detail = NULL WHERE id = 7", 6, "row 7 was changed"),
        ("UPDATE audit SET detail = '' WHERE id = 2", 1, "row 2 was changed"),
        ("UPDATE audit SET repeats = 1 WHERE id = 2", 1, "row 2 was changed"),
        ("UPDATE audit SET via = detail, detail = via WHERE id = 1", 0, "row 1 was changed"),
        ("UPDATE audit SET hash = zeroblob(32) WHERE id = 3", 2, "row 3 was changed"),
        ("UPDATE audit SET hash = NULL WHERE id = 10", 9, "row 10 was changed"),
        ("DELETE FROM audit WHERE id = 5", 4, "row 5 is missing"),
        ("DELETE FROM audit WHERE id IN (5, 6, 7)", 4, "rows 5 to 7 are missing"),
        ("DELETE FROM audit WHERE id < 3", 0, "rows 1 to 2 are missing"),
        ("DELETE FROM audit WHERE id = 10", 9, "the newest row, 10, is missing"),
        ("DELETE FROM audit", 0, "the newest rows, 1 to 10, are missing"),
    ] {
        let (_folder, store) = fresh().await;
        rows(&store, 10).await;
        assert_eq!(fault(&store).await, (10, None));
        do_to(&store, change).await;
        assert_eq!(fault(&store).await, (sound, Some(words.to_owned())), "{change}");
    }
}

#[tokio::test]
async fn retention_and_copies_leave_a_chain_that_can_be_followed() {
    let (folder, store) = fresh().await;
    rows(&store, 10).await;
    // The clock was set back in between: nothing but a beginning may go.
    do_to(&store, "UPDATE audit SET hash = hash, time = 5000 WHERE id = 3").await;
    do_to(&store, "UPDATE audit SET time = id * 1000 WHERE id <> 3").await;
    do_to(&store, "UPDATE audit SET hash = NULL").await;
    do_to(&store, "UPDATE audit_anchor SET sealed = 0").await;
    let path = folder.path().join("test.db");
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(fault(&store).await, (10, None));
    let cut = async |millis: i64| {
        let moment = Time::from_millis(millis);
        let work = store.writer.run(move |writing| {
            Box::pin(crate::store::audit::cut(&mut writing.connection, moment, 500))
        });
        work.await.unwrap()
    };
    assert_eq!((cut(5000).await, fault(&store).await), (2, (8, None)));
    assert_eq!((cut(8000).await, fault(&store).await), (5, (3, None)));
    assert_eq!((cut(1_000_000).await, fault(&store).await), (3, (0, None)));
    rows(&store, 2).await;
    assert_eq!(fault(&store).await, (2, None));
    let all = store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap();
    assert_eq!(all.iter().map(|row| row.id).collect::<Vec<_>>(), [12, 11]);

    let target = folder.path().join("copy.db");
    copy(&path, &target).await.unwrap();
    let copied = Store::open(&target).await.unwrap();
    assert_eq!(fault(&copied).await, (2, None));
    do_to(&copied, "DELETE FROM audit WHERE id = 12").await;
    assert_eq!(fault(&copied).await.1.as_deref(), Some("the newest row, 12, is missing"));
    copied.close().await;
    do_to(&store, "UPDATE audit_anchor SET hash = zeroblob(32)").await;
    assert_eq!(fault(&store).await.1.as_deref(), Some("row 11 was changed"));
}

#[tokio::test]
async fn it_is_filtered() {
    let (_folder, store) = fresh().await;
    for (who, server, outcome) in
        [("a", Some("vm1"), "refused"), ("a", Some("vm2"), "requested"), ("b", None, "refused")]
    {
        let row = NewAudit {
            who: who.into(),
            server: server.map(Into::into),
            outcome: outcome.into(),
            act: "test",
            address: "192.0.2.1".into(),
            ..NewAudit::default()
        };
        store.record(row).await.unwrap();
    }
    let ids = async |filter: AuditFilter| -> Vec<i64> {
        let rows = store.audit(&AuditFilter { limit: 10, ..filter }).await.unwrap();
        rows.into_iter().map(|row| row.id).collect()
    };
    let any = AuditFilter::default;
    assert_eq!(ids(any()).await, [3, 2, 1]);
    assert_eq!(ids(AuditFilter { visible: Some(vec![server()]), ..any() }).await, [1]);
    assert_eq!(ids(AuditFilter { outcome: Some("refused".into()), ..any() }).await, [3, 1]);
    assert_eq!(ids(AuditFilter { act: Some("other".into()), ..any() }).await, [0; 0]);
    assert_eq!(ids(AuditFilter { address: Some("192.0.2.1".into()), ..any() }).await, [3, 2, 1]);
    assert_eq!(ids(AuditFilter { until: Some(Time::from_millis(0)), ..any() }).await, [0; 0]);
    assert_eq!(ids(AuditFilter { before: Some(3), ..any() }).await, [2, 1]);
}

/// Adds a row and fails then.
async fn undone(store: &Store) {
    let work = store.writer.run(|writing| {
        Box::pin(async move {
            crate::store::audit::insert(writing, audit()).await?;
            Err::<(), StoreError>(StoreError::Exists("no".to_owned()))
        })
    });
    assert_eq!(work.await, Err(StoreError::Exists("no".to_owned())));
}

#[tokio::test]
async fn commands_are_chained_too_whoever_adds_between_their_beginning_and_end() {
    let (folder, store) = fresh().await;
    let other = Store::open(&folder.path().join("test.db")).await.unwrap();
    for (round, id) in (1..).zip(["a", "b", "c"]) {
        store.insert_command(command(id, None)).await.unwrap();
        rows(&other, 1).await;
        store.insert_command(command(&format!("{id}-2"), None)).await.unwrap();
        rows(&other, 1).await;
        for status in [CommandStatus::Succeeded, CommandStatus::Unknown] {
            store.finish_command(ended(&store, id, status).await).await.unwrap();
        }
        rows(&store, 1).await;
        assert_eq!(fault(&store).await, (round * 6, None));
    }
    // One whose id is taken is neither on record nor in the audit.
    assert!(store.insert_command(command("a", None)).await.is_err());
    assert_eq!(fault(&store).await, (18, None));
}

/// Where the chain ends is remembered: neither what is undone nor what the command line adds
/// meanwhile, nor what retention takes away, makes a hole in it.
#[tokio::test]
async fn a_chain_that_others_add_to_has_no_hole() {
    let (folder, store) = fresh().await;
    let other = Store::open(&folder.path().join("test.db")).await.unwrap();
    for round in 1..=3 {
        rows(&store, 2).await;
        undone(&store).await;
        rows(&other, 3).await;
        // Many in one transaction, and one of them undone.
        tokio::join!(rows(&store, 2), undone(&store), rows(&store, 1), undone(&store));
        rows(&other, 1).await;
        assert_eq!(fault(&store).await, (round * 9, None));
    }
    let now = Time::now().plus_millis(60_000);
    let before = Before {
        samples: at(0),
        minutes: at(0),
        hours: at(0),
        events: at(0),
        commands: at(0),
        audit: now,
    };
    other.retain(before).await.unwrap();
    assert_eq!(fault(&store).await, (0, None));
    rows(&store, 1).await;
    rows(&other, 1).await;
    other.retain(before).await.unwrap();
    rows(&store, 2).await;
    assert_eq!(fault(&store).await, (2, None));
    let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
    let ids = store.audit(&filter).await.unwrap().into_iter().map(|row| row.id);
    assert_eq!(ids.collect::<Vec<_>>(), [31, 30]);
}
