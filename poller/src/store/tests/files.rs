use super::history::{HOUR, START, fold_all, samples, take_in};
use super::*;
use sqlx::{ConnectOptions, Connection};

/// A database with two days of history, a token and a command.
async fn filled() -> (TempDir, Store) {
    let (folder, store) = fresh().await;
    take_in(&store, samples(START, START + 12 * HOUR)).await;
    fold_all(&store, at(START + 24 * HOUR)).await;
    let token = NewToken {
        name: "ci".into(),
        role: Role::Operator,
        hash: TokenHash::of("secret"),
        limits: Limits::default(),
        expires_at: None,
    };
    store.create_token(token, audit()).await.unwrap();
    store.insert_command(command("a", None)).await.unwrap();
    (folder, store)
}

fn everything() -> HistoryQuery {
    HistoryQuery { from: at(START), to: at(START + 12 * HOUR), ..query(&["memory"], HOUR) }
}

#[tokio::test]
async fn a_copy_is_made_under_load_and_put_back() {
    let (folder, store) = filled().await;
    let (path, copied) = (folder.path().join("test.db"), folder.path().join("copy.db"));
    let before = store.history(&everything()).await.unwrap();
    // Little enough that fifty turns at four connections come in the time that one is waited for.
    let little = HistoryQuery { to: at(START + HOUR / 6), ..everything() };
    let of_little = store.history(&little).await.unwrap();
    // Fifty who read, one who writes, and a copy: nobody is told to come again.
    let readers = (0..50).map(|_| async {
        for _ in 0..5 {
            assert_eq!(store.history(&little).await.unwrap(), of_little);
        }
    });
    let readers = futures_util::future::join_all(readers);
    let writer = async {
        // No more than is ever left to be folded: all of that is read by each.
        let begin = START + 12 * HOUR;
        for piece in 0..15 {
            let (from, to) = (begin + piece * HOUR / 60, begin + (piece + 1) * HOUR / 60);
            take_in(&store, samples(from, to)).await;
            assert!(store.sizes().1 <= 16 << 20);
        }
    };
    let (read, (), made) = tokio::join!(readers, writer, copy(&path, &copied));
    assert_eq!(read.len(), 50);
    made.unwrap();
    let again = copy(&path, &copied).await.unwrap_err();
    assert_eq!(again.to_string(), format!("{}: is there already", copied.display()));

    let lock = Lock::take(&path).unwrap();
    let running = restore(&path, &copied).await.unwrap_err();
    assert!(running.to_string().contains("running"), "{running}");
    drop(lock);
    store.close().await;
    let kept = restore(&path, &copied).await.unwrap().unwrap();
    assert!(kept.exists());
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.history(&everything()).await.unwrap(), before);
    assert_eq!(store.integrity().await.unwrap(), Vec::<String>::new());
    assert!(store.command(&"a".parse().unwrap()).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_no_good_copy_is_not_restored() {
    let (folder, store) = filled().await;
    let (path, copied) = (folder.path().join("test.db"), folder.path().join("copy.db"));
    copy(&path, &copied).await.unwrap();
    store.close().await;
    let original = std::fs::read(&path).unwrap();
    damage(&copied);
    let text = folder.path().join("text");
    std::fs::write(&text, "no database at all ".repeat(1000)).unwrap();
    let nothing = folder.path().join("nothing");
    std::fs::write(&nothing, "").unwrap();
    let empty = folder.path().join("empty");
    execute(&empty, "PRAGMA user_version = 1").await;
    let later = folder.path().join("later");
    std::fs::copy(&path, &later).unwrap();
    execute(&later, "INSERT INTO _sqlx_migrations VALUES (999, 'x', 0, 1, x'00', 0)").await;
    let newer = restore(&path, &later).await.unwrap_err();
    assert!(matches!(newer, StoreError::Newer { version: 999, .. }), "{newer}");
    for wrong in [copied, text, folder.path().join("missing"), nothing, empty, later] {
        restore(&path, &wrong).await.unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), original, "{}", wrong.display());
    }
}

