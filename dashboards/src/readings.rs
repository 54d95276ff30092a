//! What the instances of an app read, side by side.

use std::collections::BTreeSet;

use wire::Process;

use crate::format::{NOTHING, bytes, count, cut, number};

/// Most instances side by side.
const MAX_INSTANCES: usize = 8;

/// Most custom metrics shown.
const MAX_CUSTOM: usize = 40;

/// A table: a column for each instance, a row for each reading that any of them has.
pub(crate) struct Readings {
    /// Numbers of the instances.
    pub(crate) instances: Vec<u32>,
    /// Name of the reading, and its text for each instance.
    pub(crate) rows: Vec<(String, Vec<String>)>,
}

impl Readings {
    pub(crate) fn of(instances: &[&Process]) -> Self {
        let shown = &instances[..instances.len().min(MAX_INSTANCES)];
        let mut rows = Vec::new();
        let mut tell = |name: &str, read: &dyn Fn(&Process) -> Option<String>| {
            let texts: Vec<_> = shown.iter().map(|process| read(process)).collect();
            if texts.iter().any(Option::is_some) {
                let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
                rows.push((name.to_owned(), texts.into_iter().map(or_nothing).collect()));
            }
        };
        tell("threads", &|process| Some(count(process.readings.threads?.into())));
        tell("open files", &|process| Some(count(process.readings.open_fds?.into())));
        tell("written to stdout", &|process| Some(bytes(process.readings.log_out_bytes?)));
        tell("written to stderr", &|process| Some(bytes(process.readings.log_err_bytes?)));
        let node = shown.iter().flat_map(|process| process.readings.node.keys());
        let node: BTreeSet<&str> = node.map(|name| name.as_str()).collect();
        for name in node.into_iter().take(MAX_CUSTOM) {
            tell(&cut(&name.replace('_', " "), 100), &|process| {
                process.readings.node.get(name).map(|value| of_node(name, *value))
            });
        }
        let custom = shown.iter().flat_map(|process| &process.readings.custom);
        let custom: BTreeSet<&str> = custom.map(|one| one.name.as_str()).collect();
        for name in custom.into_iter().take(MAX_CUSTOM) {
            tell(&cut(name, 100), &|process| {
                let metric = process.readings.custom.iter().find(|one| one.name == name)?;
                let text = format!("{} {}", number(metric.value), cut(&metric.unit, 20));
                Some(text.trim_end().to_owned())
            });
        }
        let instances = shown.iter().map(|process| process.instance.instance_id).collect();
        Self { instances, rows }
    }
}

/// A reading of Node.js, in base units, by the name that history uses.
fn of_node(name: &str, value: f64) -> String {
    match name {
        _ if name.starts_with("heap_") && !name.ends_with("usage") => bytes(value.max(0.0) as u64),
        _ if name.contains("latency") => format!("{} ms", number(value * 1000.0)),
        "http_rate" => format!("{} /s", number(value)),
        _ => number(value),
    }
}
