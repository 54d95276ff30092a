//! Several PM2s at one exporter (U11): everything says which it is of, and one that is away, hangs or
//! cannot be read takes nothing from the others.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::prometheus::check_metrics;
use e2e::scene::{self, Server, metrics, succeeded, wait_for_instances};
use e2e::{Browser, Client, FakePm2, Folder, Launch, Mode, Pm2, SOON, pm2_process, wait_until};
use serde_json::{Value, json};
use wire::Status;

/// A configuration that watches these.
fn watching(homes: &[&Path], more: &str) -> String {
    let homes: Vec<String> = homes.iter().map(|home| home.display().to_string()).collect();
    format!("pm2_homes = {homes:?}\n{more}\n")
}

fn restarts(pm2: &Pm2, name: &str) -> Result<Value> {
    Ok(pm2.processes_of(name)?[0]["pm2_env"]["restart_time"].clone())
}

async fn wait_for_up(client: &Client, home: &Path, up: f64) -> Result<()> {
    let home = home.display().to_string();
    wait_until(&format!("pm2_up of {home} is {up}"), SOON, async || {
        let page = metrics(client).await.ok()?;
        (page.value("pm2_up", &[("pm2_home", &home)]).ok()? == up).then_some(())
    })
    .await
}

#[tokio::test]
async fn one_name_in_two_is_two_and_who_means_one_says_which() -> Result<()> {
    let (one, two) = tokio::try_join!(Pm2::start(), Pm2::start())?;
    let api = || json!({"name": "api", "script": "web.js"});
    one.start_apps(vec![api()]).await?;
    two.start_apps(vec![api(), json!({"name": "only", "script": "web.js"})]).await?;
    let folder = Folder::new()?;
    let (absent, no_folder) = (folder.join("absent"), folder.write("file", "")?);
    let (read, read_block) = scene::exporter_token("reader", &["read"])?;
    let (token, control_block) = scene::exporter_token("poller", &["read", "control"])?;
    let tokens = format!("state_dir = \"state\"\n{read_block}{control_block}");
    let homes = [one.home(), absent.as_path(), two.home(), no_folder.as_path()];
    let launch = Launch::exporter()?.configuration(&watching(&homes, &tokens))?;
    let program = launch.start().await?;
    let (read, control) = (program.client().with_token(read), program.client().with_token(&token));
    wait_for_instances(&read, "api", Status::Online, 2).await?;
    wait_for_instances(&read, "only", Status::Online, 1).await?;
    let [first, second] = [one.home(), two.home()].map(|home| home.display().to_string());

    // Everything of all of them, and what is wrong with the others.
    let state: wire::State = read.json("/api/state").await?;
    assert_eq!(
        state.homes.iter().map(|home| home.up).collect::<Vec<_>>(),
        [true, false, true, false]
    );
    assert!(state.homes[1].error.as_ref().is_some_and(|error| error.contains("does not exist")));
    assert!(state.homes[3].error.as_ref().is_some_and(|error| error.contains("Not a directory")));
    assert_eq!(state.pm2, state.homes[0]);
    let of_home = |home: &str| {
        state.processes.iter().filter(|it| it.instance.pm2_home.as_deref() == Some(home)).count()
    };
    assert_eq!((of_home(&first), of_home(&second)), (1, 2));
    let page = metrics(&read).await?;
    check_metrics(&read.get("/metrics").await?.ok()?)?;
    let absent_label = absent.display().to_string();
    assert_eq!(page.value("pm2_up", &[("pm2_home", &absent_label)])?, 0.0);
    assert_eq!(page.value("pm2_up", &[("pm2_home", &no_folder.display().to_string())])?, 0.0);
    for home in [&first, &second] {
        let labels = [("name", "api"), ("pm2_home", home.as_str())];
        assert_eq!(page.value("pm2_process_up", &labels)?, 1.0);
    }
    assert!(
        page.iter()
            .filter(|it| it.name.starts_with("pm2_process_"))
            .all(|it| it.labels.contains_key("pm2_home"))
    );
    read.get("/readyz")
        .await?
        .ok()?
        .contains("does not exist")
        .then_some(())
        .context("not told")?;
    assert!(read.get("/").await?.ok()?.contains(&absent_label));

    // Reading shows both, or the one that is meant.
    let group: wire::AppGroup = read.json("/api/processes/api").await?;
    assert_eq!(group.total, 2);
    let group: wire::AppGroup = read.json(&format!("/api/processes/api?pm2_home={first}")).await?;
    assert_eq!(group.total, 1);
    let list: wire::ProcessList = read.json(&format!("/api/processes?pm2_home={second}")).await?;
    assert_eq!(list.total, 2);
    read.get("/api/processes?pm2_home=/nowhere").await?.problem(400, "bad_request")?;
    let told = read.get("/api/processes/api/logs").await?.problem(409, "conflict")?;
    assert!(told.detail.contains(&first) && told.detail.contains(&second), "{told:?}");
    read.get(&format!("/api/processes/api/logs?pm2_home={second}")).await?.ok()?;
    read.get("/api/processes/only/logs").await?.ok()?;

    // Acting needs to say which, where the name does not.
    let before = (restarts(&one, "api")?, restarts(&two, "api")?);
    control.post("/api/processes/api/restart").await?.problem(409, "conflict")?;
    let body = json!({"target": {"app": "api"}, "action": "restart"});
    control.put("/api/commands/c1", &body).await?.problem(409, "conflict")?;
    let wrong = format!("/api/processes/only/restart?pm2_home={absent_label}");
    control.post(&wrong).await?.problem(503, "pm2_unavailable")?;
    assert_eq!((restarts(&one, "api")?, restarts(&two, "api")?), before);
    let record =
        control.post(&format!("/api/processes/api/restart?save=true&pm2_home={second}")).await?;
    let record = succeeded(&record)?;
    assert_eq!(record["pm2_home"], second.as_str());
    assert_eq!(record["after"][0]["pm2_home"], second.as_str());
    assert_eq!((restarts(&one, "api")?, restarts(&two, "api")?), (json!(0), json!(1)));
    assert!(two.home().join("dump.pm2").exists() && !one.home().join("dump.pm2").exists());
    let body = json!({"target": {"app": "api"}, "action": "restart", "pm2_home": first});
    succeeded(&control.put("/api/commands/c2?wait=30s", &body).await?)?;
    succeeded(&control.post("/api/processes/only/restart").await?)?;
    assert_eq!((restarts(&one, "api")?, restarts(&two, "only")?), (json!(1), json!(1)));

    // The journal says which, of what happened and of what was asked for.
    let journal: wire::JournalPage = read.json("/api/journal").await?;
    let events = journal.entries.into_iter().filter_map(|entry| match entry.record {
        wire::Record::Event(event) => Some(event),
        wire::Record::Sample(_) => None,
    });
    let of_api: Vec<wire::Event> =
        events.filter(|event| event.app.as_deref() == Some("api")).collect();
    assert!(of_api.iter().all(|event| event.pm2_home.is_some()), "{of_api:#?}");
    let commands = of_api.iter().filter(|event| event.kind == wire::EventKind::COMMAND);
    assert_eq!(commands.count(), 2);
    let page = metrics(&read).await?;
    let manual = |page: &e2e::Metrics, home: &str| {
        let labels = [("name", "api"), ("pm2_home", home), ("cause", "manual")];
        page.value("pm2_process_restarts_total", &labels)
    };
    assert_eq!((manual(&page, &first)?, manual(&page, &second)?), (1.0, 1.0));
    assert_eq!(page.value("pm2_dump_missing_processes", &[("pm2_home", &second)])?, 0.0);

    // A poller takes all of it, and passes on which is meant.
    let server = Server { id: "vm1".to_owned(), url: program.launch().base(), token: Some(token) };
    let poller = scene::poller(&[server], "").await?;
    poller.wait_for("vm1", "online").await?;
    let restart = "/api/commands/vm1/apps/api/restart?wait=30s";
    poller.admin.post(restart).await?.problem(409, "conflict")?;
    let record = poller.admin.post(&format!("{restart}&pm2_home={first}")).await?;
    assert_eq!(succeeded(&record)?["after"][0]["pm2_home"], first.as_str());
    let lines = format!("/api/servers/vm1/apps/api/logs?pm2_home={first}");
    poller.admin.get(&lines).await?.ok()?;
    let api = [("server", "vm1"), ("name", "api")];
    poller
        .metrics_with("both are shown", |page| page.all("pm2_process_up", &api).len() == 2)
        .await?;
    poller.program.stop(SOON).await?;

    // One that ends takes nothing from the other; and what was counted stays with its PM2, in
    // whatever order they are named.
    one.kill_daemon()?;
    wait_for_up(&read, one.home(), 0.0).await?;
    wait_for_up(&read, two.home(), 1.0).await?;
    assert_eq!(scene::instances(&read, "api").await?.len(), 1);
    let launch = program.launch();
    program.stop(SOON).await?;
    let swapped = watching(&[two.home(), one.home()], &tokens);
    launch.folder().write("configuration.toml", &swapped)?;
    let _program = launch.start().await?;
    wait_for_up(&read, two.home(), 1.0).await?;
    wait_for_instances(&read, "api", Status::Online, 1).await?;
    assert_eq!(manual(&metrics(&read).await?, &second)?, 1.0);
    Ok(())
}