async fn execute(path: &std::path::Path, sql: &'static str) {
    let options = open::options(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_copy_that_is_put_back_stays_whatever_was_wrong_with_the_other() {
    let (folder, store) = filled().await;
    let (path, copied) = (folder.path().join("test.db"), folder.path().join("copy.db"));
    copy(&path, &copied).await.unwrap();
    store.mark_damaged();
    store.close().await;
    restore(&path, &copied).await.unwrap();
    let (store, kept) = Store::open_or_replace(&path).await.unwrap();
    assert_eq!(kept, None);
    assert!(!store.history(&everything()).await.unwrap()[0].points.is_empty());
}

/// Whoever follows the stream of events comes back with the number of the last one.
#[tokio::test]
async fn what_takes_a_databases_place_gives_no_number_of_an_event_again() {
    let (folder, store) = filled().await;
    let (path, copied) = (folder.path().join("test.db"), folder.path().join("copy.db"));
    let tell = async |store: &Store| {
        let told = store.tell(EventKind::BACKUP_FAILED, Severity::Warning, "x".to_owned()).await;
        told.unwrap().id
    };
    let first = tell(&store).await;
    copy(&path, &copied).await.unwrap();
    let second = tell(&store).await;
    assert_eq!(second, first + 1);
    store.close().await;
    let itself = restore(&path, &path).await.unwrap_err().to_string();
    assert!(itself.contains("is the database itself"), "{itself}");
    restore(&path, &copied).await.unwrap();
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.missing_events(second).await.unwrap(), (second, Some(0)));
    assert_eq!(store.missing_events(first).await.unwrap(), (second, Some(1)), "it is gone");
    let third = tell(&store).await;
    assert_eq!(third, second + 1);
    // Nobody can tell how far numbers went.
    store.close().await;
    std::fs::write(&path, vec![0; 100_000]).unwrap();
    restore(&path, &copied).await.unwrap();
    let store = Store::open(&path).await.unwrap();
    for before in [first, third] {
        assert_eq!(store.missing_events(before).await.unwrap().1, None);
    }
    let next = tell(&store).await;
    assert!(next > 1_700_000_000_000_000 && next < 1 << 53, "{next}");
    assert_eq!(store.missing_events(next).await.unwrap(), (next, Some(0)));
    // Again, and now it is another one that is in the place, which has given few.
    store.close().await;
    std::fs::remove_file(&path).unwrap();
    Store::open(&path).await.unwrap().close().await;
    restore(&path, &copied).await.unwrap();
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.missing_events(third).await.unwrap().1, None);
    let copied = folder.path().join("second.db");
    copy(&path, &copied).await.unwrap();
    store.close().await;
    std::fs::remove_file(&path).unwrap();
    restore(&path, &copied).await.unwrap();
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.missing_events(next).await.unwrap().1, None, "each is told from the former");
    let next = tell(&store).await;
    // Nor of one that is damaged and set aside.
    store.mark_damaged();
    store.close().await;
    let (store, _) = Store::open_or_replace(&path).await.unwrap();
    assert!(tell(&store).await > next);
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_leaves_nothing_and_names_what_is_wrong() {
    let (folder, store) = filled().await;
    let path = folder.path().join("test.db");
    let here = || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = here();
    let missing = folder.path().join("none/copy.db");
    let error = copy(&path, &missing).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: was not made: ", missing.display())), "{error}");
    assert_eq!(here(), before);
    // What looks like a part of a copy, and is somebody's own.
    let own = folder.path().join("copy.db.partial");
    std::fs::write(&own, "mine").unwrap();
    copy(&path, &folder.path().join("copy.db")).await.unwrap();
    assert_eq!(std::fs::read(&own).unwrap(), b"mine");
    drop(store);
}

