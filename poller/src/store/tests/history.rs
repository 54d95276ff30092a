use super::*;

const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// `at(START)` is a midnight.
pub(super) const START: i64 = 1_700_006_400_000 - 1_700_000_000_000;

pub(super) async fn fold_all(store: &Store, now: Time) -> usize {
    let mut steps = 0;
    while store.fold(now).await.unwrap().is_some() {
        steps += 1;
        assert!(steps < 10_000, "folding does not end");
    }
    steps
}

pub(super) async fn take_in(store: &Store, entries: Vec<Entry>) {
    let before = store.known_server(&server()).await.unwrap().cursor;
    let after = cursor("e", before.after + entries.len() as u64);
    let mut page = ingest(before, after, entries);
    page.answered = page.entries.iter().map(|entry| entry.time).max();
    store.ingest(page).await.unwrap();
}

/// A sample every ten seconds: CPU by half a core with a restart at noon, memory in a wave.
pub(super) fn samples(from: i64, to: i64) -> Vec<Entry> {
    let times = (from..to).step_by(10_000);
    let entry = |time: i64| {
        let seq = (time / 10_000).unsigned_abs();
        let restarts = u64::from(time >= START + 12 * HOUR);
        let since = if restarts == 0 { START - DAY } else { START + 12 * HOUR };
        let mut entry = sample(seq, time, Some((time - since) as f64 / 2000.0), restarts);
        if let Record::Sample(sample) = &mut entry.record {
            let wave = ((time / 10_000) % 60) as u64;
            sample.processes[0].readings.memory_bytes = Some((1000 + wave) * 4096);
            sample.host = Some(wire::HostReadings {
                cpu_seconds: vec![
                    ("user".into(), time as f64 / 4000.0),
                    ("idle".into(), time as f64 * 3.0 / 4000.0),
                ],
                memory_total_bytes: Some(1 << 30),
                memory_available_bytes: Some(1 << 29),
                load1: Some(0.5),
                filesystem_size_bytes: Some(1 << 40),
                filesystem_avail_bytes: Some(1 << 39),
                ..wire::HostReadings::default()
            });
        }
        entry
    };
    times.map(entry).collect()
}

fn between(from: i64, to: i64, step_millis: i64, metrics: &[&str]) -> HistoryQuery {
    HistoryQuery { from: at(from), to: at(to), step_millis, ..query(metrics, 1) }
}

type Rounded = Vec<(String, Vec<(i64, [i64; 3])>)>;

fn rounded(series: &[Series]) -> Rounded {
    // To a thousandth of a core, and to 16 bytes: means are kept to a thousandth of the spread.
    let round = |metric: &str, value: f64| match metric {
        "cpu" => (value * 1000.0).round() as i64,
        "memory" => (value / 1024.0).round() as i64,
        _ => value.round() as i64,
    };
    let points = |series: &Series| {
        let of = |it: &Point| [it.min, it.mean, it.max].map(|value| round(&series.metric, value));
        series.points.iter().map(|it| (it.time.millis_since(at(0)), of(it))).collect()
    };
    series.iter().map(|series| (series.metric.clone(), points(series))).collect()
}

