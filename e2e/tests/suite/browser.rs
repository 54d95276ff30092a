//! The pages in a real Chromium, on real PM2: with scripts and without, by mouse and keyboard.

use anyhow::{Context, Result};
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Browser, Pm2, Port, SOON};
use rustix::process::Signal;
use serde_json::json;
use wire::Status;

/// What axe-core must not find, on a page in light and in dark; nothing that the page loads is
/// blocked or missing; and on a telephone nothing reaches past its edge.
async fn is_sound(browser: &Browser, page: &str) -> Result<()> {
    for dark in [false, true] {
        browser.dark(dark).await?;
        let mut faults = browser.faults().await?;
        faults.retain(|fault| matches!(fault.impact.as_str(), "serious" | "critical"));
        anyhow::ensure!(faults.is_empty(), "{page}, dark: {dark}: {faults:#?}");
    }
    browser.resize(390, 844).await?;
    let wide = browser.run("return document.documentElement.scrollWidth").await?;
    anyhow::ensure!(wide.as_u64() <= Some(390), "{page} is {wide} wide on a telephone");
    browser.resize(1280, 900).await?;
    let mut complaints = browser.complaints().await?;
    // A page that says that something is not there comes with a status that says so too.
    complaints.retain(|it| !it.contains(&format!("{page} - Failed to load resource")));
    anyhow::ensure!(complaints.is_empty(), "{page}: {complaints:#?}");
    Ok(())
}

#[tokio::test]
async fn every_page_is_sound_in_light_and_dark() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let apps = [("web", "web.js"), ("crash", "crash.js")];
    pm2.start_apps(apps.map(|(name, script)| json!({"name": name, "script": script})).into())
        .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let nowhere = Port::free()?;
    let servers = [
        Server::of("vm1", &exporter),
        Server::open("vm2", format!("http://{}", nowhere.address())),
    ];
    let poller = scene::poller(&servers, "").await?;
    poller.wait_for("vm1", "online").await?;
    poller.wait_for("vm2", "offline").await?;
    scene::succeeded(&poller.admin.post("/api/commands/vm1/apps/web/restart?wait=30s").await?)?;

    let browser = Browser::start().await?;
    let base = poller.program.client().url("");
    browser.open(&format!("{base}/servers/vm1")).await?;
    assert!(browser.address().await?.contains("/login?next="), "strangers are led to the login");
    is_sound(&browser, "/login").await?;
    browser.sign_in(&base, &poller.token).await?;
    for path in [
        "/",
        "/?q=nothing-of-this-name",
        "/servers/vm1",
        "/servers/vm2",
        "/servers/vm1/apps/web",
        "/servers/vm1/apps/web?range=24h",
        "/servers/vm1/apps/web?range=1y",
        "/servers/vm1/apps/web/logs",
        "/servers/vm1/apps/web/stop",
        "/servers/vm1/apps/web/scale",
        "/servers/vm1/apps/web/env",
        "/events",
        "/events/1",
        "/commands",
        "/audit",
        "/audit?since=yesterday",
        "/servers/vm9",
    ] {
        browser.open(&format!("{base}{path}")).await?;
        browser.find("main h1").await?;
        is_sound(&browser, path).await?;
    }

    // A chart goes back as far as is asked for, and tells its values where somebody points.
    browser.open(&format!("{base}/servers/vm1/apps/web")).await?;
    browser.click(".ranges a[href$='range=7d']").await?;
    browser.find(".ranges a[href$='range=7d'][aria-current=page]").await?;
    browser.open(&format!("{base}/servers/vm1")).await?;
    browser.point(".plot", 3.0).await?;
    let tip = browser.wait_for_text(".tip", "%").await?;
    assert!(tip.contains('%') && tip.contains(':'), "{tip:?} is no time with a value");

    // Lists are narrowed by their forms, and what is found has an address that stays.
    browser.javascript(false).await?;
    browser.open(&format!("{base}/events")).await?;
    browser.fill("[name=kind]", "online").await?;
    browser.click("form.filter button").await?;
    browser.wait_for_address("kind=online").await?;
    browser.click("#events li .when").await?;
    let text = browser.wait_for_text("main", "Around it").await?;
    assert!(text.contains(" is online"), "{text}");
    browser.open(&format!("{base}/audit?act=command&outcome=succeeded")).await?;
    let text = browser.text(".audit").await?;
    assert!(text.contains("restart") && !text.contains("requested"), "{text}");
    browser.click(".audit td a[href^='/audit?']").await?;
    browser.find("tr:target").await?;
    Ok(())
}