/// For want of rights, room or descriptors: nobody can say then that it is damaged.
#[tokio::test]
async fn what_cannot_be_opened_stays_where_it_is() {
    let (folder, store) = filled().await;
    let path = folder.path().join("test.db");
    store.close().await;
    let original = std::fs::read(&path).unwrap();
    let log = folder.path().join("test.db-wal");
    std::fs::create_dir(&log).unwrap();
    let error = Store::open_or_replace(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), original);
    let aside = std::fs::read_dir(folder.path())
        .unwrap()
        .find(|it| it.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"));
    assert!(aside.is_none(), "{aside:?}");
    std::fs::remove_dir(&log).unwrap();
    let (store, kept) = Store::open_or_replace(&path).await.unwrap();
    assert!(kept.is_none() && store.command(&"a".parse().unwrap()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_look_changes_nothing() {
    let (folder, store) = filled().await;
    let path = folder.path().join("test.db");
    store.close().await;
    std::fs::remove_file(folder.path().join("test.db-reserve")).unwrap();
    let before = std::fs::read(&path).unwrap();
    let Look::Ready(store) = Store::look(&path).await.unwrap() else { panic!("not ready") };
    assert_eq!(store.tokens().await.unwrap().len(), 1);
    assert_eq!(store.check_audit().await.unwrap().fault, None);
    store
        .create_token(
            NewToken {
                name: "x".into(),
                role: Role::Viewer,
                hash: TokenHash::of("x"),
                limits: Limits::default(),
                expires_at: None,
            },
            audit(),
        )
        .await
        .unwrap_err();
    store.close().await;
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(!folder.path().join("test.db-reserve").exists());
    execute(&path, "DELETE FROM _sqlx_migrations WHERE version > 9").await;
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Store::look(&path).await.unwrap(), Look::Older));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let nothing = folder.path().join("nothing");
    std::fs::write(&nothing, "").unwrap();
    assert!(matches!(Store::look(&nothing).await.unwrap(), Look::Empty));
    assert_eq!(std::fs::metadata(&nothing).unwrap().len(), 0);
}

#[tokio::test]
async fn one_serves_it_by_whatever_name_and_its_owner_alone_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, store) = fresh().await;
    let path = folder.path().join("test.db");
    for name in ["test.db", "test.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let _lock = Lock::take(&path).unwrap();
    assert!(matches!(Lock::take(&link), Err(StoreError::Running { .. })));
    drop(store);
}

/// Overwrites every other page but the first few.
fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let pages = bytes.len() / 4096;
    for page in (pages / 2..pages).step_by(2) {
        bytes[page * 4096..(page + 1) * 4096].fill(0x5a);
    }
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_what_matters_is_taken_over() {
    let (folder, store) = filled().await;
    let path = folder.path().join("test.db");
    store.close().await;
    damage(&path);
    let damaged = std::fs::read(&path).unwrap();
    let (store, kept) = Store::open_or_replace(&path).await.unwrap();
    let kept = std::fs::read(kept.unwrap()).unwrap();
    assert!(kept.len() == damaged.len() && kept.contains(&0x5a), "the damaged one is kept");
    take_in(&store, samples(START, START + HOUR)).await;
    assert_eq!(store.history(&everything()).await.unwrap()[0].points.len(), 1);
    store.close().await;
    let (store, kept) = Store::open_or_replace(&path).await.unwrap();
    assert_eq!(kept, None, "a sound one stays");
    // Marked while it was in use, though it looks sound.
    store.mark_damaged();
    store.close().await;
    let (store, kept) = Store::open_or_replace(&path).await.unwrap();
    assert!(kept.is_some() && !is_marked(&path));
    store.close().await;
    // Not even SQLite's first words are left.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..16].fill(0);
    std::fs::write(&path, bytes).unwrap();
    assert!(Store::open_or_replace(&path).await.unwrap().1.is_some());
    // Something else is not ours to move.
    let text = folder.path().join("text");
    std::fs::write(&text, "no database at all ".repeat(1000)).unwrap();
    Store::open_or_replace(&text).await.unwrap_err();
    assert!(text.exists());
}

