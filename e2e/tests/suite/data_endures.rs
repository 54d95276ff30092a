//! What the poller keeps outlives kills, a full disk and a damaged file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::scene::{self, Server};
use e2e::sim::{Settings, SimulatedFleet};
use e2e::{Client, FakePm2, Launch, SOON, process, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use wire::{Entry, Record, Time};

/// Kills of one run: `KILLS`, 20 when it is not set.
fn kills() -> u64 {
    std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

fn servers(fleet: &SimulatedFleet, count: u32) -> Vec<Server> {
    (0..count).map(|n| Server::open(&format!("vm{n}"), fleet.url(n))).collect()
}

/// All that a simulated server told before a moment.
fn told(fleet: &SimulatedFleet, number: u32, until: Time) -> Result<Vec<Entry>> {
    let page = fleet.with(number, |machine| {
        machine.advance(Time::now());
        let epoch = machine.position().epoch;
        machine.page(Some(&epoch), 0, usize::MAX)
    });
    let page = page.context("no such server")?;
    assert_eq!(page.lost, 0, "the journal keeps everything that this test is about");
    let entries: Vec<Entry> = page
        .entries
        .iter()
        .map(|json| serde_json::from_str(json.get()))
        .collect::<Result<_, _>>()?;
    Ok(entries.into_iter().filter(|entry| entry.time < until).collect())
}

/// Events of a server before a moment, as `time kind`, and the seconds that have a sample.
async fn kept(client: &Client, server: &str, until: Time) -> Result<(Vec<String>, BTreeSet<i64>)> {
    let list: Value = client.json(&format!("/api/events?server={server}&limit=1000")).await?;
    let mut events = Vec::new();
    for event in list["events"].as_array().context("no events")? {
        let (time, kind) = (event["time"].as_str(), event["kind"].as_str());
        let (time, kind) = (time.context("no time")?, kind.context("no kind")?);
        let of_the_poller = kind.starts_with("server_") || kind.starts_with("journal_");
        if time.parse::<Time>()? < until && !of_the_poller {
            events.push(format!("{time} {kind}"));
        }
    }
    events.sort();
    let path = format!("/api/servers/{server}/apps/slot-c/metrics?metric=memory&step=1s&from=20m");
    let history: Value = client.json(&path).await?;
    let points = history["series"][0]["points"].as_array().context("no history")?;
    let seconds = points.iter().map(|point| {
        let time: Time = point[0].as_str().context("no time")?.parse()?;
        Ok(time.as_millis() / 1000)
    });
    let before = until.as_millis() / 1000;
    let seconds: BTreeSet<i64> = seconds.collect::<Result<_>>()?;
    Ok((events, seconds.into_iter().filter(|second| *second < before).collect()))
}

/// Waits until everything that the servers told until now is kept, each thing once.
async fn everything_is_kept(client: &Client, fleet: &SimulatedFleet, count: u32) -> Result<()> {
    // Second by second: the one that is under way is not looked at.
    let until = Time::from_millis(Time::now().as_millis() / 1000 * 1000);
    for number in 0..count {
        let server = format!("vm{number}");
        let entries = told(fleet, number, until)?;
        let (mut events, mut seconds) = (Vec::new(), BTreeSet::new());
        for entry in &entries {
            match &entry.record {
                Record::Event(event) => {
                    events.push(format!("{} {}", entry.time, event.kind.as_str()));
                }
                Record::Sample(_) => {
                    seconds.insert(entry.time.as_millis() / 1000);
                }
            }
        }
        events.sort();
        let last = std::sync::Mutex::new(None);
        wait_until(&format!("all of {server}"), SOON, async || {
            let found = kept(client, &server, until).await;
            let all = found
                .as_ref()
                .is_ok_and(|found| found.0.len() >= events.len() && found.1.len() >= seconds.len());
            if let Ok(mut last) = last.lock() {
                *last = Some(found);
            }
            all.then_some(())
        })
        .await
        .with_context(|| format!("told {events:?} {seconds:?}, last seen {last:?}"))?;
        let (kept_events, kept_seconds) = kept(client, &server, until).await?;
        assert_eq!(kept_events, events, "{server}: each event once");
        assert_eq!(kept_seconds, seconds, "{server}: every sample");
    }
    Ok(())
}

#[tokio::test]
async fn killed_again_and_again_it_loses_nothing() -> Result<()> {
    const SERVERS: u32 = 6;
    let settings = Settings {
        servers: SERVERS,
        sample_interval: Duration::from_secs(1),
        crash_every: Duration::from_secs(8),
        entries: 100_000,
        ..Settings::default()
    };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let launch = scene::poller_launch(&servers(&fleet, SERVERS), "")?;
    let configuration = launch.folder().join("configuration.toml").display().to_string();
    let token = e2e::fleet::new_poller_token(&configuration, "admin", "admin").await?;
    let mut acknowledged: Vec<String> = Vec::new();
    for kill in 0..kills() {
        let poller = launch.clone().start().await?;
        let client = poller.client().with_token(&token);
        let mut asked = tokio::task::JoinSet::new();
        for command in 0..3 {
            let server = (kill + command) % u64::from(SERVERS);
            let path = format!("/api/commands/vm{server}/apps/slot-a/restart?wait=5s");
            let client = client.clone();
            asked.spawn(async move { client.post(&path).await });
        }
        // Now before the first poll, now in the middle of several.
        let life = Duration::from_millis(20 + kill * 97 % 900);
        let cut = tokio::time::sleep(life);
        tokio::pin!(cut);
        loop {
            // However slow this machine is, some die after they acknowledged something.
            let may_end = kill % 10 != 5 || acknowledged.len() as u64 > kill / 10;
            let answer = tokio::select! {
                () = &mut cut, if may_end => break,
                Some(answer) = asked.join_next() => answer?,
                else => break,
            };
            let Ok(answer) = answer else { continue };
            if answer.status <= 202 {
                let record: Value = answer.json()?;
                acknowledged.push(record["id"].as_str().context("no id")?.to_owned());
            }
        }
        poller.kill();
    }
    let checked = Launch::poller()?.with(&["check", "--config", &configuration]).run().await?;
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let poller = launch.start().await?;
    let client = poller.client().with_token(&token);
    everything_is_kept(&client, &fleet, SERVERS).await?;
    for id in &acknowledged {
        wait_until(&format!("command {id} has an end"), SOON, async || {
            let record: Value = client.json(&format!("/api/commands/{id}")).await.ok()?;
            matches!(record["status"].as_str()?, "succeeded" | "unknown").then_some(())
        })
        .await?;
    }
    assert!(!acknowledged.is_empty(), "no command was acknowledged before a kill");
    Ok(())
}

/// X4: between a command's being asked for and its being sent, the log of the database is brought
/// to the disk.
#[tokio::test]
async fn a_command_is_on_the_disk_before_it_is_sent() -> Result<()> {
    let settings = Settings { servers: 1, ..Settings::default() };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let launch = scene::poller_launch(&servers(&fleet, 1), "")?;
    let configuration = launch.folder().join("configuration.toml").display().to_string();
    let token = e2e::fleet::new_poller_token(&configuration, "admin", "admin").await?;
    let trace = launch.folder().join("trace").display().to_string();
    let calls = "trace=fdatasync,fsync,read,recvfrom,write,writev,sendto,sendmsg";
    let traced = ["strace", "-D", "-f", "-q", "-y", "-s", "64", "-e", calls, "-o", &trace];
    let poller = launch.clone().within(&traced).start().await?;
    let client = poller.client().with_token(&token);
    for _ in 0..5 {
        let answer = client.post("/api/commands/vm0/apps/slot-a/restart?wait=30s").await?;
        assert_eq!(answer.json::<Value>()?["status"], "succeeded", "{}", answer.text);
    }
    poller.stop(SOON).await?;

    let trace = wait_until("all of the trace is there", SOON, async || {
        std::fs::read_to_string(&trace).ok().filter(|text| text.contains("+++ exited with 0"))
    })
    .await?;
    let (mut sent, mut asked, mut flushing, mut flushed) = (0, false, BTreeSet::new(), false);
    for line in trace.lines() {
        let thread = line.split(' ').next().unwrap_or_default();
        let sync = line.contains("sync(") && line.contains("poller.db-wal");
        if line.contains("POST /api/commands/") {
            (asked, flushed) = (true, false);
            flushing.clear();
        } else if sync && line.contains("unfinished") {
            flushing.insert(thread);
        } else if sync || (line.contains("sync resumed") && flushing.remove(thread)) {
            assert!(line.ends_with("= 0"), "{line}");
            flushed = true;
        } else if line.contains("PUT /api/commands/") {
            assert!(asked && flushed, "command {sent} was sent before it was on the disk: {trace}");
            (sent, asked) = (sent + 1, false);
        }
    }
    assert_eq!(sent, 5, "{trace}");
    Ok(())
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_polling_goes_on() -> Result<()> {
    let fleet = SimulatedFleet::start(Settings { servers: 2, ..Settings::default() }, 0).await?;
    let poller = scene::poller(&servers(&fleet, 2), "anonymous_read = true").await?;
    poller.wait_for("vm0", "online").await?;
    let (launch, token) = (poller.program.launch(), poller.token.clone());
    poller.program.stop(SOON).await?;
    let path = launch.folder().join("poller.db");
    let mut bytes = std::fs::read(&path)?;
    let pages = bytes.len() / 4096;
    assert!(pages > 10, "{pages}");
    for page in (pages / 3..pages).step_by(2) {
        bytes[page * 4096..(page + 1) * 4096].fill(0x5a);
    }
    std::fs::write(&path, &bytes)?;

    let program = launch.clone().start().await?;
    let page = scene::metrics(program.client()).await?;
    assert_eq!(page.value("pm2_poller_database_replaced", &[])?, 1.0);
    wait_until("both are polled", SOON, async || {
        let page = scene::metrics(program.client()).await.ok()?;
        let up = |server| page.value("pm2_server_up", &[("server", server)]).ok();
        (up("vm0") == Some(1.0) && up("vm1") == Some(1.0)).then_some(())
    })
    .await?;
    let told: Value = program.client().json("/api/events?kind=database_replaced").await?;
    let message = told["events"][0]["message"].as_str().context("it is not told")?;
    assert!(message.contains(".damaged-"), "{message}");
    wait_until("it is in the log", SOON, async || {
        program.stderr().contains("the database is damaged").then_some(())
    })
    .await?;
    let kept: Vec<PathBuf> = std::fs::read_dir(launch.folder().path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.display().to_string().contains("poller.db.damaged-"))
        .collect();
    assert!(!kept.is_empty(), "the damaged one is gone");
    // Tokens that could be read still let people in; otherwise that is said by a refusal.
    let me = program.client().with_token(token).get("/api/me").await?;
    assert!(matches!(me.status, 200 | 401), "{me:?}");
    Ok(())
}

/// A poller on a file system of three mebibytes, in a mount namespace of its own, which is
/// started again whenever it ends.
/// With `full` beside the database there is no room left at its start, not even for SQLite's log.
const SMALL_DISK: &str = "mount -t tmpfs -o size=3m tmpfs disk && mkdir disk/db && \
                          while true; do \
                            [ -e disk/full ] && cat /dev/zero > disk/fill 2> /dev/null; \
                            \"$@\"; sleep 0.1; \
                          done";

/// Namespaces in which a file system can be mounted; what is in them ends with the first of them.
const SPACES: [&str; 6] =
    ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];

fn can_mount() -> bool {
    let tried = std::process::Command::new("unshare")
        .args(SPACES)
        .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        // To the terminal itself: what a test says that passes is kept from it.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr().lock(),
            b"SKIPPED: no file system can be mounted here, so a full disk is not shown\n",
        );
    }
    can
}

