//! Pages with the names, labels and units of two other exporters, so that dashboards made for
//! them keep working. They conflict in the units of heap sizes: a page is one or the other.
//! All families are gauges there, counters too.

mod prom_module;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use wire::{CustomMetric, HostReadings, SmolStr, Status, Time};

use crate::writer::{Labels, Samples, Writer};

/// Whose names are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// Our own.
    #[default]
    None,
    /// npm `pm2-metrics`.
    Pm2Metrics,
    /// `pm2-prom-module`.
    PromModule,
}

impl fmt::Display for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Pm2Metrics => "pm2-metrics",
            Self::PromModule => "pm2-prom-module",
        })
    }
}

impl FromStr for Compat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "pm2-metrics" => Ok(Self::Pm2Metrics),
            "pm2-prom-module" => Ok(Self::PromModule),
            _ => Err(format!("{text:?} is not none, pm2-metrics or pm2-prom-module")),
        }
    }
}

/// A process as PM2 lists it, in PM2's own units.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerProcess {
    /// App name.
    pub name: String,
    /// PM2's directory, where several are watched: those exporters know one only, and this keeps
    /// the series of several apart.
    pub pm2_home: Option<SmolStr>,
    /// PM2's number.
    pub pm_id: u32,
    /// Number within the app, `NODE_APP_INSTANCE`.
    pub instance: u32,
    /// PM2's view.
    pub status: Status,
    /// Whether there is an operating-system process.
    pub has_pid: bool,
    /// CPU in percent of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Last start.
    pub started_at: Option<Time>,
    /// PM2's own restart counter.
    pub restarts: u64,
    /// PM2's delay before the last restart, milliseconds.
    pub prev_restart_delay: Option<f64>,
    /// Instances that PM2 was asked for.
    pub instances: u32,
    /// Version of the application.
    pub version: String,
    /// Interpreter as PM2 has it.
    pub interpreter: String,
    /// Version of Node.js.
    pub node_version: String,
    /// What it reports, in the units it reports.
    pub reported: Vec<CustomMetric>,
}

/// Labels that series of such a page have themselves.
pub fn own_labels(compat: Compat) -> &'static [&'static str] {
    match compat {
        Compat::None => &[],
        Compat::Pm2Metrics => {
            &["id", "name", "version", "instance", "interpreter", "node_version", "pm2_home"]
        }
        Compat::PromModule => &["app", "instance", "pm2_home"],
    }
}

/// The page that `compat` asks for; nothing for [`Compat::None`]. Every series has `labels`; which of them
/// it has itself, [`own_labels`] says.
pub fn write(
    writer: &mut Writer,
    compat: Compat,
    labels: &Labels,
    processes: &[PeerProcess],
    host: &HostReadings,
    now: Time,
) {
    match compat {
        Compat::None => {}
        Compat::Pm2Metrics => pm2_metrics(writer, labels, processes, now),
        Compat::PromModule => prom_module::write(writer, labels, processes, host, now),
    }
}

/// A process that does not run has no uptime; PM2 keeps its last start.
fn uptime(process: &PeerProcess, now: Time) -> f64 {
    match process.started_at {
        Some(start) if process.status.has_process() => {
            (now.millis_since(start).max(0) as f64 / 1000.0).round()
        }
        _ => 0.0,
    }
}

