//! The JSON that both programs must read and write, as files. A change here is a change of the
//! contract.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn survives<T: Serialize + DeserializeOwned>(json: &str) -> T {
    let typed: T = serde_json::from_str(json).unwrap();
    let written = serde_json::to_value(&typed).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(json).unwrap());
    typed
}

#[test]
fn state() {
    let state: wire::State = survives(include_str!("../golden/state.json"));
    assert_eq!(state.processes[0].restarts.total(), 7);
}

#[test]
fn several_homes() {
    let state: wire::State = survives(include_str!("../golden/homes.json"));
    assert_eq!(state.pm2_homes().len(), 2);
    assert_eq!(state.processes[0].instance.pm2_home.as_deref(), Some("/home/app/.pm2"));
}

#[test]
fn journal() {
    let page: wire::JournalPage = survives(include_str!("../golden/journal.json"));
    assert_eq!(page.entries.len(), 3);
}

#[test]
fn command() {
    survives::<wire::CommandRecord>(include_str!("../golden/command.json"));
}

#[test]
fn an_older_reader_takes_what_a_newer_writer_adds() {
    let json = include_str!("../golden/state.json")
        .replace("\"status\": \"stopped\"", "\"status\": \"hibernating\", \"new_field\": {}");
    let state: wire::State = serde_json::from_str(&json).unwrap();
    assert_eq!(state.processes[2].status, wire::Status::Unknown);
    let json = include_str!("../golden/journal.json").replace("\"crash\"", "\"cosmic_ray\"");
    let page: wire::JournalPage = serde_json::from_str(&json).unwrap();
    let wire::Record::Event(event) = &page.entries[1].record else { panic!() };
    assert_eq!(event.cause, Some(wire::RestartCause::Unknown));
}