#[tokio::test]
async fn a_full_database_takes_in_again_when_there_is_room() {
    let (_folder, store) = filled().await;
    let limit = async |pages: i64| {
        let set = store.writer.run(move |writing| {
            Box::pin(async move {
                let sql = format!("PRAGMA max_page_count = {pages}");
                sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut writing.connection).await?;
                Ok(())
            })
        });
        set.await.unwrap();
    };
    // Less than there is means what there is.
    limit(1).await;
    let before = store.known_server(&server()).await.unwrap().cursor;
    let entries = samples(START + 12 * HOUR, START + 24 * HOUR);
    let after = cursor("e", before.after + entries.len() as u64);
    let page = ingest(before.clone(), after.clone(), entries);
    assert_eq!(store.ingest(page.clone()).await, Err(StoreError::Full));
    assert_eq!(store.known_server(&server()).await.unwrap().cursor, before);
    assert!(!store.history(&everything()).await.unwrap().is_empty(), "reading goes on");
    limit(1 << 30).await;
    store.ingest(page).await.unwrap();
    assert_eq!(store.known_server(&server()).await.unwrap().cursor, after);
    assert_eq!(store.integrity().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn copies_by_schedule_are_kept_by_number() {
    let (folder, store) = filled().await;
    let copies_in = folder.path().join("copies");
    for second in 0..4 {
        store.scheduled_copy(&copies_in, 2, at(second * SECOND)).await.unwrap();
    }
    let kept = copies(&copies_in).unwrap();
    let times: Vec<Time> = kept.iter().map(|copy| copy.time).collect();
    assert_eq!(times, [at(2 * SECOND), at(3 * SECOND)]);
    assert!(kept[1].path.display().to_string().contains("22-13-23"), "{kept:?}");
    // Whatever else is there is nobody's schedule's.
    let own = ["pm2-poller-before-upgrade.db", "pm2-poller-2024-keep-me.db", "pm2-poller-.db"];
    for name in own {
        std::fs::write(copies_in.join(name), "mine").unwrap();
    }
    store.scheduled_copy(&copies_in, 1, at(4 * SECOND)).await.unwrap();
    assert_eq!(copies(&copies_in).unwrap().len(), 1);
    assert!(own.iter().all(|name| copies_in.join(name).exists()));
}

#[tokio::test]
async fn copies_of_a_wrong_clock_are_the_first_to_go() {
    let (folder, store) = filled().await;
    let copies_in = folder.path().join("copies");
    store.scheduled_copy(&copies_in, 2, at(HOUR)).await.unwrap();
    store.scheduled_copy(&copies_in, 2, at(2 * HOUR)).await.unwrap();
    // Back by more than an hour: what is made now is kept.
    for second in 0..2 {
        store.scheduled_copy(&copies_in, 2, at(second * SECOND)).await.unwrap();
        let kept = copies(&copies_in).unwrap();
        assert!(kept.iter().any(|copy| copy.time == at(second * SECOND)), "{kept:?}");
        assert_eq!(kept.len(), 2);
    }
    let kept = copies(&copies_in).unwrap();
    let times: Vec<Time> = kept.iter().map(|copy| copy.time).collect();
    assert_eq!(times, [at(0), at(SECOND)]);
}

#[tokio::test]
async fn what_a_killed_program_left_of_a_copy_goes_with_the_next() {
    let (folder, store) = filled().await;
    let copies_in = folder.path().join("copies");
    store.scheduled_copy(&copies_in, 2, at(0)).await.unwrap();
    let name = copies(&copies_in).unwrap()[0].path.clone();
    let left = |end: &str| beside(&name, &format!(".pm2-poller-partial{end}"));
    let under_way = copies_in.join("pm2-poller-2024-01-01T00-00-00Z.db.pm2-poller-partial");
    let own = copies_in.join("mine.pm2-poller-partial");
    for file in [&left(""), &left("-journal"), &own, &under_way] {
        std::fs::write(file, "half").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    for file in [&left(""), &left("-journal"), &own] {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    store.scheduled_copy(&copies_in, 2, at(SECOND)).await.unwrap();
    assert!(!left("").exists() && !left("-journal").exists());
    assert!(own.exists() && under_way.exists());
    assert_eq!(copies(&copies_in).unwrap().len(), 2);
}

/// Who waits for a short log, as folding does, must not wait for ever.
#[tokio::test]
async fn the_log_becomes_short_again_after_a_long_read() {
    let (_folder, store) = filled().await;
    let mut reader = store.readers.begin().await.unwrap();
    let _: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit").fetch_one(&mut *reader).await.unwrap();
    for _ in 0..10 {
        write_a_megabyte(&store).await;
    }
    assert!(store.sizes().1 > 8 << 20, "{}", store.sizes().1);
    reader.rollback().await.unwrap();
    for number in 0..3 {
        store.insert_command(command(&format!("after-{number}"), None)).await.unwrap();
    }
    assert!(store.sizes().1 <= u64::from(LOG_STAYS), "{}", store.sizes().1);
}

async fn write_a_megabyte(store: &Store) {
    let written = store.writer.run(|writing| {
        Box::pin(async move {
            for sql in [
                "CREATE TABLE IF NOT EXISTS ballast (it)",
                "INSERT INTO ballast VALUES (zeroblob(1 << 20))",
            ] {
                sqlx::query(sql).execute(&mut writing.connection).await?;
            }
            Ok(())
        })
    });
    written.await.unwrap();
}
