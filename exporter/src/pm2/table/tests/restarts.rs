//! Restarts by cause, and what else is counted.

use super::*;

#[test]
fn restarts_from_before_are_of_unknown_cause_and_a_reset_lowers_nothing() {
    let mut table = Table::default();
    list(&mut table, &[listed(0, "api", 10, 3)]);
    assert_eq!(process(&table, "api").restarts.unknown, 3);
    assert!(list(&mut table, &[listed(0, "api", 10, 0)]).changed);
    assert_eq!(process(&table, "api").restarts.total(), 3);
}

#[test]
fn restarts_that_the_bus_did_not_tell_are_found_and_told() {
    let mut table = Table::default();
    list(&mut table, &[listed(0, "api", 10, 0)]);
    let outcome = list(&mut table, &[listed(0, "api", 20, 2)]);
    assert_eq!(outcome.events[0].1.cause, Some(RestartCause::Unknown));
    assert_eq!(process(&table, "api").restarts.unknown, 2);
}

#[test]
fn counters_outlive_the_daemon() {
    let mut table = Table::default();
    list(&mut table, &[listed(0, "api", 10, 0)]);
    said(&mut table, "exit", Status::Stopped, &listed(0, "api", 10, 0));
    said(&mut table, "online", Status::Launching, &listed(0, "api", 20, 1));
    assert_eq!(process(&table, "api").restarts.crash, 1);
    table.clear(Time::from_millis(0));
    assert!(table.processes(|_| Readings::default()).is_empty());
    let told = list(&mut table, &[listed(0, "api", 30, 0)]).events;
    let restarts = process(&table, "api").restarts;
    assert_eq!((restarts.crash, restarts.unknown), (1, 1));
    assert_eq!(told, [], "the daemon tells");
    // The same daemon, lost for a moment.
    table.clear(Time::from_millis(0));
    let told = list(&mut table, &[listed(0, "api", 50, 1)]).events;
    assert_eq!(told[0].1.message, "api was restarted unseen");
    assert_eq!((told.len(), process(&table, "api").restarts.unknown), (1, 2));
}

#[test]
fn what_a_new_daemon_resurrects_is_one_restart_whoever_tells_first() {
    let (old, new) = (listed(0, "api", 10, 0), listed(0, "api", 30, 0));
    let launching = Listed { status: Status::Launching, pid: None, ..new.clone() };
    // The new daemon's first list has nothing yet, or the process, or it is being started.
    let lists = [&[vec![], vec![new.clone()]][..], &[vec![new.clone()]], &[vec![launching]], &[]];
    // In the order of PM2 7, and in that of PM2 5.
    let orders = [["online", "start"], ["start", "online"]];
    let cases = lists.iter().flat_map(|lists| [(lists, false), (lists, true)]);
    for ((lists, found_deleted), order) in cases.flat_map(|case| orders.map(|order| (case, order)))
    {
        let mut table = Table::default();
        list(&mut table, std::slice::from_ref(&old));
        ended_by_request(&mut table, &old);
        if found_deleted {
            // The old daemon deletes what it has before it ends.
            list(&mut table, &[]);
        }
        table.clear(Time::from_millis(0));
        // Each time that no daemon is found.
        table.clear(Time::from_millis(0));
        lists.iter().for_each(|found| drop(list(&mut table, found)));
        for word in order {
            let status = if word == "start" { Status::Online } else { Status::Launching };
            said(&mut table, word, status, &new);
        }
        list(&mut table, std::slice::from_ref(&new));
        let expected = RestartCounts { unknown: 1, ..Default::default() };
        assert_eq!(process(&table, "api").restarts, expected, "{order:?} {lists:?}");
    }
}

#[test]
fn counters_outlive_this_program() {
    let mut table = Table::default();
    list(&mut table, &[listed(0, "api", 10, 2)]);
    said(&mut table, "exit", Status::Stopped, &listed(0, "api", 10, 2));
    said(&mut table, "online", Status::Launching, &listed(0, "api", 20, 3));
    let kept = table.counters().unwrap();
    assert_eq!(table.counters(), None);
    let again = |list_now: Listed| {
        let mut table = Table::default();
        table.restore(&kept).unwrap();
        let told = list(&mut table, &[list_now]).events;
        let told: Vec<String> = told.into_iter().map(|(_, event)| event.message).collect();
        (process(&table, "api").restarts, told.join("; "))
    };
    // Nothing happened meanwhile; restarted twice; PM2 reset its counter and restarted once.
    let counts = |unknown| RestartCounts { crash: 1, unknown, ..RestartCounts::default() };
    let told = |words: &str| words.to_owned();
    assert_eq!(again(listed(0, "api", 20, 3)), (counts(2), told("")));
    let twice = "api was restarted unseen, 2 times";
    assert_eq!(again(listed(0, "api", 90, 5)), (counts(4), told(twice)));
    assert_eq!(again(listed(0, "api", 90, 0)), (counts(3), told("api was restarted unseen")));
    assert!(Table::default().restore(b"nonsense").is_err());
}

