//! Rotates the logs that PM2 writes. Where nobody follows one and the file system can, it is cut where
//! it lies, and no line is lost: see `in_place`. Otherwise it is renamed while PM2 still writes to it, PM2
//! opens a new one, and only then is the old one packed; who follows reads both to their ends, and what PM2
//! had in hand at that moment it may throw away.

mod in_place;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::time::sleep;
use wire::Time;

use super::config::Settings;
use crate::app::App;
use crate::http::MAX_READERS;
use crate::named;
use crate::pm2::Home;

/// How often sizes are looked at.
const EVERY: Duration = Duration::from_secs(5);
/// The same after there was something: who prints without end fills the disk otherwise.
const SOON: Duration = Duration::from_millis(500);
/// PM2 may still write what it had in hand when it was told to open new files.
const SETTLED: Duration = Duration::from_secs(1);
/// Every place for those who follow logs.
const READERS: u32 = MAX_READERS as u32;
/// The module that does the same.
const MODULE: &str = "pm2-logrotate";

/// Rotates until the program stops.
pub async fn run(app: Arc<App>) {
    let settings = &app.config.slots;
    if !settings.configured || settings.log_rotate_size == 0 {
        return;
    }
    let mut pause = EVERY;
    loop {
        tokio::select! {
            () = app.shutdown.drain.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = EVERY;
        for home in app.homes.all() {
            match pass(&app, settings, home).await {
                Ok(true) => pause = SOON,
                Ok(false) => {}
                Err(error) => {
                    let home = home.path().display();
                    tracing::warn!(%home, %error, "logs cannot be rotated");
                }
            }
        }
    }
}

/// Gives whether there was something to rotate.
async fn pass(app: &App, settings: &Settings, home: &Home) -> io::Result<bool> {
    let files: BTreeSet<PathBuf> = home.table(|table| {
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
    let (size, keep) = (settings.log_rotate_size, settings.log_rotate_keep);
    let length = |file: &Path| Ok::<_, io::Error>(named::read(file)?.metadata()?.len());
    let is_large = |file: &PathBuf| length(file).is_ok_and(|length| length >= size);
    let mut left = Vec::new();
    // What an earlier pass renamed and did not pack.
    left.extend(files.iter().flat_map(|file| rotated(file, "log")));
    let large: Vec<PathBuf> = files.iter().filter(|file| is_large(file)).cloned().collect();
    let mut any = !left.is_empty() || !large.is_empty();
    let mut failed = Ok(());
    if !large.is_empty() {
        let readers = Arc::clone(&app.log_readers);
        let cut = move || {
            each(&large, |file| {
                // Who reads knows a place in the file, which must not move. Meanwhile nobody begins to; who
                // wants to has a turn between one file and the next.
                match Arc::clone(&readers).try_acquire_many_owned(READERS) {
                    Ok(_alone) => in_place::rotate(file, size, keep).map(drop),
                    Err(_) => Ok(()),
                }
            })
        };
        failed = tokio::task::spawn_blocking(cut).await.map_err(io::Error::other)?;
    }
    for file in files {
        if is_large(&file) {
            let aside = aside(&file);
            match fs::rename(&file, &aside) {
                Ok(()) => left.push(aside),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
    }
    if !left.is_empty() {
        // Until PM2 opens new files it writes on into the renamed ones: nothing is lost. What an
        // earlier pass left may be such a file still.
        home.call("reloadLogs", json!({}), Duration::from_secs(10))
            .await
            .map_err(|error| io::Error::other(error.to_string()))?;
        sleep(SETTLED).await;
    }
    let daemons = home.path().join("pm2.log");
    tokio::task::spawn_blocking(move || {
        let packed = each(&left, |file| pack(file, keep));
        // What an earlier pass cut out and did not pack.
        let daemons_left = each(&rotated(&daemons, "log"), |file| pack(file, keep));
        any |= in_place::rotate(&daemons, size, keep)?;
        failed.and(packed).and(daemons_left).map(|()| any)
    })
    .await
    .map_err(io::Error::other)?
}

/// Does it to every file: one that cannot be rotated keeps no other from it.
fn each(files: &[PathBuf], rotate: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let failed = files.iter().filter_map(|file| {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        rotate(file).err().map(named)
    });
    // All are tried, and the first that failed is told.
    failed.collect::<Vec<_>>().into_iter().next().map_or(Ok(()), Err)
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
                // An application could have put something else there.
                && named::read(path).is_ok()
        })
        .collect();
    all.sort();
    all
}

/// Packs a rotated file, and removes the oldest beyond `keep`.
fn pack(file: &Path, keep: usize) -> io::Result<()> {
    let packed = file.with_extension("log.gz");
    let new = file.with_extension("log.new");
    let mut from = named::read(file)?;
    let mode = from.metadata()?.permissions().mode() & 0o777;
    let to = named::create(&new, mode)?;
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
    use std::fs::File;
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

    #[test]
    fn what_is_put_beside_a_log_is_neither_waited_for_nor_written_to() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("slot-a-out.log");
        let pipe = folder.path().join("slot-a-out__20260131T120000250Z.log");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(rotated(&log, "log").is_empty());
        let other = folder.path().join("other");
        fs::write(&other, "kept").unwrap();
        fs::write(&log, "line\n".repeat(10_000)).unwrap();
        std::os::unix::fs::symlink(&other, log.with_extension("cut")).unwrap();
        assert!(!in_place::rotate(&log, 1_000, 5).unwrap());
        let aside = aside(&log);
        fs::rename(&log, &aside).unwrap();
        std::os::unix::fs::symlink(&other, aside.with_extension("log.new")).unwrap();
        assert!(each(&[pipe, aside], |file| pack(file, 5)).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    }
}
