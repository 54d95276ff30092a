//! Which process goes on with which series.

use super::*;

#[test]
fn a_redeploy_continues_the_series_under_another_pm_id() {
    let mut table = Table::default();
    let (old, new) = (listed(4, "slot-a", 10, 0), listed(9, "slot-a", 20, 0));
    list(&mut table, std::slice::from_ref(&old));
    said(&mut table, "exit", Status::Stopping, &old);
    said(&mut table, "exit", Status::Stopped, &old);
    let told = said(&mut table, "online", Status::Launching, &new);
    assert_eq!(told.events[0].1.instance_id, Some(0));
    let outcome = list(&mut table, &[new]);
    assert_eq!(outcome.events[0].1.kind, EventKind::DELETE);
    let process = process(&table, "slot-a");
    assert_eq!((process.pm_id, process.instance.instance_id), (9, 0));
}

/// `pm2 stop`, of which the bus says so.
fn stopped(table: &mut Table, process: &Listed) -> Listed {
    ended_by_request(table, process);
    said(table, "stop", Status::Stopped, process);
    Listed { status: Status::Stopped, pid: None, ..process.clone() }
}

#[test]
fn what_was_stopped_or_given_up_and_is_deleted_leaves_its_number_to_the_next() {
    let mut table = Table::default();
    let shown = |table: &Table| -> Vec<(u32, u32)> {
        let all = table.processes(|_| Readings::default());
        all.iter().map(|process| (process.pm_id, process.instance.instance_id)).collect()
    };
    let (one, two) = (listed(1, "web", 10, 0), listed(2, "web", 10, 0));
    list(&mut table, &[one.clone(), two.clone()]);
    let (one, two) = (stopped(&mut table, &one), stopped(&mut table, &two));
    list(&mut table, &[one.clone(), two.clone()]);
    assert_eq!(shown(&table), [(1, 0), (2, 1)]);
    // `pm2 delete` of what does not run says nothing.
    let (three, four) = (listed(3, "web", 20, 0), listed(4, "web", 20, 0));
    said(&mut table, "online", Status::Launching, &three);
    assert_eq!(shown(&table), [(3, 0), (2, 1)]);
    // The list is made while the second is being started.
    let launching = Listed { status: Status::Launching, pid: None, ..four.clone() };
    list(&mut table, &[three.clone(), launching]);
    said(&mut table, "online", Status::Launching, &four);
    list(&mut table, &[three.clone(), four.clone()]);
    assert_eq!(shown(&table), [(3, 0), (4, 1)]);
    // PM2 gave up on one.
    said(&mut table, "restart overlimit", Status::Errored, &four);
    said(&mut table, "exit", Status::Errored, &four);
    said(&mut table, "online", Status::Launching, &listed(5, "web", 30, 0));
    list(&mut table, &[three, listed(5, "web", 30, 0)]);
    assert_eq!(shown(&table), [(3, 0), (5, 1)]);
    let all = table.processes(|_| Readings::default());
    assert!(all.iter().all(|process| process.restarts.total() == 0), "{all:?}");
}

#[test]
fn what_does_not_run_and_is_there_keeps_apart() {
    let mut table = Table::default();
    let all: Vec<Listed> = (0..3).map(|pm_id| listed(pm_id, "web", 10, 0)).collect();
    let down = |listed: &Listed| Listed { status: Status::Stopped, pid: None, ..listed.clone() };
    let first: Vec<Listed> = all.iter().map(down).collect();
    list(&mut table, &first);
    let numbers = |table: &Table| -> Vec<(u32, u32)> {
        let all = table.processes(|_| Readings::default());
        all.iter().map(|p| (p.pm_id, p.instance.instance_id)).collect()
    };
    assert_eq!(numbers(&table), [(0, 0), (1, 1), (2, 2)]);
    // One more that runs takes the first number until a list says that its holder is there.
    let new = listed(7, "web", 30, 0);
    said(&mut table, "online", Status::Launching, &new);
    list(&mut table, &[&first[..], &[new]].concat());
    assert_eq!(numbers(&table), [(7, 0), (1, 1), (2, 2), (0, 3)]);
}

#[test]
fn a_number_that_pm2_gives_to_another_app_is_that_apps() {
    for by_list in [false, true] {
        let mut table = Table::default();
        let old = listed(0, "old", 10, 0);
        list(&mut table, std::slice::from_ref(&old));
        stopped(&mut table, &old);
        let new = listed(0, "new", 20, 0);
        if !by_list {
            said(&mut table, "online", Status::Launching, &new);
        }
        list(&mut table, &[new]);
        let all = table.processes(|_| Readings::default());
        let names: Vec<&str> = all.iter().map(|process| process.instance.name.as_str()).collect();
        assert_eq!(names, ["new"]);
    }
}

#[test]
fn same_names_stay_apart_and_keep_their_numbers() {
    let mut table = Table::default();
    let all: Vec<Listed> = (0..3).map(|pm_id| listed(pm_id, "web", 10, 0)).collect();
    list(&mut table, &all);
    let numbers = |table: &Table| -> Vec<(u32, u32)> {
        let all = table.processes(|_| Readings::default());
        all.iter().map(|p| (p.pm_id, p.instance.instance_id)).collect()
    };
    assert_eq!(numbers(&table), [(0, 0), (1, 1), (2, 2)]);
    list(&mut table, &[all[0].clone(), all[2].clone()]);
    assert_eq!(numbers(&table), [(0, 0), (2, 2)]);
    list(&mut table, &[all[0].clone(), all[2].clone(), listed(7, "web", 30, 0)]);
    assert_eq!(numbers(&table), [(0, 0), (7, 1), (2, 2)]);
}

#[test]
fn a_number_is_never_two_processes() {
    let mut table = Table::default();
    let old = listed(0, "api", 10, 0);
    list(&mut table, std::slice::from_ref(&old));
    ended_by_request(&mut table, &old);
    let new = listed(5, "api", 20, 0);
    said(&mut table, "online", Status::Launching, &new);
    let shown = |table: &Table| -> Vec<(u32, u32)> {
        let all = table.processes(|_| Readings::default());
        all.iter().map(|process| (process.pm_id, process.instance.instance_id)).collect()
    };
    // The old one may be deleted by now: the new one continues it, and is shown alone.
    assert_eq!(shown(&table), [(5, 0)]);
    // It was a restart after all.
    said(&mut table, "online", Status::Launching, &listed(0, "api", 30, 1));
    assert_eq!(shown(&table), [(5, 0), (0, 1)]);
    // And one that a list has is there, however it ended.
    ended_by_request(&mut table, &listed(0, "api", 30, 1));
    said(&mut table, "online", Status::Launching, &listed(6, "api", 40, 0));
    let errored = Listed { status: Status::Errored, ..listed(0, "api", 30, 1) };
    list(&mut table, &[errored, new, listed(6, "api", 40, 0)]);
    assert_eq!(shown(&table), [(5, 0), (6, 1), (0, 2)]);
}