#[tokio::test]
async fn folding_changes_no_answer() {
    let (folder, store) = fresh().await;
    let end = START + 2 * DAY;
    // As they come around noon, and every minute otherwise: reading all of it before it is folded
    // is slow where nothing is optimised.
    let noon = START + 9 * HOUR..START + 15 * HOUR;
    let taken_in = |entry: &Entry| {
        let time = entry.time.millis_since(at(0));
        noon.contains(&time) || (time - START) % MINUTE == 0
    };
    let all: Vec<Entry> = samples(START, end).into_iter().filter(taken_in).collect();
    for part in all.chunks(360) {
        take_in(&store, part.to_vec()).await;
    }
    let queries = [
        between(noon.start, noon.end, 10 * SECOND, &["memory", "cpu", "restarts"]),
        between(START + HOUR / 2, START + DAY, 5 * MINUTE, &[]),
        between(START, end, HOUR, &["cpu", "memory", "up"]),
        HistoryQuery { subject: Subject::Host, ..between(START, end, 6 * HOUR, &[]) },
    ];
    let answers = async |store: &Store| {
        let mut all = Vec::new();
        for query in &queries {
            all.push(rounded(&store.history(query).await.unwrap()));
        }
        all
    };
    let before = answers(&store).await;
    let names: Vec<&str> = before[3].iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["cpu", "disk", "disk_total", "load", "memory", "memory_total"]);
    assert_eq!(before[2][0].1.len(), 48);
    assert!(fold_all(&store, at(end + HOUR)).await > 0);
    assert_eq!(answers(&store).await, before, "by samples and minutes");
    // Two days and a bit later the hours are there too.
    fold_all(&store, at(end + 3 * DAY)).await;
    assert_eq!(answers(&store).await, before, "by hours");
    assert_eq!(fold_all(&store, at(end + 3 * DAY)).await, 0, "nothing is done twice");

    let removed = store.retain(kept(at(0))).await.unwrap();
    assert!(removed.recent > 0 && removed.blocks == [0, 0, 0]);
    store.close().await;
    let store = Store::open(&folder.path().join("test.db")).await.unwrap();
    assert_eq!(answers(&store).await, before, "after a restart");
    let after = store.known_server(&server()).await.unwrap().cursor;
    assert_eq!(after, cursor("e", all.len() as u64), "the cursor outlives the rows");
}

#[tokio::test]
async fn what_comes_late_goes_to_its_place_and_counts_once() {
    let (_folder, store) = fresh().await;
    let (a, b, end) = (START + 2 * HOUR, START + 3 * HOUR, START + 7 * HOUR);
    take_in(&store, samples(START, a)).await;
    take_in(&store, samples(b, end)).await;
    fold_all(&store, at(end + HOUR)).await;
    let by_minute = between(START, START + 6 * HOUR, MINUTE, &["memory"]);
    let raw = between(START, START + 6 * HOUR, 10 * SECOND, &["memory"]);
    let count = async |query: &HistoryQuery| store.history(query).await.unwrap()[0].points.len();
    assert_eq!(count(&by_minute).await, 300, "what nobody saw is a gap");
    // The hour that was missing, and ten minutes that are there already.
    take_in(&store, samples(a - 10 * MINUTE, b)).await;
    assert_eq!(count(&raw).await, 6 * 360, "before it is folded");
    fold_all(&store, at(end + HOUR)).await;
    assert_eq!(count(&by_minute).await, 360);
    assert_eq!(count(&raw).await, 6 * 360);
    let whole = between(START, START + 6 * HOUR, 6 * HOUR, &["memory"]);
    let point = store.history(&whole).await.unwrap()[0].points[0];
    assert!((point.mean - (1000.0 + 29.5) * 4096.0).abs() < 100.0, "{point:?}");
}

#[tokio::test]
async fn a_window_for_a_chart_takes_what_there_is() {
    let (_folder, store) = fresh().await;
    let end = START + 3 * DAY;
    for part in samples(START, end).chunks(1000) {
        take_in(&store, part.to_vec()).await;
    }
    fold_all(&store, at(end + 2 * DAY)).await;
    let before = Before { samples: at(START + DAY), ..kept(at(0)) };
    while store.retain(before).await.unwrap().more {}
    let window = |from, to| WindowQuery {
        server: server(),
        subject: Subject::App("api".parse().unwrap()),
        metrics: vec!["memory".into()],
        from: at(from),
        to: at(to),
        points: 300,
    };
    // Samples of the first day are gone, so that its steps are minutes.
    let old = store.window(&window(START, START + HOUR)).await.unwrap();
    assert_eq!((old.step_millis, old.series[0].points.len()), (MINUTE, 60));
    let new = store.window(&window(end - HOUR, end)).await.unwrap();
    assert_eq!((new.step_millis, new.series[0].points.len()), (15 * SECOND, 240));
    let all = store.window(&window(START, end)).await.unwrap();
    assert_eq!((all.step_millis, all.series[0].points.len()), (15 * MINUTE, 288));
}

/// Nothing but what is older than `moment` goes.
fn kept(moment: Time) -> Before {
    Before {
        samples: moment,
        minutes: moment,
        hours: moment,
        events: moment,
        commands: moment,
        audit: moment,
    }
}

