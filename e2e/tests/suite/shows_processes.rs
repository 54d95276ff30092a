//! The exporter beside a real PM2, with no configuration: what it shows.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::scene::{self, metrics, wait_for_instances};
use e2e::{Client, Launch, Pm2, Port, SOON, wait_until};
use serde_json::json;
use wire::Status;

/// One of everything.
async fn zoo(pm2: &Pm2) -> Result<()> {
    let port = Port::free()?;
    let (unstable, spaced) = ("slow crasher", "ünï çødé 🦀");
    pm2.start_apps(vec![
        json!({"name": "web", "script": "web.js", "namespace": "shop"}),
        json!({"name": "cluster", "script": "cluster.js", "exec_mode": "cluster", "instances": 2,
               "env": {"PORT": port.number().to_string()}}),
        json!({"name": "stopped", "script": "web.js"}),
        json!({"name": "errored", "script": "crash-loop.js", "max_restarts": 2, "min_uptime": 60_000}),
        json!({"name": unstable, "script": "crash-loop.js", "max_restarts": 1000,
               "restart_delay": 300}),
        json!({"name": spaced, "script": "stderr.js"}),
    ])
    .await?;
    pm2.cli(&["stop", "stopped"]).await?;
    pm2.wait_for("errored", "errored", 1).await?;
    pm2.wait_for("cluster", "online", 2).await?;
    Ok(())
}

#[tokio::test]
async fn every_kind_of_process_is_shown_as_it_is() -> Result<()> {
    let pm2 = Pm2::start().await?;
    zoo(&pm2).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();

    let web = &wait_for_instances(client, "web", Status::Online, 1).await?[0];
    assert_eq!(web.pid, Some(pm2.pid_of("web")?));
    assert_eq!(&*web.instance.namespace, "shop");
    assert_eq!(web.exec_mode, "fork");
    assert_eq!(web.interpreter, "node");
    assert!(web.node_version.starts_with(|first: char| first.is_ascii_digit()), "{web:?}");
    assert!(web.started_at.is_some() && web.readings.memory_bytes > Some(10 << 20), "{web:?}");

    let cluster = wait_for_instances(client, "cluster", Status::Online, 2).await?;
    let ids: Vec<u32> = cluster.iter().map(|process| process.instance.instance_id).collect();
    assert_eq!(ids, [0, 1]);
    assert!(cluster.iter().all(|process| process.exec_mode == "cluster"), "{cluster:?}");
    assert_ne!(cluster[0].pid, cluster[1].pid);

    let stopped = &wait_for_instances(client, "stopped", Status::Stopped, 1).await?[0];
    assert_eq!((stopped.pid, stopped.started_at), (None, None), "uptime of what does not run");
    assert_eq!(stopped.readings.memory_bytes, None, "a stopped process has no memory, not 0");

    let errored = &wait_for_instances(client, "errored", Status::Errored, 1).await?[0];
    assert_eq!(errored.pid, None);

    // Its restarts are seen as they happen, and each has the cause that it has.
    wait_until("crashes are counted", SOON, async || {
        let found = scene::instances(client, "slow crasher").await.ok()?;
        (found.first()?.restarts.crash >= 2).then_some(())
    })
    .await?;
    assert_eq!(scene::instances(client, "ünï çødé 🦀").await?.len(), 1);

    let list: wire::ProcessList = client.json("/api/processes").await?;
    assert_eq!(list.total, 7);
    assert_eq!(list.processes.len(), 7);
    let online = list.processes.iter().filter(|process| process.status == Status::Online).count();
    assert_eq!(list.online, online);
    let mut sorted = list.processes.clone();
    sorted.sort_by(|one, other| one.instance.cmp(&other.instance));
    assert_eq!(sorted, list.processes);

    let group: wire::AppGroup = client.json("/api/processes/cluster").await?;
    assert_eq!((group.total, group.online, group.instances.len()), (2, 2, 2));
    let odd: wire::AppGroup =
        client.json("/api/processes/%C3%BCn%C3%AF%20%C3%A7%C3%B8d%C3%A9%20%F0%9F%A6%80").await?;
    assert_eq!(odd.name.as_str(), "ünï çødé 🦀");
    Ok(())
}

