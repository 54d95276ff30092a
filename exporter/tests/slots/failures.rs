use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stage::{PACKAGE, Repo, Stage, server};
use e2e::SOON;

/// Asks the slot's port all the time, each time anew, until it is told to end; gives how many
/// were asked and how many failed, and the longest time without an answer.
pub(crate) struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<(u32, u32, Duration)>,
}

impl Load {
    pub(crate) fn start(port: u16) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut asked, mut failed, mut longest) = (0, 0, Duration::ZERO);
            let mut last = Instant::now();
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                asked += 1;
                if ask(port) {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                } else {
                    failed += 1;
                }
                std::thread::sleep(Duration::from_millis(4));
            }
            (asked, failed, longest)
        });
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> (u32, u32, Duration) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A machine that stands still for a moment loses no request.
const PATIENCE: Duration = Duration::from_secs(30);

fn ask(port: u16) -> bool {
    use std::io::{Read, Write};
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = std::net::TcpStream::connect_timeout(&address, PATIENCE) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn no_failure_before_the_switch_costs_a_request() {
    let mut stage = Stage::new().await;
    let good = Repo::app("good");
    stage.deployed("a", &good).await;
    let journal = async |stage: &Stage| {
        let page: Value = stage.client.json("/api/journal?limit=1000").await.unwrap();
        page["entries"].to_string()
    };
    let well = journal(&stage).await;
    // Some of what follows is never well, and that is to be seen soon.
    stage.configure("probe_attempts = 60", "probe_attempts = 12");
    stage.kill();
    stage.serve().await;
    let load = Load::start(stage.ports["a"]);
    let package = |scripts: &str| format!("{{\"name\":\"x\",\"scripts\":{{{scripts}}}}}");
    let app =
        |package: &str, text: &str| Repo::new(&[("package.json", package), ("server.js", text)]);
    let start = "\"start\":\"node server.js\"";
    let cases = [
        ("clone", json!({"repository": "file:///nowhere/at-all"}), "git ended with code", "x"),
        ("branch", json!({"repository": good.url(), "branch": "nope"}), "nope", "x"),
        ("subdir", json!({"repository": good.url(), "subdir": "nope"}), "no folder", "x"),
    ];
    for (what, body, reason, _) in cases {
        let failed = stage.fails("a", body).await;
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains(reason), "{what}: {error}");
    }
    let never = "require('http').createServer((q, r) => { r.statusCode = 500; r.end() }).listen(process.env.PORT)";
    let stubborn = "process.on('SIGTERM', () => {}); process.on('SIGINT', () => {}); setInterval(() => {}, 1000)";
    let forks = "if (process.argv[2]) setInterval(() => {}, 1000); else { require('child_process').spawn(process.execPath, [__filename, 'x'], {detached: true, stdio: 'ignore', env: process.env}).unref(); setTimeout(() => process.exit(3), 100) }";
    // Neither of the application's family nor marked as it is; gone by itself after a while.
    let stranger = "const serve = `require('http').createServer((q, r) => r.end('x')).listen(${process.env.PORT}); setTimeout(() => process.exit(), 20000)`; require('child_process').spawnSync('/bin/sh', ['-c', '\"$0\" -e \"$1\" &', process.execPath, serve], {env: {}, stdio: 'ignore'}); setInterval(() => {}, 1000)";
    let ignores = "require('http').createServer((q, r) => r.end('x')).listen(0)";
    let taken = format!("require('http').createServer(() => {{}}).listen({})", stage.ports["a"]);
    let none = "setInterval(() => {}, 1000)";
    for (what, repo, reason, line) in [
        (
            "install",
            app(
                &package(&format!(
                    "{start},\"postinstall\":\"node -e 'console.log(42);process.exit(7)'\""
                )),
                none,
            ),
            "npm ended",
            Some("42"),
        ),
        (
            "build",
            app(
                &package(&format!(
                    "{start},\"build\":\"node -e 'console.log(43);process.exit(7)'\""
                )),
                none,
            ),
            "npm ended",
            Some("43"),
        ),
        ("nothing to start", Repo::new(&[("readme", "x")]), "nothing says what to start", None),
        (
            "start",
            app(PACKAGE, "console.log('going down'); process.exit(9)"),
            "ended with code 9",
            Some("going down"),
        ),
        (
            "throws",
            app(PACKAGE, "throw new Error('oh dear')"),
            "ended with code 1",
            Some("oh dear"),
        ),
        ("never healthy", app(PACKAGE, never), "GET / answers 500", None),
        ("never listens", app(PACKAGE, none), "refuses connections", None),
        ("ignores PORT", app(PACKAGE, ignores), "ignores PORT", None),
        ("somebody else answers", app(PACKAGE, stranger), "is held by pid", None),
        ("a fixed port", app(PACKAGE, &taken), "EADDRINUSE", None),
        ("ignores SIGTERM", app(PACKAGE, stubborn), "refuses connections", None),
        ("forks", app(PACKAGE, forks), "ended with code 3", None),
    ] {
        let failed = stage.fails("a", json!({"repository": repo.url()})).await;
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains(reason), "{what}: {error}");
        let last = failed["last_lines"].to_string();
        assert!(line.is_none_or(|line| last.contains(line)), "{what}: {failed:#}");
    }
    let (asked, lost, _) = load.end();
    assert!(asked > 500, "{asked}");
    assert_eq!(lost, 0, "of {asked}");
    stage.leaves_nothing_behind().await;
    let text = well + &journal(&stage).await;
    for kind in [
        "deploy_queued",
        "deploy_cloning",
        "deploy_installing",
        "deploy_building",
        "deploy_probing",
        "deploy_switching",
        "deploy_healthy",
        "deploy_failed",
    ] {
        assert!(text.contains(&format!("\"kind\":\"{kind}\"")), "{kind}");
    }
    assert!(text.contains("going down"), "an event has the last lines");
}