fn pm2_metrics(writer: &mut Writer, common: &Labels, processes: &[PeerProcess], now: Time) {
    let rows: Vec<(Labels, &PeerProcess)> = processes
        .iter()
        .map(|process| {
            let version = if process.version.is_empty() { "N/A" } else { &process.version };
            let labels = Labels::new([
                ("id", &*process.pm_id.to_string()),
                ("name", &process.name),
                ("version", version),
                ("instance", &process.instance.to_string()),
                ("interpreter", &process.interpreter),
                ("node_version", &process.node_version),
            ]);
            (common.with_all(&labels.with(home(process))), process)
        })
        .collect();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&PeerProcess) -> Option<f64>| {
        writer.gauge(name, help, |samples| {
            for (labels, process) in &rows {
                if let Some(value) = value(process) {
                    samples.add(labels, value);
                }
            }
        });
    };
    each("pm2_up", "Whether PM2 calls the process online.", &|process| {
        Some(f64::from(u8::from(process.status == Status::Online)))
    });
    each("pm2_cpu", "CPU in percent of one core.", &|process| process.cpu_percent);
    each("pm2_memory", "Resident memory in bytes.", &|process| {
        process.memory_bytes.map(|bytes| bytes as f64)
    });
    each("pm2_uptime", "Seconds since the last start.", &|process| Some(uptime(process, now)));
    each("pm2_instances", "Instances that PM2 was asked for.", &|process| {
        Some(f64::from(process.instances.max(1)))
    });
    each("pm2_restarts", "PM2's own restart counter.", &|process| Some(process.restarts as f64));
    each("pm2_prev_restart_delay", "Delay before the last restart.", &|process| {
        process.prev_restart_delay
    });
    let own = ["up", "cpu", "memory", "uptime", "instances", "restarts", "prev_restart_delay"];
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for metric in processes.iter().flat_map(|process| &process.reported) {
        let name = tidy(&metric.name);
        if !name.is_empty() && !own.contains(&name.as_str()) {
            names.entry(name).or_insert(&metric.name);
        }
    }
    for (name, help) in names {
        each(&format!("pm2_{name}"), help, &|process| {
            let found = process.reported.iter().find(|metric| tidy(&metric.name) == name)?;
            Some(found.value)
        });
    }
}

/// An app by its name and, where there are several, its PM2.
type App<'a> = (&'a str, Option<&'a str>);

fn app_of(process: &PeerProcess) -> App<'_> {
    (&process.name, process.pm2_home.as_deref())
}

/// A label for the process's PM2, where there are several.
fn home(process: &PeerProcess) -> Option<(&str, &str)> {
    process.pm2_home.as_deref().map(|home| ("pm2_home", home))
}

/// Lower case, every run of other characters one `_`.
fn tidy(name: &str) -> String {
    let mut tidy = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            tidy.push(letter.to_ascii_lowercase());
        } else if !tidy.ends_with('_') {
            tidy.push('_');
        }
    }
    tidy
}

