//! `make run`: the main job until Ctrl-C.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use e2e::fleet::{Fleet, SERVER};
use e2e::{process, setup};
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let folder = std::path::absolute(setup::run_folder())?;
    std::fs::create_dir_all(&folder)?;
    let _lock = only_one(&folder)?;
    clear(&folder)?;
    let mark = process::new_mark();
    std::fs::write(folder.join("mark"), &mark)?;

    eprintln!("run: starting PM2, six processes, exporter and poller");
    let fleet = tokio::select! {
        fleet = Fleet::start(&folder, &mark) => fleet,
        _ = terminate.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    let fleet = match fleet {
        Ok(fleet) => fleet,
        Err(error) => {
            all_gone(&mark)?;
            return Err(error);
        }
    };
    tell(&fleet)?;

    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = until_something_ends(&fleet) => Some(ended),
    };
    if let Some(ended) = &ended {
        eprintln!("run: {ended}");
    }
    eprintln!("run: ending everything");
    let stopped = fleet.stop().await;
    all_gone(&mark)?;
    stopped?;
    eprintln!("run: nothing is left running");
    Ok(if ended.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Two at a time would share their files. The lock goes with this process, however it ends.
fn only_one(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another 'make run' holds {}", path.display()))?;
    Ok(lock)
}

/// Ends and removes what a run left behind that was killed.
fn clear(folder: &Path) -> anyhow::Result<()> {
    if let Ok(mark) = std::fs::read_to_string(folder.join("mark")) {
        let left = process::marked(&mark);
        if !left.is_empty() {
            eprintln!("run: ending what the last run left behind: {left:?}");
        }
        all_gone(&mark)?;
    }
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let old: Vec<PathBuf> = entries.iter().map(|entry| entry.path()).collect();
    for path in old.iter().filter(|path| !path.ends_with("lock")) {
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Kills what still carries the mark, and makes sure that nothing does any more.
fn all_gone(mark: &str) -> anyhow::Result<()> {
    let left = process::end_all(|| process::marked(mark));
    anyhow::ensure!(left.is_empty(), "these processes would not end: {left:?}");
    Ok(())
}

fn tell(fleet: &Fleet) -> anyhow::Result<()> {
    let page = fleet.poller().url("/");
    let restart = fleet.poller().url(&format!("/api/commands/{SERVER}/apps/slot-a/restart"));
    let token = &fleet.admin_token;
    let metrics = fleet.exporter().url("/metrics");
    let mut out = std::io::stdout();
    write!(
        out,
        "\n  Page          {page}\n  Admin token   {token}\n  Exporter      {metrics}\n\n  \
         Restart slot-a:\n  curl -X POST -H 'Authorization: Bearer {token}' '{restart}?wait=30s'\n\n  \
         Ctrl-C ends everything\n\n"
    )?;
    out.flush()?;
    Ok(())
}

async fn until_something_ends(fleet: &Fleet) -> String {
    loop {
        if let Some(ended) = fleet.ended() {
            return ended;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
