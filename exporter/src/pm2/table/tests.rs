use super::*;
use crate::filter::Filter;
use crate::pm2::custom::NodeMetrics;
use crate::pm2::model::{self, DaemonLine, Kept, ProcessEvent};
use wire::{Process, Readings, RestartCounts};

mod lists;
mod numbers;
mod restarts;

const BUS: &str = include_str!("../../../tests/captures/pm2-7.0.4-bus.txt");

/// Plays a recording of PM2 7.0.4: start of `api` and of cluster app `clus`, reload of `clus`,
/// `kill -9` of `api`, `pm2 stop api`, start of `crash` that throws and may restart once.
fn play(table: &mut Table) -> Vec<Event> {
    let mut events = Vec::new();
    for line in BUS.lines() {
        let (topic, body) = line.split_once(" j:").unwrap();
        let outcome = match topic {
            "s:process:event" => {
                let event = model::process_event(body.as_bytes()).unwrap().unwrap();
                let id = event.process.pm_id;
                let outcome = table.process_event(event);
                table.set_pid(id, 1000 + id);
                outcome
            }
            "s:log:PM2" => match model::daemon_line(body.as_bytes()) {
                Some(line) => table.daemon_line(line),
                None => continue,
            },
            "s:process:exception" => {
                table.exception(model::exception(body.as_bytes()).unwrap().unwrap())
            }
            _ => continue,
        };
        events.extend(outcome.events.into_iter().map(|(_, event)| event));
    }
    events
}

fn of<'a>(events: &'a [Event], app: &str) -> Vec<&'a Event> {
    events.iter().filter(|event| event.app.as_deref() == Some(app)).collect()
}

fn kinds(events: &[&Event]) -> Vec<String> {
    events.iter().map(|event| event.kind.to_string()).collect()
}

