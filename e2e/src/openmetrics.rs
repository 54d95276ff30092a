//! Prometheus' own reader of OpenMetrics, the strict one (PyPI `prometheus_client`).

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::setup;

/// Reads a page, counts its samples.
const SCRIPT: &str = "import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
print(sum(len(family.samples) for family in read(sys.stdin.read())))";

/// How many samples it finds on a page. None where it could not be installed, which is said.
///
/// # Errors
/// It finds the page wrong, or is not there though it could be.
pub fn samples(page: &str) -> anyhow::Result<Option<usize>> {
    let folder = setup::target().join("python");
    if folder.join(".unreachable").exists() {
        eprintln!("SKIPPED: PyPI could not be reached, so prometheus_client has not read the page");
        return Ok(None);
    }
    let python = folder.join("bin/python");
    anyhow::ensure!(
        folder.join(".complete").is_file(),
        "no prometheus_client: run e2e/setup/python"
    );
    let mut child = Command::new(&python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| python.display().to_string())?;
    // It reads all before it writes anything.
    child.stdin.take().context("no stdin")?.write_all(page.as_bytes())?;
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "prometheus_client: {error}\n{page}");
    Ok(Some(String::from_utf8_lossy(&output.stdout).trim().parse()?))
}
