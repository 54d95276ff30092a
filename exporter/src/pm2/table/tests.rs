use super::*;
use crate::filter::Filter;
use crate::pm2::custom::NodeMetrics;
use crate::pm2::model::{self, DaemonLine, Kept, ProcessEvent};
use wire::{Process, Readings, RestartCounts};

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
    list(&mut table, &[listed(0, "api", 30, 0)]);
    let restarts = process(&table, "api").restarts;
    assert_eq!((restarts.crash, restarts.unknown), (1, 1));
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
        list(&mut table, &[list_now]);
        process(&table, "api").restarts
    };
    // Nothing happened meanwhile; restarted twice; PM2 reset its counter and restarted once.
    let counts = |unknown| RestartCounts { crash: 1, unknown, ..RestartCounts::default() };
    assert_eq!(again(listed(0, "api", 20, 3)), counts(2));
    assert_eq!(again(listed(0, "api", 90, 5)), counts(4));
    assert_eq!(again(listed(0, "api", 90, 0)), counts(3));
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

/// What PM2 says over the bus when it is asked over the socket: no word of who asked.
fn ended_by_request(table: &mut Table, process: &Listed) {
    said(table, "exit", Status::Stopping, process);
    said(table, "exit", Status::Stopped, process);
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
fn a_deploy_by_this_program_is_counted_for_the_new_process() {
    let mut table = Table::default();
    let (old, new) = (listed(4, "slot-a", 10, 0), listed(9, "slot-a", 20, 0));
    list(&mut table, std::slice::from_ref(&old));
    table.intend(&old.name, Some(Intent::Restart(RestartCause::Deploy)));
    ended_by_request(&mut table, &old);
    // What is started over the socket is called stopped until PM2 has told of its start.
    said(&mut table, "online", Status::Stopped, &new);
    said(&mut table, "start", Status::Online, &new);
    list(&mut table, &[new]);
    assert_eq!(
        process(&table, "slot-a").restarts,
        RestartCounts { deploy: 1, ..Default::default() }
    );
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
