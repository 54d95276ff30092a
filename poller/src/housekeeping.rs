//! What keeps the database small and quick: folding history into blocks, retention, the limit of
//! its size. All in small steps with pauses as long as the steps, so that polls come first.

mod copies;

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::{EventKind, Severity, Time};

pub use copies::copy;

use crate::app::App;
use crate::config::{Config, Keep};
use crate::store::{Before, LOG_STAYS, Removed, Shrunk, StoreError, Tier};

/// How often is looked for what is due.
const FOLD_EVERY: Duration = Duration::from_secs(5);
const RETAIN_EVERY: Duration = Duration::from_secs(60);
const MEASURE_EVERY: Duration = Duration::from_secs(600);
/// Between two steps when there is more: at least so long, and as long as the step took.
const PAUSE: Duration = Duration::from_millis(5);
/// A longer write-ahead log is left to shrink first: somebody reads for long, a copy is made.
const LOG_MOST: u64 = 8 << 20;
const _: () = assert!(LOG_MOST > LOG_STAYS as u64, "it never becomes shorter than that");
/// An event that history was dropped is told again after so long.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// Folds what is due, until `stop`.
pub async fn fold(app: &App, stop: CancellationToken) {
    let mut wait = FOLD_EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if app.store.sizes().1 > LOG_MOST {
            wait = FOLD_EVERY;
            continue;
        }
        let begun = Instant::now();
        wait = match app.store.fold(Time::now()).await {
            Ok(None) => FOLD_EVERY,
            Ok(Some(folded)) => {
                let tier = folded.tier.as_str();
                app.metrics.folded.with_label_values(&[tier]).inc_by(folded.blocks);
                app.metrics.folded_bytes.with_label_values(&[tier]).inc_by(folded.bytes);
                app.metrics.fold_seconds.inc_by(begun.elapsed().as_secs_f64());
                PAUSE.max(begun.elapsed())
            }
            Err(error) => {
                failed(app, &error, "history was not folded");
                RETAIN_EVERY
            }
        };
    }
}

/// Takes away what is old enough or too much, until `stop`.
pub async fn run(app: &App, configs: watch::Receiver<Config>, stop: CancellationToken) {
    let mut wait = RETAIN_EVERY;
    let mut measured: Option<Instant> = None;
    let mut told = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        app.store.reserve_room();
        let keep = configs.borrow().keep;
        let begun = Instant::now();
        wait = match step(app, keep, Time::now(), &mut told).await {
            Ok(true) => PAUSE.max(begun.elapsed()),
            Ok(false) => RETAIN_EVERY,
            Err(error) => {
                failed(app, &error, "nothing old was taken away");
                RETAIN_EVERY
            }
        };
        if measured.is_none_or(|then| then.elapsed() >= MEASURE_EVERY) {
            measured = Some(Instant::now());
            measure(app).await;
        }
    }
}

fn failed(app: &App, error: &StoreError, what: &str) {
    app.metrics.store_errors.with_label_values(&[error.label()]).inc();
    tracing::warn!(%error, "{what}");
    if matches!(error, StoreError::Corrupt(_)) {
        app.damaged();
    }
}

/// Whether there is more to do at once.
async fn step(
    app: &App,
    keep: Keep,
    now: Time,
    told: &mut Option<(EventKind, Instant)>,
) -> Result<bool, StoreError> {
    let removed = app.store.retain(before(keep, now)).await?;
    count(app, &removed);
    if removed.retired > 0 {
        app.registry.forgot().await;
    }
    let mut more = removed.more;
    if let Some(most) = keep.max_size {
        match app.store.shrink(most, now).await? {
            Shrunk::Fits => {}
            Shrunk::Dropped(dropped) => {
                let tier = dropped.tier.as_str();
                app.metrics.dropped.with_label_values(&[tier]).inc_by(dropped.blocks);
                let what = format!("history by {tier} up to {} was dropped", dropped.up_to);
                say_large(app, most, EventKind::HISTORY_DROPPED, &what, told).await?;
                more = true;
            }
            Shrunk::Stays(used) => {
                let what = format!(
                    "it has {used}, and no history that may be dropped: the last six hours of \
                     samples always stay, and events, commands and audit have limits of their own"
                );
                say_large(app, most, EventKind::DATABASE_TOO_LARGE, &what, told).await?;
            }
        }
    }
    more |= app.store.give_back().await?;
    Ok(more)
}

/// The moments before which things go.
pub fn before(keep: Keep, now: Time) -> Before {
    let before = |keep: Duration| now.plus_millis(-(keep.as_millis() as i64));
    Before {
        samples: before(keep.raw),
        minutes: before(keep.minutes),
        hours: before(keep.hours),
        events: before(keep.events),
        commands: before(keep.commands),
        audit: before(keep.audit),
    }
}

fn count(app: &App, removed: &Removed) {
    let [samples, minutes, hours] = removed.blocks;
    for (kind, count) in [
        ("sample", samples),
        ("minute", minutes),
        ("hour", hours),
        ("recent", removed.recent),
        ("event", removed.events),
        ("command", removed.commands),
        ("audit", removed.audit),
        ("name", removed.names),
        ("server", removed.retired),
    ] {
        app.metrics.removed.with_label_values(&[kind]).inc_by(count);
    }
}

/// Loudly, but not over and over.
async fn say_large(
    app: &App,
    most: u64,
    kind: EventKind,
    what: &str,
    told: &mut Option<(EventKind, Instant)>,
) -> Result<(), StoreError> {
    if told.as_ref().is_some_and(|(of, then)| *of == kind && then.elapsed() < TELL_EVERY) {
        return Ok(());
    }
    *told = Some((kind.clone(), Instant::now()));
    let message = format!("the database is larger than database_max_size, {most} bytes: {what}");
    tracing::warn!("{message}");
    app.store.tell(kind, Severity::Warning, message).await?;
    Ok(())
}

async fn measure(app: &App) {
    match app.store.history_sizes().await {
        Ok(sizes) => {
            for (tier, (bytes, values)) in Tier::ALL.into_iter().zip(sizes) {
                let labels = [tier.as_str()];
                app.metrics.history_bytes.with_label_values(&labels).set(bytes);
                app.metrics.history_values.with_label_values(&labels).set(values);
            }
        }
        Err(error) => failed(app, &error, "the history was not measured"),
    }
    match app.store.rows().await {
        Ok(rows) => {
            for (kind, count) in rows {
                app.metrics.database_rows.with_label_values(&[kind]).set(count);
            }
        }
        Err(error) => failed(app, &error, "the database was not measured"),
    }
}