#[tokio::test]
async fn what_crashes_after_the_switch_is_replaced_by_what_ran() {
    let stage = Stage::new().await;
    stage.deployed("a", &Repo::app("good")).await;
    // Well on any port but the slot's: it passes the trial.
    let port = stage.ports["a"];
    let at_once = format!("if (process.env.PORT === '{port}') process.exit(5); {}", server("bad"));
    let soon = format!(
        "if (process.env.PORT === '{port}') setTimeout(() => process.exit(5), 250); {}",
        server("bad")
    );
    let sick = format!(
        "require('http').createServer((q, r) => {{ r.statusCode = process.env.PORT === '{port}' ? 500 : 200; r.end() }}).listen(process.env.PORT)"
    );
    for (what, text) in [("at once", at_once), ("soon", soon), ("sick", sick)] {
        let repo = Repo::new(&[("package.json", PACKAGE), ("server.js", &text)]);
        let failed = stage.deploy("a", json!({"repository": repo.url()})).await;
        assert_eq!(failed["status"], "failed", "{what}: {failed:#}");
        assert!(failed["error"].as_str().unwrap().contains("on port"), "{what}: {failed:#}");
        let what = format!("{what}: what ran answers again");
        e2e::wait_until(&what, SOON, async || (stage.get("a", "/").await? == "good").then_some(()))
            .await
            .unwrap();
        stage.at_rest("a").await;
    }
    let metrics = stage.client.get("/metrics").await.unwrap().text;
    assert!(
        metrics.contains("pm2_slot_deploys_total{slot=\"a\",result=\"failed\"} 3"),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_application_that_prints_without_end_fills_neither_disk_nor_memory() {
    let mut stage = Stage::with(
        "probe_attempts = 4\nprobe_interval = \"500ms\"\nsettle = \"0s\"\nlog_limit = \"100KiB\"\n",
    )
    .await;
    let flood = "const line = 'x'.repeat(1000) + '\\n'; const go = () => { while (process.stdout.write(line.repeat(64))); }; process.stdout.on('drain', go); go(); setTimeout(() => process.exit(1), 1500);";
    let repo = Repo::new(&[("package.json", PACKAGE), ("server.js", flood)]);
    let failed = stage.fails("a", json!({"repository": repo.url()})).await;
    let root = stage.root();
    let log_of = |deployment: &Value| {
        let id = deployment["id"].as_str().unwrap();
        root.join(format!("deployments/a/{id}.log"))
    };
    assert!(std::fs::metadata(log_of(&failed)).unwrap().len() < 150 * 1024);
    assert!(failed.to_string().len() < 20_000);
    // What comes now is well, however long it takes to start.
    stage.configure("probe_attempts = 4", "probe_attempts = 60");
    stage.kill();
    stage.serve().await;
    // A build that prints a gigabyte (in the short form a quarter of one) and is well.
    let pieces = if std::env::var_os("PM2_FLEET_LONG").is_some() { 16_384 } else { 4_096 };
    let build = format!(
        "const piece = 'x'.repeat(1023) + '\\n'; const fs = require('fs'); \
         for (let n = 0; n < {pieces}; n++) fs.writeSync(1, piece.repeat(64)); \
         console.log('the end')"
    );
    let repo = Repo::app("after a flood");
    let body = json!({"repository": repo.url(), "build": ["node", "-e", build]});
    let done = stage.deploy("a", body).await;
    assert_eq!(done["status"], "healthy", "{done:#}");
    let log = std::fs::read_to_string(log_of(&done)).unwrap();
    assert!(log.len() < 150 * 1024 && log.contains("the rest is left out"), "{}", log.len());
    assert!(log.ends_with("==> done\n"), "our own lines are there to the end");
}

#[tokio::test]
async fn somebody_elses_port_is_named_and_taken_only_when_asked() {
    let stage = Stage::new().await;
    // The slot's own process is away, and a stranger is quicker.
    stage.pm2.cli(&["stop", "slot-b"]).await.unwrap();
    let port = stage.ports["b"];
    let mut stranger = std::process::Command::new("node")
        .args([
            "-e",
            &format!("require('http').createServer((q, r) => r.end('mine')).listen({port})"),
        ])
        .env(crate::stage::MARK, stage.mark())
        .spawn()
        .unwrap();
    e2e::wait_until("the stranger listens", SOON, async || stage.get("b", "/").await)
        .await
        .unwrap();
    let pid = stranger.id();
    e2e::wait_until("the slot tells who it is", SOON, async || {
        let slot = stage.slot("b").await;
        (slot["foreign_owner"] == format!("pid {pid} (node)")).then_some(())
    })
    .await
    .unwrap();
    let repo = Repo::app("ours");
    for path in ["/api/slots/b/restart?wait=150s", "/api/slots/b/stop?wait=150s"] {
        let answer = stage.post(path, &json!({})).await;
        assert!(answer.text.contains(&format!("held by pid {pid}")), "{}", answer.text);
    }
    let failed = stage.deploy("b", json!({"repository": repo.url()})).await;
    assert!(
        failed["error"].as_str().unwrap().contains(&format!("held by pid {pid}")),
        "{failed:#}"
    );
    assert_eq!(stage.get("b", "/").await.unwrap(), "mine");
    let done = stage.deploy("b", json!({"repository": repo.url(), "reclaim": true})).await;
    assert_eq!(done["status"], "healthy", "{done:#}");
    assert_eq!(stage.get("b", "/").await.unwrap(), "ours");
    assert!(stranger.wait().unwrap().code().is_none());
}

/// What nobody can read was not ours to take away.
#[tokio::test]
async fn a_slot_whose_state_cannot_be_read_is_left_as_it_is() {
    let mut stage = Stage::new().await;
    let done = stage.deployed("a", &Repo::app("one")).await;
    let release = stage.root().join("releases/a").join(done["id"].as_str().unwrap());
    let file = stage.root().join("state/a.json");
    let good = std::fs::read(&file).unwrap();
    stage.kill();
    std::fs::write(&file, "{").unwrap();
    stage.serve().await;
    let body = json!({"repository": Repo::app("two").url()});
    let refused = stage.post("/api/slots/a/deploy", &body).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("state/a.json makes no sense at line 1"), "{}", refused.text);
    let restart = stage.post("/api/slots/a/restart?wait=150s", &json!({})).await;
    assert!(restart.text.contains("makes no sense"), "{}", restart.text);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{");
    assert!(release.join("server.js").exists());
    assert_eq!(stage.get("a", "/").await.unwrap(), "one");
    // Put right, it goes on without a restart.
    std::fs::write(&file, good).unwrap();
    let restart = stage.post("/api/slots/a/restart?wait=150s", &json!({})).await;
    assert!(restart.text.contains("succeeded"), "{}", restart.text);
    assert_eq!(stage.deployed("a", &Repo::app("two")).await["status"], "healthy");
    let back = stage.post("/api/slots/a/rollback?wait=150s", &json!({})).await;
    assert!(back.text.contains("succeeded"), "{}", back.text);
    assert_eq!(stage.get("a", "/").await.unwrap(), "one");
}

/// One that a shell has started for the application, and that no parent joins to it any more: its trial
/// is its own, and nothing stops it at the slot's port once it serves there.
#[tokio::test]
async fn a_listener_that_left_the_applications_family_is_well_on_trial_and_not_let_in() {
    let stage = Stage::new().await;
    let serve = "const serve = `require('http').createServer((q, r) => r.end('x')).listen(${process.env.PORT})`; require('child_process').spawnSync('/bin/sh', ['-c', '\"$0\" -e \"$1\" &', process.execPath, serve], {stdio: 'ignore'}); setInterval(() => {}, 1000)";
    let repo = Repo::new(&[("package.json", PACKAGE), ("server.js", serve)]);
    let done = stage.deploy("a", json!({"repository": repo.url()})).await;
    let error = done["error"].as_str().unwrap_or_default();
    let port = format!("port {} is held by pid ", stage.ports["a"]);
    assert!(error.starts_with(&port), "it is the slot's port, and not the trial's: {done:#}");
    assert!(error.ends_with("(node), not by the slot's process"), "{done:#}");
}