/// With scripts and without, the same is done: what a button does is shown where it was.
#[tokio::test]
async fn a_restart_by_button_and_a_crash_are_seen_without_a_reload() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js"}),
        json!({"name": "talker", "script": "stderr.js"}),
    ])
    .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    let browser = Browser::start().await?;
    let base = poller.program.client().url("");
    let app = format!("{base}/servers/vm1/apps/web");
    browser.sign_in(&base, &poller.token).await?;

    for scripts in [true, false] {
        browser.javascript(scripts).await?;
        browser.open(&app).await?;
        browser.click("#acts a[href$='/restart']").await?;
        // A dialog above the page, or a page of its own.
        let form = if scripts { "dialog[open]" } else { "main" };
        let text = browser.text(&format!("{form} #ask")).await?;
        assert!(text.contains("Restart web on vm1?"), "{text}");
        assert_eq!(browser.address().await?.ends_with("/restart"), !scripts);
        browser.click(&format!("{form} form[method=post] button")).await?;
        browser.wait_for_text("#done", "succeeded").await?;
        browser.wait_for_address("/apps/web?done=").await?;
        browser.click("#done a").await?;
        let text = browser.wait_for_text("#command", "Before").await?;
        assert!(text.contains("restart web on vm1") && text.contains("admin"), "{text}");
        let found = wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
        assert_eq!(found[0].restarts.total(), if scripts { 1 } else { 2 });
    }

    // What was written is there without scripts too.
    browser
        .open(&format!("{base}/servers/vm1/apps/talker/logs?stream=err&lines=5000&q=line 3"))
        .await?;
    let text = browser.wait_for_text("#log", "error line 3").await?;
    assert!(text.lines().all(|line| line.contains("line 3")), "{text}");

    // With scripts they go on, stand still when told to, and are narrowed as one types.
    browser.javascript(true).await?;
    browser.open(&format!("{base}/servers/vm1/apps/talker/logs?stream=err")).await?;
    let lines = "return [...document.querySelectorAll('#log li:not([hidden])')].length";
    let begun = browser.run(lines).await?.as_u64().context("no number")?;
    let longer = e2e::wait_until("the log grows", SOON, async || {
        (browser.run(lines).await.ok()?.as_u64()? > begun + 3).then_some(())
    });
    longer.await?;
    browser.click("form.filter button[type=button]").await?;
    browser.wait_for_text("#log-state", "paused").await?;
    browser.type_into("[data-grep]", "nothing writes this").await?;
    assert_eq!(browser.run(lines).await?, json!(0));

    // A crash comes to the page by itself, and the page is the same one all the while.
    browser.open(&app).await?;
    browser.run("window.before = true").await?;
    let web = wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    e2e::process::signal(web[0].pid.context("no pid")?, Signal::KILL);
    browser.wait_for_text("#events", "SIGKILL").await?;
    browser.wait_for_text("#ledger", "SIGKILL").await?;
    assert_eq!(browser.run("return window.before === true").await?, json!(true));
    let complaints = browser.complaints().await?;
    assert!(complaints.is_empty(), "{complaints:#?}");

    // A viewer sees no buttons, and is told so where they type the address.
    let file = poller.program.launch().folder().join("configuration.toml");
    let file = file.display().to_string();
    let viewer = e2e::fleet::new_poller_token(&file, "looker", "viewer").await?;
    browser.sign_out().await?;
    browser.sign_in(&base, &viewer).await?;
    browser.open(&app).await?;
    browser.find("#processes table").await?;
    assert_eq!(browser.count("#acts, form[method=post] .danger").await?, 0);
    browser.open(&format!("{app}/stop")).await?;
    browser.wait_for_text("main", "needs the role operator").await?;
    assert_eq!(browser.count("header a[href='/audit']").await?, 0);
    browser.open(&format!("{base}/audit")).await?;
    browser.wait_for_text("main", "needs the role admin").await?;

    // Who is limited to an action has its button and no other; who is limited to other servers
    // finds nothing here.
    for (name, limits, sees) in [
        ("restarter", json!({"actions": ["restart"]}), true),
        ("elsewhere", json!({"servers": ["vm9"]}), false),
    ] {
        let mut body = json!({"name": name, "role": "operator"});
        for (kind, wanted) in limits.as_object().into_iter().flatten() {
            body[kind] = wanted.clone();
        }
        let request = poller.admin.request(reqwest::Method::POST, "/api/tokens").json(&body);
        let made: serde_json::Value = poller.admin.send(request).await?.json()?;
        let token = made["token"].as_str().context("no token")?;
        browser.sign_out().await?;
        browser.sign_in(&base, token).await?;
        browser.open(&app).await?;
        if sees {
            browser.find("#acts a[href$='/restart']").await?;
            assert_eq!(browser.count("#acts .buttons a, #acts .buttons button").await?, 1);
            browser.open(&format!("{app}/stop")).await?;
            browser.wait_for_text("main", "this action among yours").await?;
        } else {
            browser.wait_for_text("main", "No server is called").await?;
            assert_eq!(browser.count("main a[href*='vm1']").await?, 0);
        }
    }
    Ok(())
}

