//! Retention, a little at a time.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::Time;

use crate::app::App;
use crate::config::Config;

/// How often is looked for what is old enough.
const EVERY: Duration = Duration::from_secs(60);
/// Between two steps when there is more: writing comes first.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes away what is old enough, until `stop`.
pub async fn run(app: &App, configs: watch::Receiver<Config>, stop: CancellationToken) {
    let mut wait = EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let keep = configs.borrow().keep;
        let now = Time::now();
        let before = |keep: Duration| now.plus_millis(-(keep.as_millis() as i64));
        let step = app.store.retain(before(keep.raw), before(keep.events), before(keep.commands));
        wait = match step.await {
            Ok(removed) => {
                for (kind, count) in [
                    ("sample", removed.samples),
                    ("event", removed.events),
                    ("command", removed.commands),
                    ("name", removed.names),
                ] {
                    app.metrics.removed.with_label_values(&[kind]).inc_by(count);
                }
                if removed.may_be_more() { PAUSE } else { EVERY }
            }
            Err(error) => {
                app.metrics.store_errors.with_label_values(&[error.label()]).inc();
                tracing::warn!(%error, "nothing old was taken away");
                EVERY
            }
        };
    }
}
