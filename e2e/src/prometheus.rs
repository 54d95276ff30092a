//! A real Prometheus, and promtool.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::Value;

use crate::client::Answer;
use crate::folder::Folder;
use crate::foreign::Foreign;
use crate::metrics::Metrics;
use crate::port::Port;
use crate::program::Program;
use crate::wait::{SOON, wait_until};

/// Something to scrape.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its job label.
    pub job: String,
    /// `127.0.0.1:10209`
    pub address: String,
    /// A bearer token, where it needs one.
    pub token: Option<String>,
    /// Further lines of its scrape configuration.
    pub more: Vec<String>,
}

impl Target {
    /// Without a token.
    pub fn new(job: &str, address: impl Into<String>) -> Self {
        Self { job: job.to_owned(), address: address.into(), token: None, more: Vec::new() }
    }

    /// One of our programs, by a token.
    pub fn of(job: &str, program: &Program, token: &str) -> Self {
        let token = Some(token.to_owned());
        Self { token, ..Self::new(job, program.launch().address()) }
    }
}

/// One series of an instant query.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels, `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// A Prometheus that runs; killed on drop.
#[derive(Debug)]
pub struct Prometheus(Foreign);

impl Prometheus {
    /// One that scrapes these every second.
    ///
    /// # Errors
    /// It is not installed, or does not become ready within 20 s.
    pub async fn start(targets: &[Target]) -> anyhow::Result<Self> {
        let mut text = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n".to_owned();
        text.push_str("scrape_configs:\n");
        for Target { job, address, token, more } in targets {
            writeln!(text, "  - job_name: {job}")?;
            writeln!(text, "    static_configs: [{{targets: ['{address}']}}]")?;
            if let Some(token) = token {
                writeln!(text, "    authorization: {{credentials: '{token}'}}")?;
            }
            for line in more {
                writeln!(text, "    {line}")?;
            }
        }
        Self::with(&text).await
    }

    /// One with this configuration.
    ///
    /// # Errors
    /// It is not installed, or does not become ready within 20 s.
    pub async fn with(text: &str) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        folder.write("prometheus.yml", text)?;
        Self::configured(folder).await
    }

    /// One with the `prometheus.yml` of that folder, which keeps its data there too.
    ///
    /// # Errors
    /// It is not installed, or does not become ready within 20 s; the error has its log.
    pub async fn configured(folder: Folder) -> anyhow::Result<Self> {
        let port = Port::free()?;
        let configuration = folder.join("prometheus.yml");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .arg("--log.level=warn");
        let ready = |answer: &Answer| answer.status == 200;
        Foreign::start(command, (folder, port), "/-/ready", ready).await.map(Self)
    }

    /// A query over the last five minutes: how many series it gives.
    ///
    /// # Errors
    /// It is no query.
    pub async fn series_of_late(&self, query: &str) -> anyhow::Result<usize> {
        let now = wire::Time::now().as_seconds();
        let request = self.0.client().request(reqwest::Method::GET, "/api/v1/query_range");
        let (start, end) = ((now - 300.0).to_string(), now.to_string());
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", "2")];
        let answer = self.0.client().send(request.query(&parameters)).await?;
        let parsed: Value = answer.json()?;
        let series = parsed["data"]["result"].as_array();
        Ok(series.with_context(|| format!("no matrix: {}", answer.text))?.len())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It does not answer, or something else.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::parse(&self.0.client().get("/metrics").await?.ok()?)
    }

    /// An instant query.
    ///
    /// # Errors
    /// It is no query, or gives no vector.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<Series>> {
        let request = self.0.client().request(reqwest::Method::GET, "/api/v1/query");
        let answer = self.0.client().send(request.query(&[("query", query)])).await?;
        let answer: Value = answer.json()?;
        let result = answer["data"]["result"].as_array().context("no vector")?;
        result
            .iter()
            .map(|series| {
                let labels = serde_json::from_value(series["metric"].clone())?;
                let value = series["value"][1].as_str().context("no value")?.parse()?;
                Ok(Series { labels, value })
            })
            .collect()
    }

    /// Waits until a query gives something that `accept` likes, and gives that.
    ///
    /// # Errors
    /// It gave nothing of the kind within 20 s; the error has what it gave last.
    pub async fn wait_for(
        &self,
        query: &str,
        accept: impl Fn(&[Series]) -> bool,
    ) -> anyhow::Result<Vec<Series>> {
        let last = std::sync::Mutex::new(None);
        let found = wait_until(query, SOON, async || {
            let series = self.query(query).await;
            match series {
                Ok(series) if accept(&series) => Some(series),
                other => {
                    if let Ok(mut last) = last.lock() {
                        *last = Some(other);
                    }
                    None
                }
            }
        });
        found.await.with_context(|| format!("last seen: {last:?}"))
    }
}

/// `promtool check metrics` over a page of metrics.
///
/// # Errors
/// promtool is not installed, or has something to say about the page.
pub fn check_metrics(page: &str) -> anyhow::Result<()> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is not installed: e2e/setup/debian prometheus")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    // promtool reads everything before it says anything, so this cannot wait for ever.
    stdin.write_all(page.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // The same for every series of a metric.
    let mut lines: Vec<&str> = said.lines().collect();
    lines.dedup();
    anyhow::ensure!(
        output.status.success() && said.trim().is_empty(),
        "promtool: {}",
        lines.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promtool_objects() {
        let page = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n";
        check_metrics(page).unwrap();
        assert!(check_metrics("a_total{ 1").is_err());
        assert!(check_metrics("# TYPE a_count gauge\na_count 1\n").is_err());
    }

    #[tokio::test]
    async fn prometheus_scrapes_itself() {
        let folder = Prometheus::start(&[]).await.unwrap();
        assert_eq!(folder.query("vector(7)").await.unwrap()[0].value, 7.0);
    }
}
