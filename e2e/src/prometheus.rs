//! A real Prometheus, and promtool.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::client::Client;
use crate::folder::Folder;
use crate::port::Port;
use crate::process;
use crate::wait::{wait_blocking, wait_until};

/// Something to scrape.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its job label.
    pub job: String,
    /// `127.0.0.1:10209`
    pub address: String,
    /// A bearer token, where it needs one.
    pub token: Option<String>,
}

impl Target {
    /// Without a token.
    pub fn new(job: &str, address: impl Into<String>) -> Self {
        Self { job: job.to_owned(), address: address.into(), token: None }
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
pub struct Prometheus {
    child: Child,
    client: Client,
    _folder: Folder,
    _port: Port,
}

impl Prometheus {
    /// One that scrapes these every half second.
    ///
    /// # Errors
    /// It is not installed, or does not become ready within 20 s.
    pub async fn start(targets: &[Target]) -> anyhow::Result<Self> {
        let (folder, port) = (Folder::new()?, Port::free()?);
        let mut text = "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n".to_owned();
        text.push_str("scrape_configs:\n");
        for Target { job, address, token } in targets {
            writeln!(text, "  - job_name: {job}")?;
            writeln!(text, "    static_configs: [{{targets: ['{address}']}}]")?;
            if let Some(token) = token {
                writeln!(text, "    authorization: {{credentials: '{token}'}}")?;
            }
        }
        let configuration = folder.write("prometheus.yml", &text)?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .arg("--log.level=warn")
            .current_dir(folder.path())
            .env(process::MARK, process::new_mark())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log"))?)
            .spawn()
            .context("prometheus is not installed: e2e/setup/debian prometheus")?;
        let client = Client::new(format!("http://{}", port.address()))?;
        let prometheus = Self { child, client, _folder: folder, _port: port };
        wait_until("Prometheus is ready", Duration::from_secs(20), async || {
            let answer = prometheus.client.get("/-/ready").await;
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        })
        .await?;
        Ok(prometheus)
    }

    /// An instant query.
    ///
    /// # Errors
    /// It is no query, or gives no vector.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<Series>> {
        let request = self.client.request(reqwest::Method::GET, "/api/v1/query");
        let answer = self.client.send(request.query(&[("query", query)])).await?;
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
        let found = wait_until(query, Duration::from_secs(20), async || {
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

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        wait_blocking(Duration::from_secs(5), || !matches!(self.child.try_wait(), Ok(None)));
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