/// Status as this exporter numbers it.
fn status_number(status: Status) -> f64 {
    match status {
        Status::Online => 1.0,
        Status::Launching | Status::WaitingRestart | Status::OneLaunch => 2.0,
        Status::Stopping | Status::Stopped => 3.0,
        Status::Errored => 4.0,
        Status::Unknown => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    fn process(name: &str, pm_id: u32, status: Status) -> PeerProcess {
        let has_pid = status == Status::Online;
        let metric = |name: &str, value, unit: &str| CustomMetric {
            name: name.into(),
            value,
            unit: unit.into(),
        };
        PeerProcess {
            name: name.into(),
            pm2_home: None,
            pm_id,
            instance: 0,
            status,
            has_pid,
            cpu_percent: Some(1.5),
            memory_bytes: Some(if has_pid { 1000 } else { 0 }),
            started_at: Some(Time::from_millis(10_000)),
            restarts: 3,
            prev_restart_delay: None,
            instances: 1,
            version: String::new(),
            interpreter: "node".to_owned(),
            node_version: "20.20.2".to_owned(),
            reported: if has_pid {
                vec![metric("Used Heap Size", 2.0, "MiB"), metric("Queue (jobs)", 7.0, "")]
            } else {
                Vec::new()
            },
        }
    }

    fn samples(compat: Compat) -> Vec<String> {
        samples_with(compat, Labels::default())
    }

    fn samples_with(compat: Compat, labels: Labels) -> Vec<String> {
        let mut writer = Writer::new(Format::Text);
        let all = [process("api", 0, Status::Online), process("gone", 1, Status::Stopped)];
        let host = HostReadings { memory_total_bytes: Some(5), ..HostReadings::default() };
        write(&mut writer, compat, &labels, &all, &host, Time::from_millis(25_000));
        let page = writer.finish();
        page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn names_labels_and_units_of_pm2_metrics() {
        let labels = r#"{id="0",name="api",version="N/A",instance="0",interpreter="node",node_version="20.20.2"}"#;
        let samples = samples(Compat::Pm2Metrics);
        for (name, value) in [
            ("pm2_up", "1"),
            ("pm2_cpu", "1.5"),
            ("pm2_memory", "1000"),
            ("pm2_uptime", "15"),
            ("pm2_instances", "1"),
            ("pm2_restarts", "3"),
            ("pm2_used_heap_size", "2"),
            ("pm2_queue_jobs_", "7"),
        ] {
            let line = format!("{name}{labels} {value}");
            assert!(samples.contains(&line), "{line} in {samples:#?}");
        }
        assert!(
            samples.iter().any(|line| line.starts_with("pm2_up{id=\"1\"") && line.ends_with(" 0"))
        );
    }

    #[test]
    fn every_series_has_the_labels_of_all_and_its_own_are_known() {
        for compat in [Compat::Pm2Metrics, Compat::PromModule] {
            let common = Labels::new([("serviceName", "shop \"1\"")]);
            let all = samples_with(compat, common);
            assert_eq!(all.len(), samples(compat).len());
            for line in &all {
                let rest = line.split_once('{').map(|(_, rest)| rest).unwrap_or_default();
                let own = rest.strip_prefix("serviceName=\"shop \\\"1\\\"\"");
                let own = own.unwrap_or_else(|| panic!("{line} in {all:#?}"));
                let own = own.rsplit_once('}').map(|(own, _)| own).unwrap_or_default();
                for label in own.split(',').filter_map(|label| Some(label.split_once('=')?.0)) {
                    assert!(own_labels(compat).contains(&label), "{label} in {line}");
                }
            }
        }
    }

    #[test]
    fn series_of_several_homes_stay_apart() {
        let in_home = |home: &str| PeerProcess {
            pm2_home: Some(home.into()),
            ..process("api", 0, Status::Online)
        };
        for compat in [Compat::Pm2Metrics, Compat::PromModule] {
            let mut writer = Writer::new(Format::Text);
            let all = [in_home("/a"), in_home("/b")];
            let (none, host) = (Labels::default(), HostReadings::default());
            write(&mut writer, compat, &none, &all, &host, Time::from_millis(25_000));
            let page = writer.finish();
            let mut samples: Vec<&str> =
                page.lines().filter(|line| !line.starts_with('#')).collect();
            let count = samples.len();
            samples.sort_unstable();
            samples.dedup();
            assert_eq!(samples.len(), count, "{page}");
            assert!(page.contains("pm2_home=\"/b\""), "{page}");
        }
    }

    #[test]
    fn names_labels_and_units_of_the_module() {
        let samples = samples(Compat::PromModule);
        for line in [
            "pm2_available_apps 2",
            "pm2_container_total_memory 5",
            "pm2_app_instances{app=\"api\"} 1",
            "pm2_app_instances{app=\"gone\"} 0",
            "pm2_app_status{app=\"api\"} 1",
            "pm2_app_status{app=\"gone\"} 3",
            "pm2_app_uptime{app=\"gone\"} 0",
            "pm2_app_total_memory{app=\"gone\"} 0",
            "pm2_app_pids_memory{app=\"api\",instance=\"0\"} 1000",
            "pm2_app_restart_count{app=\"api\",instance=\"0\"} 3",
            "pm2_used_heap_size{app=\"api\",instance=\"0\"} 2097152",
        ] {
            assert!(samples.iter().any(|sample| sample == line), "{line} in {samples:#?}");
        }
    }
}
