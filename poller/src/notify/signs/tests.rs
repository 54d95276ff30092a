use wire::{Slot, Status};

use super::*;

const BASE: i64 = 1_700_000_000_000;

/// One server over time, as tests want it.
struct World {
    now: Time,
    id: ServerId,
    state: State,
    own: Own,
    signs: Signs,
    answers: bool,
    polled: bool,
    last: Option<Time>,
    lost: u64,
    clock_ahead: Option<i64>,
    certificate: Option<Time>,
    /// By how much the clock that nobody sets is behind the time of day.
    behind: i64,
    there: bool,
}

impl World {
    fn new() -> Self {
        let text = include_str!("../../../../wire/golden/state.json");
        let mut state: State = serde_json::from_str(text).unwrap();
        // As it should be, all of it.
        state.exporter.token_expiries.clear();
        state.pm2.dump_missing = Some(0);
        state.processes.retain(|process| process.pid.is_some());
        state.slots.truncate(1);
        let slot = &mut state.slots[0];
        (slot.serving, slot.status) = (true, Some(Status::Online));
        slot.more = Some(Box::default());
        state.processes[0].started_at = Some(Time::from_millis(BASE - DAY));
        Self {
            now: Time::from_millis(BASE),
            id: "vm1".parse().unwrap(),
            state,
            own: Own {
                instance: "poller:10210".to_owned(),
                store_errors: vec![("full", 0)],
                ..Own::default()
            },
            signs: Signs::default(),
            answers: true,
            polled: true,
            last: None,
            lost: 0,
            clock_ahead: Some(30_000),
            certificate: None,
            behind: 0,
            there: true,
        }
    }

