use wire::{Pm2State, Process, RestartCause, SlotType, State, Status};

use crate::families as f;
use crate::writer::{Labels, Samples, Writer};
use crate::{Family, Kind};

/// One exporter's state and the labels that all its series carry (the poller adds `server`).
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Labels of every series.
    pub labels: &'a Labels,
    /// What is known.
    pub state: &'a State,
}

/// Every series of these states, family by family.
pub fn write_states(writer: &mut Writer, sources: &[Source<'_>]) {
    write_pm2(writer, sources);
    write_processes(writer, sources);
    write_slots(writer, sources);
    write_hosts(writer, sources);
    writer.family(&f::EXPORTER_BUILD, |samples| {
        for source in sources {
            let version = source.state.exporter.version.as_str();
            samples.add_with(source.labels, &[("version", version)], 1.0);
        }
    });
    writer.family(&f::EXPORTER_TOKEN, |samples| {
        for source in sources {
            for token in &source.state.exporter.token_expiries {
                let end = token.expires_at.as_seconds();
                samples.add_with(source.labels, &[("token", &token.name)], end);
            }
        }
    });
}

fn write_pm2(writer: &mut Writer, sources: &[Source<'_>]) {
    let homes: Vec<(Labels, &Pm2State)> = sources
        .iter()
        .flat_map(|source| {
            let several = !source.state.homes.is_empty();
            source.state.pm2_homes().iter().map(move |pm2| {
                let home = several.then_some(("pm2_home", pm2.home.as_str()));
                (source.labels.with(home), pm2)
            })
        })
        .collect();
    writer.family(&f::UP, |samples| {
        for (labels, pm2) in &homes {
            samples.add(labels, truth(pm2.up));
        }
    });
    writer.family(&f::INFO, |samples| {
        for (labels, pm2) in &homes {
            if let Some(version) = &pm2.version {
                samples.add_with(labels, &[("version", version)], 1.0);
            }
        }
    });
    writer.family(&f::CONFIRMED, |samples| {
        for (labels, pm2) in &homes {
            optional(samples, labels, pm2.confirmed_at.map(|time| time.as_seconds()));
        }
    });
    writer.family(&f::DRIFTS, |samples| {
        for (labels, pm2) in &homes {
            samples.add(labels, pm2.drifts as f64);
        }
    });
    type Count = fn(&Pm2State) -> Option<u32>;
    let counts: [(&Family, Count); 2] =
        [(&f::DUMP_MISSING, |pm2| pm2.dump_missing), (&f::DUMP_EXTRA, |pm2| pm2.dump_extra)];
    for (family, count) in counts {
        writer.family(family, |samples| {
            for (labels, pm2) in &homes {
                optional(samples, labels, count(pm2).map(f64::from));
            }
        });
    }
}

/// A process with its labels, escaped once for all its series.
struct Row<'a> {
    labels: Labels,
    process: &'a Process,
}

fn write_processes(writer: &mut Writer, sources: &[Source<'_>]) {
    let rows: Vec<Row<'_>> = sources
        .iter()
        .flat_map(|source| {
            source.state.processes.iter().map(|process| {
                let instance = &process.instance;
                let own = [
                    ("name", instance.name.as_str()),
                    ("namespace", &instance.namespace),
                    ("instance_id", &instance.instance_id.to_string()),
                ];
                let home = instance.pm2_home.as_deref().map(|home| ("pm2_home", home));
                Row { labels: source.labels.with(own.into_iter().chain(home)), process }
            })
        })
        .collect();
    let mut each = |family: &Family, write: &dyn Fn(&mut Samples<'_>, &Labels, &Process)| {
        debug_assert!(family.kind != Kind::Counter || family.name.ends_with("_total"));
        writer.family(family, |samples| {
            for row in &rows {
                write(samples, &row.labels, row.process);
            }
        });
    };
    each(&f::PROCESS_UP, &|samples, labels, process| {
        let up = process.status == Status::Online && !process.online_without_pid;
        samples.add(labels, truth(up));
    });
    each(&f::PROCESS_STATE, &|samples, labels, process| {
        for status in Status::ALL {
            // The two rare ones are shown only while they hold, to save two series a process.
            let rare = matches!(status, Status::OneLaunch | Status::Unknown);
            let now = process.status == status;
            if now || !rare {
                samples.add_with(labels, &[("state", status.as_str())], truth(now));
            }
        }
    });
    each(&f::PROCESS_CPU, &|samples, labels, process| {
        optional(samples, labels, process.readings.cpu_seconds);
    });
    each(&f::PROCESS_MEMORY, &|samples, labels, process| {
        optional(samples, labels, process.readings.memory_bytes.map(|bytes| bytes as f64));
    });
    each(&f::PROCESS_THREADS, &|samples, labels, process| {
        optional(samples, labels, process.readings.threads.map(f64::from));
    });
    each(&f::PROCESS_FDS, &|samples, labels, process| {
        optional(samples, labels, process.readings.open_fds.map(f64::from));
    });
    each(&f::PROCESS_START, &|samples, labels, process| {
        optional(samples, labels, process.started_at.map(|time| time.as_seconds()));
    });
    each(&f::PROCESS_RESTARTS, &|samples, labels, process| {
        for cause in RestartCause::ALL {
            let count = process.restarts.get(cause);
            // Only slots are deployed.
            if count > 0 || cause != RestartCause::Deploy || process.slot.is_some() {
                samples.add_with(labels, &[("cause", cause.as_str())], count as f64);
            }
        }
    });
    each(&f::PROCESS_EXCEPTIONS, &|samples, labels, process| {
        samples.add(labels, process.exceptions as f64);
    });
    each(&f::PROCESS_LOG_BYTES, &|samples, labels, process| {
        let readings = &process.readings;
        for (stream, bytes) in [("out", readings.log_out_bytes), ("err", readings.log_err_bytes)] {
            if let Some(bytes) = bytes {
                samples.add_with(labels, &[("stream", stream)], bytes as f64);
            }
        }
    });
    each(&f::PROCESS_INFO, &|samples, labels, process| {
        let more = [
            ("pm_id", &*process.pm_id.to_string()),
            ("version", &process.version),
            ("node_version", &process.node_version),
            ("interpreter", &process.interpreter),
            ("exec_mode", &process.exec_mode),
        ];
        samples.add_with(labels, &more, 1.0);
    });
    let node = |process: &Process, key: &str| process.readings.node.get(key).copied();
    for (family, quantiles) in [
        (&f::PROCESS_LOOP, [("0.5", "event_loop_latency"), ("0.95", "event_loop_latency_p95")]),
        (&f::PROCESS_HTTP_LATENCY, [("0.5", "http_latency"), ("0.95", "http_latency_p95")]),
    ] {
        each(family, &|samples, labels, process| {
            for (quantile, key) in quantiles {
                if let Some(value) = node(process, key) {
                    samples.add_with(labels, &[("quantile", quantile)], value);
                }
            }
        });
    }
    for (family, key) in [
        (&f::PROCESS_HEAP_USED, "heap_used"),
        (&f::PROCESS_HEAP_SIZE, "heap_size"),
        (&f::PROCESS_HANDLES, "active_handles"),
        (&f::PROCESS_REQUESTS, "active_requests"),
        (&f::PROCESS_HTTP_RATE, "http_rate"),
    ] {
        each(family, &|samples, labels, process| optional(samples, labels, node(process, key)));
    }
    each(&f::PROCESS_CUSTOM, &|samples, labels, process| {
        for custom in &process.readings.custom {
            let more = [("metric", custom.name.as_str()), ("unit", &custom.unit)];
            samples.add_with(labels, &more, custom.value);
        }
    });
}

fn write_slots(writer: &mut Writer, sources: &[Source<'_>]) {
    let rows: Vec<_> = sources
        .iter()
        .flat_map(|source| {
            source
                .state
                .slots
                .iter()
                .map(|slot| (source.labels.with([("slot", &*slot.slot)]), slot))
        })
        .collect();
    writer.family(&f::SLOT_DEPLOYED, |samples| {
        for (labels, slot) in &rows {
            samples.add(labels, truth(slot.kind == SlotType::Deployed));
        }
    });
    writer.family(&f::SLOT_SERVING, |samples| {
        for (labels, slot) in &rows {
            samples.add(labels, truth(slot.serving));
        }
    });
    writer.family(&f::SLOT_FOREIGN, |samples| {
        for (labels, slot) in &rows {
            samples.add(labels, truth(slot.foreign_owner.is_some()));
        }
    });
    writer.family(&f::SLOT_INFO, |samples| {
        for (labels, slot) in &rows {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let more = [
                ("type", slot.kind.as_str()),
                ("repository", &text(&slot.repository)),
                ("branch", &text(&slot.branch)),
                ("commit", &text(&slot.commit)),
            ];
            samples.add_with(labels, &more, 1.0);
        }
    });
    writer.family(&f::SLOT_DEPLOYS, |samples| {
        for (labels, slot) in &rows {
            let Some(more) = &slot.more else { continue };
            for (result, count) in
                [("healthy", more.deploys_healthy), ("failed", more.deploys_failed)]
            {
                samples.add_with(labels, &[("result", result)], count as f64);
            }
        }
    });
    writer.family(&f::SLOT_LAST_DEPLOY, |samples| {
        for (labels, slot) in &rows {
            let last = slot.more.as_ref().and_then(|more| more.last_deploy_at);
            optional(samples, labels, last.map(|time| time.as_seconds()));
        }
    });
}

fn write_hosts(writer: &mut Writer, sources: &[Source<'_>]) {
    let hosts: Vec<_> = sources
        .iter()
        .filter_map(|source| Some((source.labels, source.state.host.as_ref()?)))
        .collect();
    writer.family(&f::HOST_CPU, |samples| {
        for (labels, host) in &hosts {
            for (mode, seconds) in &host.cpu_seconds {
                samples.add_with(labels, &[("mode", mode)], *seconds);
            }
        }
    });
    type Read = fn(&wire::HostReadings) -> Option<f64>;
    let gauges: [(&Family, Read); 6] = [
        (&f::HOST_CPUS, |host| host.cpus.map(f64::from)),
        (&f::HOST_MEMORY_TOTAL, |host| host.memory_total_bytes.map(|bytes| bytes as f64)),
        (&f::HOST_MEMORY_AVAILABLE, |host| host.memory_available_bytes.map(|bytes| bytes as f64)),
        (&f::HOST_LOAD, |host| host.load1),
        (&f::HOST_FS_AVAIL, |host| host.filesystem_avail_bytes.map(|bytes| bytes as f64)),
        (&f::HOST_FS_SIZE, |host| host.filesystem_size_bytes.map(|bytes| bytes as f64)),
    ];
    for (family, read) in gauges {
        writer.family(family, |samples| {
            for (labels, host) in &hosts {
                optional(samples, labels, read(host));
            }
        });
    }
}

fn optional(samples: &mut Samples<'_>, labels: &Labels, value: Option<f64>) {
    if let Some(value) = value {
        samples.add(labels, value);
    }
}

fn truth(truth: bool) -> f64 {
    if truth { 1.0 } else { 0.0 }
}