#[tokio::test]
async fn the_same_is_shown_to_prometheus_and_as_state() -> Result<()> {
    let pm2 = Pm2::start().await?;
    zoo(&pm2).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    wait_for_instances(client, "cluster", Status::Online, 2).await?;

    let page = metrics(client).await?;
    assert_eq!(page.value("pm2_up", &[])?, 1.0);
    let web = [("name", "web"), ("namespace", "shop"), ("instance_id", "0")];
    assert_eq!(page.value("pm2_process_up", &web)?, 1.0);
    assert_eq!(page.value("pm2_process_state", &[("name", "web"), ("state", "online")])?, 1.0);
    assert_eq!(page.value("pm2_process_state", &[("name", "web"), ("state", "errored")])?, 0.0);
    assert!(page.value("pm2_process_resident_memory_bytes", &web)? > 10e6);
    assert!(page.value("pm2_process_start_time_seconds", &web)? > 1.7e9);
    assert!(page.value("pm2_process_threads", &web)? >= 2.0);
    assert!(page.value("pm2_process_open_fds", &web)? >= 3.0);
    assert_eq!(page.value("pm2_process_up", &[("name", "stopped")])?, 0.0);
    for series in [
        "pm2_process_cpu_seconds_total",
        "pm2_process_resident_memory_bytes",
        "pm2_process_start_time_seconds",
    ] {
        assert!(!page.has(series, &[("name", "stopped")]), "{series} of what does not run");
    }
    let errored = [("name", "errored"), ("state", "errored")];
    assert_eq!(page.value("pm2_process_state", &errored)?, 1.0);
    assert_eq!(page.all("pm2_process_up", &[("name", "cluster")]).len(), 2);
    assert!(page.has("pm2_process_up", &[("name", "ünï çødé 🦀")]));
    // What changes with every start is on the info series alone.
    for metric in page.iter().filter(|metric| metric.name != "pm2_process_info") {
        let ids = ["pm_id", "pid", "version", "node_version"];
        let found = ids.iter().find(|id| metric.labels.contains_key(**id));
        assert!(found.is_none() || !metric.name.starts_with("pm2_process"), "{metric:?}");
    }
    let most = page.all("pm2_process_up", &[]).len() * 30;
    let all = page.iter().filter(|metric| metric.name.starts_with("pm2_process")).count();
    assert!(all <= most, "{all} series for processes, at most {most} are allowed");

    let state: wire::State = client.json("/api/state").await?;
    assert!(state.pm2.up);
    assert_eq!(state.pm2.version, Some(e2e::setup::pm2_daemon_version()?));
    assert_eq!(state.pm2.home, pm2.home().display().to_string());
    assert_eq!(state.processes.len(), 7);
    assert!(state.journal.next > state.journal.first);
    let host = state.host.context("no readings of the host")?;
    assert!(host.memory_total_bytes > host.memory_available_bytes, "{host:?}");
    Ok(())
}

#[tokio::test]
async fn node_js_and_its_custom_metrics_are_told_in_base_units() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    // Node.js itself reports a second or two after its start, some of it later than the rest.
    let page = wait_until("Node.js has told all of it", SOON, async || {
        let page = metrics(client).await.ok()?;
        let all = ["heap_used_bytes", "active_handles", "event_loop_latency_seconds"];
        let told = |name: &&str| page.has(&format!("pm2_process_{name}"), &[("name", "web")]);
        all.iter().all(told).then_some(page)
    })
    .await?;
    let heap = page.value("pm2_process_heap_used_bytes", &[("name", "web")])?;
    assert!((1e6..1e9).contains(&heap), "{heap} bytes of heap");
    let size = page.value("pm2_process_heap_size_bytes", &[("name", "web")])?;
    assert!((1e6..1e9).contains(&size), "{size} bytes of heap");
    assert!(page.value("pm2_process_active_handles", &[("name", "web")])? >= 1.0);
    let latency = page.all("pm2_process_event_loop_latency_seconds", &[("name", "web")]);
    assert!(!latency.is_empty(), "no event loop latency");
    assert!(latency.iter().all(|series| series.value.abs() < 1.0), "seconds: {latency:?}");
    Ok(())
}

async fn landing_page(client: &Client) -> Result<String> {
    let answer = client.get("/").await?;
    assert!(answer.header("content-type").starts_with("text/html"), "{:?}", answer.headers);
    answer.ok()
}

#[tokio::test]
async fn the_landing_page_leads_to_the_rest() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let exporter = scene::exporter(pm2.home()).await?;
    let client = exporter.client();
    let page = landing_page(client).await?;
    for path in ["/metrics", "/api/state", "/api/processes"] {
        assert!(page.contains(path), "{path} is not on the page: {page}");
        client.get(path).await?.ok()?;
    }
    assert_eq!(client.get("/healthz").await?.status, 200);
    wait_until("it is ready", SOON, async || {
        (client.get("/readyz").await.ok()?.status == 200).then_some(())
    })
    .await?;
    client.get("/nowhere").await?.problem_of(404)?;
    client.post("/metrics").await?.problem_of(405)?;
    Ok(())
}