/// A browser that is not on the same machine and has no TLS sends less along with a form: it
/// must do all the same. Other sites' forms must not.
#[tokio::test]
async fn forms_work_over_plain_http_by_a_name() -> Result<()> {
    let poller = scene::poller(&[], "").await?;
    let browser = Browser::start().await?;
    let port = poller.program.launch().address().split(':').next_back().map(str::to_owned);
    let base = format!("http://fleet.example:{}", port.context("no port")?);
    browser.sign_in(&base, &poller.token).await?;
    browser.sign_out().await?;
    Ok(())
}

#[tokio::test]
async fn a_deployment_is_asked_for_and_followed_on_the_page() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let (slot, folder) = (Port::free()?, scene::repository("")?);
    let (exporter, token) = scene::exporter_with_slot(pm2.home(), &slot).await?;
    let base = exporter.launch().base();
    let server = Server { id: "vm1".to_owned(), url: base, token: Some(token) };
    let poller = scene::poller(&[server], "").await?;
    poller.wait_for("vm1", "online").await?;

    let browser = Browser::start().await?;
    let base = poller.program.client().url("");
    browser.sign_in(&base, &poller.token).await?;
    let page = format!("{base}/servers/vm1/slots/a");
    browser.open(&page).await?;
    is_sound(&browser, "/servers/vm1/slots/a").await?;
    browser.click("#acts a[href$='/deploy']").await?;
    // A mistake is told on the form, which keeps what was typed, but for what may be secret.
    browser.type_into("dialog [name=repository]", "ftp://nowhere.invalid/x").await?;
    browser.type_into("dialog [name=env]", "not a variable").await?;
    browser.click("dialog form[method=post] button").await?;
    browser.wait_for_text("main [role=alert]", "env: line 1").await?;
    assert_eq!(browser.run("return document.querySelector('[name=env]').value").await?, json!(""));
    is_sound(&browser, "/servers/vm1/slots/a/deploy").await?;
    let repository = format!("file://{}", folder.path().display());
    browser.fill("main [name=repository]", &repository).await?;
    browser.type_into("main [name=env]", "GREETING=canary-of-a-form").await?;
    browser.click("main form[method=post] button").await?;
    browser.wait_for_text("#deployment", "==> done").await?;
    browser.wait_for_text("#history", "runs now").await?;
    browser.wait_for_text("#now", "serving").await?;
    browser.wait_for_text("#env", "GREETING").await?;
    assert_eq!(browser.count("#acts a[href$='/rollback']").await?, 0, "there is nothing before it");
    let source = browser.run("return document.documentElement.outerHTML").await?;
    assert!(!source.to_string().contains("canary-of-a-form"), "a value is shown");
    is_sound(&browser, "/servers/vm1/slots/a").await?;
    Ok(())
}