#[tokio::test]
async fn retention_takes_what_is_old_and_leaves_the_rest() {
    let (_folder, store) = fresh().await;
    take_in(&store, vec![event(1, 1, EventKind::EXIT), event(2, START, EventKind::ONLINE)]).await;
    take_in(&store, samples(START, START + DAY)).await;
    fold_all(&store, at(START + 2 * DAY)).await;
    let everything = between(START, START + DAY, HOUR / 2, &["memory"]);
    while store.retain(kept(at(START + 12 * HOUR + 1))).await.unwrap().more {}
    assert_eq!(store.history(&everything).await.unwrap()[0].points.len(), 48, "by minute");
    assert_eq!(messages(&store).await, Vec::<String>::new());
    let raw = HistoryQuery { step_millis: 10 * SECOND, ..everything.clone() };
    let raw = store.history(&raw).await.unwrap();
    assert_eq!(raw[0].points.len(), 12 * 60 + 12 * 360, "minutes where samples are gone");
    // What is not in the next tier yet stays, however old it is.
    let before = Before { hours: at(0), ..kept(at(START + 2 * DAY)) };
    while store.retain(before).await.unwrap().more {}
    assert_eq!(store.history(&everything).await.unwrap()[0].points.len(), 48);
    fold_all(&store, at(START + 5 * DAY)).await;
    while store.retain(kept(at(START + 5 * DAY))).await.unwrap().more {}
    assert!(store.history(&everything).await.unwrap().is_empty());
    // Names whose history is all gone go too, and come back under a new number.
    take_in(&store, samples(START + DAY, START + DAY + HOUR)).await;
    let again = between(START + DAY, START + DAY + HOUR, HOUR, &["memory"]);
    assert_eq!(store.history(&again).await.unwrap().len(), 1);
}

#[tokio::test]
async fn too_large_a_database_loses_the_oldest_first() {
    let (_folder, store) = fresh().await;
    for day in 0..6 {
        take_in(&store, samples(START + day * DAY, START + (day + 1) * DAY)).await;
        fold_all(&store, at(START + (day + 1) * DAY)).await;
    }
    let now = at(START + 7 * DAY);
    fold_all(&store, now).await;
    while store.retain(kept(at(0))).await.unwrap().more {}
    let full = store.used_bytes().await.unwrap();
    assert_eq!(store.shrink(full, now).await.unwrap(), Shrunk::Fits);
    let Shrunk::Dropped(dropped) = store.shrink(full - 1, now).await.unwrap() else {
        panic!("nothing was dropped")
    };
    assert_eq!((dropped.tier, dropped.blocks), (Tier::Samples, 64));
    assert_eq!(dropped.up_to, at(START + 63 * HOUR));
    let oldest = between(START, START + 6 * HOUR, MINUTE, &["memory"]);
    assert_eq!(store.history(&oldest).await.unwrap()[0].points.len(), 360, "still by minute");
    let mut last = Tier::Samples;
    while let Shrunk::Dropped(dropped) = store.shrink(1, now).await.unwrap() {
        assert!(dropped.tier as i64 >= last as i64, "samples first");
        last = dropped.tier;
    }
    let used = store.used_bytes().await.unwrap();
    assert_eq!(store.shrink(1, now).await.unwrap(), Shrunk::Stays(used), "and that is said");
    let blocks: Vec<i64> = store.history_sizes().await.unwrap().iter().map(|it| it.1).collect();
    assert!(blocks[0] == 0 && blocks[1] > 0 && blocks[2] > 0, "{blocks:?}");
    while store.give_back().await.unwrap() {}
}

