//! The page of pm2-prom-module.

use std::collections::BTreeSet;

use super::*;

pub(super) fn write(
    writer: &mut Writer,
    common: &Labels,
    processes: &[PeerProcess],
    host: &HostReadings,
    now: Time,
) {
    let apps: BTreeSet<App<'_>> = processes.iter().map(app_of).collect();
    let total = host.memory_total_bytes.map(|bytes| bytes as f64);
    let free = host.memory_available_bytes.map(|bytes| bytes as f64);
    let cpus = host.cpus.map(f64::from);
    let used = total.zip(free).map(|(total, free)| total - free);
    for (name, help, value) in [
        ("pm2_free_memory", "Memory that new programs could have, in bytes.", free),
        ("pm2_cpu_count", "Cores.", cpus),
        ("pm2_available_apps", "Apps that PM2 has.", Some(apps.len() as f64)),
        ("pm2_container_total_memory", "Memory in bytes.", total),
        ("pm2_container_free_memory", "Free memory in bytes.", free),
        ("pm2_container_used_memory", "Used memory in bytes.", used),
        ("pm2_container_cpu_count", "Cores.", cpus),
    ] {
        writer.gauge(name, help, |samples| {
            if let Some(value) = value {
                samples.add(common, value);
            }
        });
    }
    let of = |app: App<'_>| -> Vec<&PeerProcess> {
        processes.iter().filter(|process| app_of(process) == app).collect()
    };
    let running = |app: App<'_>| -> Vec<&PeerProcess> {
        of(app).into_iter().filter(|process| process.has_pid).collect()
    };
    let memory = |process: &&PeerProcess| process.memory_bytes.unwrap_or(0) as f64;
    let cpu = |process: &&PeerProcess| process.cpu_percent.unwrap_or(0.0);
    let average = |values: Vec<f64>| {
        if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
    };
    type OfApp<'a> = &'a dyn Fn(App<'_>) -> f64;
    let each_app: [(&str, &str, OfApp<'_>); 6] = [
        ("pm2_app_instances", "Running instances.", &|app| running(app).len() as f64),
        ("pm2_app_average_memory", "Mean resident memory of an instance, in bytes.", &|app| {
            average(running(app).iter().map(memory).collect()).round()
        }),
        ("pm2_app_total_memory", "Resident memory of all instances, in bytes.", &|app| {
            // Nothing added up is -0.
            running(app).iter().map(memory).sum::<f64>() + 0.0
        }),
        ("pm2_app_average_cpu", "Mean CPU of an instance, in percent of one core.", &|app| {
            average(running(app).iter().map(cpu).collect())
        }),
        ("pm2_app_uptime", "Seconds since the oldest instance was started.", &|app| {
            running(app).into_iter().map(|process| uptime(process, now)).fold(0.0, f64::max)
        }),
        ("pm2_app_status", "0 unknown, 1 running, 2 pending, 3 stopped, 4 errored.", &|app| {
            of(app).last().map_or(0.0, |process| status_number(process.status))
        }),
    ];
    for (name, help, value) in each_app {
        writer.gauge(name, help, |samples| {
            for &(name, home) in &apps {
                let home = home.map(|home| ("pm2_home", home));
                let labels = common.with_all(&Labels::new([("app", name)]).with(home));
                samples.add(&labels, value((name, home.map(|(_, home)| home))));
            }
        });
    }
    let instances: Vec<(Labels, &PeerProcess)> = processes
        .iter()
        .filter(|process| process.has_pid)
        .map(|process| {
            let id = process.pm_id.to_string();
            let labels = Labels::new([("app", process.name.as_str()), ("instance", &id)]);
            (common.with_all(&labels.with(home(process))), process)
        })
        .collect();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&PeerProcess) -> Option<f64>| {
        writer.gauge(name, help, |samples: &mut Samples<'_>| {
            for (labels, process) in &instances {
                if let Some(value) = value(process) {
                    samples.add(labels, value);
                }
            }
        });
    };
    each("pm2_app_pids_memory", "Resident memory in bytes.", &|process| Some(memory(&process)));
    each("pm2_app_pids_cpu", "CPU in percent of one core.", &|process| Some(cpu(&process)));
    each("pm2_app_pids_cpu_threshold", "CPU in percent of one core.", &|process| {
        Some(cpu(&process))
    });
    each("pm2_app_restart_count", "PM2's own restart counter.", &|process| {
        Some(process.restarts as f64)
    });
    for name in [
        "Used Heap Size",
        "Heap Usage",
        "Heap Size",
        "Event Loop Latency p95",
        "Event Loop Latency",
        "Active handles",
        "Active requests",
        "HTTP",
        "HTTP P95 Latency",
        "HTTP Mean Latency",
    ] {
        each(&format!("pm2_{}", tidy(name)), name, &|process| {
            let found = process.reported.iter().find(|metric| metric.name == name)?;
            // Sizes are in bytes here, and in MiB in the other.
            Some(match found.unit.as_str() {
                "MiB" => found.value * 1024.0 * 1024.0,
                _ => found.value,
            })
        });
    }
}
