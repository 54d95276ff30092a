//! Polling under what servers, links, clocks and operators do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use e2e::scene::{self, Server};
use e2e::sim::{Settings, SimulatedFleet};
use e2e::{FakePm2, SOON, pm2_process, process, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::{JournalPage, Record, Time};

/// Answers with a stream of gzip that never ends, a mebibyte of spaces in every few kilobytes,
/// and counts the connections that the other side ended.
fn bomb() -> Result<(String, Arc<AtomicU64>)> {
    let mut packed = Vec::with_capacity(1 << 16);
    let mut compress = flate2::Compress::new(flate2::Compression::fast(), false);
    // A full flush: what follows refers to nothing before, so it can be sent again and again.
    compress.compress_vec(&vec![b' '; 1 << 20], &mut packed, flate2::FlushCompress::Full)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let ended = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ended);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (packed, count) = (packed.clone(), Arc::clone(&count));
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                            content-encoding: gzip\r\nconnection: close\r\n\r\n";
                let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
                let mut sent = stream.write_all(head.as_bytes()).and(stream.write_all(&gzip));
                while sent.is_ok() {
                    sent = stream.write_all(&packed);
                }
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    Ok((url, ended))
}

#[tokio::test]
async fn a_bomb_costs_no_memory_and_its_connection_is_closed() -> Result<()> {
    let fleet = SimulatedFleet::start(Settings { servers: 1, ..Settings::default() }, 0).await?;
    let (url, ended) = bomb()?;
    let servers = [Server::open("vm0", fleet.url(0))];
    let poller = scene::poller(&servers, "").await?;
    poller.wait_for("vm0", "online").await?;
    let before = process::peak_memory(poller.program.pid()).context("no memory")?;
    let launch = poller.program.launch();
    let both = [Server::open("vm0", fleet.url(0)), Server::open("bomb", url)];
    let text = scene::poller_configuration(&launch, &both, "")?;
    launch.folder().write("configuration.toml", &text)?;
    // It is asked less and less once it is offline.
    wait_until("the bomb is down for its size", 3 * SOON, async || {
        let page = poller.metrics().await.ok()?;
        let counted = page.value("pm2_poller_polls_total", &[("result", "too_large")]).ok()?;
        (counted >= 3.0 && page.value("pm2_server_up", &[("server", "bomb")]).ok()? == 0.0)
            .then_some(())
    })
    .await?;
    wait_until("its connections are closed", SOON, async || {
        (ended.load(Ordering::SeqCst) >= 3).then_some(())
    })
    .await?;
    let risen = process::peak_memory(poller.program.pid()).context("no memory")? - before;
    assert!(risen < 16 << 20, "{risen} bytes more");
    poller.wait_for("vm0", "online").await?;
    Ok(())
}

/// Exporters that write down when they are asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<String, Vec<Instant>>>>);

async fn page(State(asked): State<Asked>, Path(name): Path<String>) -> String {
    if let Ok(mut all) = asked.0.lock() {
        all.entry(name).or_default().push(Instant::now());
    }
    let now = Time::now();
    let journal = json!({"epoch": "e", "first": 1, "next": 1});
    let state = json!({
        "time": now, "revision": 1, "processes": [], "slots": [], "journal": journal,
        "exporter": {"version": "1", "started_at": now, "hostname": "h", "os": "o", "arch": "a"},
        "pm2": {"up": true, "home": "/", "confirmed_at": now},
    });
    let page = json!({
        "now": now, "journal": journal, "entries": [], "after": 0, "lost": 0, "more": false,
        "state_revision": 1, "state": state,
    });
    page.to_string()
}

