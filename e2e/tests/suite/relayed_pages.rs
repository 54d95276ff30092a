//! Prometheus pages that applications serve themselves, relayed on the exporter's.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use e2e::prometheus::check_metrics;
use e2e::scene::{self, metrics, wait_for_instances};
use e2e::{Client, FakePm2, Launch, Metrics, Program, SOON, openmetrics, pm2_process, wait_until};
use futures_util::StreamExt;
use reqwest::Method;
use wire::Status;

/// As prom-client writes them, with labels that are ours.
const PAGE: &str = "\
# HELP jobs_done_total Jobs that were done.
# TYPE jobs_done_total counter
jobs_done_total{queue=\"mail\",name=\"its own\"} 7
jobs_done_total{queue=\"a\\\\b\\\"c\\nd\",name=\"\"} 1
# HELP process_resident_memory_bytes Resident memory.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 5.5e+07
# HELP http_duration_seconds Duration of requests.
# TYPE http_duration_seconds histogram
http_duration_seconds_bucket{le=\"0.1\",route=\"/\"} 2
http_duration_seconds_bucket{le=\"1\",route=\"/\"} 3
http_duration_seconds_bucket{le=\"+Inf\",route=\"/\"} 4
http_duration_seconds_sum{route=\"/\"} 7.5
http_duration_seconds_count{route=\"/\"} 4
# HELP gc_duration_seconds Garbage collection.
# TYPE gc_duration_seconds summary
gc_duration_seconds{quantile=\"0.5\"} 0.01
gc_duration_seconds{quantile=\"1\"} 0.5
gc_duration_seconds_sum 1.5
gc_duration_seconds_count 20
";

const MORE: &str = "# HELP process_resident_memory_bytes Resident memory.\n\
    # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 1\n";

/// The longest that an application may be given; what is not slow answers within it on any machine.
const PATIENT: &str = "timeout = \"10s\"";

/// What an application answers.
#[derive(Clone)]
enum Answer {
    Page(String),
    Status(StatusCode),
    Redirect,
    /// Nothing, for long.
    Hangs,
    /// A head, and then nothing.
    Drips,
    /// This many bytes of comments.
    Huge(usize),
}

impl Answer {
    async fn response(self) -> Response {
        match self {
            Self::Page(text) => text.into_response(),
            Self::Status(status) => status.into_response(),
            Self::Redirect => (StatusCode::FOUND, [(header::LOCATION, "/0")]).into_response(),
            Self::Hangs => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                "late 1\n".into_response()
            }
            Self::Drips => {
                let first = futures_util::stream::iter([Ok::<_, Infallible>("drip 1\n")]);
                let never = futures_util::stream::pending();
                Body::from_stream(first.chain(never)).into_response()
            }
            Self::Huge(size) => "#\n".repeat(size / 2).into_response(),
        }
    }
}

/// An application that serves these at `/0`, `/1`, … and counts who asks.
struct Application {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Application {
    async fn start(answers: Vec<Answer>) -> Result<Self> {
        let asked = Arc::new(AtomicUsize::new(0));
        let mut router = Router::new();
        for (at, answer) in answers.into_iter().enumerate() {
            let asked = Arc::clone(&asked);
            let handler = async move || {
                asked.fetch_add(1, Ordering::SeqCst);
                answer.response().await
            };
            router = router.route(&format!("/{at}"), get(handler));
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, asked })
    }

    fn target(&self, at: usize) -> String {
        format!("{}/{at}", self.address)
    }

    fn relay(&self, app: &str, at: usize, more: &str) -> String {
        format!("[[relay]]\napp = {app:?}\nurl = \"http://{}\"\n{more}\n", self.target(at))
    }
}

async fn exporter(fake: &FakePm2, configuration: &str) -> Result<Program> {
    let launch = Launch::exporter()?.pm2_home(fake.home()).configuration(configuration)?;
    let program = launch.start().await?;
    wait_until("PM2 answers", SOON, async || {
        let page = metrics(program.client()).await.ok()?;
        (page.value("pm2_up", &[]).ok()? == 1.0).then_some(())
    })
    .await?;
    Ok(program)
}

async fn open_page(client: &Client) -> Result<String> {
    let request = client.request(Method::GET, "/metrics");
    client.send(request.header("accept", "application/openmetrics-text")).await?.ok()
}

fn clashes(page: &Metrics, target: &str, reason: &str) -> Result<f64> {
    page.value("pm2_relay_clashes", &[("target", target), ("reason", reason)])
}

#[tokio::test]
async fn a_page_is_relayed_with_the_labels_of_its_application() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(3))?;
    let application =
        Application::start(vec![Answer::Page(PAGE.to_owned()), Answer::Page(MORE.to_owned())])
            .await?;
    let relays = application.relay("app-0", 0, PATIENT) + &application.relay("app-1", 1, PATIENT);
    let program = exporter(&fake, &format!("labels = {{dc = \"eu1\"}}\n{relays}")).await?;
    let text = program.client().get("/metrics").await?.ok()?;
    check_metrics(&text)?;
    let page = Metrics::parse(&text)?;
    let own = [("name", "app-0"), ("namespace", "default"), ("instance_id", "0"), ("dc", "eu1")];
    let with = |more: &[(&'static str, &'static str)]| [&own[..], more].concat();
    assert_eq!(page.value("jobs_done_total", &with(&[("exported_name", "its own")]))?, 7.0);
    assert_eq!(page.value("jobs_done_total", &with(&[("queue", "a\\b\"c\nd")]))?, 1.0);
    let bucket = with(&[("le", "1"), ("route", "/")]);
    assert_eq!(page.value("http_duration_seconds_bucket", &bucket)?, 3.0);
    assert_eq!(page.value("gc_duration_seconds", &with(&[("quantile", "0.5")]))?, 0.01);
    // One family, two applications.
    let resident = page.all("process_resident_memory_bytes", &[]);
    assert_eq!(resident.len(), 2);
    assert_eq!(text.matches("# TYPE process_resident_memory_bytes ").count(), 1);
    assert_eq!(page.value("process_resident_memory_bytes", &[("name", "app-1")])?, 1.0);
    let target = application.target(0);
    assert_eq!(page.value("pm2_relay_up", &[("target", &target), ("name", "app-0")])?, 1.0);
    assert_eq!(page.value("pm2_relay_series", &[("target", &target)])?, 12.0);
    assert!(page.value("pm2_relay_duration_seconds", &[("target", &target)])? < 60.0);

    let open = open_page(program.client()).await?;
    assert!(open.contains("# TYPE jobs_done counter\n") && open.contains("le=\"1.0\""), "{open}");
    if let Some(count) = openmetrics::samples(&open)? {
        assert_eq!(count, open.lines().filter(|line| !line.starts_with('#')).count());
    }
    // Another exporter's names leave room for it as well.
    let program = exporter_named(&fake, "pm2-metrics", &relays).await?;
    let text = program.client().get("/metrics").await?.ok()?;
    assert!(text.contains("jobs_done_total{"), "{text}");
    check_metrics(&text)
}

async fn exporter_named(fake: &FakePm2, compat: &str, relays: &str) -> Result<Program> {
    let configuration = format!("compat = {compat:?}\n{relays}");
    let program =
        Launch::exporter()?.pm2_home(fake.home()).configuration(&configuration)?.start().await?;
    wait_for_instances(program.client(), "app-0", Status::Online, 1).await?;
    Ok(program)
}

#[tokio::test]
async fn what_clashes_is_left_out_and_told() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let hostile = format!(
        "# HELP jobs_done_total Other.\n# TYPE jobs_done_total gauge\njobs_done_total 1\n\
         # HELP pm2_up No.\n# TYPE pm2_up gauge\npm2_up 0\n\
         # HELP jobs_done No.\n# TYPE jobs_done gauge\njobs_done 1\n\
         {}# HELP fine_total Yes.\n# TYPE fine_total counter\nfine_total 1\nfine_total 2\n",
        MORE.replace("Resident memory.", "Another text.")
    );
    let application =
        Application::start(vec![Answer::Page(PAGE.to_owned()), Answer::Page(hostile)]).await?;
    let relays = application.relay("app-0", 0, PATIENT) + &application.relay("app-1", 1, PATIENT);
    let program = exporter(&fake, &relays).await?;
    let text = program.client().get("/metrics").await?.ok()?;
    check_metrics(&text)?;
    let page = Metrics::parse(&text)?;
    let target = application.target(1);
    for (reason, count) in
        [("own_name", 1.0), ("type", 1.0), ("name", 1.0), ("help", 1.0), ("duplicate", 1.0)]
    {
        assert_eq!(clashes(&page, &target, reason)?, count, "{reason}");
        assert_eq!(clashes(&page, &application.target(0), reason)?, 0.0, "{reason}");
    }
    assert_eq!(page.value("pm2_up", &[])?, 1.0);
    assert_eq!(page.all("jobs_done_total", &[]).len(), 2);
    assert_eq!(page.value("fine_total", &[("name", "app-1")])?, 1.0);
    openmetrics::samples(&open_page(program.client()).await?)?;
    wait_until("it is in the log", SOON, async || {
        program.stderr().contains("pm2_up (own_name)").then_some(())
    })
    .await?;
    let told = program.stderr();
    assert_eq!(told.matches("families clash").count(), 1, "told at every scrape: {told}");
    Ok(())
}

#[tokio::test]
async fn what_fails_is_a_metric_and_takes_nothing_from_the_rest() -> Result<()> {
    let mut processes = pm2_process::processes(2);
    processes[1]["pm2_env"]["status"] = "stopped".into();
    processes[1]["pid"] = 0.into();
    let fake = FakePm2::start(processes)?;
    let series: String = (0..30).map(|at| format!("many{{at=\"{at}\"}} 1\n")).collect();
    let cases = [
        (Answer::Page(PAGE.to_owned()), "", PATIENT),
        (Answer::Status(StatusCode::INTERNAL_SERVER_ERROR), "status", PATIENT),
        (Answer::Redirect, "status", PATIENT),
        (Answer::Hangs, "timeout", "timeout = \"300ms\""),
        (Answer::Drips, "timeout", "timeout = \"300ms\""),
        (Answer::Huge(5 << 20), "too_large", PATIENT),
        (Answer::Page(series), "too_many_series", "timeout = \"10s\"\nmax_series = 20"),
        (Answer::Page("<html>no page</html>".to_owned()), "malformed", PATIENT),
    ];
    let answers = cases.iter().map(|(answer, ..)| answer.clone()).collect();
    let application = Application::start(answers).await?;
    let mut relays = String::new();
    for (at, (_, _, more)) in cases.iter().enumerate() {
        relays += &application.relay("app-0", at, more);
    }
    let nobody = e2e::Port::free()?;
    relays += &format!("[[relay]]\napp = \"app-0\"\nurl = \"http://{}/\"\n", nobody.address());
    // What does not run is not asked: somebody else may have its port.
    relays += &application.relay("app-1", 99, "");
    let program = exporter(&fake, &relays).await?;
    let before = metrics(program.client()).await?;
    let page = metrics(program.client()).await?;
    let targets =
        cases.iter().enumerate().map(|(at, (_, reason, _))| (application.target(at), *reason));
    let more = [
        (format!("{}/", nobody.address()), "unreachable"),
        (application.target(99), "not_running"),
    ];
    for (target, reason) in targets.chain(more) {
        let up = page.value("pm2_relay_up", &[("target", &target)])?;
        assert_eq!(up, f64::from(u8::from(reason.is_empty())), "{target} {reason}");
        if !reason.is_empty() {
            let labels = [("target", target.as_str()), ("reason", reason)];
            let errors = |page: &Metrics| page.value("pm2_relay_errors_total", &labels);
            assert_eq!(errors(&page)? - errors(&before)?, 1.0, "{target} {reason}");
        }
    }
    assert!(page.has("jobs_done_total", &[]) && page.has("pm2_process_up", &[]));
    assert!(!page.has("many", &[]) && !page.has("drip", &[]));
    check_metrics(&program.client().get("/metrics").await?.ok()?)?;
    openmetrics::samples(&open_page(program.client()).await?)?;
    Ok(())
}

#[tokio::test]
async fn one_that_hangs_is_asked_once_by_many_scrapes_and_holds_none_beyond_its_deadline()
-> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(1))?;
    let application = Application::start(vec![Answer::Hangs]).await?;
    let relay = application.relay("app-0", 0, "timeout = \"5s\"");
    let launch = Launch::exporter()?.pm2_home(fake.home()).configuration(&relay)?;
    let program = launch.start().await?;
    wait_for_instances(program.client(), "app-0", Status::Online, 1).await?;
    let begun = Instant::now();
    let scrapes: Vec<_> = (0..20)
        .map(|_| {
            let client = program.client().clone();
            tokio::spawn(async move { client.get("/metrics").await?.ok() })
        })
        .collect();
    for scrape in scrapes {
        let page = scrape.await??;
        assert!(page.contains("pm2_process_up{") && page.contains("pm2_relay_up{"), "{page}");
    }
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    let asked = application.asked.load(Ordering::SeqCst);
    assert!(asked <= 2, "asked {asked} times at once");
    Ok(())
}

#[tokio::test]
async fn a_limited_token_sees_the_pages_of_its_apps() -> Result<()> {
    let fake = FakePm2::start(pm2_process::processes(2))?;
    let application =
        Application::start(vec![Answer::Page(PAGE.to_owned()), Answer::Page(MORE.to_owned())])
            .await?;
    let (token, block) = scene::exporter_token("one", &["read"])?;
    let relays = application.relay("app-0", 0, PATIENT) + &application.relay("app-1", 1, PATIENT);
    let configuration = format!("{block}apps = [\"app-1\"]\n{relays}");
    let launch = Launch::exporter()?.pm2_home(fake.home()).configuration(&configuration)?;
    let program = launch.start().await?;
    let client = program.client().with_token(token);
    wait_for_instances(&client, "app-1", Status::Online, 1).await?;
    let page = metrics(&client).await?;
    assert_eq!(page.all("process_resident_memory_bytes", &[]).len(), 1);
    assert_eq!(page.count("name", "app-0"), 0);
    page.value("pm2_relay_up", &[]).context("the one relay")?;
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_relay_is_told_by_key() -> Result<()> {
    let relays = "[[relay]]\napp = \"api\"\nurl = \"http://10.0.0.1/metrics?canary\"\n\
        [[relay]]\nurl = \"http://u:canary@127.0.0.1/\"\ntimeout = \"1h\"\n\
        [[relay]]\napp = \"api\"\nurl = \"http://127.0.0.1/\"\npm2_home = \"/x\"\nmax_series = 0\n";
    let fake = FakePm2::start(Vec::new())?;
    let launch = Launch::exporter()?.pm2_home(fake.home()).configuration(relays)?;
    let ended = launch.run().await?;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for key in [
        "relay[0].url",
        "relay[1].app",
        "relay[1].url",
        "relay[1].timeout",
        "relay[2].pm2_home",
        "relay[2].max_series",
    ] {
        assert!(ended.stderr.contains(key), "{key}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    Ok(())
}
