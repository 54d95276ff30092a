//! Readings are true or absent, never a false 0.

use anyhow::{Context, Result};
use e2e::scene::{self, metrics, wait_for_instances};
use e2e::{Client, Pm2, Port, SOON, process, wait_until};
use serde_json::json;
use wire::Status;

#[tokio::test]
async fn one_failed_spawn_makes_nobody_report_zero() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "busy", "script": "busy.js"})]).await?;
    // PM2 reports this one as online without a pid, and 0 for every other from then on.
    pm2.start_apps(vec![json!({
        "name": "failing", "script": "not-executable.txt", "interpreter": "none",
        "autorestart": false,
    })])
    .await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "busy", Status::Online, 1).await?;

    let pid = pm2.pid_of("busy")?;
    wait_until("it has used some CPU", SOON, async || {
        (process::cpu_seconds(pid)? > 0.5).then_some(())
    })
    .await?;
    // Within a tick or two of the clock, before and after.
    let low = process::cpu_seconds(pid).context("no CPU time")?;
    let page = metrics(client).await?;
    let high = process::cpu_seconds(pid).context("no CPU time")?;
    let told = page.value("pm2_process_cpu_seconds_total", &[("name", "busy")])?;
    assert!(told >= low - 0.02 && told <= high + 0.02, "{told} s is not in {low} to {high}");
    let told = page.value("pm2_process_resident_memory_bytes", &[("name", "busy")])?;
    let own = process::memory(pid, "Rss").context("no memory")? as f64;
    assert!((told - own).abs() < own / 4.0, "told {told} bytes, has {own}");
    Ok(())
}

#[tokio::test]
async fn online_without_a_process_is_flagged_and_has_no_readings() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({
        "name": "failing", "script": "not-executable.txt", "interpreter": "none",
        "autorestart": false,
    })])
    .await?;
    let pm2s_view = &pm2.processes_of("failing")?[0];
    assert_eq!(pm2s_view["pm2_env"]["status"], "online", "PM2 has become honest: {pm2s_view}");
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    let failing = &wait_for_instances(client, "failing", Status::Online, 1).await?[0];
    assert!(failing.online_without_pid, "{failing:?}");
    assert_eq!((failing.pid, failing.started_at), (None, None));
    assert_eq!(failing.readings.cpu_seconds, None);
    assert_eq!(failing.readings.memory_bytes, None);
    let page = metrics(client).await?;
    assert_eq!(page.value("pm2_process_up", &[("name", "failing")])?, 0.0, "it does not run");
    let false_reading = page.iter().find(|series| {
        series.labels.get("name").is_some_and(|name| name == "failing")
            && (series.name.contains("cpu") || series.name.contains("memory"))
    });
    assert_eq!(false_reading, None, "a reading of what is not there");
    Ok(())
}

#[tokio::test]
async fn children_count_with_their_parent() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({
        "name": "family", "script": "family.js", "env": {"MEMORY_MIB": "128"},
    })])
    .await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "family", Status::Online, 1).await?;
    let parent = pm2.pid_of("family")?;
    let readings = wait_until("the child's memory is told", SOON, async || {
        let found = scene::instances(client, "family").await.ok()?;
        let readings = found.into_iter().next()?.readings;
        (readings.memory_bytes? > 150 << 20).then_some(readings)
    })
    .await?;
    let own = process::memory(parent, "Rss").context("no memory")?;
    assert!(own < 120 << 20, "the parent itself has {own} bytes: nothing is shown by this test");
    let threads = readings.threads.context("no threads")?;
    assert!(threads >= 8, "{threads} threads of two Node.js");
    wait_until("the child's CPU is told", SOON, async || {
        let found = scene::instances(client, "family").await.ok()?;
        let told = found.first()?.readings.cpu_seconds?;
        (told > process::cpu_seconds(parent)? + 0.5).then_some(())
    })
    .await
}

