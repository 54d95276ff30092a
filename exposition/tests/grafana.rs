//! What `grafana/` says, held against the one list of metrics: a family that is renamed fails
//! here, not on somebody's dashboard. Grafana's own dashboard linter's rules are held too, with
//! `server` in the place of `job` and `instance`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use exposition::families;
use serde_json::Value;

use crate::catalogue::{ANNOUNCED, OF_THE_POLLER, catalogue, mistakes};

#[path = "grafana/catalogue.rs"]
mod catalogue;
#[path = "grafana/promql.rs"]
mod promql;

const DASHBOARDS: [(&str, &str); 5] = [
    ("app.json", "pm2-app"),
    ("fleet.json", "pm2-fleet"),
    ("poller.json", "pm2-poller"),
    ("server.json", "pm2-server"),
    ("slots.json", "pm2-slots"),
];

fn grafana(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(grafana(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn dashboard(file: &str) -> Value {
    serde_json::from_str(&read(&format!("dashboards/{file}"))).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Every expression of a dashboard, with where it stands and whether it is asked over time.
fn expressions(dashboard: &Value) -> Vec<(String, String, bool)> {
    let mut all = Vec::new();
    for variable in list(&dashboard["templating"], "list") {
        if text(variable, "type") == "query" {
            let place = format!("variable {}", text(variable, "name"));
            let (values, label) = text(variable, "definition")
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
                .unwrap_or_else(|| panic!("{place} is no label_values(selector, label)"));
            all.push((place, format!("group by ({label}) ({values})"), false));
        }
    }
    for annotation in list(&dashboard["annotations"], "list") {
        if annotation["builtIn"] != 1 {
            let place = format!("annotation {}", text(annotation, "name"));
            all.push((place, text(annotation, "expr").to_owned(), true));
        }
    }
    for panel in list(dashboard, "panels") {
        for target in list(panel, "targets") {
            let place = format!("panel {} {}", text(panel, "title"), text(target, "refId"));
            all.push((place, text(target, "expr").to_owned(), target["instant"] != true));
        }
    }
    all
}

fn complain(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} mistakes:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_announced_is_not_served_yet() {
    let served: Vec<&str> = families::ALL.iter().map(|family| family.name).collect();
    let poller = source_of(&grafana("../poller/src"));
    for (name, _) in ANNOUNCED {
        assert!(!served.contains(name), "{name} is served: take it from ANNOUNCED");
        assert!(!poller.contains(&format!("\"{name}\"")), "{name} is served: to OF_THE_POLLER");
    }
}

#[test]
fn the_poller_has_what_is_said_of_it() {
    let source = source_of(&grafana("../poller/src"));
    for (name, labels) in OF_THE_POLLER {
        assert!(source.contains(&format!("\"{name}\"")), "the poller has no {name}");
        for label in labels.iter().filter(|label| **label != "le") {
            assert!(source.contains(&format!("\"{label}\"")), "{name}: no label {label}");
        }
    }
}

fn source_of(folder: &Path) -> String {
    let read = |name: String| {
        let path = folder.join(name);
        if path.is_dir() { source_of(&path) } else { std::fs::read_to_string(path).unwrap() }
    };
    names_in(folder).into_iter().map(read).collect()
}

#[test]
fn dashboards_ask_for_metrics_and_labels_that_exist() {
    let catalogue = catalogue();
    let mut wrong = Vec::new();
    for (file, _) in DASHBOARDS {
        for (place, expression, over_time) in expressions(&dashboard(file)) {
            let mut found = mistakes(&expression, &catalogue);
            for selector in promql::read(&expression).selectors {
                found.extend(narrowness(&selector));
                found.extend(kind_of_use(&selector));
                if !selector.metric.ends_with("_total") && !selector.metric.ends_with("_bucket") {
                    continue;
                }
                match (selector.function.as_str(), selector.range.as_str()) {
                    ("rate" | "increase", "$__rate_interval") => {}
                    ("rate" | "increase", range) if !over_time && !range.is_empty() => {}
                    (function, range) => found.push(format!(
                        "{} in {function}(…[{range}]): rate or increase over $__rate_interval",
                        selector.metric
                    )),
                }
            }
            wrong.extend(found.iter().map(|what| format!("{file}, {place}: {what}")));
        }
    }
    complain(&wrong);
}

/// Every series is chosen by a variable, in the place of `job` and `instance`.
fn narrowness(selector: &promql::Selector) -> Option<String> {
    let name = selector.metric.as_str();
    // Where there is nothing to choose from yet: the variables' own queries.
    if matches!(name, "pm2_up" | "pm2_server_up" | "pm2_poller_build_info")
        && selector.labels.iter().all(|label| label == "__name__")
    {
        return None;
    }
    let label = if name.starts_with("pm2_poller_") { "instance" } else { "server" };
    // The poller's own target, of which there is no server.
    let own = name == "up" && selector.labels.contains(&"job".to_owned());
    let narrow = own || selector.labels.iter().any(|has| has == label);
    (!narrow).then(|| format!("{name} is not chosen by {label}"))
}

/// Rates are of counters, slopes of gauges.
fn kind_of_use(selector: &promql::Selector) -> Option<String> {
    let (name, function) = (selector.metric.as_str(), selector.function.as_str());
    let counts = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
    let right = match function {
        "rate" | "irate" | "increase" => counts,
        "deriv" | "delta" | "idelta" | "predict_linear" | "changes" => !counts,
        _ => true,
    };
    (!right).then(|| format!("{function} of {name}"))
}

#[test]
fn dashboards_are_whole() {
    assert_eq!(names_in(&grafana("dashboards")), DASHBOARDS.map(|(file, _)| file));
    let mut wrong = Vec::new();
    for (file, uid) in DASHBOARDS {
        let dashboard = dashboard(file);
        let mut check = |good: bool, what: &str| {
            if !good {
                wrong.push(format!("{file}: {what}"));
            }
        };
        check(text(&dashboard, "uid") == uid, "uid, which links and bookmarks rely on");
        check(!text(&dashboard, "title").is_empty(), "title");
        check(!text(&dashboard, "description").is_empty(), "description");
        check(dashboard["schemaVersion"].as_u64() >= Some(39), "schemaVersion");
        check(dashboard["graphTooltip"] == 1, "graphs do not share the moment that is pointed at");
        check(dashboard["tags"] == serde_json::json!(["pm2-fleet"]), "tags, which links go by");
        check(list(&dashboard["annotations"], "list").len() > 1, "no annotations");
        check(dashboard["editable"] == false, "is editable, and Grafana would not keep the change");
        check(dashboard.get("id").is_none(), "id, which is another in every Grafana");
        let link = &dashboard["links"][0];
        check(link["includeVars"] == true && link["keepTime"] == true, "links forget variables");
        check(link["tags"] == dashboard["tags"], "links lead elsewhere");
        let variables = list(&dashboard["templating"], "list");
        let source = &variables[0];
        check(text(source, "name") == "datasource", "the first variable is not datasource");
        check(
            text(source, "type") == "datasource" && text(source, "query") == "prometheus",
            "datasource",
        );
        check(
            variables.iter().any(|variable| text(variable, "name") == "server"),
            "no variable server",
        );
        for variable in &variables[1..] {
            let name = text(variable, "name");
            check(variable["multi"] == true && variable["includeAll"] == true, name);
            check(variable["refresh"] == 2, &format!("{name} is not read anew with the time"));
            check(text(&variable["datasource"], "uid") == "${datasource}", name);
        }
        for annotation in &list(&dashboard["annotations"], "list")[1..] {
            check(
                text(&annotation["datasource"], "uid") == "${datasource}",
                text(annotation, "name"),
            );
        }
        let everything = dashboard.to_string();
        for link in everything.split("/d/").skip(1) {
            let uid = link.split(['/', '?']).next().unwrap_or_default();
            check(DASHBOARDS.iter().any(|(_, known)| *known == uid), &format!("a link to {uid}"));
        }
    }
    complain(&wrong);
}

#[test]
fn panels_explain_themselves() {
    let mut wrong = Vec::new();
    for (file, _) in DASHBOARDS {
        let dashboard = dashboard(file);
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            let mut check = |good: bool, what: &str| {
                if !good {
                    wrong.push(format!("{file}, {title:?}: {what}"));
                }
            };
            check(!title.is_empty(), "has no title");
            check(ids.insert(panel["id"].as_u64()), "has another panel's id");
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            check(x + w <= 24, "is wider than the page");
            let place = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
            check(place.filter(|cell| !cells.insert(*cell)).count() == 0, "lies on another panel");
            if text(panel, "type") == "row" {
                continue;
            }
            check(text(panel, "description").ends_with('.'), "has no description");
            check(text(&panel["datasource"], "uid") == "${datasource}", "has its own data source");
            check(!list(panel, "targets").is_empty(), "asks for nothing");
            let over_time = ["timeseries", "state-timeline"].contains(&text(panel, "type"));
            for target in list(panel, "targets") {
                check(text(&target["datasource"], "uid") == "${datasource}", "asks elsewhere");
                let legend = text(target, "legendFormat");
                check(!over_time || !["", "__auto"].contains(&legend), "has no legend");
                for label in untold(text(target, "expr"), legend) {
                    check(false, &format!("the legend does not tell series apart by {label}"));
                }
                check(
                    over_time != (target["instant"] == true),
                    "asks for a moment where it shows time, or the reverse",
                );
            }
            let defaults = &panel["fieldConfig"]["defaults"];
            for what in certain_of_nothing(panel) {
                check(false, what);
            }
            check(!text(defaults, "unit").is_empty(), "has no unit");
            check(!list(&defaults["thresholds"], "steps").is_empty(), "has no thresholds");
            let overrides = list(&panel["fieldConfig"], "overrides").iter();
            let more = overrides
                .flat_map(|field| list(field, "properties"))
                .filter(|property| property["id"] == "mappings")
                .flat_map(|property| list(property, "value"));
            for mapping in list(defaults, "mappings").iter().chain(more) {
                let results: Vec<&Value> = match text(mapping, "type") {
                    "value" => mapping["options"].as_object().unwrap().values().collect(),
                    _ => vec![&mapping["options"]["result"]],
                };
                let words = results.iter().all(|result| !text(result, "text").is_empty());
                check(words, "says something by colour alone");
            }
        }
    }
    complain(&wrong);
}

/// Labels of an expression's series that a legend, if there is one, leaves out.
fn untold<'a>(expression: &'a str, legend: &str) -> Vec<&'a str> {
    // The first grouping is the outermost.
    let grouping = expression.split_once(" by (").and_then(|(_, rest)| rest.split_once(')'));
    let labels = grouping.map_or("", |(labels, _)| labels).split(", ");
    let told = |label: &&str| legend.contains(&format!("{{{{{label}}}}}"));
    labels
        .filter(|label| !legend.is_empty() && !["", "le"].contains(label) && !told(label))
        .collect()
}

/// How a panel speaks of what is not known as if it were known.
fn certain_of_nothing(panel: &Value) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let defaults = &panel["fieldConfig"]["defaults"];
    let asked: Vec<&str> =
        list(panel, "targets").iter().map(|target| text(target, "expr")).collect();
    if text(panel, "type") == "stat" {
        let noughts = |asked: &&str| asked.contains("vector(0)") && !asked.contains(" and on () ");
        if asked.iter().any(noughts) {
            wrong.push("says 0 when nothing is known");
        }
        if text(defaults, "noValue").is_empty() {
            wrong.push("has no word for what is not known");
        }
        // Grafana gives what is not there the first colour.
        let first = text(&defaults["thresholds"]["steps"][0], "color");
        let nothing = |mapping: &Value| mapping["options"]["match"] == "null+nan";
        if first == "green" && !list(defaults, "mappings").iter().any(nothing) {
            wrong.push("is green when nothing is known");
        }
    }
    let whole = |asked: &&str| {
        asked.contains("up{job=\"pm2-poller\"}) == 0") && asked.contains("absent(pm2_up or ")
    };
    if text(defaults, "noValue") == "Nothing is wrong" && !asked.iter().all(whole) {
        wrong.push("finds nothing wrong when nothing is scraped");
    }
    wrong
}

