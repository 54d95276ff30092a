//! Moving in: a real Prometheus scrapes npm pm2-metrics and the exporter with its names, side by side at
//! one daemon, and the queries of dashboards that were made for the one have the same answers from the
//! other.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use e2e::prometheus::{Series, Target};
use e2e::scene::wait_for_instances;
use e2e::{Launch, Pm2, Prometheus, SOON, pm2_metrics, wait_until};
use serde_json::json;
use wire::Status;

/// How far two readings of one thing, taken a moment apart, may be from each other.
#[derive(Clone, Copy, Debug)]
enum Near {
    /// Not at all.
    Same,
    /// By this much.
    Within(f64),
    /// By this part of the greater.
    Part(f64),
    /// As far as it likes: it is a moment's, and both read it at another.
    Any,
}

/// Queries seen on dashboards for pm2-metrics. `JOB` is where a dashboard picks its job.
const QUERIES: &[(&str, Near)] = &[
    ("pm2_up{JOB}", Near::Same),
    ("count(pm2_up{JOB})", Near::Same),
    ("sum by (name) (pm2_up{JOB})", Near::Same),
    ("pm2_uptime{JOB,name=\"web\"}", Near::Within(3.0)),
    ("pm2_instances{JOB}", Near::Same),
    ("pm2_restarts{JOB}", Near::Same),
    ("increase(pm2_restarts{JOB,name=\"restarted\"}[5m]) > bool 0", Near::Same),
    ("pm2_memory{JOB}", Near::Part(0.5)),
    ("sum(pm2_memory{JOB}) / 1024 / 1024", Near::Part(0.5)),
    ("pm2_cpu{JOB}", Near::Any),
    ("topk(3, pm2_cpu{JOB})", Near::Any),
    ("pm2_active_handles{JOB}", Near::Within(2.0)),
    ("pm2_active_requests{JOB}", Near::Within(2.0)),
    ("pm2_used_heap_size{JOB}", Near::Part(0.5)),
    ("pm2_heap_size{JOB}", Near::Part(0.5)),
    ("pm2_heap_usage{JOB}", Near::Part(0.5)),
    ("pm2_event_loop_latency{JOB}", Near::Any),
    ("pm2_event_loop_latency_p95{JOB}", Near::Any),
    ("pm2_http{JOB}", Near::Any),
    ("pm2_http_mean_latency{JOB}", Near::Any),
    ("pm2_http_p95_latency{JOB}", Near::Any),
];

/// By its labels, but for what a scrape adds.
fn by_labels(series: Vec<Series>) -> BTreeMap<BTreeMap<String, String>, f64> {
    let plain = |mut series: Series| {
        for added in ["job", "instance"] {
            series.labels.remove(added);
        }
        (series.labels, series.value)
    };
    series.into_iter().map(plain).collect()
}

fn is_near(theirs: f64, ours: f64, near: Near) -> bool {
    match near {
        Near::Same => theirs == ours,
        Near::Within(most) => (theirs - ours).abs() <= most,
        Near::Part(part) => (theirs - ours).abs() <= theirs.abs().max(ours.abs()) * part,
        Near::Any => theirs.is_finite() == ours.is_finite(),
    }
}

#[tokio::test]
async fn dashboards_made_for_pm2_metrics_get_the_same_answers() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let (port, shared) = (e2e::Port::free()?, e2e::Port::free()?);
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js", "env": {"PORT": port.number().to_string()}}),
        json!({"name": "pair", "script": "cluster.js", "exec_mode": "cluster", "instances": 2,
               "env": {"PORT": shared.number().to_string()}}),
        json!({"name": "stopped", "script": "web.js"}),
        json!({"name": "restarted", "script": "web.js"}),
    ])
    .await?;
    pm2.cli(&["stop", "stopped"]).await?;
    // What Node.js tells comes some seconds after the start, and HTTP figures with requests.
    let web = e2e::Client::new(format!("http://{}", port.address()))?;
    wait_until("the application tells of itself", SOON, async || {
        web.get("/").await.ok()?;
        let process = pm2.processes_of("web").ok()?.into_iter().next()?;
        let monitor = process["pm2_env"]["axm_monitor"].as_object()?;
        (monitor.contains_key("HTTP") && monitor.contains_key("Heap Usage")).then_some(())
    })
    .await?;
    let theirs = pm2_metrics::start(pm2.home(), pm2.mark()).await?;
    let configuration = "compat = \"pm2-metrics\"\ncustom_metrics_max_age = \"0\"";
    let ours = Launch::exporter()?.pm2_home(pm2.home()).configuration(configuration)?;
    let ours = ours.start().await?;
    wait_for_instances(ours.client(), "pair", Status::Online, 2).await?;
    let address = |client: &e2e::Client| client.url("").trim_start_matches("http://").to_owned();
    let prometheus = Prometheus::start(&[
        Target::new("theirs", address(theirs.client())),
        Target::new("ours", address(ours.client())),
    ])
    .await?;
    for job in ["theirs", "ours"] {
        let all = |series: &[Series]| series.len() == 5;
        prometheus
            .wait_for(&format!("pm2_restarts{{job='{job}',name='restarted'}} == 0"), |series| {
                series.len() == 1
            })
            .await?;
        prometheus.wait_for(&format!("pm2_up{{job='{job}'}}"), all).await?;
    }
    pm2.cli(&["restart", "restarted"]).await?;
    for job in ["theirs", "ours"] {
        let restarted = format!("pm2_restarts{{job='{job}',name='restarted'}} == 1");
        prometheus.wait_for(&restarted, |series| series.len() == 1).await?;
    }
    for (query, near) in QUERIES {
        let last = std::sync::Mutex::new(String::new());
        // One scrape of one can be older than a change that the other has seen.
        wait_until(query, SOON, async || {
            web.get("/").await.ok()?;
            let answer = async |job: &str| {
                let query = query.replace("JOB", &format!("job='{job}'"));
                prometheus.query(&query).await.ok().map(by_labels)
            };
            let (theirs, ours) = (answer("theirs").await?, answer("ours").await?);
            if let Ok(mut last) = last.lock() {
                *last = format!("theirs: {theirs:#?}\nours: {ours:#?}");
            }
            let same = !theirs.is_empty()
                && (query.starts_with("topk") || theirs.keys().eq(ours.keys()))
                && theirs.len() == ours.len()
                && theirs.iter().all(|(labels, value)| {
                    ours.get(labels).is_none_or(|ours| is_near(*value, *ours, *near))
                });
            same.then_some(())
        })
        .await
        .with_context(|| last.lock().map(|last| last.clone()).unwrap_or_default())?;
    }
    // And nothing that theirs has is missing from ours, name by name.
    let names = "count by (__name__) ({__name__=~'pm2_.*',job='theirs'}) unless \
                 count by (__name__) ({__name__=~'pm2_.*',job='ours'})";
    prometheus.wait_for(names, <[_]>::is_empty).await?;
    Ok(())
}
