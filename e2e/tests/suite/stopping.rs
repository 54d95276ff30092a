//! SIGTERM: what is under way ends, and the program with it, whatever hangs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::scene::{self, Server};
use e2e::{FakePm2, Mode, Pm2, SOON, Stopwatch, pm2_process, wait_until};
use rustix::process::Signal;
use serde_json::json;

/// Hung polls hold the poller no longer than this.
const HUNG_POLLS: Duration = Duration::from_secs(5);
/// What else hangs here hangs for longer than this.
const DEADLINE: Duration = Duration::from_secs(15);

/// Takes connections and says nothing.
fn black_hole() -> Result<(String, Arc<Mutex<Vec<TcpStream>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    });
    Ok((url, taken))
}

/// How many of them the other side still holds open.
fn open(streams: &Mutex<Vec<TcpStream>>) -> usize {
    let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
    let still_open = |stream: &mut TcpStream| {
        let mut buffer = [0; 4096];
        stream.set_nonblocking(true).is_ok()
            && loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break false,
                    Ok(_) => {}
                    Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
    };
    streams.retain_mut(still_open);
    streams.len()
}

#[tokio::test]
async fn fifty_hung_polls_do_not_hold_the_poller() -> Result<()> {
    let (url, taken) = black_hole()?;
    let launch = e2e::Launch::poller()?;
    let mut configuration =
        "database = \"poller.db\"\npoll_interval = \"20s\"\npoll_timeout = \"20s\"\n".to_owned();
    for number in 0..50 {
        configuration += &format!("[[servers]]\nid = \"vm{number}\"\nurl = {url:?}\n");
    }
    let poller = launch.configuration(&configuration)?.start().await?;
    wait_until("nearly all polls hang", SOON, async || (open(&taken) >= 45).then_some(())).await?;
    let ended = poller.stop(HUNG_POLLS).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Nothing was cut off: they were let go.
    assert!(!ended.stderr.contains("did not end in time"), "{}", ended.stderr);
    Ok(())
}

/// Sends a request without a body, and waits until the other side has taken it.
async fn sent(address: &str, line: &str, token: Option<&str>) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    let credential = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: 0\r\nConnection: close\r\n\r\n",
        credential.unwrap_or_default()
    );
    stream.write_all(head.as_bytes())?;
    wait_until("the request was read", SOON, async || has_read(&stream).ok()?.then_some(()))
        .await?;
    Ok(stream)
}

fn answer(mut stream: TcpStream) -> Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn waiting_readers_and_a_hung_pm2_do_not_hold_the_exporter() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(3))?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    scene::wait_for_instances(&exporter.read, "app-0", wire::Status::Online, 1).await?;
    let page: wire::JournalPage = exporter.read.json("/api/journal?after=0").await?;
    let (epoch, after) = (&page.journal.epoch, page.after);
    let address = exporter.program.launch().address();
    let journal = format!("GET /api/journal?epoch={epoch}&after={after}&wait=30s");
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(sent(&address, &journal, Some(&exporter.token)).await?);
    }
    fake.set_mode(Mode::Hangs)?;
    let restart = "POST /api/processes/app-0/restart?wait=30s";
    let command = sent(&address, restart, Some(&exporter.token)).await?;
    let ended = exporter.program.stop(DEADLINE).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for stream in waiting {
        let answer = answer(stream)?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "cut off instead of answered: {answer:?}");
    }
    // PM2 says nothing of it, and so nobody knows what became of it: it may be cut off.
    let answer = answer(command)?;
    assert!(!answer.contains("\"succeeded\""), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_journal_that_waits_answers_when_the_exporter_stops() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(3))?;
    let exporter = scene::exporter(fake.home()).await?;
    scene::wait_for_instances(exporter.client(), "app-0", wire::Status::Online, 1).await?;
    let page: wire::JournalPage = exporter.client().json("/api/journal?after=0").await?;
    let (epoch, after) = (&page.journal.epoch, page.after);
    let request = format!("GET /api/journal?epoch={epoch}&after={after}&wait=30s");
    let waiting = sent(&exporter.launch().address(), &request, None).await?;
    let ended = exporter.stop(DEADLINE).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let answer = answer(waiting)?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "cut off instead of answered: {answer:?}");
    assert!(answer.contains("\"entries\""), "{answer}");
    Ok(())
}

/// Whether the other side has taken all that was written here: its queue is empty.
fn has_read(stream: &TcpStream) -> Result<bool> {
    let hexadecimal = |port: u16| format!(":{port:04X}");
    let here = hexadecimal(stream.local_addr()?.port());
    let there = hexadecimal(stream.peer_addr()?.port());
    let connections = std::fs::read_to_string("/proc/net/tcp")?;
    let queue = connections.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, _, queues, ..] = fields[..] else { return None };
        (local.ends_with(&there) && remote.ends_with(&here)).then_some(queues.to_owned())
    });
    Ok(queue.context("no such connection")?.ends_with(":00000000"))
}

#[tokio::test]
async fn a_command_under_way_is_finished_and_recorded() -> Result<()> {
    let pm2 = Pm2::start().await?;
    // PM2 gives it 3 s to end before it kills it.
    let app = json!({"name": "stubborn", "script": "stubborn.js", "kill_timeout": 3000});
    pm2.start_apps(vec![app]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    scene::wait_for_instances(&exporter.read, "stubborn", wire::Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    let asking = tokio::spawn({
        let admin = poller.admin.clone();
        async move { admin.post("/api/commands/vm1/apps/stubborn/restart?wait=30s").await }
    });
    wait_until("it is under way", SOON, async || {
        let state = &pm2.processes_of("stubborn").ok()?.pop()?["pm2_env"]["status"];
        (*state == "stopping").then_some(())
    })
    .await?;
    let launch = poller.program.launch();
    let ended = poller.program.stop(DEADLINE).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let _ = asking.await?;
    let program = launch.start().await?;
    let admin = program.client().with_token(&poller.token);
    // What had not ended is asked for once more: the exporter lives, and knows.
    wait_until("it has succeeded, and that is on record", SOON, async || {
        let list: serde_json::Value = admin.json("/api/commands").await.ok()?;
        (list["commands"][0]["status"] == "succeeded").then_some(())
    })
    .await
}

#[tokio::test]
async fn a_second_signal_ends_at_once() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(3))?;
    let exporter = scene::exporter(fake.home()).await?;
    // A request that is never finished keeps the first stop waiting.
    let address = exporter.launch().address();
    let mut half = TcpStream::connect(&address)?;
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")?;
    exporter.signal(Signal::TERM);
    wait_until("it no longer listens", SOON, async || TcpStream::connect(&address).err()).await?;
    let start = Stopwatch::start(&[exporter.pid()]);
    let ended = exporter.stop(DEADLINE).await?;
    assert!(ended.code.is_some(), "{}", ended.stderr);
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
    Ok(())
}