/// By keyboard and by mouse, with scripts and without: who looks at an app that stands in two says
/// which, and that one is acted on.
#[tokio::test]
async fn on_the_page_one_is_chosen_and_acted_on() -> Result<()> {
    let (one, two) = tokio::try_join!(Pm2::start(), Pm2::start())?;
    for pm2 in [&one, &two] {
        pm2.start_apps(vec![json!({"name": "api", "script": "web.js"})]).await?;
    }
    let (token, block) = scene::exporter_token("poller", &["read", "control"])?;
    let text = watching(&[one.home(), two.home()], &block);
    let program = Launch::exporter()?.configuration(&text)?.start().await?;
    let exporter = program.client().with_token(&token);
    wait_for_instances(&exporter, "api", Status::Online, 2).await?;
    let server = Server { id: "vm1".to_owned(), url: program.launch().base(), token: Some(token) };
    let poller = scene::poller(&[server], "").await?;
    poller.wait_for("vm1", "online").await?;
    let browser = Browser::start().await?;
    let base = poller.program.client().url("");
    browser.sign_in(&base, &poller.token).await?;
    let app = format!("{base}/servers/vm1/apps/api");
    let second = two.home().display().to_string();

    for scripts in [true, false] {
        browser.javascript(scripts).await?;
        browser.open(&app).await?;
        browser.wait_for_text("#choose", "choose one to act on it").await?;
        assert_eq!(browser.count("#acts, a[data-ask]").await?, 0);
        browser.run("document.querySelectorAll('.homes a')[1].focus()").await?;
        browser.press("\u{e007}").await?;
        browser.wait_for_address("?pm2_home=").await?;
        assert_eq!(browser.text(".homes [aria-current=page]").await?, second);
        browser.click(".ranges a[href$='range=24h']").await?;
        browser.find(".ranges a[href$='range=24h'][aria-current=page]").await?;
        browser.click("#acts a[href*='/restart?pm2_home=']").await?;
        let form = if scripts { "dialog[open]" } else { "main" };
        assert_eq!(browser.text(&format!("{form} #ask [aria-current=page]")).await?, second);
        browser.click(&format!("{form} form[method=post] button")).await?;
        browser.wait_for_text("#done", "succeeded").await?;
        browser.wait_for_address("/apps/api?pm2_home=").await?;
        let restarted = if scripts { 1 } else { 2 };
        assert_eq!((restarts(&one, "api")?, restarts(&two, "api")?), (json!(0), json!(restarted)));
        browser.click("#now a[href*='/logs?pm2_home=']").await?;
        browser.find("#log").await?;
        assert_eq!(browser.count("[role=alert]").await?, 0, "it is read");
    }
    browser.javascript(true).await?;
    let chosen = browser.address().await?.split_once('?').context("no choice")?.1.to_owned();
    for path in ["", "/logs", "/restart"] {
        for more in ["", &format!("?{chosen}"), "?pm2_home=/nowhere"] {
            browser.open(&format!("{app}{path}{more}")).await?;
            browser.find("main h1").await?;
            for dark in [false, true] {
                browser.dark(dark).await?;
                let mut faults = browser.faults().await?;
                faults.retain(|fault| matches!(fault.impact.as_str(), "serious" | "critical"));
                assert!(faults.is_empty(), "{path}{more}, dark: {dark}: {faults:#?}");
            }
            browser.resize(390, 844).await?;
            let wide = browser.run("return document.documentElement.scrollWidth").await?;
            assert!(wide.as_u64() <= Some(390), "{path}{more} is {wide} wide on a telephone");
            browser.resize(1280, 900).await?;
        }
    }

    // To many servers at once, too.
    let body = json!({"select": {"app": "api", "pm2_home": second}, "action": "restart"});
    let request = poller.admin.request(reqwest::Method::POST, "/api/commands?wait=60s");
    let done: Value = poller.admin.send(request.json(&body)).await?.json()?;
    assert_eq!((&done["status"], &done["select"]), (&json!("succeeded"), &body["select"]));
    assert_eq!((restarts(&one, "api")?, restarts(&two, "api")?), (json!(0), json!(3)));
    Ok(())
}

