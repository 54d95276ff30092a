//! Rotates the logs that PM2 writes, without losing a line: a file is renamed while PM2 still
//! writes to it, PM2 opens a new one, and only then is the old one packed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};
use wire::Time;

use crate::app::App;

/// How often sizes are looked at.
const EVERY: Duration = Duration::from_secs(5);
/// PM2 may still write what it had in hand when it was told to open new files.
const SETTLED: Duration = Duration::from_secs(1);
/// The module that does the same.
const MODULE: &str = "pm2-logrotate";

/// Rotates until the program stops.
pub async fn run(app: Arc<App>) {
    let settings = &app.config.slots;
    if !settings.configured || settings.log_rotate_size == 0 {
        return;
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.shutdown.drain.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = pass(&app).await {
            tracing::warn!(%error, "logs cannot be rotated");
        }
    }
}

async fn pass(app: &App) -> io::Result<()> {
    let settings = &app.config.slots;
    let files: BTreeSet<PathBuf> = app.home.table(|table| {
        let names = table.names();
        if names.contains(MODULE) {
            return BTreeSet::new();
        }
        names
            .iter()
            .filter_map(|name| name.parse().ok())
            .flat_map(|name| table.log_files(&name))
            .map(|file| PathBuf::from(&*file.path))
            .collect()
    });
    let mut left = Vec::new();
    for file in files {
        // What an earlier pass renamed and did not pack.
        left.extend(rotated(&file, "log"));
        if fs::metadata(&file)
            .is_ok_and(|meta| meta.is_file() && meta.len() >= settings.log_rotate_size)
        {
            let aside = aside(&file);
            fs::rename(&file, &aside)?;
            left.push(aside);
        }
    }
    if !left.is_empty() {
        // Until PM2 opens new files it writes on into the renamed ones: nothing is lost. What an
        // earlier pass left may be such a file still.
        app.home
            .call("reloadLogs", json!({}), Duration::from_secs(10))
            .await
            .map_err(|error| io::Error::other(error.to_string()))?;
        sleep(SETTLED).await;
    }
    let keep = settings.log_rotate_keep;
    tokio::task::spawn_blocking(move || left.iter().try_for_each(|file| pack(file, keep)))
        .await
        .map_err(io::Error::other)?
}

/// `slot-a-out.log` becomes `slot-a-out__20260131T120000250Z.log`.
fn aside(file: &Path) -> PathBuf {
    let time: String =
        Time::now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    file.with_file_name(format!("{}__{time}.log", stem(file)))
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Rotated files of a log, oldest first: packed ones (`log.gz`) or those not packed yet.
fn rotated(file: &Path, end: &str) -> Vec<PathBuf> {
    let start = format!("{}__", stem(file));
    let Some(Ok(folder)) = file.parent().map(fs::read_dir) else { return Vec::new() };
    let mut all: Vec<PathBuf> = folder
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.strip_prefix(&start)
                .and_then(|rest| rest.split_once('.'))
                .is_some_and(|(time, rest)| rest == end && time.len() == 19 && time.ends_with('Z'))
        })
        .collect();
    all.sort();
    all
}

/// Packs a rotated file, and removes the oldest beyond `keep`.
fn pack(file: &Path, keep: usize) -> io::Result<()> {
    let packed = file.with_extension("log.gz");
    let new = file.with_extension("log.new");
    let mut from = File::open(file)?;
    let mode = from.metadata()?.permissions().mode() & 0o777;
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
    let mut encoder = GzEncoder::new(to, Compression::fast());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&new, &packed)?;
    fs::remove_file(file)?;
    let log = stem(file);
    let Some((log, _)) = log.rsplit_once("__") else { return Ok(()) };
    let all = rotated(&file.with_file_name(format!("{log}.log")), "log.gz");
    for old in &all[..all.len().saturating_sub(keep)] {
        fs::remove_file(old)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_packed_is_whole_and_only_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("slot-a-out.log");
        for number in 0..7 {
            fs::write(&log, format!("line {number}\n")).unwrap();
            let aside = aside(&log);
            fs::rename(&log, &aside).unwrap();
            assert_eq!(rotated(&log, "log"), std::slice::from_ref(&aside));
            pack(&aside, 5).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        // Another log's files are not this one's.
        fs::write(folder.path().join("slot-a-out__x.log.gz"), "").unwrap();
        let left = rotated(&log, "log.gz");
        assert_eq!(left.len(), 5);
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(&left[0]).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "line 2\n");
    }
}
