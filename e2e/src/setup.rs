//! Where the things are that `make` sets up.

use std::path::{Path, PathBuf};

/// The folder of this crate.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The workspace's folder.
fn workspace() -> &'static Path {
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

/// The PM2 command line of `e2e/npm`.
pub fn pm2_cli() -> PathBuf {
    here().join("npm/node_modules/pm2/bin/pm2")
}

/// A test application of `e2e/apps`.
pub fn app(name: &str) -> PathBuf {
    here().join("apps").join(name)
}