#[tokio::test]
async fn one_that_hangs_is_not_waited_for_by_commands_of_another() -> Result<()> {
    let hung = FakePm2::start(pm2_process::processes(2))?;
    let well = FakePm2::start(vec![pm2_process::process(0, "api", std::process::id())])?;
    let (token, block) = scene::exporter_token("ops", &["read", "control"])?;
    let text = watching(&[hung.home(), well.home()], &block);
    let program = Launch::exporter()?.configuration(&text)?.start().await?;
    let client = program.client().with_token(token);
    wait_for_instances(&client, "api", Status::Online, 1).await?;
    wait_for_instances(&client, "app-1", Status::Online, 1).await?;
    hung.set_mode(Mode::Hangs)?;
    // It is believed to be well for a second after its last word.
    hung.publish("log:PM2", &json!({"data": "still here"}));
    // It is taken, and never ends by itself.
    let waits = client.post("/api/processes/app-1/restart?wait=0").await?;
    assert_eq!(waits.status, 202, "{}", waits.text);
    let start = Instant::now();
    succeeded(&client.post("/api/processes/api/restart").await?)?;
    let state: wire::State = client.json("/api/state").await?;
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    assert_eq!(state.processes.len(), 3);
    wait_for_up(&client, hung.home(), 0.0).await?;
    wait_for_up(&client, well.home(), 1.0).await
}

