//! A real Prometheus scrapes both programs.

use anyhow::Result;
use e2e::prometheus::Target;
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Pm2, Port, Prometheus};
use serde_json::json;
use wire::Status;

#[tokio::test]
async fn both_programs_are_scraped_with_a_token_and_agree() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js"}),
        json!({"name": "stopped", "script": "web.js"}),
    ])
    .await?;
    pm2.cli(&["stop", "stopped"]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    poller.wait_for("vm1", "online").await?;
    let prometheus = Prometheus::start(&[
        Target::of("exporter", &exporter.program, &exporter.token),
        Target::of("poller", &poller.program, &poller.token),
        Target::new("stranger", exporter.program.launch().address()),
    ])
    .await?;

    let is = |value: f64| {
        move |series: &[e2e::prometheus::Series]| series.len() == 1 && series[0].value == value
    };
    prometheus.wait_for("up{job='exporter'}", is(1.0)).await?;
    prometheus.wait_for("up{job='poller'}", is(1.0)).await?;
    prometheus.wait_for("up{job='stranger'}", is(0.0)).await?;
    prometheus.wait_for("pm2_process_up{job='exporter',name='web'}", is(1.0)).await?;
    prometheus.wait_for("pm2_process_up{job='exporter',name='stopped'}", is(0.0)).await?;
    prometheus.wait_for("pm2_process_up{job='poller',server='vm1',name='web'}", is(1.0)).await?;
    prometheus.wait_for("pm2_server_up{server='vm1'}", is(1.0)).await?;
    // The same series through both, but for what each scrape adds.
    let through = "count by (__name__, name, namespace, instance_id) \
                   ({__name__=~'pm2_process_.*',job='exporter'}) unless \
                   count by (__name__, name, namespace, instance_id) \
                   ({__name__=~'pm2_process_.*',job='poller'})";
    prometheus.wait_for(through, <[_]>::is_empty).await?;
    // What a dashboard asks for first.
    let rate = "rate(pm2_process_cpu_seconds_total{job='exporter',name='web'}[30s]) >= 0";
    prometheus.wait_for(rate, |series| series.len() == 1).await?;
    Ok(())
}

#[tokio::test]
async fn the_series_of_a_dead_server_are_gone_and_only_its_being_down_is_told() -> Result<()> {
    let (living, dying) = (Pm2::start().await?, Pm2::start().await?);
    for pm2 in [&living, &dying] {
        pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    }
    let one = scene::guarded_exporter(living.home(), "").await?;
    let two = scene::guarded_exporter(dying.home(), "").await?;
    let never = Port::free()?;
    let poller = scene::poller(
        &[
            Server::of("living", &one),
            Server::of("dying", &two),
            Server::open("never", format!("http://{}", never.address())),
        ],
        "",
    )
    .await?;
    let prometheus =
        Prometheus::start(&[Target::of("poller", &poller.program, &poller.token)]).await?;
    prometheus.wait_for("pm2_process_up{name='web'} == 1", |found| found.len() == 2).await?;
    prometheus.wait_for("pm2_server_up", |found| found.len() == 3).await?;

    two.program.kill();
    prometheus
        .wait_for("pm2_server_up{server='dying'}", |found| {
            found.len() == 1 && found[0].value == 0.0
        })
        .await?;
    // Prometheus marks what a scrape no longer has as gone at that very scrape.
    let gone = "{server='dying',__name__=~'pm2_.*',__name__!~'pm2_server_.*'}";
    prometheus.wait_for(gone, <[_]>::is_empty).await?;
    let living = "pm2_process_up{server='living',name='web'} == 1";
    prometheus.wait_for(living, |found| found.len() == 1).await?;
    prometheus
        .wait_for("pm2_server_up{server='never'}", |found| {
            found.len() == 1 && found[0].value == 0.0
        })
        .await?;
    assert!(prometheus.query("pm2_process_up{server='never'}").await?.is_empty());

    let page = poller.metrics().await?;
    for series in
        page.iter().filter(|series| series.labels.get("server").is_some_and(|its| its == "dying"))
    {
        assert!(series.name.starts_with("pm2_server_"), "{series:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_process_that_is_deleted_leaves_no_series_behind() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js"}),
        json!({"name": "short-lived", "script": "web.js"}),
    ])
    .await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    let poller = scene::poller(&[Server::of("vm1", &exporter)], "").await?;
    let prometheus = Prometheus::start(&[
        Target::of("exporter", &exporter.program, &exporter.token),
        Target::of("poller", &poller.program, &poller.token),
    ])
    .await?;
    let series = "pm2_process_up{name='short-lived'}";
    prometheus.wait_for(series, |found| found.len() == 2).await?;
    pm2.cli(&["delete", "short-lived"]).await?;
    prometheus.wait_for(series, <[_]>::is_empty).await?;
    prometheus.wait_for("{name='short-lived'}", <[_]>::is_empty).await?;
    prometheus.wait_for("pm2_process_up{name='web'}", |found| found.len() == 2).await?;
    Ok(())
}