/// The alerts of `alerts.yml`: name and text of each. The file's form is plain enough to be read
/// by its lines; that it is YAML, promtool checks.
fn alerts() -> Vec<(String, String)> {
    let file = read("prometheus/alerts.yml");
    let parts = file.split("- alert: ").skip(1);
    parts
        .map(|part| {
            let (name, rest) = part.split_once('\n').unwrap();
            (name.to_owned(), rest.split("\n  - name: ").next().unwrap_or_default().to_owned())
        })
        .collect()
}

/// The value of a key: the rest of its line, or the indented lines that follow.
fn value(block: &str, key: &str) -> String {
    let mut lines = block.lines().skip_while(|line| !line.trim_start().starts_with(key));
    let Some(first) = lines.next() else { return String::new() };
    let depth = |line: &str| line.len() - line.trim_start().len();
    match first.trim_start()[key.len()..].trim() {
        ">-" => {
            let lines = lines.take_while(|line| depth(line) > depth(first));
            lines.map(str::trim).collect::<Vec<_>>().join(" ")
        }
        text => text.to_owned(),
    }
}

#[test]
fn alerts_are_explained_and_tested_both_ways() {
    let catalogue = catalogue();
    let tests: String = names_in(&grafana("prometheus/tests"))
        .iter()
        .map(|name| read(&format!("prometheus/tests/{name}")))
        .collect();
    let mut wrong = Vec::new();
    let alerts = alerts();
    assert!(alerts.len() >= 18);
    for (name, block) in &alerts {
        let mut found = mistakes(&value(block, "expr:"), &catalogue);
        let mut check = |good: bool, what: &str| {
            if !good {
                found.push(what.to_owned());
            }
        };
        let severity = value(block, "severity:");
        check(["critical", "warning"].contains(&severity.as_str()), "severity");
        check(!value(block, "summary:").is_empty(), "summary");
        let description = value(block, "description:");
        let last = description.trim_end_matches("{{- end }}").trim_end();
        check(description.contains("$labels") && last.ends_with('.'), "description");
        let url = value(block, "runbook_url:");
        check(url.ends_with(&format!("/runbooks/{name}.md")), "runbook_url");
        let page = std::fs::read_to_string(grafana(&format!("runbooks/{name}.md")));
        let page = page.unwrap_or_default();
        check(page.starts_with(&format!("# {name}\n")), "runbook");
        for part in ["Meaning", "Impact", "Diagnosis", "Mitigation"] {
            check(page.contains(&format!("\n## {part}\n")), &format!("runbook: {part}"));
        }
        check(page.contains("```promql") || page.contains("```sh"), "runbook: nothing to type");
        for query in page.split("```promql\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            for line in query.lines().filter(|line| !line.trim().is_empty()) {
                // Who is scraped both ways has two of each.
                let adds = line.contains("sum by (") && !line.contains("_poller_");
                check(!adds || line.contains("max by ("), "runbook: counts series twice");
                for what in mistakes(line, &catalogue) {
                    check(false, &format!("runbook: {what}"));
                }
            }
        }
        // Each case names the alert, then what is expected of it.
        let asked = format!("alertname: {name}\n");
        let cases: Vec<&str> = tests.split(&asked).skip(1).map(str::trim_start).collect();
        let fires = |case: &&str| {
            let expected = case.strip_prefix("exp_alerts:\n").unwrap_or_default().trim_start();
            expected.starts_with("- exp_labels:")
        };
        let quiet = |case: &&str| case.starts_with("exp_alerts: []\n");
        check(cases.iter().all(|case| fires(case) || quiet(case)), "a test that expects nothing");
        check(cases.iter().any(fires), "no test where it fires");
        check(cases.iter().any(quiet), "no test where it stays quiet");
        wrong.extend(found.iter().map(|what| format!("{name}: {what}")));
    }
    let pages = names_in(&grafana("runbooks"));
    for page in pages.iter().filter_map(|page| page.strip_suffix(".md")) {
        if !alerts.iter().any(|(name, _)| name == page) {
            wrong.push(format!("runbooks/{page}.md is of no alert"));
        }
    }
    complain(&wrong);
}

