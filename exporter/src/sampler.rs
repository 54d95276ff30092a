//! Takes a sample every `sample_interval`, and tries the slots' ports then and after events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use wire::{Process, Sample, SampledProcess, Time};

use crate::app::App;

/// A slot that was just started needs a moment until its port answers.
const AFTER_EVENTS: Duration = Duration::from_millis(400);

/// Looking at every thread of every process costs more than all the rest of a sample.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn run(app: Arc<App>) {
    let every = app.config.sample_interval;
    // The first sample comes soon, so that a poller that starts now has something to show.
    let mut ticks = interval_at(Instant::now() + every.min(Duration::from_millis(500)), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_event = app.journal.last_event();
    let mut swept: Option<Instant> = None;
    loop {
        tokio::select! {
            () = app.shutdown.drain.cancelled() => return,
            _ = ticks.tick() => {
                app.confirm().await;
                try_ports(&app).await;
                let processes = app.processes();
                if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
                    app.sweep(&processes);
                    swept = Some(Instant::now());
                }
                let processes = processes.into_iter().map(sampled).collect();
                app.journal.sample(Time::now(), Sample { host: Some(app.host()), processes });
            }
            changed = last_event.changed() => {
                if changed.is_err() {
                    return;
                }
                // One that comes meanwhile has its own moment afterwards.
                sleep(AFTER_EVENTS).await;
                try_ports(&app).await;
            }
        }
    }
}

async fn try_ports(app: &App) {
    app.slots.try_ports(&app.homes.first().processes(|_| Default::default())).await;
}

fn sampled(process: Process) -> SampledProcess {
    SampledProcess {
        instance: process.instance,
        status: process.status,
        restarts: process.restarts.total(),
        readings: process.readings,
    }
}
