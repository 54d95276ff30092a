//! What is drawn of an app and of a machine: which metrics, in which order, by which names.

use std::sync::Arc;

use dashboards::OverTime;
use dashboards::chart::{Chart, Note, NoteKind, Point, Range, Series, Unit};
use wire::{AppName, ServerId, Time};

use crate::app::App;
use crate::http::params::Params;
use crate::store::{MarkQuery, Series as Stored, StoreError, Subject, Window, WindowQuery};

/// Steps of a chart: about as many as a drawing has places.
const POINTS: u32 = 180;
/// Most charts of what an app tells of its own.
const MAX_CUSTOM: usize = 12;
/// Most notes that are read: a chart has room for fewer flags.
const MAX_NOTES: usize = 500;

/// Title and unit by metric, in the order in which they stand on the page.
const OF_APPS: [(&str, &str, Unit); 8] = [
    ("cpu", "CPU", Unit::Cores),
    ("memory", "Memory", Unit::Bytes),
    ("event_loop_latency", "Event loop latency", Unit::Seconds),
    ("heap_used", "Heap in use", Unit::Bytes),
    ("http_rate", "HTTP requests", Unit::Rate),
    ("http_latency", "HTTP latency", Unit::Seconds),
    ("active_handles", "Active handles", Unit::Count),
    ("open_fds", "Open files", Unit::Count),
];

const OF_HOSTS: [(&str, &str, Unit); 4] = [
    ("cpu", "CPU", Unit::Share),
    ("memory", "Memory in use", Unit::Bytes),
    ("disk", "Disk in use", Unit::Bytes),
    ("load", "Load", Unit::Count),
];

/// Drawn although nothing was read of them: that is worth knowing.
const ALWAYS: [&str; 2] = ["cpu", "memory"];

/// Metrics that have a place of their own elsewhere, or stand beside a drawn one.
const NOT_DRAWN: [&str; 9] = [
    "restarts",
    "threads",
    "up",
    "event_loop_latency_p95",
    "heap_size",
    "heap_usage",
    "Heap Usage",
    "active_requests",
    "http_latency_p95",
];

/// The range in the address.
pub(super) fn range(params: &mut Params) -> Range {
    params.name("range").ok().flatten().unwrap_or_default()
}

/// What was measured over a range: of an app, in one PM2 where one is named, or of the machine. What
/// cannot be read is told in place of the charts.
pub(super) async fn over_time(
    app: &Arc<App>,
    server: &ServerId,
    of: Option<(&AppName, Option<&str>)>,
    range: Range,
    now: Time,
) -> OverTime {
    let from = now.plus_millis(-range.millis());
    let mut drawn =
        OverTime { range, from, to: now, charts: Vec::new(), notes: Vec::new(), problem: None };
    let name = of.map(|(name, _)| name);
    let subject = name.map_or(Subject::Host, |name| Subject::App(name.clone()));
    let metrics = match name {
        Some(_) => Vec::new(),
        None => ["cpu", "memory", "memory_total", "disk", "disk_total", "load"]
            .map(str::to_owned)
            .into(),
    };
    let window =
        WindowQuery { server: server.clone(), subject, metrics, from, to: now, points: POINTS };
    let home = of.and_then(|(_, home)| home);
    let marks = MarkQuery {
        server: server.clone(),
        app: name.cloned(),
        pm2_home: home.map(str::to_owned),
        from,
        limit: MAX_NOTES,
    };
    let read = async {
        let mut window = app.store.window(&window).await?;
        let marks = app.store.marks(&marks).await?;
        if let Some(home) = home {
            window.series.retain(|series| series.is_in(home));
        }
        Ok((window, marks))
    };
    match read.await {
        Ok((window, marks)) => {
            drawn.charts = match name {
                Some(_) => of_app(&window, from, now),
                None => of_host(&window, from, now),
            };
            drawn.notes = marks
                .into_iter()
                .map(|mark| Note {
                    time: mark.time,
                    kind: NoteKind::of(&mark.kind, mark.severity),
                    text: format!("{}: {}", mark.kind.replace('_', " "), mark.message),
                })
                .collect();
        }
        Err(error) => drawn.problem = Some(in_words(&error)),
    }
    drawn
}

fn in_words(error: &StoreError) -> String {
    tracing::warn!(%error, "history for a page could not be read");
    match error {
        StoreError::TooMuch => "too many processes for charts".to_owned(),
        StoreError::Busy => "the database is busy; try again, or a shorter time".to_owned(),
        _ => "the database cannot be read; the poller's log says why".to_owned(),
    }
}

fn of_app(window: &Window, from: Time, to: Time) -> Vec<Chart> {
    if window.series.is_empty() {
        return Vec::new();
    }
    let mut charts: Vec<Chart> = OF_APPS
        .iter()
        .map(|(metric, title, unit)| chart(window, (metric, title, *unit), (from, to)))
        .zip(OF_APPS)
        .filter(|(chart, (metric, ..))| !chart.series.is_empty() || ALWAYS.contains(metric))
        .map(|(chart, _)| chart)
        .collect();
    let known = |metric: &str| {
        OF_APPS.iter().any(|(name, ..)| *name == metric) || NOT_DRAWN.contains(&metric)
    };
    let mut custom: Vec<(&str, &str)> = window
        .series
        .iter()
        .map(|it| (it.metric.as_str(), it.unit.as_str()))
        .filter(|(metric, _)| !known(metric))
        .collect();
    custom.dedup_by_key(|(metric, _)| *metric);
    for (metric, unit) in custom.into_iter().take(MAX_CUSTOM) {
        let mut chart = chart(window, (metric, metric, Unit::Count), (from, to));
        chart.about = unit.to_owned();
        charts.push(chart);
    }
    charts
}

fn of_host(window: &Window, from: Time, to: Time) -> Vec<Chart> {
    let newest = |metric: &str| {
        let series = window.series.iter().find(|it| it.metric == metric)?;
        series.points.last().map(|point| point.max)
    };
    OF_HOSTS
        .iter()
        .map(|(metric, title, unit)| {
            let mut chart = chart(window, (metric, title, *unit), (from, to));
            chart.about = match newest(&format!("{metric}_total")) {
                Some(all) => format!("of {}", dashboards::format::bytes(all as u64)),
                None if *metric == "cpu" => "of all cores".to_owned(),
                None => String::new(),
            };
            chart
        })
        .filter(|chart| !chart.series.is_empty())
        .collect()
}

fn chart(
    window: &Window,
    (metric, title, unit): (&str, &str, Unit),
    (from, to): (Time, Time),
) -> Chart {
    let all: Vec<&Stored> = window.series.iter().filter(|it| it.metric == metric).collect();
    Chart {
        title: title.to_owned(),
        unit,
        about: String::new(),
        from,
        to,
        step_millis: window.step_millis,
        series: all.iter().map(|stored| line(stored, all.len() > 1)).collect(),
    }
}

/// All are given: the drawing counts those that it leaves out.
fn line(stored: &Stored, several: bool) -> Series {
    let label = match &stored.instance {
        Some(it) if several => match &it.pm2_home {
            Some(home) => format!("instance {} in {home}", it.instance_id),
            None => format!("instance {}", it.instance_id),
        },
        _ => String::new(),
    };
    let point =
        |it: &crate::store::Point| Point { time: it.time, min: it.min, mean: it.mean, max: it.max };
    Series { label, points: stored.points.iter().map(point).collect() }
}
