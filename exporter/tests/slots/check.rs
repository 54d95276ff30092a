use std::collections::BTreeSet;

use e2e::{SOON, wait_until};
use serde_json::Value;

use crate::stage::Stage;

/// What `check --json` says of slots: level and message.
fn findings(stage: &Stage) -> (Vec<(String, String)>, bool) {
    let (out, _, well) = stage.run(&["check", "--json"]);
    let value: Value = serde_json::from_str(&out).unwrap();
    let all = value["findings"].as_array().unwrap().iter();
    // Whether the machine starts PM2 at boot and has room is not the test's matter.
    let of_slots = all.filter(|one| {
        ["slot", "ecosystem", "rotation", "daemon"].contains(&one["what"].as_str().unwrap())
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (of_slots.map(|one| (text(&one["level"]), text(&one["message"]))).collect(), well)
}

#[tokio::test]
async fn check_says_what_is_wrong_with_slots_in_words_json_and_exit_code() {
    let stage = Stage::new().await;
    // `slots up` does not wait for what it started to listen.
    let answers = |port: &u16| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok();
    let all_answer = async || stage.ports.values().all(answers).then_some(());
    wait_until("both slots answer", SOON, all_answer).await.unwrap();
    let (all, _) = findings(&stage);
    let levels: BTreeSet<&str> = all.iter().map(|(level, _)| level.as_str()).collect();
    assert_eq!(levels, BTreeSet::from(["ok"]), "{all:#?}");
    for (name, port) in &stage.ports {
        let wanted = format!("slot-{name} is online and answers on port {port}");
        assert!(all.iter().any(|(_, message)| *message == wanted), "{all:#?}");
    }
    assert!(all.iter().any(|(_, message)| message.contains("ecosystem.config.js loads")));
    assert!(all.iter().any(|(_, message)| message.contains("rotates logs")));
    // Each thing that can be wrong, at once.
    stage.pm2.cli(&["stop", "slot-a"]).await.unwrap();
    std::fs::write(stage.root().join("ecosystem.config.js"), "module.exports = {apps: [").unwrap();
    std::fs::write(stage.root().join("state/b.json"), "{").unwrap();
    let (all, well) = findings(&stage);
    assert!(!well);
    for wanted in
        ["slot-a is stopped", "ecosystem.config.js does not load", "b.json makes no sense"]
    {
        let found = all.iter().find(|(_, message)| message.contains(wanted));
        assert_eq!(found.map(|(level, _)| level.as_str()), Some("problem"), "{wanted}: {all:#?}");
    }
    let (text, error, well) = stage.run(&["check"]);
    assert!(!well && error.contains("problem"), "{error}");
    let line = text.lines().find(|line| line.contains("slot-a is stopped")).unwrap();
    assert!(line.starts_with("problem  slot ") && line.contains("slots up"), "{line}");
    // Without a daemon that is the one thing to be told.
    stage.pm2.kill_daemon().unwrap();
    let (all, well) = findings(&stage);
    assert!(!well && all.iter().any(|(level, _)| level == "problem"), "{all:#?}");
}