#[tokio::test]
async fn an_exporter_starts_on_a_full_disk_and_keeps_the_journal_that_it_has() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    // Twice: with room, and then without.
    let script = "mount -t tmpfs -o size=256k tmpfs state && \
                  \"$@\"; cat /dev/zero > state/fill 2> /dev/null; exec \"$@\"";
    let pm2 = FakePm2::start(Vec::new())?;
    let launch = Launch::exporter()?.pm2_home(pm2.home()).configuration("state_dir = \"state\"")?;
    std::fs::create_dir(launch.folder().join("state"))?;
    let around = [&["unshare"], &SPACES[..], &["sh", "-c", script, "sh"]].concat();
    let program = launch.within(&around).start().await?;
    let first = async || -> Result<(String, u64)> {
        let page: wire::JournalPage = program.client().json("/api/journal?after=0").await?;
        Ok((page.journal.epoch.to_string(), page.journal.next))
    };
    let (epoch, next) = first().await?;
    anyhow::ensure!(next > 1, "the start is in the journal");
    let exporter = || {
        process::descendants(program.pid()).into_iter().find(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "pm2-exporter"
        })
    };
    let pid = exporter().context("no exporter")?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no process")?;
    rustix::process::kill_process(pid, Signal::TERM)?;
    let again = wait_until("it starts again", SOON, async || {
        first().await.ok().filter(|(now, _)| *now != epoch)
    })
    .await?;
    assert!(again.1 > next, "what was there is there, and more: {again:?}");
    wait_until("it says why", SOON, async || {
        program.stderr().contains("it goes on in memory").then_some(())
    })
    .await?;
    assert_eq!(program.client().get("/metrics").await?.status, 200);
    let page: wire::JournalPage = program.client().json("/api/journal?after=0").await?;
    assert_eq!((page.journal.first, page.lost), (1, 0));
    Ok(())
}