/// A server that goes away takes its series along: until Pm2ServerDown fires, what they said stays
/// told, and from then on that alert stands for it.
#[test]
fn alerts_of_a_server_stay_until_the_server_itself_is_told() {
    let minutes = |text: &str| text.strip_suffix('m').and_then(|text| text.parse::<u64>().ok());
    let alerts = alerts();
    let (_, down) = alerts.iter().find(|(name, _)| name == "Pm2ServerDown").unwrap();
    let down = minutes(&value(down, "for:")).unwrap();
    let alertmanager = read("alertmanager.yml");
    let rules = alertmanager.split("source_matchers: ");
    let stands_for = rules.filter_map(|rule| rule.strip_prefix("['alertname=\"Pm2ServerDown\"']"));
    let stands_for: Vec<&str> = stands_for.flat_map(|rule| rule.split(['"', '|'])).collect();
    let mut wrong = Vec::new();
    for (name, block) in &alerts {
        let read = promql::read(&value(block, "expr:"));
        let of = |start: &str| read.selectors.iter().any(|it| it.metric.starts_with(start));
        let of_exporter = ["pm2_up", "pm2_process_", "cause:", "pm2_slot_", "pm2_dump_"];
        let of_exporter = of_exporter.iter().chain(&["pm2_host_", "pm2_exporter_"]);
        // What the poller tells of a server stays with the poller, but for what is known of one
        // that answers only.
        let goes = of_exporter.into_iter().any(|start| of(start)) && !of("pm2_server_");
        let goes = goes || of("pm2_server_clock_");
        let kept = minutes(&value(block, "keep_firing_for:"));
        if goes && kept.is_none_or(|kept| kept <= down) {
            wrong.push(format!("{name} is over before Pm2ServerDown fires"));
        }
        if goes != stands_for.contains(&name.as_str()) {
            wrong.push(format!("{name}: alertmanager.yml, Pm2ServerDown stands for it: {}", !goes));
        }
        if !goes && kept.is_some() {
            wrong.push(format!("{name} is kept, and its series stay"));
        }
    }
    complain(&wrong);
}

