//! Starting: what is wrong is told before anything is bound or opened, each with an exit
//! code of its own; and reloading.

use std::net::TcpListener;

use anyhow::{Context, Result};
use e2e::scene::{self, Server};
use e2e::{FakePm2, Folder, Launch, SOON, pm2_process, wait_until};
use rustix::process::Signal;

/// As clap has it.
const CONFIGURATION: Option<i32> = Some(2);
const LISTEN: Option<i32> = Some(3);
const STORAGE: Option<i32> = Some(4);

fn both() -> Result<[Launch; 2]> {
    let home = Folder::new()?;
    Ok([Launch::exporter()?.pm2_home(home.path()), Launch::poller()?])
}

#[tokio::test]
async fn a_port_that_is_taken() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for launch in both()? {
        let ended = launch.argument("--listen").argument(&address).run().await?;
        assert_eq!(ended.code, LISTEN, "{}", ended.stderr);
        assert!(ended.stderr.contains(&address), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"));
    }
    Ok(())
}

#[tokio::test]
async fn nobody_is_let_in_from_outside_without_a_token() -> Result<()> {
    for launch in both()? {
        let folder = launch.folder().path().to_owned();
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
            let ended = launch.clone().argument("--listen").argument(address).run().await?;
            assert_eq!(ended.code, CONFIGURATION, "{address}: {}", ended.stderr);
            assert!(
                ended.stderr.contains("listen") && ended.stderr.contains("token"),
                "{}",
                ended.stderr
            );
        }
        assert!(folder.exists());
    }
    let (_, block) = scene::exporter_token("poller", &["read"])?;
    let launch = Launch::exporter()?.configuration(&block)?;
    let port = launch.address();
    let port = port.rsplit(':').next().context("no port")?;
    let outside = launch.argument("--listen").argument(format!("0.0.0.0:{port}"));
    outside.start().await?.stop(SOON).await?;
    Ok(())
}