#[tokio::test]
async fn on_a_full_disk_it_goes_on_starts_and_is_well_again_when_there_is_room() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let settings =
        Settings { servers: 2, sample_interval: Duration::from_secs(1), ..Settings::default() };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let launch = scene::poller_launch(&servers(&fleet, 2), "anonymous_read = true")?
        .variable("PM2_POLLER_DATABASE", "disk/db/poller.db");
    std::fs::create_dir(launch.folder().join("disk"))?;
    let around = [&["unshare"], &SPACES[..], &["sh", "-c", SMALL_DISK, "sh"]].concat();
    let launch = launch.within(&around);
    let folder = launch.folder().path().to_owned();
    let program = launch.start().await?;
    let client = program.client();

    let value = async |name: &str, label: (&str, &str)| {
        scene::metrics(client).await.ok()?.value(name, &[label]).ok()
    };
    let stored = async || value("pm2_poller_journal_entries_total", ("kind", "sample")).await;
    let refused = async || value("pm2_poller_store_errors_total", ("kind", "full")).await;
    let polls = async || value("pm2_poller_polls_total", ("result", "success")).await;
    wait_until("samples are stored", SOON, async || (stored().await? >= 4.0).then_some(())).await?;
    // The poller sees the file system under this path; others, through the poller.
    let poller = || {
        let of = process::descendants(program.pid());
        of.into_iter().find(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "pm2-poller"
        })
    };
    let disk = |pid: u32| PathBuf::from(format!("/proc/{pid}/root{}/disk", folder.display()));
    let fill = |pid: u32| -> Result<()> {
        use std::io::Write;
        let mut file =
            std::fs::File::options().create(true).append(true).open(disk(pid).join("fill"))?;
        while file.write_all(&[0; 512]).is_ok() {}
        Ok(())
    };
    let first = poller().context("no poller")?;
    fill(first)?;
    let goes_on = async |what: &str| -> Result<()> {
        wait_until(&format!("{what}: the database says no"), SOON, async || {
            (refused().await? >= 2.0).then_some(())
        })
        .await?;
        let before = polls().await.context("no metrics")?;
        wait_until(&format!("{what}: polls go on"), SOON, async || {
            (polls().await? >= before + 4.0).then_some(())
        })
        .await?;
        wait_until(&format!("{what}: the server is up"), SOON, async || {
            (value("pm2_server_up", ("server", "vm0")).await? == 1.0).then_some(())
        })
        .await
    };
    goes_on("while it runs").await?;

    let ended = |old: u32| {
        let poller = &poller;
        async move {
            wait_until("it is started again", SOON, async || poller().filter(|new| *new != old))
                .await
        }
    };
    process::signal(first, Signal::KILL);
    let second = ended(first).await?;
    goes_on("started after a kill").await?;
    // An orderly end leaves neither log nor index, and what that frees others take.
    process::signal(second, Signal::TERM);
    let third = ended(second).await?;
    fill(third)?;
    goes_on("started after an end").await?;

    let room = async |pid: u32| -> Result<()> {
        std::fs::remove_file(disk(pid).join("fill"))?;
        wait_until("samples are stored again", SOON, async || {
            (stored().await? >= 4.0).then_some(())
        })
        .await
    };
    room(third).await?;
    std::fs::write(disk(third).join("full"), "")?;
    process::signal(third, Signal::TERM);
    let fourth = ended(third).await?;
    goes_on("started where there is no room").await?;
    std::fs::remove_file(disk(fourth).join("full"))?;
    room(fourth).await?;
    everything_is_kept(client, &fleet, 2).await?;
    // What there was no room for was not taken for damage.
    assert!(!program.stderr().contains("is set aside"), "{}", program.stderr());
    program.kill();
    Ok(())
}