/// What Prometheus alerts on and what the poller notifies of are the same, in the same order.
#[test]
fn alerts_are_those_of_the_one_list() {
    let of_file: Vec<[String; 4]> = alerts()
        .into_iter()
        .map(|(name, block)| {
            let hold = match value(&block, "for:").as_str() {
                "" => "0m".to_owned(),
                hold => hold.to_owned(),
            };
            let summary = value(&block, "summary:");
            let summary = summary.trim_matches('"').replace("{{ or ", "{").replace("{{ ", "{");
            let summary = summary.replace(" $labels.", "|").replace("$labels.", "");
            [name, value(&block, "severity:"), hold, summary.replace(" }}", "}")]
        })
        .collect();
    let of_list: Vec<[String; 4]> = exposition::alerts::ALL
        .iter()
        .map(|alert| {
            let hold = format!("{}m", alert.hold.as_secs() / 60);
            [alert.name.into(), alert.severity.as_str().into(), hold, alert.summary.into()]
        })
        .collect();
    assert_eq!(of_file, of_list);
}

/// Without it, a token is made in a new database where somebody happens to stand.
#[test]
fn commands_that_need_the_configuration_name_it() {
    let runbooks =
        names_in(&grafana("runbooks")).into_iter().map(|name| format!("runbooks/{name}"));
    let configurations = names_in(&grafana("prometheus")).into_iter();
    let configurations = configurations.filter(|name| name.contains('.'));
    let files = runbooks.chain(configurations.map(|name| format!("prometheus/{name}")));
    for file in files.chain(["README.md".to_owned(), "alertmanager.yml".to_owned()]) {
        let text = read(&file);
        for (command, _) in text.match_indices("pm2-poller token ") {
            let words: Vec<&str> = text[command..].split_whitespace().take(4).collect();
            assert_eq!(words.get(3), Some(&"--config"), "{file}: {words:?}");
        }
    }
}

