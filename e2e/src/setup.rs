//! Where the things are that `make` sets up.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The folder of this crate.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The workspace's folder.
pub(crate) fn workspace() -> &'static Path {
    here().parent().unwrap_or(here())
}

/// The workspace's target folder.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

/// Where `make run` keeps everything: `PM2_FLEET_RUN`, or `run` in the target folder.
pub fn run_folder() -> PathBuf {
    std::env::var_os("PM2_FLEET_RUN").map_or_else(|| target().join("run"), PathBuf::from)
}

/// The PM2 command line that is used: that of `e2e/npm`, or of an older PM2 where `PM2_FLEET_PM2` names
/// one (`5`, `6`).
pub fn pm2_cli() -> PathBuf {
    cli_of(std::env::var("PM2_FLEET_PM2").ok().as_deref())
}

/// The PM2 that daemons are started by: the same, unless `PM2_FLEET_PM2_DAEMON` names another, as on a
/// machine where PM2 was upgraded and `pm2 update` forgotten.
pub fn pm2_daemon_cli() -> PathBuf {
    match std::env::var("PM2_FLEET_PM2_DAEMON") {
        Ok(version) => cli_of(Some(&version)),
        Err(_) => pm2_cli(),
    }
}

/// Version of the PM2 that daemons are started by.
///
/// # Errors
/// It is not installed.
pub fn pm2_daemon_version() -> anyhow::Result<String> {
    let cli = pm2_daemon_cli();
    let package = cli.parent().and_then(Path::parent).context("no folder")?.join("package.json");
    let text = std::fs::read_to_string(&package).with_context(|| package.display().to_string())?;
    let package: serde_json::Value = serde_json::from_str(&text)?;
    Ok(package["version"].as_str().context("no version")?.to_owned())
}

fn cli_of(version: Option<&str>) -> PathBuf {
    let folder = match version {
        None | Some("" | "7") => "npm".to_owned(),
        Some(older) => format!("npm/pm2-{older}"),
    };
    here().join(folder).join("node_modules/pm2/bin/pm2")
}

/// A test application of `e2e/apps`.
pub fn app(name: &str) -> PathBuf {
    here().join("apps").join(name)
}