#[test]
fn what_is_logged_never_falls_though_the_last_of_it_was_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.log");
    let write = |length: usize| std::fs::write(&path, vec![b'x'; length]).unwrap();
    let look = || LogLook::of(&std::fs::metadata(&path).unwrap());
    let api = Listed { out_log: path.display().to_string().into(), ..listed(0, "api", 10, 0) };
    let came = |table: &mut Table| {
        list(table, std::slice::from_ref(&api));
        let due = table.due_logs(false);
        due.iter().for_each(|log| table.first_look(log, look()));
        assert_eq!((due.len(), table.due_logs(false).len()), (1, 0));
        process(table, "api").readings.log_out_bytes
    };
    // What was there before was never counted.
    write(1000);
    let mut table = Table::default();
    assert_eq!(came(&mut table), Some(0));
    assert!(table.counters().is_some() && table.due_logs(true).is_empty());
    table.logged(0, false, 300);
    write(1300);
    let due = table.due_logs(true);
    let then = look();
    // Told only after the look, and before what the look found is taken.
    table.logged(0, false, 5);
    table.mark(&due[0], then);
    let kept = table.counters().unwrap();
    assert!(table.due_logs(true).is_empty() && table.counters().is_none());
    for (length, expected) in [
        (1300, 305),
        // Some of it was shown, and not kept; how much of it was escaped is not known yet.
        (1400, 305 + 155),
        // It was emptied, and has grown since.
        (50, 305 + 78),
    ] {
        write(length);
        let mut again = Table::default();
        again.restore(&kept).unwrap();
        assert_eq!(came(&mut again), Some(expected), "{length}");
        // A process in its place has been counted all the while.
        write(length + 10);
        list(&mut again, &[]);
        list(&mut again, std::slice::from_ref(&api));
        assert_eq!(again.due_logs(false).len(), 1);
        assert_eq!(process(&again, "api").readings.log_out_bytes, Some(expected));
    }
    // Quotes are counted as they come, escaped.
    write(10_000);
    let mut again = Table::default();
    again.restore(&kept).unwrap();
    assert_eq!(came(&mut again), Some(305 + 13_485));
    again.logged(0, false, 12_000);
    write(20_000);
    let due = again.due_logs(true);
    again.mark(&due[0], look());
    let heavy = again.counters().unwrap();
    write(21_000);
    let mut again = Table::default();
    again.restore(&heavy).unwrap();
    assert_eq!(came(&mut again), Some(305 + 13_485 + 12_000 + 1_220));
    // Another file says nothing.
    let other = folder.path().join("other.log");
    std::fs::write(&other, [b'x'; 5000]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let mut again = Table::default();
    again.restore(&kept).unwrap();
    assert_eq!(came(&mut again), Some(305));
}

#[test]
fn what_this_program_asks_for_is_counted_by_what_it_meant() {
    let name: AppName = "api".parse().unwrap();
    let (old, new) = (listed(0, "api", 10, 0), listed(0, "api", 20, 1));
    for (intent, expected) in [
        (
            Some(Intent::Restart(RestartCause::Manual)),
            RestartCounts { manual: 1, ..Default::default() },
        ),
        (
            Some(Intent::Restart(RestartCause::Reload)),
            RestartCounts { reload: 1, ..Default::default() },
        ),
        (Some(Intent::Stop), RestartCounts::default()),
        (None, RestartCounts { manual: 1, ..Default::default() }),
    ] {
        let mut table = Table::default();
        list(&mut table, std::slice::from_ref(&old));
        table.intend(&name, intent);
        ended_by_request(&mut table, &old);
        table.intend(&name, None);
        said(&mut table, "online", Status::Launching, &new);
        list(&mut table, std::slice::from_ref(&new));
        assert_eq!(process(&table, "api").restarts, expected, "{intent:?}");
    }
}

#[test]
fn a_start_after_a_stop_is_no_restart_whoever_asked() {
    let mut table = Table::default();
    let (old, new) = (listed(0, "api", 10, 0), listed(0, "api", 20, 0));
    list(&mut table, std::slice::from_ref(&old));
    ended_by_request(&mut table, &old);
    list(&mut table, &[Listed { status: Status::Stopped, pid: None, ..old }]);
    said(&mut table, "online", Status::Launching, &new);
    list(&mut table, &[new]);
    assert_eq!(process(&table, "api").restarts.total(), 0);
}