#[test]
fn alerts_that_are_spoken_of_exist() {
    let alerts = alerts();
    let mut files = vec!["README.md".to_owned(), "alertmanager.yml".to_owned()];
    for folder in ["dashboards", "runbooks", "prometheus"] {
        let names = names_in(&grafana(folder)).into_iter();
        files
            .extend(names.filter(|name| name.contains('.')).map(|name| format!("{folder}/{name}")));
    }
    for file in files {
        for rest in read(&file).split("Pm2").skip(1) {
            let end =
                rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let name = format!("Pm2{}", &rest[..end]);
            let known = end == 0 || alerts.iter().any(|(alert, _)| *alert == name);
            assert!(known, "{file} speaks of {name}");
        }
    }
}

fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let output = Command::new("promtool").args(arguments).args(files).output();
    let output = output.unwrap_or_else(|error| {
        panic!("promtool is needed, and cannot be run ({error}): e2e/setup/debian prometheus")
    });
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_finds_rules_and_configurations_right() {
    let rules = ["alerts.yml", "recording.yml"].map(|file| grafana(&format!("prometheus/{file}")));
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &rules);
    for file in ["prometheus.yml", "prometheus-sd.yml"] {
        // The token files that they name are not here.
        promtool(&["check", "config", "--syntax-only"], &[grafana(&format!("prometheus/{file}"))]);
    }
    let tests = names_in(&grafana("prometheus/tests"));
    let tests = tests.iter().map(|file| grafana(&format!("prometheus/tests/{file}")));
    promtool(&["test", "rules"], &tests.collect::<Vec<_>>());
}

#[test]
fn promtool_reads_every_expression_of_the_dashboards() {
    // As rules, which is the one form that promtool checks without a server.
    let mut rules = Vec::new();
    for (file, _) in DASHBOARDS {
        for (place, expression, _) in expressions(&dashboard(file)) {
            let expression = expression.replace("$__rate_interval", "1m").replace("$__range", "1h");
            let labels = serde_json::json!({"place": format!("{file}, {place}")});
            let rule =
                serde_json::json!({"record": "checked", "expr": expression, "labels": labels});
            rules.push(rule);
        }
    }
    assert!(rules.len() > 100);
    // JSON is YAML.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboards.yml");
    let groups = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).unwrap();
    promtool(&["check", "rules"], &[file]);
}