    fn look_whole(&mut self) -> Vec<Finding> {
        if self.answers {
            self.last = Some(self.now.plus_millis(self.behind));
        }
        let day = self.now.plus_millis(self.behind);
        self.own.day = day;
        let seen = Seen {
            day,
            id: &self.id,
            group: "eu",
            tags: &[],
            state: Some(&self.state),
            last_success: self.last,
            polled: self.polled,
            answers: self.answers,
            failure: Some("connection refused"),
            lost: self.lost,
            clock_ahead: self.clock_ahead,
            certificate: self.certificate,
        };
        let servers: &[Seen<'_>] = if self.there { &[seen] } else { &[] };
        let mut findings = Vec::new();
        self.signs.look(self.now, servers, &mut findings);
        self.signs.look_at_own(self.now, &self.own, &mut findings);
        self.signs.forget(servers.iter().map(|seen| seen.id));
        findings
    }

    /// Names of what is found.
    fn look(&mut self) -> Vec<String> {
        self.look_whole().into_iter().map(|finding| finding.key.alert).collect()
    }

    /// Looks every so often until the time is over; what the last look found.
    fn pass(&mut self, time: i64, every: i64) -> Vec<String> {
        let end = self.now.plus_millis(time);
        let mut found = Vec::new();
        while self.now < end {
            self.now = self.now.plus_millis(every);
            found = self.look();
        }
        found
    }

    fn slot(&mut self) -> &mut Slot {
        &mut self.state.slots[0]
    }

    fn is_unknown(&self, alert: &Alert, found: bool) -> bool {
        let active = Active {
            since: self.now,
            description: String::new(),
            group: String::new(),
            tags: Vec::new(),
            found,
        };
        let process = [("name", "api"), ("namespace", "default"), ("instance_id", "0")];
        let more: &[(&str, &str)] = if *alert == a::CRASH_LOOP { &process } else { &[] };
        let server = [("server", "vm1")];
        let key = key(alert, server.into_iter().chain(more.iter().copied()));
        self.signs.is_unknown(self.now, &key, &active)
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_fleet_that_is_well_has_no_findings() {
    let mut world = World::new();
    assert_eq!(world.look(), NOTHING);
    assert_eq!(world.pass(8 * HOUR, 5 * MINUTE), NOTHING);
}

/// Of a clock that was set, or of a machine that slept.
#[test]
fn what_ends_at_a_time_is_judged_by_the_time_of_day_and_what_lasts_is_not() {
    let mut world = World::new();
    let end = |days: i64| Time::from_millis(BASE).plus_millis(days * DAY);
    world.certificate = Some(end(33));
    world.own.certificate = Some(end(33));
    world.own.tokens = vec![("grafana".to_owned(), end(33))];
    let own = wire::TokenExpiry { name: "poller".into(), expires_at: end(33) };
    world.state.exporter.token_expiries.push(own);
    assert_eq!(world.look(), NOTHING);
    world.behind = 30 * DAY;
    let found = world.look_whole();
    let of = |alert: &Alert| {
        let found = found.iter().filter(|it| it.key.alert == alert.name);
        found.map(|it| it.description.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of(&a::CERTIFICATE).len(), 2);
    assert_eq!(of(&a::TOKEN).len(), 2);
    assert!(of(&a::CERTIFICATE)[0].starts_with("In 3 days"), "{found:?}");
    assert_eq!(found.len(), 4, "{found:?}");
    // It has been silent for as long as it has, and no longer.
    world.answers = false;
    world.now = world.now.plus_millis(5 * MINUTE);
    let found = world.look_whole();
    let down = found.iter().find(|it| it.key.alert == a::SERVER_DOWN.name).unwrap();
    assert!(down.description.contains("has not answered for 5 min"), "{}", down.description);
}

#[test]
fn what_a_state_says_is_found_at_once() {
    let mut world = World::new();
    world.look();
    world.state.pm2.up = false;
    world.state.pm2.dump_missing = Some(2);
    let host = world.state.host.as_mut().unwrap();
    host.filesystem_avail_bytes = host.filesystem_size_bytes.map(|size| size / 25);
    let process = &mut world.state.processes[0];
    process.status = Status::Errored;
    process.readings.node.insert("event_loop_latency_p95".into(), 0.25);
    world.slot().serving = false;
    world.slot().foreign_owner = Some("nginx".into());
    let expiry =
        wire::TokenExpiry { name: "poller".into(), expires_at: world.now.plus_millis(6 * DAY) };
    world.state.exporter.token_expiries.push(expiry);
    world.certificate = Some(world.now.plus_millis(13 * DAY));
    world.clock_ahead = Some(-600_900);
    let found = world.look_whole();
    let said: Vec<(&str, &str)> = found
        .iter()
        .map(|finding| (finding.key.alert.as_str(), finding.description.as_str()))
        .collect();
    let expected = [
        ("Pm2CertificateExpiring", "In 13 days the certificate of vm1 ends being good"),
        ("Pm2ServerClockOff", "The clock of vm1 is 600 s behind the poller's."),
        ("Pm2DaemonDown", "The exporter of vm1 runs and does not reach the PM2 daemon: no answer"),
        ("Pm2DumpDrift", "2 processes of vm1 are either"),
        ("Pm2LogDiskFilling", "4.0 % of the file system that holds PM2's directory on vm1 is free"),
        ("Pm2TokenExpiring", "In 6 days the token poller of vm1 ends"),
        ("Pm2ProcessErrored", "Instance 0 of api (namespace default) on vm1 is errored."),
        ("Pm2EventLoopSlow", "Work in instance 0 of api (namespace default) on vm1 waits 250 ms"),
        ("Pm2SlotNotServing", "Port 3001 of slot a on vm1 accepts no connection"),
        ("Pm2SlotPortTaken", "nginx, a process other than slot-a, holds port 3001 of slot a"),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for ((name, text), (alert, begin)) in said.iter().zip(expected) {
        assert_eq!(*name, alert);
        assert!(text.starts_with(begin), "{text}");
    }
    let labels: Vec<(&str, &str)> =
        found[6].key.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected =
        [("instance_id", "0"), ("name", "api"), ("namespace", "default"), ("server", "vm1")];
    assert_eq!(labels, expected, "as Prometheus has them");
}

#[test]
fn a_stopped_process_or_slot_alerts_nobody() {
    let mut world = World::new();
    world.look();
    world.state.processes[0].status = Status::Stopped;
    world.state.processes[0].restarts.crash += 10;
    (world.slot().serving, world.slot().status) = (false, Some(Status::Stopped));
    // That it stays stopped shows after a minute, for which the alert is held back as well.
    assert_eq!(world.look(), ["Pm2CrashLoop"]);
    world.now = world.now.plus_millis(MINUTE);
    assert_eq!(world.look(), NOTHING);
}

#[test]
fn one_pm2_of_several_is_told_by_its_directory() {
    let mut world = World::new();
    let mut other = world.state.pm2.clone();
    (other.up, other.home) = (false, "/home/web/.pm2".into());
    world.state.homes = vec![world.state.pm2.clone(), other];
    let found = world.look_whole();
    assert_eq!(found[0].key.label("pm2_home"), Some("/home/web/.pm2"));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_loop_that_a_former_life_saw_is_one_at_once() {
    let mut world = World::new();
    let instance = world.state.processes[0].instance.clone();
    world.state.processes[0].restarts.crash = 9;
    let crash = |seconds: i64| {
        let time = Time::from_millis(BASE - seconds * SECOND);
        (world.id.clone(), instance.clone(), time)
    };
    world.signs.remember(vec![crash(590), crash(300), crash(200), crash(100)]);
    let found = world.look_whole();
    let said: Vec<&str> = found.iter().map(|it| it.description.as_str()).collect();
    assert!(said.len() == 1 && said[0].contains(" 4 times within 10 minutes"), "{said:?}");
    // As ever, with the window.
    world.now = Time::from_millis(BASE + 300 * SECOND);
    assert_eq!(world.look(), Vec::<String>::new());
}

#[test]
fn a_quick_loop_is_one_though_it_looks_stopped_now_and_then() {
    let mut world = World::new();
    world.look();
    world.state.processes[0].restarts.crash += 10;
    for second in 1..=120 {
        world.now = Time::from_millis(BASE + second * SECOND);
        let stopped = second % 2 == 0;
        world.state.processes[0].status = if stopped { Status::Stopped } else { Status::Online };
        assert_eq!(world.look(), ["Pm2CrashLoop"], "at {second}");
    }
    // Somebody stopped it.
    world.state.processes[0].status = Status::Stopped;
    for (second, expected) in [(121, 1), (179, 1), (180, 0), (300, 0)] {
        world.now = Time::from_millis(BASE + second * SECOND);
        assert_eq!(world.look(), vec!["Pm2CrashLoop"; expected], "at {second}");
    }
}

#[test]
fn three_crashes_in_ten_minutes_are_a_loop() {
    let mut world = World::new();
    world.look();
    for (second, crashes, expected) in [(60, 2, 0), (120, 1, 1), (659, 0, 1), (661, 0, 0)] {
        world.now = Time::from_millis(BASE + second * SECOND);
        world.state.processes[0].restarts.crash += crashes;
        assert_eq!(world.look(), vec!["Pm2CrashLoop"; expected], "at {second}");
    }
    world.state.processes[0].restarts.unknown += 30;
    assert_eq!(world.look(), NOTHING, "of these nobody knows whether they were asked for");
    world.state.processes[0].restarts.manual += 21;
    assert_eq!(world.look(), ["Pm2RestartStorm"]);
    world.state.processes[0].restarts.oom += 3;
    assert_eq!(world.look(), ["Pm2CrashLoop", "Pm2RestartStorm"]);
    world.state.processes.clear();
    assert_eq!(world.look(), NOTHING, "it was deleted");
}

#[test]
fn a_failed_deployment_is_told_for_a_quarter_of_an_hour() {
    let mut world = World::new();
    let fail = |world: &mut World| world.slot().more.as_mut().unwrap().deploys_failed += 1;
    fail(&mut world);
    assert_eq!(world.look(), NOTHING, "that was before");
    fail(&mut world);
    assert_eq!(world.pass(14 * MINUTE, MINUTE), ["Pm2SlotDeployFailed"]);
    assert_eq!(world.pass(3 * MINUTE, MINUTE), NOTHING);
}

#[test]
fn a_disk_that_will_be_full_within_a_day_is_filling() {
    let mut world = World::new();
    for _ in 0..(4 * 60) {
        world.now = world.now.plus_millis(MINUTE);
        let host = world.state.host.as_mut().unwrap();
        let size = host.filesystem_size_bytes.unwrap();
        let free = host.filesystem_avail_bytes.unwrap().min(size * 39 / 100);
        // Two per cent an hour: full in less than twenty hours.
        host.filesystem_avail_bytes = Some(free - size / 3000);
        let found = world.look();
        if world.now.as_millis() - BASE < 3 * HOUR {
            assert_eq!(found, NOTHING, "too early to tell");
        }
    }
    assert_eq!(world.look(), ["Pm2LogDiskFilling"]);
    assert_eq!(world.pass(7 * HOUR, 5 * MINUTE), NOTHING, "it grows no more");
}

#[test]
fn a_leak_is_told_when_the_host_cannot_hold_it() {
    let mut world = World::new();
    let grow = |world: &mut World, mib: u64| {
        for _ in 0..125 {
            world.now = world.now.plus_millis(MINUTE);
            *world.state.processes[0].readings.memory_bytes.as_mut().unwrap() += mib << 20;
            world.look();
        }
    };
    world.state.host.as_mut().unwrap().memory_available_bytes = Some(1 << 30);
    grow(&mut world, 3);
    assert_eq!(world.look(), NOTHING, "720 MiB in four hours fit");
    grow(&mut world, 5);
    assert_eq!(world.look(), ["Pm2MemoryGrowth"]);
    world.state.processes[0].started_at = Some(world.now);
    assert_eq!(world.look(), NOTHING, "it has just been started");
}

#[test]
fn a_server_that_does_not_answer_is_told_and_nothing_is_said_of_what_it_runs() {
    let mut world = World::new();
    world.state.processes[0].status = Status::Errored;
    assert_eq!(world.look(), ["Pm2ProcessErrored"]);
    world.answers = false;
    world.now = world.now.plus_millis(5 * MINUTE);
    let found = world.look_whole();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].description.contains("has not answered for 5 min: connection refused"),
        "{found:?}"
    );
    assert!(world.is_unknown(&a::ERRORED, true), "it may still be");
    assert!(!world.is_unknown(&a::SERVER_DOWN, true));
    world.there = false;
    assert_eq!(world.look(), NOTHING);
    assert!(!world.is_unknown(&a::ERRORED, true), "the server left the registry");
}

#[test]
fn after_a_start_what_was_told_stays_until_it_can_be_judged() {
    let mut world = World::new();
    (world.polled, world.answers) = (false, false);
    world.last = Some(world.now.plus_millis(-MINUTE));
    assert_eq!(world.look(), NOTHING, "nobody asked it yet");
    for alert in [&a::SERVER_DOWN, &a::ERRORED, &a::CRASH_LOOP, &a::CERTIFICATE] {
        assert!(world.is_unknown(alert, false), "{alert:?}");
    }
    // While the program was away it crashed: against what was kept, that is seen.
    (world.polled, world.answers) = (true, true);
    world.now = world.now.plus_millis(10 * SECOND);
    world.state.processes[0].restarts.crash += 3;
    assert_eq!(world.look(), ["Pm2CrashLoop"]);
    assert!(!world.is_unknown(&a::SERVER_DOWN, false) && !world.is_unknown(&a::ERRORED, false));
    assert!(world.is_unknown(&a::DEPLOY_FAILED, false), "not watched for long enough");
    assert!(!world.is_unknown(&a::DEPLOY_FAILED, true), "found in this life, and over");
    assert_eq!(world.pass(16 * MINUTE, MINUTE), NOTHING);
    assert!(!world.is_unknown(&a::DEPLOY_FAILED, false));
    assert!(world.is_unknown(&a::MEMORY_GROWTH, false));
    world.state.processes.clear();
    world.look();
    assert!(!world.is_unknown(&a::CRASH_LOOP, false), "the process is gone");
}

#[test]
fn a_journal_that_lost_entries_is_told_for_half_an_hour() {
    let mut world = World::new();
    world.look();
    world.lost = 120;
    let found = world.look_whole();
    assert!(found[0].description.starts_with("120 entries of the journal of vm1"), "{found:?}");
    assert_eq!(world.pass(29 * MINUTE, MINUTE), ["Pm2JournalEntriesLost"]);
    assert_eq!(world.pass(2 * MINUTE, MINUTE), NOTHING);
}

#[test]
fn the_poller_judges_itself() {
    let mut world = World::new();
    world.look();
    world.own.polls = 1000;
    world.own.late = 10;
    assert_eq!(world.look(), NOTHING, "one in a hundred is not more than that");
    world.own.late = 11;
    world.own.store_errors[0].1 = 2;
    world.own.certificate = Some(world.now);
    world.own.tokens = vec![("grafana".to_owned(), world.now.plus_millis(DAY))];
    let found = world.look_whole();
    let names: Vec<&str> = found.iter().map(|finding| finding.key.alert.as_str()).collect();
    let expected = [
        "Pm2PollerBehind",
        "Pm2PollerHistoryFailing",
        "Pm2CertificateExpiring",
        "Pm2TokenExpiring",
    ];
    assert_eq!(names, expected);
    assert!(found.iter().all(|finding| finding.key.label("instance") == Some("poller:10210")));
    assert_eq!(found[1].key.label("kind"), Some("full"));
    assert!(found[2].description.contains("is good no more"), "{found:?}");
    world.own.certificate = None;
    world.own.tokens.clear();
    assert_eq!(world.pass(11 * MINUTE, MINUTE), NOTHING);
}

#[test]
fn the_poller_judges_what_it_was_told() {
    let mut world = World::new();
    world.own.server_files = vec![("eu.json".to_owned(), true), ("us.json".to_owned(), true)];
    assert_eq!(world.look(), NOTHING);
    world.own.server_files[1].1 = false;
    world.own.conflicts = 2;
    world.own.config_refused = true;
    let found = world.look_whole();
    let names: Vec<&str> = found.iter().map(|finding| finding.key.alert.as_str()).collect();
    let expected =
        ["Pm2PollerServerFileUnread", "Pm2PollerServerConflict", "Pm2PollerConfigRefused"];
    assert_eq!(names, expected);
    assert_eq!(found[0].key.label("file"), Some("us.json"));
    assert!(found[1].description.contains("more than one place: 2."), "{found:?}");
    // A file that is looked at no more is not wrong any longer.
    world.own.server_files.pop();
    (world.own.conflicts, world.own.config_refused) = (0, false);
    assert_eq!(world.look(), NOTHING);
}

#[test]
fn a_receiver_is_told_to_the_others_when_nothing_arrives_there() {
    let mut world = World::new();
    let receivers = [("chat".to_owned(), (0, 5)), ("pager".to_owned(), (3, 7))];
    world.own.receivers = receivers.into();
    assert_eq!(world.look(), NOTHING, "what was before is no rise");
    let pager = |world: &mut World, failed, arrived| {
        *world.own.receivers.get_mut("pager").unwrap() = (failed, arrived);
    };
    pager(&mut world, 4, 8);
    assert_eq!(world.look(), NOTHING, "it arrived at the second try");
    assert_eq!(world.pass(11 * MINUTE, MINUTE), NOTHING);
    pager(&mut world, 6, 8);
    let found = world.look_whole();
    assert_eq!(found[0].key.alert, "Pm2PollerNotifyFailing");
    assert_eq!(found[0].key.label("receiver"), Some("pager"));
    assert!(found[0].description.starts_with("2 messages"), "{found:?}");
    pager(&mut world, 6, 9);
    assert_eq!(world.look(), NOTHING);
}