#[tokio::test]
async fn last_lines_come_file_by_file_and_as_many_of_each() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "app", "script": "stderr.js"})]).await?;
    let exporter = scene::exporter(pm2.home()).await?;
    wait_for_instances(exporter.client(), "app", Status::Online, 1).await?;
    let text = wait_until("two lines of each", SOON, async || {
        let path = "/api/processes/app/logs?lines=2";
        let text = exporter.client().get(path).await.ok()?.ok().ok()?;
        (text.lines().count() == 4).then_some(text)
    })
    .await?;
    let begins: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(begins, ["line", "line", "error", "error"], "{text}");
    Ok(())
}

#[tokio::test]
async fn every_series_has_the_labels_that_are_asked_for() -> Result<()> {
    let pm2 = Pm2::start().await?;
    pm2.start_apps(vec![json!({"name": "web", "script": "web.js"})]).await?;
    for compat in ["none", "pm2-metrics", "pm2-prom-module"] {
        let text = format!("compat = {compat:?}\nlabels = {{serviceName = \"shop\"}}");
        let exporter =
            Launch::exporter()?.pm2_home(pm2.home()).configuration(&text)?.start().await?;
        wait_for_instances(exporter.client(), "web", Status::Online, 1).await?;
        let page = metrics(exporter.client()).await?;
        let without: Vec<_> = page
            .iter()
            .filter(|series| series.labels.get("serviceName").is_none_or(|name| name != "shop"))
            .collect();
        assert!(without.is_empty() && page.iter().count() > 5, "{compat}: {without:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn bytes_logged_never_fall_though_the_exporter_is_killed() -> Result<()> {
    let pm2 = Pm2::start().await?;
    // Quotes, which the bus tells escaped.
    let script = pm2.folder().write(
        "json.js",
        "setInterval(() => console.log(JSON.stringify({level: 30, msg: 'served', n: 1})), 5)\n",
    )?;
    pm2.start_apps(vec![
        json!({"name": "app", "script": "stderr.js"}),
        json!({"name": "json", "script": script}),
    ])
    .await?;
    let launch = Launch::exporter()?.pm2_home(pm2.home()).configuration("state_dir = \"state\"")?;
    let shown = async |client: &Client| {
        let page = metrics(client).await?;
        let of = |name: &str, stream: &str| {
            page.value("pm2_process_log_bytes_total", &[("name", name), ("stream", stream)])
        };
        anyhow::Ok([of("app", "err")?, of("app", "out")?, of("json", "out")?])
    };
    let mut before = [0.0; 3];
    for wanted in [25_000.0, 110_000.0] {
        let exporter = launch.clone().start().await?;
        let at_first =
            wait_until("counters are shown", SOON, async || shown(exporter.client()).await.ok())
                .await?;
        assert!(
            at_first.iter().zip(before).all(|(now, before)| *now >= before),
            "{at_first:?} {before:?}"
        );
        before = wait_until("more is logged", Duration::from_secs(60), async || {
            let now = shown(exporter.client()).await.ok()?;
            (now[2] > wanted).then_some(now)
        })
        .await?;
        exporter.kill();
    }
    let exporter = launch.start().await?;
    let after =
        wait_until("counters are shown", SOON, async || shown(exporter.client()).await.ok())
            .await?;
    for (after, before) in after.into_iter().zip(before) {
        assert!(after >= before, "{after} after {before}");
        // And not by more than was logged meanwhile, or nearly.
        assert!(after < 2.0 * before + 4_000.0, "{after} after {before}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_watched_is_not_called_away_either() -> Result<()> {
    let pm2 = Pm2::start().await?;
    let apps = ["kept", "burn"].map(|name| json!({"name": name, "script": "web.js"}));
    pm2.start_apps(apps.to_vec()).await?;
    pm2.cli(&["save"]).await?;
    for choice in ["exclude = [\"burn\"]", "include = [\"kept\"]"] {
        let launch = Launch::exporter()?.pm2_home(pm2.home()).configuration(choice)?;
        let exporter = launch.start().await?;
        wait_for_instances(exporter.client(), "kept", Status::Online, 1).await?;
        let page = metrics(exporter.client()).await?;
        assert_eq!(page.value("pm2_dump_extra_processes", &[])?, 0.0, "{choice}");
        assert_eq!(page.value("pm2_dump_missing_processes", &[])?, 0.0, "{choice}");
        let checked = exporter.launch().with(&["check"]).run().await?;
        assert!(checked.stdout.contains("what is saved is what runs"), "{}", checked.stdout);
    }
    Ok(())
}
