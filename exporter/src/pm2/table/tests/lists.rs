//! Lists that are older or newer than what the bus told.

use super::*;

#[test]
fn a_list_made_while_a_worker_is_being_started_counts_nothing() {
    let mut table = Table::default();
    let (old, new) = (listed(0, "api", 10, 0), listed(0, "api", 20, 1));
    list(&mut table, std::slice::from_ref(&old));
    let launching = Listed { status: Status::Launching, pid: None, ..new.clone() };
    assert!(list(&mut table, &[launching]).events.is_empty());
    table.set_pid(0, 100);
    said(&mut table, "online", Status::Launching, &new);
    list(&mut table, std::slice::from_ref(&new));
    assert_eq!(process(&table, "api").restarts.total(), 0);
    let exit = Listed { status: Status::Stopping, ..old };
    table.process_event(ProcessEvent {
        event: "exit".into(),
        manually: false,
        at: Time::from_millis(0),
        outgoing: true,
        process: exit,
    });
    assert_eq!(process(&table, "api").restarts, RestartCounts { reload: 1, ..Default::default() });
}

#[test]
fn a_list_that_is_quicker_than_the_bus_tells_the_start_once() {
    // PM2 5 answers a restart before its bus tells of it.
    let mut table = Table::default();
    let (old, new) = (listed(0, "api", 10, 0), listed(0, "api", 20, 1));
    list(&mut table, std::slice::from_ref(&old));
    said(&mut table, "exit", Status::Stopped, &old);
    let outcome = list(&mut table, std::slice::from_ref(&new));
    assert_eq!(outcome.events[0].1.kind, EventKind::ONLINE);
    assert!(said(&mut table, "online", Status::Launching, &new).events.is_empty());
    assert_eq!(process(&table, "api").restarts, RestartCounts { crash: 1, ..Default::default() });
}

#[test]
fn a_list_older_than_an_event_does_not_undo_it() {
    let mut table = Table::default();
    let old = listed(0, "api", 10, 0);
    list(&mut table, std::slice::from_ref(&old));
    let asked_at = table.heard();
    said(&mut table, "exit", Status::Stopped, &old);
    said(&mut table, "online", Status::Launching, &listed(0, "api", 20, 1));
    let outcome = table.list(vec![old], asked_at, Time::from_millis(0));
    assert!(outcome.list_within.is_some() && outcome.events.is_empty());
    let api = process(&table, "api");
    assert_eq!((api.restarts.crash, api.restarts.total()), (1, 1));
}

#[test]
fn a_list_with_the_run_after_an_end_is_newer_than_the_end_that_comes_late() {
    let mut table = Table::default();
    let (before, after) = (listed(0, "api", 1_000, 0), listed(0, "api", 2_000, 1));
    list(&mut table, std::slice::from_ref(&before));
    let heard = table.heard();
    table.intend(&before.name, Some(Intent::Restart(RestartCause::Manual)));
    // PM2 has restarted it and says so in its list, and the bus has only come as far as the end.
    ended_by_request(&mut table, &before);
    assert_eq!(process(&table, "api").status, Status::Stopped);
    let outcome = table.list(vec![after.clone()], heard, Time::from_millis(0));
    assert!(!outcome.drifted);
    let api = process(&table, "api");
    assert_eq!((api.status, api.started_at), (Status::Online, after.started_at));
    assert_eq!(api.restarts, RestartCounts { manual: 1, ..RestartCounts::default() });
    // When the bus comes to the start, nothing is told or counted twice.
    assert_eq!(said(&mut table, "online", Status::Online, &after).events, []);
    assert_eq!(process(&table, "api").restarts.total(), 1);
    // An end of that run in turn is newer than the list that was made before it.
    said(&mut table, "exit", Status::Stopped, &after);
    table.list(vec![after], heard, Time::from_millis(0));
    assert_eq!(process(&table, "api").status, Status::Stopped);
}

#[test]
fn a_start_that_pm2_is_late_to_tell_is_told_once_and_in_its_place() {
    let run = |number: i64| listed(0, "api", 1_000 * number, 0);
    let told = |outcome: Outcome| -> Vec<String> {
        outcome.events.iter().map(|(_, event)| event.kind.to_string()).collect()
    };
    let mut table = Table::default();
    list(&mut table, &[run(1)]);
    // It ran before anybody looked.
    assert_eq!(told(said(&mut table, "online", Status::Online, &run(1))), [""; 0]);
    assert_eq!(told(said(&mut table, "exit", Status::Stopped, &run(1))), ["exit"]);
    // The second run is over before PM2 tells of its start, which it then never does.
    assert_eq!(told(said(&mut table, "exit", Status::Stopped, &run(2))), ["online", "exit"]);
    assert_eq!(process(&table, "api").restarts.crash, 1);
    // Or does afterwards.
    assert_eq!(told(said(&mut table, "online", Status::Online, &run(2))), [""; 0]);
    assert_eq!(process(&table, "api").status, Status::Stopped);
    assert_eq!(told(said(&mut table, "exit", Status::Stopped, &run(2))), [""; 0]);
    assert_eq!(told(said(&mut table, "online", Status::Online, &run(3))), ["online"]);
    assert_eq!(told(said(&mut table, "online", Status::Online, &run(3))), [""; 0]);
    assert_eq!(process(&table, "api").restarts.total(), 2);
    // What starts later than the first list is told.
    let new = listed(1, "new", 5_000, 0);
    list(&mut table, &[run(3), new.clone()]);
    assert_eq!(told(said(&mut table, "online", Status::Online, &new)), ["online"]);
}
