//! The machine loses its power: of SQLite's log there is what was waited for, and of the rest as
//! much as the file system had written by itself.

use super::history::{HOUR, START, fold_all, samples, take_in};
use super::*;

/// A page in the log, and its head.
const FRAME: usize = 4096 + 24;

#[tokio::test]
async fn whatever_a_loss_of_power_takes_comes_again() {
    let (folder, store) = fresh().await;
    let path = folder.path().join("test.db");
    let log = || std::fs::read(folder.path().join("test.db-wal")).unwrap();
    let all = samples(START, START + HOUR / 2);
    let (first, rest) = all.split_at(90);
    take_in(&store, first.to_vec()).await;
    store.insert_command(command("a", Some("k"))).await.unwrap();
    let waited_for = log();
    let file = std::fs::read(&path).unwrap();
    for page in rest.chunks(30) {
        take_in(&store, page.to_vec()).await;
    }
    store.finish_command(ended(&store, "a", CommandStatus::Succeeded).await).await.unwrap();
    assert!(fold_all(&store, at(START + HOUR)).await > 0);
    let whole = store.history(&everything()).await.unwrap();
    let written = log();
    assert!(written.starts_with(&waited_for), "the log was begun anew: less is to be written");
    assert_eq!(std::fs::read(&path).unwrap(), file, "what is cut off is in the log alone");
    let frames = (written.len() - waited_for.len()) / FRAME;
    assert!(frames >= 10, "{frames} pages may be lost");

    let mut statuses = Vec::new();
    for frame in 0..=frames {
        // The last page is there in part.
        let there = waited_for.len() + frame * FRAME + if frame < frames { FRAME / 2 } else { 0 };
        let left = tempfile::tempdir().unwrap();
        let path = left.path().join("test.db");
        std::fs::write(&path, &file).unwrap();
        std::fs::write(left.path().join("test.db-wal"), &written[..there]).unwrap();
        let store = Store::open(&path).await.unwrap();
        assert_eq!(store.integrity().await.unwrap(), Vec::<String>::new());
        assert_eq!(store.check_audit().await.unwrap().fault, None);
        let known = usize::try_from(store.known_server(&server()).await.unwrap().cursor.after);
        let known = known.unwrap();
        assert!((first.len()..=all.len()).contains(&known), "{known} samples");
        take_in(&store, all[known..].to_vec()).await;
        fold_all(&store, at(START + HOUR)).await;
        assert_eq!(store.history(&everything()).await.unwrap(), whole, "after page {frame}");
        let kept = store.command(&"a".parse().unwrap()).await.unwrap().unwrap();
        statuses.push(kept.record.status);
        // It is not run again, whoever asks with its key.
        let again = store.insert_command(command("b", Some("k"))).await.unwrap();
        assert!(matches!(again, Inserted::Before(_)));
        store.close().await;
    }
    statuses.dedup();
    assert_eq!(statuses, [CommandStatus::Running, CommandStatus::Succeeded]);
}

/// What the writer's connection waits for: 2 is `FULL`.
async fn waits_for(store: &Store) -> i64 {
    let asked = store.writer.run(|writing| {
        Box::pin(async move {
            let sql = "PRAGMA synchronous";
            Ok(sqlx::query_scalar(sql).fetch_one(&mut writing.connection).await?)
        })
    });
    asked.await.unwrap()
}

#[tokio::test]
async fn a_commit_that_did_not_begin_leaves_the_next_one_waiting_for_the_disk() {
    let (folder, store) = fresh().await;
    store.insert_command(command("a", None)).await.unwrap();
    assert_eq!(waits_for(&store).await, 2);
    // Another process writes for longer than anybody waits.
    let options = crate::store::open::options(&folder.path().join("test.db"));
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let done = ended(&store, "a", CommandStatus::Succeeded).await;
    let refused = store.finish_command(Arc::clone(&done)).await;
    assert!(refused.is_err(), "{refused:?}");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(waits_for(&store).await, 2);
    store.finish_command(done).await.unwrap();
}

fn everything() -> HistoryQuery {
    HistoryQuery {
        from: at(START),
        to: at(START + HOUR / 2),
        ..query(&["memory", "cpu"], 10 * SECOND)
    }
}