fn process(table: &Table, name: &str) -> Process {
    let mut all = table.processes(|_| Readings::default());
    all.retain(|process| process.instance.name.as_str() == name);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_kill_is_told_once_with_its_signal_and_counted_as_a_crash() {
    let mut table = Table::default();
    let events = play(&mut table);
    let api = of(&events, "api");
    assert_eq!(kinds(&api), ["online", "start", "exit", "online", "exit", "stop"]);
    assert_eq!((api[2].exit_code, api[2].signal.as_deref()), (None, Some("SIGKILL")));
    assert_eq!(
        (api[2].cause, api[3].cause),
        (Some(RestartCause::Crash), Some(RestartCause::Crash))
    );
    assert_eq!(api[4].cause, Some(RestartCause::Manual));
    let api = process(&table, "api");
    assert_eq!(api.status, Status::Stopped);
    assert_eq!(api.restarts, RestartCounts { crash: 1, ..RestartCounts::default() });
    assert_eq!((api.pid, api.started_at), (None, None));
}

#[test]
fn a_cluster_reload_is_a_reload_and_leaves_the_new_worker() {
    let mut table = Table::default();
    let events = play(&mut table);
    let clus = of(&events, "clus");
    assert_eq!(kinds(&clus), ["online", "start", "online", "exit", "reload"]);
    assert_eq!(clus[3].cause, Some(RestartCause::Reload));
    let clus = process(&table, "clus");
    assert_eq!((clus.status, clus.restarts.reload, clus.restarts.total()), (Status::Online, 1, 1));
}

#[test]
fn a_crash_loop_ends_errored_with_its_exit_told_first() {
    let mut table = Table::default();
    let events = play(&mut table);
    let crash = of(&events, "crash");
    assert_eq!(kinds(&crash), ["online", "start", "exception", "exit", "errored"]);
    assert_eq!((crash[3].exit_code, crash[3].signal.as_deref()), (Some(1), None));
    let crash = process(&table, "crash");
    assert_eq!((crash.status, crash.exceptions), (Status::Errored, 1));
    assert_eq!(crash.last_exit.unwrap().code, Some(1));
}

fn told(outcome: &Outcome) -> Vec<(String, Option<RestartCause>, Severity)> {
    let events = outcome.events.iter().map(|(_, event)| event);
    events.map(|event| (event.kind.to_string(), event.cause, event.severity)).collect()
}

fn listed(pm_id: u32, name: &str, started: i64, restart_time: u64) -> Listed {
    Listed {
        pm_id,
        name: name.parse().unwrap(),
        namespace: "default".into(),
        pid: Some(100 + pm_id),
        status: Status::Online,
        started_at: Some(Time::from_millis(started)),
        restart_time,
        exec_mode: "fork",
        interpreter: "node".into(),
        node_version: "20".into(),
        version: "1".into(),
        pid_file: "".into(),
        out_log: "".into(),
        err_log: "".into(),
        is_module: false,
        is_placeholder: false,
        exit_code: None,
        autorestart: true,
        ended_as_told: false,
        kept: Kept::default(),
        metrics: NodeMetrics::default(),
    }
}

fn list(table: &mut Table, list: &[Listed]) -> Outcome {
    let heard = table.heard();
    table.list(list.to_vec(), heard, Time::from_millis(0))
}

fn said(table: &mut Table, event: &str, status: Status, listed: &Listed) -> Outcome {
    let process = Listed { status, pid: None, ..listed.clone() };
    table.process_event(ProcessEvent {
        event: event.into(),
        manually: false,
        at: Time::from_millis(0),
        outgoing: false,
        process,
    })
}

/// What PM2 says over the bus when it is asked over the socket: no word of who asked.
fn ended_by_request(table: &mut Table, process: &Listed) {
    said(table, "exit", Status::Stopping, process);
    said(table, "exit", Status::Stopped, process);
}

#[test]
fn an_app_that_is_filtered_out_leaves_no_trace() {
    let exclude = vec!["secret*".to_owned()];
    let filter = Filter { exclude, modules: false, ..Filter::default() };
    let mut table = Table::new(filter);
    let (hidden, shown) = (listed(0, "secret-app", 10, 0), listed(1, "api", 10, 0));
    let module = Listed { is_module: true, ..listed(2, "pm2-logrotate", 10, 0) };
    list(&mut table, &[hidden.clone(), shown, module]);
    assert_eq!(table.processes(|_| Readings::default()).len(), 1);
    let told = said(&mut table, "exit", Status::Stopped, &hidden);
    assert_eq!(told, Outcome::default());
    let told = said(&mut table, "online", Status::Launching, &hidden);
    assert_eq!(told, Outcome::default());
    assert!(table.pm_ids(&hidden.name).is_empty());
}

#[test]
fn online_without_a_process_is_said_so() {
    let mut table = Table::default();
    list(&mut table, &[Listed { pid: None, ..listed(0, "bad", 10, 0) }]);
    let bad = process(&table, "bad");
    assert!(bad.online_without_pid && bad.readings.memory_bytes.is_none());
}

#[test]
fn memory_over_the_limit_is_the_cause() {
    let mut table = Table::default();
    let old = listed(0, "api", 10, 0);
    list(&mut table, std::slice::from_ref(&old));
    table.daemon_line(DaemonLine::OverMemory { pm_id: 0 });
    said(&mut table, "exit", Status::Stopping, &old);
    said(&mut table, "online", Status::Launching, &listed(0, "api", 20, 1));
    assert_eq!(process(&table, "api").restarts.oom, 1);
}

/// PM2 reloads what is over its limit in cluster mode: the new worker comes before the old one ends.
#[test]
fn memory_over_the_limit_is_the_cause_in_cluster_mode_too() {
    let mut table = Table::default();
    let (old, new) = (listed(0, "api", 10, 0), listed(0, "api", 20, 1));
    list(&mut table, std::slice::from_ref(&old));
    table.daemon_line(DaemonLine::OverMemory { pm_id: 0 });
    said(&mut table, "online", Status::Launching, &new);
    let process_now = Listed { status: Status::Stopping, pid: None, ..old };
    let ended = table.process_event(ProcessEvent {
        event: "exit".into(),
        manually: false,
        at: Time::from_millis(0),
        outgoing: true,
        process: process_now,
    });
    let expected = ("exit".to_owned(), Some(RestartCause::Oom), Severity::Warning);
    assert_eq!(told(&ended), [expected]);
    let restarts = process(&table, "api").restarts;
    assert_eq!((restarts.oom, restarts.total()), (1, 1));
}
