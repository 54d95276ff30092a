//! Reads end, whatever they ask for.

use super::*;

/// Has no end of its own.
const ENDLESS: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[tokio::test]
async fn one_without_end_is_interrupted_and_who_finds_no_place_is_told_so() {
    let (_folder, store) = fresh().await;
    let endless = || async {
        let read: sqlx::Result<i64> = sqlx::query_scalar(ENDLESS).fetch_one(&store.readers).await;
        read.map_err(StoreError::from)
    };
    // More than there are readers: the last waits for its turn, which does not come in time.
    let reads = futures_util::future::join_all((0..5).map(|_| endless()));
    let writes = async {
        for number in 0..100 {
            let (from, to) = (cursor("e", number), cursor("e", number + 1));
            let from = if number == 0 { Cursor::default() } else { from };
            let entry = event(number + 1, number as i64, EventKind::EXIT);
            store.ingest(ingest(from, to, vec![entry])).await.unwrap();
        }
    };
    let (reads, ()) = tokio::join!(reads, writes);
    assert_eq!(reads, vec![Err(StoreError::Busy); 5]);
    // Those who come afterwards find readers with time of their own.
    let events = store.events(&EventFilter { limit: 1000, ..EventFilter::default() }).await;
    assert_eq!(events.unwrap().len(), 100);
}

#[tokio::test]
async fn a_history_is_given_up_with_the_time_that_reads_have() {
    let (_folder, store) = fresh().await;
    store
        .ingest(ingest(Cursor::default(), cursor("e", 1), vec![sample(1, 0, None, 0)]))
        .await
        .unwrap();
    let held: Vec<_> =
        futures_util::future::try_join_all((0..4).map(|_| store.readers.acquire())).await.unwrap();
    assert_eq!(store.history(&query(&["memory"], 1000)).await, Err(StoreError::Busy));
    drop(held);
    assert_eq!(store.history(&query(&["memory"], 1000)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn readers_keep_little() {
    let (_folder, store) = fresh().await;
    let all = futures_util::future::try_join_all((0..4).map(|_| store.readers.acquire()));
    for mut reader in all.await.unwrap() {
        let kept: i64 =
            sqlx::query_scalar("PRAGMA cache_size").fetch_one(&mut *reader).await.unwrap();
        assert_eq!(kept, -512);
    }
}
