//! What `grafana/` ships, as it is but for times and addresses: a test that waited for an alert's
//! two minutes would test patience. What is replaced is said at each function, and nothing else is.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use crate::fleet::write_secret;
use crate::folder::Folder;

/// The text of a file in `grafana/`.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &str) -> anyhow::Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../grafana").join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The text with the value of each line that has one of these keys replaced.
fn with_values(text: &str, values: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut used = vec![false; values.len()];
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let trimmed = line.trim_start().trim_start_matches("- ");
        let found = values.iter().position(|(key, _)| {
            trimmed.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
        });
        match found {
            Some(at) => {
                let (key, value) = values[at];
                used[at] = true;
                let before = &line[..line.len() - trimmed.len()];
                out.push_str(&format!("{before}{key}: {value}\n"));
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    let unused: Vec<&str> =
        values.iter().zip(used).filter(|(_, used)| !used).map(|((key, _), _)| *key).collect();
    anyhow::ensure!(unused.is_empty(), "no line has {unused:?}: {text}");
    Ok(out)
}

/// `prometheus/alerts.yml` with every `for:` and `keep_firing_for:` a second, and a minute within
/// an expression five.
///
/// # Errors
/// It cannot be read, or has none of these.
pub fn quick_alerts() -> anyhow::Result<String> {
    let text = read("prometheus/alerts.yml")?;
    let text = with_values(&text, &[("for", "1s"), ("keep_firing_for", "1s")])?;
    replaced(text, "[1m]", "[5s]")
}

/// `alertmanager.yml` with its two times to wait a second each, and its receivers' address.
///
/// # Errors
/// It cannot be read, or asks another address.
pub fn quick_alertmanager(receivers: &str) -> anyhow::Result<String> {
    let text = read("alertmanager.yml")?;
    let text = with_values(&text, &[("group_wait", "1s"), ("group_interval", "1s")])?;
    replaced(text, "http://127.0.0.1:8080", receivers)
}

fn replaced(text: String, from: &str, to: &str) -> anyhow::Result<String> {
    anyhow::ensure!(text.contains(from), "{from:?} is not in {text}");
    Ok(text.replace(from, to))
}

/// What Prometheus is to ask.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The poller, and a token for it.
    pub poller: (String, String),
    /// A token for every exporter; then Prometheus scrapes them itself (`prometheus-sd.yml`).
    pub exporter_token: Option<String>,
    /// Where alerts go.
    pub alertmanager: String,
}

/// A folder with `prometheus.yml` (or `prometheus-sd.yml` by that name), `alerts.yml` and
/// `recording.yml`, with every interval a second, addresses and token files put in.
///
/// # Errors
/// A file cannot be read or written, or has nothing to put an address into.
pub fn prometheus_folder(addresses: &Addresses) -> anyhow::Result<Folder> {
    let folder = Folder::new()?;
    let (file, extra): (&str, &[(&str, &str)]) = match &addresses.exporter_token {
        None => ("prometheus/prometheus.yml", &[]),
        Some(token) => {
            write_secret(&folder.join("exporter.token"), token)?;
            ("prometheus/prometheus-sd.yml", &[("refresh_interval", "1s")])
        }
    };
    let (poller, token) = &addresses.poller;
    write_secret(&folder.join("poller.token"), token)?;
    let mut values = vec![
        // What asks a PM2 that hangs answers after half a second.
        ("scrape_interval", "1s"),
        ("scrape_timeout", "1s"),
        ("evaluation_interval", "1s"),
    ];
    values.extend(extra);
    let mut text = with_values(&read(file)?, &values)?;
    text = replaced(text, "127.0.0.1:10210", poller)?;
    text = replaced(text, "instance: poller:10210", &format!("instance: {}", called(poller)?))?;
    text = replaced(text, "127.0.0.1:9093", &addresses.alertmanager)?;
    text = replaced(text, "/etc/prometheus/pm2-poller.token", "poller.token")?;
    if addresses.exporter_token.is_some() {
        text = replaced(text, "/etc/prometheus/pm2-exporter.token", "exporter.token")?;
    }
    folder.write("prometheus.yml", &text)?;
    folder.write("alerts.yml", &quick_alerts()?)?;
    folder.write(
        "recording.yml",
        &with_values(&read("prometheus/recording.yml")?, &[("interval", "1s")])?,
    )?;
    Ok(folder)
}

/// What a poller that listens at this address calls itself: its host's name, and its port.
fn called(poller: &str) -> anyhow::Result<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name")?;
    let (_, port) = poller.rsplit_once(':').with_context(|| format!("{poller} has no port"))?;
    Ok(format!("{}:{port}", host.trim()))
}

/// A query of a dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The dashboard's file: `fleet`.
    pub dashboard: &'static str,
    /// `panel Servers down, A`, `annotation Restarts`.
    pub place: String,
    /// As Prometheus is asked: every variable all, rates and a minute within an expression over
    /// five seconds, the range a minute.
    pub text: String,
    /// Asked for now, and not over time.
    pub instant: bool,
}

/// Every query of every dashboard: of panels and of annotations.
///
/// # Errors
/// A dashboard cannot be read.
pub fn queries() -> anyhow::Result<Vec<Query>> {
    let mut all = Vec::new();
    for dashboard in ["fleet", "server", "app", "slots", "poller"] {
        let whole: Value = serde_json::from_str(&read(&format!("dashboards/{dashboard}.json"))?)?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for annotation in list(&whole["annotations"]["list"]) {
            if annotation["builtIn"] != 1 {
                let place = format!("annotation {}", text(&annotation["name"]));
                all.push((dashboard, place, text(&annotation["expr"]), false));
            }
        }
        for panel in list(&whole["panels"]) {
            for target in list(&panel["targets"]) {
                let place = format!("panel {}, {}", text(&panel["title"]), text(&target["refId"]));
                all.push((dashboard, place, text(&target["expr"]), target["instant"] == true));
            }
        }
    }
    let query = |(dashboard, place, text, instant): (_, _, String, _)| {
        let mut text = text.replace("[1m]", "[5s]").replace("$__rate_interval", "5s");
        text = text.replace("$__range", "60s");
        for variable in ["server", "namespace", "app", "slot", "poller"] {
            // Within words, as in "slot-($slot)", and alone.
            text = text.replace(&format!("${variable}"), ".*");
        }
        Query { dashboard, place, text, instant }
    };
    Ok(all.into_iter().map(query).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_replaced_and_nothing_else() {
        let (shipped, quick) = (read("prometheus/alerts.yml").unwrap(), quick_alerts().unwrap());
        let differ: Vec<(&str, &str)> =
            shipped.lines().zip(quick.lines()).filter(|(before, after)| before != after).collect();
        assert!(differ.len() > 10);
        for (before, after) in differ {
            let before = before.trim();
            let good = match after.trim() {
                "for: 1s" => before.starts_with("for: "),
                "keep_firing_for: 1s" => before.starts_with("keep_firing_for: "),
                after => before.replace("[1m]", "[5s]") == after,
            };
            assert!(good, "{before}");
        }
        assert!(with_values("a: 1", &[("b", "2")]).is_err());
        assert!(
            queries()
                .unwrap()
                .iter()
                .all(|query| !query.text.contains('$') || query.text.contains("\"$1\""))
        );
    }
}