#[tokio::test]
async fn cpu_is_a_counter_that_rises_as_the_process_works() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "busy", "script": "busy.js"})]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "busy", Status::Online, 1).await?;
    let pid = pm2.pid_of("busy")?;
    let mut last = 0.0;
    for _ in 0..3 {
        let before = process::cpu_seconds(pid).context("gone")?;
        wait_until("it works", SOON, async || {
            (process::cpu_seconds(pid)? > before + 0.2).then_some(())
        })
        .await?;
        // Within one tick of the clock, before and after.
        let low = process::cpu_seconds(pid).context("gone")?;
        let page = metrics(client).await?;
        let told = page.value("pm2_process_cpu_seconds_total", &[("name", "busy")])?;
        let high = process::cpu_seconds(pid).context("gone")?;
        assert!(told >= low - 0.02 && told <= high + 0.02, "{told} is not in {low} to {high}");
        assert!(told > last);
        last = told;
    }
    Ok(())
}

#[tokio::test]
async fn http_requests_are_told_by_the_second() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let port = Port::free()?;
    let env = json!({"PORT": port.number().to_string()});
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js", "env": env})]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let web = Client::new(format!("http://{}", port.address()))?;
    // PM2 has a rate five seconds after the start, and calls it requests a minute.
    let rate = wait_until("a rate is told", SOON, async || {
        for _ in 0..10 {
            web.get("/").await.ok()?;
        }
        let page = metrics(exporter.client()).await.ok()?;
        let told = page.value("pm2_process_http_requests_per_second", &[("name", "web")]).ok()?;
        (told > 10.0).then_some(told)
    })
    .await?;
    let reported = &pm2.processes_of("web")?[0]["pm2_env"]["axm_monitor"]["HTTP"]["value"];
    let reported = reported.as_f64().with_context(|| format!("no rate: {reported}"))?;
    assert!((rate - reported).abs() < reported / 2.0, "told {rate}, PM2 has {reported}");
    Ok(())
}

#[tokio::test]
async fn restarts_are_counted_by_cause_and_pm2s_reset_does_not_lower_them() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    let client = &exporter.read;
    let first = wait_for_instances(client, "web", Status::Online, 1).await?[0].restarts.total();

    scene::succeeded(&exporter.control.post("/api/processes/web/restart?wait=30s").await?)?;
    process::signal(pm2.pid_of("web")?, rustix::process::Signal::KILL);
    let counted = wait_until("both restarts are counted", SOON, async || {
        let found = scene::instances(client, "web").await.ok()?;
        let restarts = found.first()?.restarts;
        (restarts.total() >= first + 2).then_some(restarts)
    })
    .await?;
    assert_eq!((counted.manual, counted.crash), (1, 1), "{counted:?}");
    pm2.wait_for("web", "online", 1).await?;

    scene::succeeded(&exporter.control.post("/api/processes/web/reset?wait=30s").await?)?;
    let found = wait_for_instances(client, "web", Status::Online, 1).await?;
    assert_eq!(found[0].restarts, counted);
    let zero = &pm2.processes_of("web")?[0]["pm2_env"]["restart_time"];
    assert_eq!(*zero, 0, "PM2's own counter was reset");
    let page = metrics(client).await?;
    let labels = [("name", "web"), ("cause", "crash")];
    assert_eq!(page.value("pm2_process_restarts_total", &labels)?, 1.0);
    Ok(())
}

#[tokio::test]
async fn samples_come_at_their_interval() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let more = "sample_interval = \"1s\"\nanonymous_read = true";
    let exporter = scene::guarded_exporter(pm2.home(), more).await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let times = wait_until("five samples", SOON, async || {
        let page: wire::JournalPage = exporter.read.json("/api/journal?after=0").await.ok()?;
        let times: Vec<wire::Time> = page
            .entries
            .iter()
            .filter(|entry| matches!(&entry.record, wire::Record::Sample(_)))
            .map(|entry| entry.time)
            .collect();
        (times.len() >= 5).then_some(times)
    })
    .await?;
    let gaps: Vec<i64> = times.windows(2).map(|pair| pair[1].millis_since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap >= 500), "{times:?}");
    // At its interval wherever the machine lets it.
    assert!(gaps.iter().any(|gap| *gap <= 1500), "{times:?}");
    Ok(())
}
