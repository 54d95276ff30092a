//! `make screenshots`: pictures of every page in a real Chromium, in light, dark, on a telephone
//! and on a wall, of real PM2 with six processes and with a deployment, of eight simulated
//! servers with a day behind them, and of a thousand. To look at: `target/screenshots/`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use e2e::fleet::{Fleet, SERVER, new_poller_token};
use e2e::scene::{self, Server, Watcher};
use e2e::sim::{Settings, SimulatedFleet};
use e2e::{Browser, Folder, Pm2, Port, process, setup, wait_until};

/// Longest that a fleet is waited for.
const READY: Duration = Duration::from_secs(120);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// How a page is looked at: a name, width and height in CSS pixels, dark or light.
const LOOKS: [(&str, u32, u32, bool); 4] = [
    ("light", 1280, 900, false),
    ("dark", 1280, 900, true),
    ("narrow", 390, 844, false),
    ("wall", 2560, 1440, true),
];

/// Taller pages are cut.
const TALLEST: u32 = 4000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("screenshots: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let folder = setup::target().join("screenshots");
    std::fs::create_dir_all(&folder)?;
    let browser = Browser::start().await?;
    let mut gallery = Gallery { browser, folder, taken: 0 };
    six(&mut gallery).await?;
    deployed(&mut gallery).await?;
    a_day(&mut gallery).await?;
    thousand(&mut gallery).await?;
    eprintln!("screenshots: {} pictures in {}", gallery.taken, gallery.folder.display());
    Ok(())
}

struct Gallery {
    browser: Browser,
    folder: PathBuf,
    taken: usize,
}

impl Gallery {
    /// A page in every look, its whole height.
    async fn page(&mut self, name: &str, url: &str) -> anyhow::Result<()> {
        for (look, width, height, dark) in LOOKS {
            self.browser.dark(dark).await?;
            self.browser.resize(width, height).await?;
            self.browser.open(url).await?;
            self.browser.find("main h1").await?;
            self.take(&format!("{name}-{look}"), width, height).await?;
        }
        Ok(())
    }

    async fn take(&mut self, name: &str, width: u32, height: u32) -> anyhow::Result<()> {
        let tall = self.browser.run("return document.documentElement.scrollHeight").await?;
        let tall = tall.as_u64().and_then(|it| u32::try_from(it).ok()).unwrap_or(height);
        let wide = self.browser.run("return document.documentElement.scrollWidth").await?;
        anyhow::ensure!(wide.as_u64() <= Some(width.into()), "{name} is {wide} wide, not {width}");
        self.browser.resize(width, tall.clamp(height, TALLEST)).await?;
        self.browser.picture(&self.folder.join(format!("{name}.png")), false).await?;
        self.taken += 1;
        Ok(())
    }

    /// What opens when a link is clicked, in light and dark.
    async fn dialog(&mut self, name: &str, url: &str, link: &str) -> anyhow::Result<()> {
        for (look, width, height, dark) in [LOOKS[0], LOOKS[1], LOOKS[2]] {
            self.browser.dark(dark).await?;
            self.browser.resize(width, height).await?;
            self.browser.open(url).await?;
            self.browser.click(link).await?;
            self.browser.find("dialog[open] form").await?;
            let path = self.folder.join(format!("{name}-{look}.png"));
            self.browser.picture(&path, false).await?;
            self.taken += 1;
        }
        Ok(())
    }

    async fn sign_in(&self, base: &str, token: &str) -> anyhow::Result<()> {
        self.browser.resize(1280, 900).await?;
        self.browser.sign_in(base, token).await
    }
}

/// Real PM2 with the six default processes, as `make run` starts them.
async fn six(gallery: &mut Gallery) -> anyhow::Result<()> {
    let (home, mark) = (Folder::new()?, process::new_mark());
    let fleet = Fleet::start(home.path(), &mark).await?;
    let base = fleet.poller().url("");
    wait_until("six processes are there", READY, async || {
        let path = format!("/api/servers/{SERVER}");
        let found: serde_json::Value = fleet.poller().json(&path).await.ok()?;
        (found["status"] == "online" && found["state"]["processes"].as_array()?.len() == 6)
            .then_some(())
    })
    .await?;
    for name in ["slot-a", "slot-b"] {
        let path = format!("/api/commands/{SERVER}/apps/{name}/restart?wait=30s");
        scene::succeeded(&fleet.poller().post(&path).await?)?;
    }
    gallery.browser.open(&format!("{base}/login")).await?;
    gallery.page("login", &format!("{base}/login")).await?;
    gallery.sign_in(&base, &fleet.admin_token).await?;
    let server = format!("{base}/servers/{SERVER}");
    for (name, url) in [
        ("six-fleet", base.clone() + "/"),
        ("six-server", server.clone()),
        ("six-app", format!("{server}/apps/slot-a")),
        ("six-log", format!("{server}/apps/admin-server/logs")),
        ("six-slot", format!("{server}/slots/a")),
        ("six-events", format!("{base}/events")),
        ("six-event", format!("{base}/events/1")),
        ("six-commands", format!("{base}/commands")),
        ("six-audit", format!("{base}/audit")),
        ("not-found", format!("{base}/servers/vm9")),
        ("no-match", format!("{base}/?q=nothing-of-this-name")),
    ] {
        gallery.page(name, &url).await?;
    }
    let app = format!("{server}/apps/slot-a");
    gallery.dialog("ask-restart", &app, "#acts a[href$='/restart']").await?;
    let slot = format!("{server}/slots/a");
    gallery.dialog("ask-deploy", &slot, "#acts a[href$='/deploy']").await?;
    fleet.stop().await
}