/// Logs of what PM2 runs are shown to whoever may read at an exporter.
#[tokio::test]
async fn the_first_admins_link_stands_in_no_log_that_pm2_keeps() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let launch = Launch::poller()?;
    let file = launch.folder().join("poller.db.first-admin");
    let launch = launch.variable("PM2_POLLER_DATABASE", "poller.db");
    for _ in 0..2 {
        let poller = launch.clone().variable("pm_id", "0").start().await?;
        let said = "the first admin at the link in this file";
        wait_until("it is said where", SOON, async || poller.stderr().contains(said).then_some(()))
            .await?;
        assert!(!poller.stderr().contains("key="), "{}", poller.stderr());
        assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
        let link = std::fs::read_to_string(&file)?;
        let path = link.trim().strip_prefix(&poller.launch().base()).context("another address")?;
        assert_eq!(poller.client().get(path).await?.status, 200);
        poller.stop(SOON).await?;
    }
    let poller = launch.start().await?;
    wait_until("it is said at a terminal", SOON, async || {
        poller.stderr().contains("/login/first?key=").then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn every_mistake_of_the_exporters_configuration_is_told_at_once() -> Result<()> {
    let launch = Launch::exporter()?.without("PM2_EXPORTER_LISTEN").configuration(
        "listen = \"nowhere\"\nsample_interval = \"soon\"\npm2_home = \"/a\"\ncompat = \"x\"\n\
         pm2_homes = [\"relative\"]\n\
         [[tokens]]\nname = \"a b\"\nsha256 = \"short\"\nscopes = [\"everything\"]\n\
         [[tokens]]\nname = \"b\"\n\
         [slots]\n[[slots.slot]]\nname = \"../a\"\nport = 99999\n",
    )?;
    let ended = launch.run().await?;
    assert_eq!(ended.code, CONFIGURATION, "{}", ended.stderr);
    for key in [
        "listen",
        "sample_interval",
        "pm2_home",
        "compat",
        "pm2_homes",
        "tokens[0].name",
        "tokens[0].sha256",
        "tokens[0].scopes",
        "tokens[1].sha256",
        "slots.slot[0].name",
        "slots.slot[0].port",
    ] {
        let told = ended.stderr.lines().any(|line| line.trim_start().starts_with(key));
        assert!(told, "nothing about {key}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("configuration.toml"), "{}", ended.stderr);
    Ok(())
}

#[tokio::test]
async fn every_mistake_of_the_pollers_configuration_is_told_at_once() -> Result<()> {
    let launch = Launch::poller()?.without("PM2_POLLER_LISTEN").configuration(
        "listen = \"nowhere\"\npoll_interval = \"5s\"\npoll_timeout = \"6s\"\ndatabse = \"x\"\n\
         [[servers]]\nid = \"a b\"\nurl = \"http://127.0.0.1:1\"\n\
         [[servers]]\nid = \"c\"\nurl = \"ftp://127.0.0.1\"\n\
         [[servers]]\nid = \"d\"\nurl = \"http://127.0.0.1:1\"\ntoken_file = \"missing\"\n\
         [[servers]]\nid = \"d\"\nurl = \"http://127.0.0.1:2\"\n",
    )?;
    let folder = launch.folder().path().to_owned();
    let files = || -> Result<usize> { Ok(std::fs::read_dir(&folder)?.count()) };
    let before = files()?;
    let ended = launch.clone().run().await?;
    assert_eq!(ended.code, CONFIGURATION, "{}", ended.stderr);
    for key in [
        "listen",
        "poll_timeout",
        "databse",
        "servers[0].id",
        "servers[1].url",
        "servers[2].token_file",
        "servers[3].id",
    ] {
        let told = ended.stderr.lines().any(|line| line.trim_start().starts_with(key));
        assert!(told, "nothing about {key}: {}", ended.stderr);
    }
    assert_eq!(files()?, before, "a database was made nevertheless");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_not_there_or_not_toml() -> Result<()> {
    for launch in both()? {
        let missing = launch.clone().argument("--config").argument("/nowhere/at-all.toml");
        let ended = missing.run().await?;
        assert_eq!(ended.code, CONFIGURATION, "{}", ended.stderr);
        assert!(ended.stderr.contains("/nowhere/at-all.toml"), "{}", ended.stderr);
        let broken = launch.clone().configuration("listen = \n password = hunter2")?;
        let ended = broken.run().await?;
        assert_eq!(ended.code, CONFIGURATION, "{}", ended.stderr);
        assert!(ended.stderr.contains("line 1"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        let ended = launch.clone().argument("--no-such-flag").run().await?;
        assert_eq!(ended.code, CONFIGURATION, "{}", ended.stderr);
        for help in ["--help", "--version"] {
            let ended = launch.clone().with(&[help]).run().await?;
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            assert!(ended.stderr.is_empty() && !ended.stdout.is_empty());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_database_that_cannot_be_opened() -> Result<()> {
    let launch = Launch::poller()?;
    let folder = launch.folder();
    let directory = folder.join("directory.db");
    std::fs::create_dir(&directory)?;
    let garbage = folder.write("garbage.db", &"this is no database\n".repeat(1000))?;
    let nowhere = folder.join("no/such/folder/poller.db");
    for path in [directory, nowhere, garbage.clone()] {
        let path = path.display().to_string();
        let ended = launch.clone().argument("--database").argument(&path).run().await?;
        assert_eq!(ended.code, STORAGE, "{path}: {}", ended.stderr);
        assert!(ended.stderr.contains(&path), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    let kept = std::fs::read_to_string(garbage)?;
    assert!(kept.starts_with("this is no database"), "a file of somebody else was changed");
    Ok(())
}

#[tokio::test]
async fn tokens_are_shown_once_alone_on_the_last_line_and_kept_as_a_hash() -> Result<()> {
    let (token, block) = e2e::fleet::new_exporter_token("poller").await?;
    assert!(token.starts_with("pm2x_"), "{token}");
    assert!(!block.contains(&token) && block.contains("sha256"), "{block}");
    let home = Folder::new()?;
    let launch = Launch::exporter()?.pm2_home(home.path()).configuration(&block)?;
    let exporter = launch.start().await?;
    exporter.client().get("/api/state").await?.problem(401, "unauthorized")?;
    exporter.client().with_token(&token).get("/api/state").await?.ok()?;

    let launch = scene::poller_launch(&[], "")?;
    let path = launch.folder().join("configuration.toml").display().to_string();
    let token = e2e::fleet::new_poller_token(&path, "one", "viewer").await?;
    assert!(token.starts_with("pm2p_"), "{token}");
    let again = ["token", "create", "--config", &path, "--name", "one", "--role", "viewer"];
    let ended = Launch::poller()?.with(&again).run().await?;
    assert_ne!(ended.code, Some(0), "two tokens of one name: {}", ended.stdout);
    let wrong = ["token", "create", "--config", &path, "--name", "two", "--role", "emperor"];
    let ended = Launch::poller()?.with(&wrong).run().await?;
    assert_eq!(ended.code, CONFIGURATION, "{}", ended.stderr);
    // One that is made while the poller runs works without a restart.
    let poller = launch.start().await?;
    let later = e2e::fleet::new_poller_token(&path, "later", "viewer").await?;
    poller.client().with_token(&token).get("/api/servers").await?.ok()?;
    let later = poller.client().with_token(&later);
    wait_until("the new token is known", SOON, async || {
        (later.get("/api/servers").await.ok()?.status == 200).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_reload_takes_what_changed_and_a_bad_file_changes_nothing() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let exporter = scene::exporter(fake.home()).await?;
    let one = Server::open("one", exporter.launch().base());
    let two = Server::open("two", exporter.launch().base());
    let poller = scene::poller(std::slice::from_ref(&one), "").await?;
    poller.wait_for("one", "online").await?;
    let launch = poller.program.launch();
    let reload = async |text: &str| -> Result<()> {
        launch.folder().write("configuration.toml", text)?;
        poller.program.signal(Signal::HUP);
        Ok(())
    };
    let successful = async |wanted: f64| {
        wait_until(&format!("the last reload is {wanted}"), SOON, async || {
            let page = poller.metrics().await.ok()?;
            let told = page.value("pm2_poller_config_last_reload_successful", &[]).ok()?;
            (told == wanted).then_some(())
        })
        .await
    };

    reload("poll_interval = \"never\"\n[[servers]]\nid = \"x y\"\n").await?;
    successful(0.0).await?;
    poller.wait_for("one", "online").await?;
    wait_until("the mistake is in the log", SOON, async || {
        poller.program.stderr().contains("servers[0].id").then_some(())
    })
    .await?;

    let both = scene::poller_configuration(&launch, &[one.clone(), two.clone()], "")?;
    reload(&both).await?;
    successful(1.0).await?;
    poller.wait_for("two", "online").await?;
    reload(&scene::poller_configuration(&launch, &[two], "")?).await?;
    wait_until("the removed one is gone", SOON, async || {
        let page = poller.metrics().await.ok()?;
        (page.count("server", "one") == 0 && page.count("server", "two") > 0).then_some(())
    })
    .await?;
    poller.admin.get("/api/servers/one").await?.problem(404, "unknown_server")?;
    assert!(!poller.program.has_ended());
    Ok(())
}

#[tokio::test]
async fn the_exporter_survives_a_reload() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let exporter = scene::guarded_exporter(fake.home(), "").await?;
    let launch = exporter.program.launch();
    let (token, block) = scene::exporter_token("new", &["read"])?;
    let changed = exporter.program.client().with_token(&token);
    changed.get("/api/state").await?.problem(401, "unauthorized")?;
    launch.folder().write("configuration.toml", &block)?;
    exporter.program.signal(Signal::HUP);
    wait_until("the new token is known", SOON, async || {
        (changed.get("/api/state").await.ok()?.status == 200).then_some(())
    })
    .await
    .with_context(|| exporter.program.stderr())?;
    exporter.read.get("/api/state").await?.problem(401, "unauthorized")?;
    launch.folder().write("configuration.toml", "sample_interval = 5")?;
    exporter.program.signal(Signal::HUP);
    wait_until("the mistake is told", SOON, async || {
        exporter.program.stderr().contains("sample_interval").then_some(())
    })
    .await?;
    changed.get("/api/state").await?.ok()?;
    Ok(())
}