impl Asked {
    async fn start(&self) -> Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new().route("/{name}/api/journal", get(page)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    fn all(&self) -> BTreeMap<String, Vec<Instant>> {
        self.0.lock().map(|all| all.clone()).unwrap_or_default()
    }

    async fn asked_again(&self, servers: usize, times: usize) -> Result<()> {
        let before = self.all();
        wait_until("each is asked again", 3 * SOON, async || {
            let all = self.all();
            let enough = all.iter().all(|(name, times_asked)| {
                times_asked.len() >= before.get(name).map_or(0, Vec::len) + times
            });
            (all.len() >= servers && enough).then_some(())
        })
        .await
    }
}

#[tokio::test]
async fn a_hundred_reloads_cost_no_poll_and_a_bad_file_changes_nothing() -> Result<()> {
    const SERVERS: usize = 20;
    const INTERVAL: Duration = Duration::from_secs(10);
    let asked = Asked::default();
    let url = asked.start().await?;
    let launch = e2e::Launch::poller()?;
    let head = "database = \"poller.db\"\nanonymous_read = true\npoll_interval = \"10s\"\n\
                poll_timeout = \"10s\"\nwait_for_events = false\n";
    let block = |name: &str| format!("[[servers]]\nid = \"{name}\"\nurl = \"{url}/{name}\"\n");
    let mut text = head.to_owned();
    for number in 0..SERVERS {
        text += &block(&format!("vm{number}"));
    }
    let poller = launch.configuration(&text)?.start().await?;
    let launch = poller.launch();
    asked.asked_again(SERVERS, 1).await?;
    let one_more = format!("{text}{}", block("comes-and-goes"));
    let bad = format!("{text}\npoll_interval = \"never\"\n");
    for turn in 0..100 {
        let now = [&one_more, &bad, &text][turn % 3];
        launch.folder().write("configuration.toml", now)?;
        poller.signal(Signal::HUP);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    asked.asked_again(SERVERS, 2).await?;
    for (name, times) in asked.all() {
        if name == "comes-and-goes" {
            continue;
        }
        let apart: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|apart| *apart < INTERVAL * 3 / 2), "{name}: {apart:?}");
        assert!(apart.iter().all(|apart| *apart > INTERVAL / 2), "{name}: {apart:?}");
    }

    let ok = async || {
        let page = scene::metrics(poller.client()).await.ok()?;
        page.value("pm2_poller_config_last_reload_successful", &[]).ok()
    };
    launch.folder().write("configuration.toml", &bad)?;
    poller.signal(Signal::HUP);
    wait_until("the bad file is told", SOON, async || (ok().await? == 0.0).then_some(())).await?;
    let list: Value = poller.client().json("/api/servers").await?;
    assert!(list["servers"].as_array().is_some_and(|list| list.len() >= SERVERS), "{list}");
    launch.folder().write("configuration.toml", &text)?;
    poller.signal(Signal::HUP);
    wait_until("the good file is told", SOON, async || (ok().await? == 1.0).then_some(())).await
}

#[tokio::test]
async fn used_for_long_it_keeps_nothing_open() -> Result<()> {
    // The short form of `make soak`: what memory does shows after an hour only.
    let (warm, time) = (Duration::from_secs(4), Duration::from_secs(5));
    let interval = Duration::from_secs(3);
    let settings = e2e::soak::Settings { servers: 60, interval, warm, time };
    let outcome = e2e::soak::run(settings).await?;
    assert!(outcome.polls.0 > 100.0 && outcome.polls.1 == 0.0, "{outcome:?}");
    assert!(outcome.answers.0 > 20 && outcome.answers.1 == 0, "{outcome:?}");
    let (least, most) = outcome.descriptors;
    assert!(most - least <= 80 && outcome.log <= 16 << 20, "{outcome:?}");
    Ok(())
}

/// Where Debian's `faketime` has its library, which knows nothing but the wall clock to change.
fn faketime() -> Result<String> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    let found = folders
        .chain(["/usr/lib".into()])
        .map(|folder| folder.join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file());
    let found = found.context("faketime is not installed: e2e/setup/debian faketime")?;
    Ok(found.display().to_string())
}

