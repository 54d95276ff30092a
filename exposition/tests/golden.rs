//! All of a metrics page, in both formats, as files: what Prometheus sees is read here line by
//! line before it changes. `UPDATE_GOLDEN=1 cargo test -p exposition` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use exposition::{Format, Labels, Source, Writer, write_states};

fn page(format: Format, labels: &Labels) -> String {
    let state: wire::State =
        serde_json::from_str(include_str!("../../wire/golden/state.json")).unwrap();
    let mut writer = Writer::new(format);
    write_states(&mut writer, &[Source { labels, state: &state }]);
    writer.finish()
}

fn check(name: &str, page: &str) {
    let path = format!("{}/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (at, (found, expected)) in page.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name}, line {}", at + 1);
    }
    assert_eq!(page.len(), expected.len(), "{name}");
}

#[test]
fn text() {
    check("metrics.txt", &page(Format::Text, &Labels::default()));
}

#[test]
fn openmetrics_with_a_server() {
    check("metrics.om", &page(Format::OpenMetrics, &Labels::new([("server", "vm1-prod")])));
}

#[test]
fn several_homes_are_told_apart_by_a_label() {
    let state: wire::State =
        serde_json::from_str(include_str!("../../wire/golden/homes.json")).unwrap();
    let mut writer = Writer::new(Format::Text);
    write_states(&mut writer, &[Source { labels: &Labels::default(), state: &state }]);
    let page = writer.finish();
    for line in [
        "pm2_up{pm2_home=\"/home/app/.pm2\"} 1",
        "pm2_up{pm2_home=\"/home/web/.pm2\"} 0",
        "pm2_info{pm2_home=\"/home/app/.pm2\",version=\"7.0.4\"} 1",
        "pm2_process_up{name=\"api\",namespace=\"default\",instance_id=\"0\",pm2_home=\"/home/app/.pm2\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
}

#[test]
fn a_process_has_at_most_thirty_series() {
    // TARGETS C3; the application's own metrics have a bound of their own.
    let page = page(Format::Text, &Labels::default());
    let series = page.lines().filter(|line| line.contains("name=\"api\""));
    let series = series.filter(|line| !line.starts_with("pm2_process_custom"));
    assert_eq!(series.count(), 30);
}

#[test]
fn no_number_of_a_process_or_version_stands_on_a_value() {
    for line in page(Format::Text, &Labels::default()).lines() {
        if !line.contains("_info{") {
            assert!(!line.contains("pm_id=") && !line.contains("version="), "{line}");
        }
    }
}