#[tokio::test]
async fn other_exporters_names_stay_apart_too() -> Result<()> {
    let [one, two] =
        [FakePm2::start(pm2_process::processes(2))?, FakePm2::start(pm2_process::processes(2))?];
    for compat in ["pm2-metrics", "pm2-prom-module"] {
        let more = format!("compat = {compat:?}");
        let text = watching(&[one.home(), two.home()], &more);
        let program = Launch::exporter()?.configuration(&text)?.start().await?;
        wait_for_instances(program.client(), "app-1", Status::Online, 2).await?;
        // Nothing is there twice, or this is no page.
        let page = metrics(program.client()).await?;
        let name = if compat == "pm2-metrics" { "pm2_memory" } else { "pm2_app_pids_memory" };
        assert_eq!(page.all(name, &[]).len(), 4, "{compat}");
    }
    Ok(())
}

/// Slots are the first one's: elsewhere their processes' names are names like any other.
#[tokio::test]
async fn who_is_limited_to_slots_does_nothing_elsewhere() -> Result<()> {
    let [one, two] =
        [FakePm2::start(pm2_process::processes(1))?, FakePm2::start(pm2_process::processes(1))?];
    let folder = Folder::new()?;
    let (token, block) = scene::exporter_token("limited", &["read", "control"])?;
    let more = format!(
        "{block}slots = [\"a\"]\n[slots]\nroot = {:?}\n[slots.admin]\nenabled = false\n\
         [[slots.slot]]\nname = \"a\"\nport = 3999\n",
        folder.path()
    );
    let text = watching(&[one.home(), two.home()], &more);
    let program = Launch::exporter()?.configuration(&text)?.start().await?;
    let client = program.client().with_token(&token);
    for action in ["delete", "start", "scale", "signal", "restart", "stop"] {
        let body = serde_json::json!({
            "target": {"slot": "a"}, "action": action, "pm2_home": two.home(),
        });
        let answer = client.put(&format!("/api/commands/{action}-there"), &body).await?;
        let told = answer.problem(400, "bad_request")?.detail;
        assert!(told.contains("has no slots"), "{action}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn check_speaks_of_every_one() -> Result<()> {
    let folder = Folder::new()?;
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let absent = folder.join("absent");
    let ended = Launch::exporter()?
        .with(&["check"])
        .configuration(&watching(&[fake.home(), &absent], ""))?
        .run()
        .await?;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    for home in [fake.home(), &absent] {
        assert!(ended.stdout.contains(&home.display().to_string()), "{}", ended.stdout);
    }
    Ok(())
}

#[tokio::test]
async fn what_nothing_told_is_found_by_a_routine_look_and_counted() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let launch = Launch::exporter()?.pm2_home(fake.home());
    let program = launch.configuration("custom_metrics_max_age = \"0\"")?.start().await?;
    wait_for_instances(program.client(), "app-1", Status::Online, 1).await?;
    assert_eq!(metrics(program.client()).await?.value("pm2_table_drifts_total", &[])?, 0.0);
    fake.set_processes(pm2_process::processes(1));
    wait_until("the drift is counted", SOON, async || {
        let page = metrics(program.client()).await.ok()?;
        (page.value("pm2_table_drifts_total", &[]).ok()? == 1.0).then_some(())
    })
    .await?;
    assert!(scene::instances(program.client(), "app-1").await?.is_empty());
    Ok(())
}
