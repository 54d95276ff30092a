//! schemathesis (PyPI): asks a program what its OpenAPI document allows and forbids, and holds the
//! answers against it.

use std::process::{Command, Stdio};

use anyhow::Context;

use crate::folder::Folder;
use crate::setup;

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// `coverage`, `fuzzing`, `stateful`.
    pub phases: &'static str,
    /// Of each operation in a phase, at most.
    pub examples: u32,
    /// Other numbers ask otherwise; none asks the same each time.
    pub seed: Option<u64>,
}

/// Asks the program at `base`, with a token or none; `without` are operations that are left out.
/// What was found wrong is the error. False where it could not be installed, which is said.
///
/// # Errors
/// An answer is none of the document's, or it is not there though it could be.
pub async fn holds(
    base: String,
    token: Option<&str>,
    without: &[&str],
    extent: Extent,
) -> anyhow::Result<bool> {
    let folder = setup::target().join("python");
    if folder.join(".unreachable").exists() {
        eprintln!("SKIPPED: PyPI could not be reached, so schemathesis has asked nothing");
        return Ok(false);
    }
    let program = folder.join("bin/schemathesis");
    anyhow::ensure!(program.is_file(), "no schemathesis: run e2e/setup/python");
    let here = Folder::new()?;
    let mut command = Command::new(std::path::absolute(program)?);
    // It leaves files where it runs.
    command.current_dir(here.path()).stdin(Stdio::null());
    command.arg("--config-file").arg(setup::here().join("schemathesis.toml"));
    command.args(["run", &format!("{base}/api/openapi.json"), "--no-color", "--no-shrink"]);
    command.args(["--phases", extent.phases, "--max-examples", &extent.examples.to_string()]);
    match extent.seed {
        Some(seed) => command.args(["--seed", &seed.to_string()]),
        None => command.arg("--generation-deterministic"),
    };
    for operation in without {
        command.args(["--exclude-operation-id", operation]);
    }
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    for proxy in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(proxy).env_remove(proxy.to_uppercase());
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    // What was wrong comes first: what it found out before is long, and reports of failures are cut.
    let wrong = text.find("= FAILURES =").or_else(|| text.find("= ERRORS =")).unwrap_or(0);
    let (before, wrong) = text.split_at(wrong);
    anyhow::ensure!(output.status.success(), "schemathesis at {base}:\n{wrong}{error}{before}");
    Ok(true)
}