#[tokio::test]
async fn a_clock_that_jumps_an_hour_makes_no_burst_and_no_gap() -> Result<()> {
    const SERVERS: u32 = 5;
    let settings = Settings {
        servers: SERVERS,
        sample_interval: Duration::from_secs(1),
        ..Settings::default()
    };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let servers: Vec<Server> =
        (0..SERVERS).map(|n| Server::open(&format!("vm{n}"), fleet.url(n))).collect();
    let launch =
        scene::poller_launch(&servers, &format!("anonymous_read = true\n{}", scene::UNHURRIED))?;
    let clock = launch.folder().write("clock", "+0\n")?;
    let poller = launch
        .variable("LD_PRELOAD", faketime()?)
        .variable("FAKETIME_TIMESTAMP_FILE", clock.display().to_string())
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("DONT_FAKE_MONOTONIC", "1")
        .start()
        .await?;
    let client = poller.client();
    let polls = async || -> Option<(f64, f64)> {
        let page = scene::metrics(client).await.ok()?;
        let all = page.all("pm2_poller_polls_total", &[]);
        let good = page.value("pm2_poller_polls_total", &[("result", "success")]).ok()?;
        Some((good, all.iter().map(|series| series.value).sum::<f64>() - good))
    };
    let each = f64::from(SERVERS);
    wait_until("all are polled", SOON, async || (polls().await?.0 >= 2.0 * each).then_some(()))
        .await?;
    let (begin, failed) = polls().await.context("no metrics")?;
    let start = Instant::now();
    let began = Time::now();
    for (jump, offset) in [("forward", "+3600"), ("back", "+0"), ("further back", "-3600")] {
        // Replaced as a whole: it is read all the time.
        let new = launch_file(&clock, offset)?;
        std::fs::rename(new, &clock)?;
        let (before, _) = polls().await.context("no metrics")?;
        wait_until(&format!("polls go on after a jump {jump}"), SOON, async || {
            (polls().await?.0 >= before + 4.0 * each).then_some(())
        })
        .await
        .with_context(|| poller.stderr())?;
    }
    let (end, failed_now) = polls().await.context("no metrics")?;
    let due = (start.elapsed().as_secs_f64() / 3.0 + 2.0) * each;
    assert!(end - begin <= due, "{} polls in {:?}: a burst", end - begin, start.elapsed());
    assert_eq!(failed_now, failed, "polls failed: {}", poller.stderr());
    std::fs::rename(launch_file(&clock, "+0")?, &clock)?;

    let ended = Time::now();
    for number in 0..SERVERS {
        let path = format!(
            "/api/servers/vm{number}/apps/slot-c/metrics?metric=memory&step=1s&from={began}&to={ended}"
        );
        let last = Mutex::new(Value::Null);
        wait_until(&format!("no second of vm{number} is missing"), SOON, async || {
            let history: Value = client.json(&path).await.ok()?;
            let points = history["series"][0]["points"].as_array()?.clone();
            let times = points.iter().map(|point| point[0].as_str()?.parse::<Time>().ok());
            let times: Vec<Time> = times.collect::<Option<_>>()?;
            if let Ok(mut last) = last.lock() {
                *last = history;
            }
            let whole = times.windows(2).all(|pair| pair[1].millis_since(pair[0]) == 1000);
            let seconds = ended.millis_since(began) / 1000;
            (whole && times.len() as i64 >= seconds - 1).then_some(())
        })
        .await
        .with_context(|| format!("last seen: {last:?}"))?;
    }
    Ok(())
}

fn launch_file(clock: &std::path::Path, offset: &str) -> Result<std::path::PathBuf> {
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("{offset}\n"))?;
    Ok(new)
}

/// A link that can be cut: what goes over it is dropped then, and nothing new gets through.
#[derive(Clone)]
struct Link {
    cut: Arc<AtomicBool>,
    url: String,
}