#[tokio::test]
async fn the_file_stops_growing() {
    // 400 days with MANY_DAYS=400; what is kept is shortened, so that 40 show the same.
    let days = std::env::var("MANY_DAYS").ok().and_then(|days| days.parse().ok()).unwrap_or(40);
    let (_folder, store) = fresh().await;
    let mut sizes = Vec::new();
    for day in 0..days {
        let (from, to) = (START + day * DAY, START + (day + 1) * DAY);
        // Every two minutes, to be quick.
        let thinned = samples(from, to).into_iter().step_by(12).collect();
        take_in(&store, thinned).await;
        fold_all(&store, at(to)).await;
        let before = |days: i64| at(to - days * DAY);
        let keep = Before {
            samples: before(1),
            minutes: before(4),
            hours: before(12),
            events: before(12),
            commands: before(12),
            audit: before(12),
        };
        while store.retain(keep).await.unwrap().more || store.give_back().await.unwrap() {}
        sizes.push(store.used_bytes().await.unwrap());
    }
    let most = |sizes: &[u64]| sizes.iter().copied().max().unwrap_or_default();
    let (early, late) = (most(&sizes[14..24]), most(&sizes[sizes.len() - 10..]));
    assert!(late <= early + early / 50, "{sizes:?}");
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_cpu() {
    // Half a core throughout; after ten minutes the clock goes back, by so many seconds.
    for back in [595, 300, 19, 15, 11] {
        let (_folder, store) = fresh().await;
        let all = (0..120).map(|n: i64| {
            let time = if n < 60 { n * 10 } else { n * 10 - back };
            sample(n.unsigned_abs() + 1, START + time * SECOND, Some(n as f64 * 5.0), 0)
        });
        take_in(&store, all.collect()).await;
        let cpu = between(START, START + HOUR, SECOND, &["cpu"]);
        let minutes = between(START, START + HOUR, MINUTE, &["cpu"]);
        let most = async |query: &HistoryQuery| {
            let series = store.history(query).await.unwrap();
            let points = &series[0].points;
            (points.len(), points.iter().map(|point| point.max).fold(0.0, f64::max))
        };
        let all_but = |count: usize, (points, most): (usize, f64)| {
            // The first, and the one that the clock went back with; those of one second are one.
            let twice = if back == 300 { 29 } else { 0 };
            assert_eq!((points, most), (count - twice, 0.5), "{back} s");
        };
        all_but(118, most(&cpu).await);
        fold_all(&store, at(START + DAY)).await;
        all_but(118, most(&cpu).await);
        assert_eq!(most(&minutes).await.1, 0.5, "{back} s, by minute");
    }
}

#[tokio::test]
async fn a_journal_that_begins_anew_keeps_its_rates() {
    let (_folder, store) = fresh().await;
    let run = |from: i64| {
        let one = move |n: i64| {
            let time = from + n * 10 * SECOND;
            sample(n.unsigned_abs() + 1, time, Some(n as f64 * 5.0), 0)
        };
        (0..60).map(one).collect::<Vec<_>>()
    };
    take_in(&store, run(START)).await;
    let before = store.known_server(&server()).await.unwrap().cursor;
    let again = ingest(before, cursor("f", 60), run(START + 20 * MINUTE));
    store.ingest(again).await.unwrap();
    fold_all(&store, at(START + DAY)).await;
    let cpu = between(START, START + HOUR, 10 * SECOND, &["cpu"]);
    let series = store.history(&cpu).await.unwrap();
    let rates: Vec<f64> = series[0].points.iter().map(|point| point.mean).collect();
    assert_eq!(rates, vec![0.5; 118]);
}

#[tokio::test]
async fn what_was_dropped_and_comes_in_part_takes_no_minutes_away() {
    let (_folder, store) = fresh().await;
    let cut = START + 4 * HOUR + HOUR / 2;
    take_in(&store, samples(START, cut)).await;
    fold_all(&store, at(START + 8 * HOUR)).await;
    // As database_max_size does.
    let drop = store.writer.run(|writing| {
        Box::pin(async move {
            let sql = "DELETE FROM blocks WHERE tier = 0";
            Ok(sqlx::query(sql).execute(&mut writing.connection).await?.rows_affected())
        })
    });
    assert_eq!(drop.await.unwrap(), 5);
    take_in(&store, samples(cut, START + 5 * HOUR)).await;
    fold_all(&store, at(START + 9 * HOUR)).await;
    let tier: Vec<(i64, i64)> =
        sqlx::query_as("SELECT tier, count(*) FROM blocks GROUP BY tier ORDER BY tier")
            .fetch_all(&store.readers)
            .await
            .unwrap();
    assert_eq!(tier, [(0, 1), (1, 1)]);
    let drop = store.writer.run(|writing| {
        Box::pin(async move {
            let sql = "DELETE FROM blocks WHERE tier = 0";
            Ok(sqlx::query(sql).execute(&mut writing.connection).await?.rows_affected())
        })
    });
    assert_eq!(drop.await.unwrap(), 1);
    let minutes = between(START, START + 6 * HOUR, MINUTE, &["memory"]);
    assert_eq!(store.history(&minutes).await.unwrap()[0].points.len(), 300);
}

#[tokio::test]
async fn numbers_of_names_are_not_given_again() {
    let (_folder, store) = fresh().await;
    let named = |seq: u64, time: i64, name: &str| {
        let mut entry = sample(seq, time, None, 0);
        if let Record::Sample(sample) = &mut entry.record {
            sample.processes[0].instance.name = name.parse().unwrap();
        }
        entry
    };
    take_in(&store, vec![named(1, START, "old")]).await;
    fold_all(&store, at(START + DAY)).await;
    // All that was seen by then goes, but for what blocks still have.
    let by = |days: i64| Before { hours: at(START + days * DAY), ..kept(at(0)) };
    while store.retain(by(2)).await.unwrap().more {}
    let ids = async || -> Vec<(i64, String)> {
        let sql = "SELECT id, name FROM instances ORDER BY id";
        sqlx::query_as(sql).fetch_all(&store.readers).await.unwrap()
    };
    assert_eq!(ids().await, [(1, "old".to_owned())]);
    while store.retain(by(5)).await.unwrap().more {}
    assert_eq!(ids().await, [(1, "old".to_owned())], "the greatest stays");
    take_in(&store, vec![named(2, START + 5 * DAY, "new")]).await;
    while store.retain(by(5)).await.unwrap().more {}
    assert_eq!(ids().await, [(2, "new".to_owned())]);
}

#[tokio::test]
async fn it_is_known_which_servers_had_an_app_lately_and_in_which_pm2() {
    let (_folder, store) = fresh().await;
    let mut entry = sample(1, START, None, 0);
    if let Record::Sample(sample) = &mut entry.record {
        let mut other = sample.processes[0].clone();
        other.instance.name = "worker".parse().unwrap();
        sample.processes[0].instance.pm2_home = Some("/a/.pm2".into());
        sample.processes.push(other);
    }
    take_in(&store, vec![entry]).await;
    let had = async |name: &str, homes: Option<&[&str]>, since: i64| {
        let homes = homes.map(|homes| homes.iter().map(|home| (*home).to_owned()).collect());
        let asked = vec![(server(), homes), ("vm2".parse().unwrap(), None)];
        let found = store.had_app(asked, &name.parse().unwrap(), at(since)).await.unwrap();
        assert!(found.iter().all(|it| *it == server()), "{found:?}");
        !found.is_empty()
    };
    assert!(had("api", None, START).await && had("worker", None, START).await);
    assert!(!had("api", None, START + 1).await && !had("other", None, START).await);
    assert!(had("api", Some(&["/b/.pm2", "/a/.pm2"]), START).await);
    assert!(!had("api", Some(&["/b/.pm2", ""]), START).await);
    assert!(had("worker", Some(&[""]), START).await && !had("worker", Some(&[]), START).await);
}

#[tokio::test]
async fn an_answer_has_no_more_points_than_may_be() {
    let (_folder, store) = fresh().await;
    let many = |seq: u64| {
        let mut entry = sample(seq, START + seq.cast_signed() * SECOND, None, 0);
        if let Record::Sample(sample) = &mut entry.record {
            sample.processes[0].readings.custom = (0..1000)
                .map(|n| CustomMetric {
                    name: format!("m{n}").into(),
                    value: f64::from(n),
                    unit: "".into(),
                })
                .collect();
        }
        entry
    };
    for part in (0..301).collect::<Vec<u64>>().chunks(50) {
        take_in(&store, part.iter().map(|seq| many(*seq)).collect()).await;
    }
    let all = between(START, START + 301 * SECOND, SECOND, &[]);
    assert_eq!(store.history(&all).await, Err(StoreError::TooMuch));
    let fewer = HistoryQuery { step_millis: 10 * SECOND, ..all.clone() };
    assert!(store.history(&fewer).await.unwrap().len() > 1000);
    // Who names no step gets one that fits.
    let (step, series) = store.fitting(all.clone()).await.unwrap();
    assert_eq!((step, series.len() > 1000), (10 * SECOND, true));
    let one = HistoryQuery { metrics: vec!["m7".into()], ..all };
    assert_eq!(store.history(&one).await.unwrap()[0].points.len(), 301);
}
