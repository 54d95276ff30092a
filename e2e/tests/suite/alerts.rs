//! A killed app is told, together with what else is wrong on its server, and so is its end: by the
//! rules that are shipped, through Prometheus, and by the poller alone; to a real Alertmanager with
//! the configuration that is shipped. Both ways say the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use e2e::grafana::{Addresses, prometheus_folder};
use e2e::scene::{self, Server, wait_for_instances};
use e2e::{Alertmanager, Pm2, Prometheus, SOON, process, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::Status;

const KILLED: (&str, &str) = ("Pm2CrashLoop", "web");
const GAVE_UP: (&str, &str) = ("Pm2ProcessErrored", "loop");

/// The alerts of a message that have this status, by alert and app.
fn alerts<'a>(message: &'a Value, status: &str) -> BTreeMap<(&'a str, &'a str), &'a Value> {
    let all = message["alerts"].as_array().into_iter().flatten();
    all.filter(|alert| alert["status"] == status)
        .filter_map(|alert| {
            let labels = &alert["labels"];
            Some(((labels["alertname"].as_str()?, labels["name"].as_str()?), labels))
        })
        .collect()
}

/// Whether the message says so of each of these, to whoever is on call.
fn tells(uri: &str, message: &Value, status: &str, expected: &[(&str, &str)]) -> bool {
    let told = alerts(message, status);
    uri.contains("wake=yes") && expected.iter().all(|alert| told.contains_key(alert))
}

#[tokio::test]
async fn a_killed_app_reaches_alertmanager_by_prometheus_and_by_the_poller_alone() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::guarded_exporter(pm2.home(), "").await?;
    let (by_prometheus, by_poller) = (Alertmanager::start().await?, Alertmanager::start().await?);
    let notify = format!(
        "server_files = [\"missing.json\"]\n\
         [[notify]]\nname = \"alertmanager\"\ntype = \"alertmanager\"\nhold = \"1s\"\n\
         url = \"http://{}\"\n",
        by_poller.address()
    );
    let poller = scene::poller(&[Server::of("vm1", &exporter)], &notify).await?;
    poller.wait_for("vm1", "online").await?;
    let prometheus = Prometheus::configured(prometheus_folder(&Addresses {
        poller: (poller.program.launch().address(), poller.token.clone()),
        exporter_token: None,
        alertmanager: by_prometheus.address(),
    })?)
    .await?;
    // A rise is seen by who saw from where.
    let series = "pm2_process_restarts_total{name='web',cause='crash'} == 0";
    prometheus.wait_for(series, |found| found.len() == 1).await?;

    let seen = wire::Time::now();
    wait_until("the poller has looked since", SOON, async || {
        let looked: Value = poller.admin.json("/api/alerts").await.ok()?;
        let looked: wire::Time = looked["as_of"].as_str()?.parse().ok()?;
        (looked > seen).then_some(())
    })
    .await?;

    for _ in 0..3 {
        let web = wait_for_instances(&exporter.read, "web", Status::Online, 1).await?;
        let pid = web[0].pid.context("no pid")?;
        process::signal(pid, Signal::KILL);
        wait_until("web is started again", SOON, async || {
            let web = scene::instances(&exporter.read, "web").await.ok()?;
            web.first()?.pid.is_some_and(|now| now != pid).then_some(())
        })
        .await?;
    }
    pm2.start_apps(vec![
        json!({"name": "loop", "script": "crash-loop.js", "max_restarts": 5, "min_uptime": 60_000}),
    ])
    .await?;

    let mut said = Vec::new();
    for alertmanager in [&by_prometheus, &by_poller] {
        let message = alertmanager
            .wait_for("both are told in one message of the server", |uri, message| {
                tells(uri, message, "firing", &[KILLED, GAVE_UP])
            })
            .await?;
        assert_eq!(message["groupLabels"], json!({"server": "vm1"}));
        let firing = alerts(&message, "firing");
        said.push([KILLED, GAVE_UP].map(|alert| firing[&alert].clone()));
        let web = message["alerts"].as_array().into_iter().flatten();
        let web = web.clone().find(|alert| alert["labels"]["alertname"] == KILLED.0);
        let annotations = &web.context("no alert")?["annotations"];
        assert_eq!(annotations["summary"], "web on vm1 crashes again and again");
        let description = annotations["description"].as_str().unwrap_or_default();
        assert!(description.contains("times within 10 minutes"), "{description}");
    }
    assert_eq!(said[0], said[1], "the same labels both ways, so that both together are one alert");
    let own = "ALERTS{alertname='Pm2PollerServerFileUnread'}";
    let own = prometheus.wait_for(own, |found| found.len() == 1).await?;
    let (instance, file) = (&own[0].labels["instance"], &own[0].labels["file"]);
    let of_poller: Value = poller.admin.json("/api/alerts").await?;
    let all = of_poller["alerts"].as_array().into_iter().flatten();
    let labels = all.map(|alert| &alert["labels"]).find(|labels| labels["file"] == *file);
    assert_eq!(
        labels.with_context(|| format!("{of_poller:#}"))?["instance"],
        *instance,
        "what the poller says of itself as well"
    );

    pm2.cli(&["stop", "web"]).await?;
    pm2.cli(&["delete", "loop"]).await?;
    for alertmanager in [&by_prometheus, &by_poller] {
        for alert in [KILLED, GAVE_UP] {
            alertmanager
                .wait_for("it is over", |uri, message| tells(uri, message, "resolved", &[alert]))
                .await?;
        }
        let messages = alertmanager.messages();
        let ours = |message: &&(String, Value)| {
            let mut all = message.1["alerts"].as_array().into_iter().flatten();
            all.any(|it| it["labels"]["name"] == KILLED.1 || it["labels"]["name"] == GAVE_UP.1)
        };
        let (_, last) = messages.iter().rev().find(ours).context("no message")?;
        assert_eq!(last["groupLabels"]["server"], "vm1", "{messages:#?}");
    }
    let page = poller.metrics().await?;
    let failed = page.iter().filter(|series| series.name == "pm2_poller_notifications_total");
    for series in failed.filter(|series| series.labels["result"] != "success") {
        assert_eq!(series.value, 0.0, "{series:?}");
    }
    Ok(())
}