impl Link {
    async fn to(address: String) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let link = Self { cut: Arc::default(), url: format!("http://{}", listener.local_addr()?) };
        let cut = Arc::clone(&link.cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (cut, address) = (Arc::clone(&cut), address.clone());
                tokio::spawn(async move {
                    let Ok(mut far) = tokio::net::TcpStream::connect(address).await else { return };
                    let copied = tokio::io::copy_bidirectional(&mut near, &mut far);
                    let is_cut = async {
                        while !cut.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    tokio::select! {
                        _ = copied => return,
                        () = is_cut => {}
                    }
                    // A link that is cut says nothing, not even that.
                    while cut.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
            }
        });
        Ok(link)
    }
}

#[tokio::test]
async fn a_link_that_was_cut_leaves_no_gap_and_no_double() -> Result<()> {
    let seconds = std::env::var("CUT_SECONDS").ok().and_then(|text| text.parse().ok());
    let cut_for = Duration::from_secs(seconds.unwrap_or(12));
    let fake = FakePm2::start(pm2_process::processes(3))?;
    // Two samples never fall into one second.
    let exporter = scene::guarded_exporter(fake.home(), "sample_interval = \"2s\"").await?;
    let link = Link::to(exporter.program.launch().address()).await?;
    let mut server = Server::of("vm1", &exporter);
    server.url.clone_from(&link.url);
    let poller = scene::poller(&[server], "").await?;
    poller.wait_for("vm1", "online").await?;
    link.cut.store(true, Ordering::SeqCst);
    poller.wait_for("vm1", "offline").await?;
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < cut_for {
        let name = format!("app-{}", number % 3);
        exporter.control.post(&format!("/api/processes/{name}/restart?wait=5s")).await?;
        number += 1;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    link.cut.store(false, Ordering::SeqCst);
    poller.wait_for("vm1", "online").await?;

    let journal: JournalPage = exporter.read.json("/api/journal?limit=10000").await?;
    assert_eq!((journal.lost, journal.journal.first, journal.more), (0, 1, false));
    let (mut events, mut sampled) = (Vec::new(), BTreeSet::new());
    for entry in &journal.entries {
        match &entry.record {
            Record::Event(event) => events.push(format!("{} {}", entry.time, event.message)),
            Record::Sample(_) => {
                sampled.insert(entry.time.as_millis() / 1000);
            }
        }
    }
    assert!(events.len() > 5 && sampled.len() > 5, "{events:?} {sampled:?}");
    let kept = async || -> Result<(Vec<String>, BTreeSet<i64>)> {
        let of_the_poller =
            |kind: &str| kind.starts_with("server_") || kind.starts_with("journal_");
        let mut kept = Vec::new();
        for event in poller.events("vm1").await? {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            if !of_the_poller(&text("kind")) {
                kept.push(format!("{} {}", text("time"), text("message")));
            }
        }
        let path = "/api/servers/vm1/apps/app-0/metrics?metric=restarts&step=1s&from=20m";
        let history: Value = poller.admin.json(path).await?;
        let points = history["series"][0]["points"].as_array().context("no history")?;
        let times = points.iter().map(|point| {
            let time: Time = point[0].as_str().context("no time")?.parse()?;
            Ok(time.as_millis() / 1000)
        });
        Ok((kept, times.collect::<Result<_>>()?))
    };
    let last = journal.entries.last().context("an empty journal")?.time.as_millis() / 1000;
    wait_until("all of it is there", SOON, async || {
        let (kept, seconds) = kept().await.ok()?;
        (kept.len() >= events.len() && seconds.is_superset(&sampled)).then_some(())
    })
    .await
    .with_context(|| format!("told: {events:?} {sampled:?}"))?;
    let (kept, seconds) = kept().await?;
    // What came since the journal was read stands behind it.
    assert_eq!(kept[..events.len()], events[..]);
    let before: BTreeSet<i64> = seconds.into_iter().filter(|second| *second <= last).collect();
    assert_eq!(before, sampled);
    Ok(())
}
