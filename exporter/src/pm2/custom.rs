//! `axm_monitor`: what Node.js and the application report through `@pm2/io`, in base units.

use std::collections::BTreeMap;

use serde::Deserialize;
use wire::{CustomMetric, SmolStr};

/// Most custom metrics that are kept of one process.
const MAX_CUSTOM: usize = 64;

/// Read metrics of one process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeMetrics {
    /// Known ones, by the name that history uses, in seconds, bytes, ratios and counts.
    pub node: BTreeMap<SmolStr, f64>,
    /// The others, in their own units.
    pub custom: Vec<CustomMetric>,
    /// All of them as reported: for other exporters' pages.
    pub reported: Vec<CustomMetric>,
}

/// One metric as PM2 passes it on: `{"value":"7.23","unit":"MiB","type":"…"}`.
#[derive(Deserialize)]
pub struct RawMetric {
    #[serde(default)]
    value: serde_json::Value,
    #[serde(default)]
    unit: serde_json::Value,
    #[serde(default, rename = "type")]
    kind: serde_json::Value,
}

/// The known ones by their type, which does not change with the language of the name
/// (`@pm2/io` 4 to 8), and the factor to the base unit.
fn known(kind: &str, unit: &str) -> Option<(&'static str, f64)> {
    const MIB: f64 = 1024.0 * 1024.0;
    let memory = match unit {
        "" | "B" => 1.0,
        "KiB" | "kB" => 1024.0,
        _ => MIB,
    };
    let time = if unit == "s" { 1.0 } else { 0.001 };
    Some(match kind {
        "internal/v8/heap/total" => ("heap_size", memory),
        "internal/v8/heap/used" => ("heap_used", memory),
        "internal/libuv/handles" => ("active_handles", 1.0),
        "internal/libuv/requests" => ("active_requests", 1.0),
        "internal/libuv/latency/p50" => ("event_loop_latency", time),
        "internal/libuv/latency/p95" => ("event_loop_latency_p95", time),
        // Called req/min by every version, and counted by the second by every version.
        "internal/http/builtin/reqs" => ("http_rate", 1.0),
        "internal/http/builtin/latency/p50" => ("http_latency", time),
        "internal/http/builtin/latency/p95" => ("http_latency_p95", time),
        _ => return None,
    })
}

/// Sorts raw metrics into known and custom ones. Values that are no finite number are left out.
pub fn read(raw: BTreeMap<String, RawMetric>) -> NodeMetrics {
    let mut metrics = NodeMetrics::default();
    for (name, raw) in raw {
        let Some((value, unit_in_value)) = number(&raw.value) else { continue };
        let unit = raw.unit.as_str().unwrap_or_default();
        let unit = if unit.is_empty() { &unit_in_value } else { unit };
        if metrics.reported.len() < MAX_CUSTOM {
            let metric = CustomMetric { name: tidy(&name, 128), value, unit: tidy(unit, 32) };
            metrics.reported.push(metric);
        }
        if let Some((name, factor)) = raw.kind.as_str().and_then(|kind| known(kind, unit)) {
            // A timer that fires early makes the latency negative, which no duration is.
            metrics.node.insert(SmolStr::new_static(name), (value * factor).max(0.0));
        } else if metrics.custom.len() < MAX_CUSTOM {
            let (name, unit) = (tidy(&name, 128), tidy(unit, 32));
            if !metrics.custom.iter().any(|other| other.name == name && other.unit == unit) {
                metrics.custom.push(CustomMetric { name, value, unit });
            }
        }
    }
    metrics
}

fn tidy(text: &str, most: usize) -> SmolStr {
    text.chars().filter(|letter| !letter.is_control()).take(most).collect()
}

/// `5`, `"5"`, `"5.2ms"`, `"1 %"`: the number, and the unit that follows it.
fn number(value: &serde_json::Value) -> Option<(f64, String)> {
    let (number, unit) = match value {
        serde_json::Value::Number(number) => (number.as_f64()?, ""),
        serde_json::Value::String(text) => {
            let text = text.trim();
            if let Ok(number) = text.parse::<f64>() {
                return number.is_finite().then(|| (number, String::new()));
            }
            let end = text
                .find(|letter: char| {
                    !(letter.is_ascii_digit() || matches!(letter, '.' | '-' | '+'))
                })
                .unwrap_or(text.len());
            (text[..end].parse().ok()?, text[end..].trim())
        }
        _ => return None,
    };
    number.is_finite().then(|| (number, unit.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> NodeMetrics {
        read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn known_ones_come_in_base_units() {
        // As sent by PM2 7.0.4 with @pm2/io 8.
        let metrics = parse(
            r#"{"Used Heap Size":{"historic":true,"unit":"MiB","type":"internal/v8/heap/used","value":"5.5"},
                "Heap Usage":{"unit":"%","type":"internal/v8/heap/usage","value":50},
                "Event Loop Latency":{"unit":"ms","type":"internal/libuv/latency/p50","value":"-0.39"},
                "Event Loop Latency p95":{"unit":"ms","type":"internal/libuv/latency/p95","value":"250"},
                "Active handles":{"type":"internal/libuv/handles","value":4},
                "HTTP":{"unit":"req/min","type":"internal/http/builtin/reqs","value":3.95}}"#,
        );
        let expected = [
            ("active_handles", 4.0),
            ("event_loop_latency", 0.0),
            ("event_loop_latency_p95", 0.25),
            ("heap_used", 5.5 * 1024.0 * 1024.0),
            ("http_rate", 3.95),
        ];
        assert_eq!(
            metrics.node.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>(),
            expected
        );
        // What has no name of its own is told as PM2 tells it.
        let usage = CustomMetric { name: "Heap Usage".into(), value: 50.0, unit: "%".into() };
        assert_eq!(metrics.custom, [usage]);
    }

    #[test]
    fn the_applications_own_keep_their_unit_wherever_it_stands() {
        let metrics = parse(
            r#"{"Queue":{"value":3},"Lag":{"value":"12.5 ms"},"Temp":{"value":"-4","unit":"C"},
                "State":{"value":"idle"},"Nothing":{"value":null},"Odd":{"value":{"a":1}},
                "Inf":{"value":"1e999"},"Unit":{"value":1,"unit":5}}"#,
        );
        let found: Vec<_> =
            metrics.custom.iter().map(|m| (m.name.as_str(), m.value, m.unit.as_str())).collect();
        assert_eq!(
            found,
            [("Lag", 12.5, "ms"), ("Queue", 3.0, ""), ("Temp", -4.0, "C"), ("Unit", 1.0, "")]
        );
    }

    #[test]
    fn their_number_is_bounded() {
        let raw = (0..1000)
            .map(|index| format!("\"m{index:04}\":{{\"value\":1}}"))
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(parse(&format!("{{{raw}}}")).custom.len(), MAX_CUSTOM);
    }
}