/// A slot while an application is deployed to it, and afterwards.
async fn deployed(gallery: &mut Gallery) -> anyhow::Result<()> {
    let (pm2, slot) = (Pm2::start().await?, Port::free()?);
    let repository = scene::repository("node -e 'setTimeout(() => {}, 6000)'")?;
    let (exporter, token) = scene::exporter_with_slot(pm2.home(), &slot).await?;
    let url = exporter.launch().base();
    let server = Server { id: "vm1".to_owned(), url, token: Some(token) };
    let watcher = scene::poller(&[server], "").await?;
    wait_for(&watcher, 1).await?;
    let base = watcher.program.client().url("");
    gallery.sign_in(&base, &watcher.token).await?;
    let page = format!("{base}/servers/vm1/slots/a");
    gallery.browser.open(&page).await?;
    gallery.browser.click("#acts a[href$='/deploy']").await?;
    let address = format!("file://{}", repository.path().display());
    gallery.browser.fill("dialog [name=repository]", &address).await?;
    gallery.browser.type_into("dialog [name=env]", "GREETING=hello").await?;
    gallery.browser.click("dialog form[method=post] button").await?;
    gallery.browser.wait_for_text("#deployment .now", "building").await?;
    gallery.take("deploying-light", 1280, 900).await?;
    gallery.browser.wait_for_text("#history", "runs now").await?;
    gallery.page("deployed-slot", &page).await?;
    gallery.page("deployed-server", &format!("{base}/servers/vm1")).await
}

/// A few simulated servers that have run for a day before the poller came, and one that is away.
async fn a_day(gallery: &mut Gallery) -> anyhow::Result<()> {
    let settings = Settings {
        servers: 8,
        sample_interval: MINUTE,
        past: DAY,
        crash_every: 4 * 60 * MINUTE,
        entries: 2_000,
        seed: 7,
        ..Settings::default()
    };
    let (fleet, nowhere) = (SimulatedFleet::start(settings, 0).await?, Port::free()?);
    let mut servers: Vec<Server> =
        (0..8).map(|number| Server::open(&format!("vm{number}"), fleet.url(number))).collect();
    servers.push(Server::open("vm8", format!("http://{}", nowhere.address())));
    let watcher = scene::poller(&servers, "keep_raw = \"48h\"").await?;
    wait_for(&watcher, 8).await?;
    let base = watcher.program.client().url("");
    wait_until("a day is taken in", READY, async || {
        let path = "/api/servers/vm0/metrics?metric=memory&from=24h&step=1h";
        let found: serde_json::Value = watcher.admin.json(path).await.ok()?;
        (found["series"][0]["points"].as_array()?.len() >= 24).then_some(())
    })
    .await?;
    gallery.sign_in(&base, &watcher.token).await?;
    for (name, path) in [
        ("day-fleet", "/"),
        ("day-server", "/servers/vm0?range=24h"),
        ("day-app", "/servers/vm0/apps/slot-a?range=24h"),
        ("day-app-hour", "/servers/vm0/apps/slot-a"),
        ("day-offline", "/servers/vm8"),
        ("day-events", "/events"),
    ] {
        gallery.page(name, &format!("{base}{path}")).await?;
    }
    Ok(())
}

/// A thousand servers with an hour behind them.
async fn thousand(gallery: &mut Gallery) -> anyhow::Result<()> {
    let settings = Settings {
        servers: 1000,
        sample_interval: MINUTE,
        past: 60 * MINUTE,
        crash_every: 20 * 60 * MINUTE,
        ..Settings::default()
    };
    let fleet = SimulatedFleet::start(settings, 0).await?;
    let blocks: String = (0..1000).map(|number| fleet.block(number)).collect();
    let nowhere = Port::free()?;
    let away: Vec<Server> = ["vm12-old", "vm371-old", "vm666-old"]
        .map(|id| Server::open(id, format!("http://{}", nowhere.address())))
        .into();
    let launch = scene::poller_launch(&away, &blocks)?;
    let configuration = launch.folder().join("configuration.toml").display().to_string();
    let token = new_poller_token(&configuration, "admin", "admin").await?;
    let mut launch = launch;
    for (flag, value) in [("interval", "10s"), ("timeout", "5s")] {
        launch = launch.argument(format!("--poll-{flag}")).argument(value);
    }
    let program = launch.argument("--stale-after").argument("60s").start().await?;
    let watcher = Watcher { admin: program.client().with_token(&token), token, program };
    wait_for(&watcher, 1000).await?;
    let base = watcher.program.client().url("");
    gallery.sign_in(&base, &watcher.token).await?;
    gallery.page("thousand-fleet", &format!("{base}/")).await?;
    gallery.page("thousand-group", &format!("{base}/?group=eu")).await?;
    Ok(())
}

/// Waits until so many servers are online.
async fn wait_for(watcher: &Watcher, number: usize) -> anyhow::Result<()> {
    wait_until(&format!("{number} servers are online"), READY, async || {
        let path = "/api/servers?status=online&limit=10000";
        let found: serde_json::Value = watcher.admin.json(path).await.ok()?;
        (found["servers"].as_array()?.len() >= number).then_some(())
    })
    .await
    .context("the fleet")
}