#[test]
fn a_job_that_is_done_did_not_crash_and_its_next_start_is_no_restart() {
    let mut table = Table::default();
    let job = |start: i64| Listed { autorestart: false, ..listed(0, "job", start, 0) };
    list(&mut table, &[job(10)]);
    let ended = |code: i32| Listed { exit_code: Some(code), ..job(10) };
    let end = said(&mut table, "exit", Status::Stopped, &ended(0));
    assert_eq!(told(&end), [("exit".to_owned(), None, Severity::Info)]);
    // Its time has come; somebody starts it by hand.
    said(&mut table, "online", Status::Launching, &job(20));
    said(&mut table, "exit", Status::Stopped, &Listed { exit_code: Some(0), ..job(20) });
    said(&mut table, "online", Status::Launching, &job(30));
    said(&mut table, "restart", Status::Online, &job(30));
    // One that fails is told as what it is, and is not restarted either.
    let end = said(&mut table, "exit", Status::Stopped, &Listed { exit_code: Some(1), ..job(30) });
    let crash = ("exit".to_owned(), Some(RestartCause::Crash), Severity::Warning);
    assert_eq!(told(&end), [crash]);
    said(&mut table, "online", Status::Launching, &job(40));
    list(&mut table, &[job(40)]);
    assert_eq!(process(&table, "job").restarts.total(), 0);
    // Nor is what it did while nobody looked.
    let kept = table.counters().unwrap();
    let mut table = Table::default();
    table.restore(&kept).unwrap();
    list(&mut table, &[job(90)]);
    assert_eq!(process(&table, "job").restarts.total(), 0);
}

#[test]
fn a_code_at_which_pm2_leaves_it_is_no_crash_and_others_are() {
    let mut table = Table::default();
    let (run, next) = (listed(0, "api", 10, 0), listed(0, "api", 20, 0));
    list(&mut table, std::slice::from_ref(&run));
    let ended = Listed { exit_code: Some(3), ended_as_told: true, ..run };
    let end = said(&mut table, "exit", Status::Stopped, &ended);
    assert_eq!(told(&end), [("exit".to_owned(), None, Severity::Info)]);
    said(&mut table, "online", Status::Launching, &next);
    assert_eq!(process(&table, "api").restarts.total(), 0);
    // PM2 restarts it after an end with code 0 too.
    said(&mut table, "exit", Status::Stopped, &Listed { exit_code: Some(0), ..next });
    said(&mut table, "online", Status::Launching, &listed(0, "api", 30, 1));
    assert_eq!(process(&table, "api").restarts, RestartCounts { crash: 1, ..Default::default() });
}

#[test]
fn a_start_after_pm2_gave_up_is_no_crash() {
    let mut table = Table::default();
    let last = listed(0, "api", 10, 15);
    list(&mut table, std::slice::from_ref(&last));
    let before = process(&table, "api").restarts;
    said(&mut table, "restart overlimit", Status::Errored, &last);
    said(&mut table, "exit", Status::Errored, &last);
    said(&mut table, "online", Status::Launching, &listed(0, "api", 20, 15));
    said(&mut table, "restart", Status::Online, &listed(0, "api", 20, 15));
    assert_eq!(process(&table, "api").restarts, before);
    // Its next crash is one.
    said(&mut table, "exit", Status::Stopped, &listed(0, "api", 20, 15));
    said(&mut table, "online", Status::Launching, &listed(0, "api", 30, 16));
    assert_eq!(process(&table, "api").restarts.crash, before.crash + 1);
}

#[test]
fn what_this_program_replaces_is_counted_for_the_new_process() {
    for cause in [RestartCause::Deploy, RestartCause::Manual] {
        let mut table = Table::default();
        let (old, new) = (listed(4, "slot-a", 10, 0), listed(9, "slot-a", 20, 0));
        list(&mut table, std::slice::from_ref(&old));
        table.intend(&old.name, Some(Intent::Replace(cause)));
        ended_by_request(&mut table, &old);
        // What is started over the socket is called stopped until PM2 has told of its start.
        said(&mut table, "online", Status::Stopped, &new);
        said(&mut table, "start", Status::Online, &new);
        list(&mut table, &[new]);
        let mut expected = RestartCounts::default();
        expected.add(cause, 1);
        assert_eq!(process(&table, "slot-a").restarts, expected);
    }
}
