//! A fleet to look at: used by the tests and by the preview. Time stands still at `NOW`.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use dashboards::chart::{Chart, Note, NoteKind, Point, Range, Series, Unit};
use dashboards::*;
use wire::*;

pub const NOW: i64 = 1_790_001_234_250;
pub const GIB: u64 = 1 << 30;
pub const MIB: u64 = 1 << 20;

pub fn now() -> Time {
    Time::from_millis(NOW)
}

pub fn ago(seconds: i64) -> Time {
    now().plus_millis(-1000 * seconds)
}

pub fn page() -> Page {
    Page {
        version: "0.1.0".into(),
        now: now(),
        base: "https://fleet.example.org".into(),
        viewer: Viewer::SignedIn { name: "anna".into(), role: "operator".into() },
    }
}

pub fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

pub fn server_id(id: &str) -> ServerId {
    id.parse().unwrap()
}

pub fn process(name: &str, instance_id: u32, pm_id: u32) -> Process {
    let seed = u64::from(pm_id);
    Process {
        instance: Instance {
            name: app(name),
            namespace: "default".into(),
            instance_id,
            pm2_home: None,
        },
        pm_id,
        pid: Some(4_700 + pm_id * 13),
        status: Status::Online,
        exec_mode: if instance_id > 0 { "cluster" } else { "fork" }.into(),
        interpreter: "node".into(),
        node_version: "20.11.1".into(),
        version: "1.4.2".into(),
        started_at: Some(ago(187_200 + i64::from(pm_id) * 731)),
        restarts: RestartCounts { manual: seed % 3, deploy: 2, ..RestartCounts::default() },
        exceptions: 0,
        last_exit: None,
        slot: name.strip_prefix("slot-").and_then(|slot| slot.parse().ok()),
        online_without_pid: false,
        readings: Readings {
            cpu_seconds: Some(913.2),
            memory_bytes: Some((38 + seed * 17 % 90) * MIB + 123_456),
            threads: Some(11),
            open_fds: Some(23),
            log_out_bytes: Some(18 * MIB),
            log_err_bytes: Some(4_210),
            node: [
                ("event_loop_latency".into(), 0.000_61),
                ("heap_used".into(), 21.4 * MIB as f64),
                ("http_rate".into(), 12.25),
            ]
            .into(),
            custom: vec![CustomMetric {
                name: "Orders in work".into(),
                value: 17.0,
                unit: "orders".into(),
            }],
        },
    }
}

pub fn slot(letter: &str, port: u16) -> Slot {
    Slot {
        slot: letter.parse().unwrap(),
        port,
        process: app(&format!("slot-{letter}")),
        kind: SlotType::Placeholder,
        status: Some(Status::Online),
        serving: true,
        foreign_owner: None,
        repository: None,
        branch: None,
        commit: None,
        deployed_at: None,
        deployed_by: None,
        more: None,
    }
}

pub fn state() -> State {
    let slots: Vec<Slot> = ('a'..='e').zip(3001..).map(|(l, p)| slot(&l.to_string(), p)).collect();
    let mut processes = vec![process("admin-server", 0, 0)];
    processes.extend(('a'..='e').zip(1..).map(|(l, id)| process(&format!("slot-{l}"), 0, id)));
    State {
        time: ago(4),
        revision: 7,
        exporter: ExporterInfo {
            version: "0.1.0".into(),
            started_at: ago(900_000),
            hostname: "vm1".into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            token_expiries: Vec::new(),
        },
        pm2: Pm2State {
            dump_missing: None,
            dump_extra: None,
            up: true,
            error: None,
            version: Some("7.0.4".into()),
            home: "/home/app/.pm2".into(),
            drifts: 0,
            confirmed_at: Some(ago(4)),
        },
        homes: Vec::new(),
        host: Some(HostReadings {
            cpus: Some(4),
            memory_total_bytes: Some(8 * GIB - 200 * MIB),
            memory_available_bytes: Some(5 * GIB - 300 * MIB),
            load1: Some(0.42),
            filesystem_size_bytes: Some(40 * GIB),
            filesystem_avail_bytes: Some(11 * GIB),
            booted_at: Some(ago(3_456_789)),
            cpu_seconds: Vec::new(),
        }),
        processes,
        slots,
        journal: JournalPosition { epoch: "e1".into(), first: 1, next: 4_242 },
    }
}

pub fn server(id: &str, group: &str, state: State) -> Server {
    Server {
        id: server_id(id),
        group: group.into(),
        tags: vec!["prod".into()],
        url: format!("http://{id}.internal:10209"),
        contact: Contact { status: ServerStatus::Online, last_success: Some(ago(4)), error: None },
        state: Some(Arc::new(state)),
        host_cpu: Some(0.124),
        trend: trend(id.len() + id.bytes().map(usize::from).sum::<usize>()),
        crashes: BTreeMap::new(),
        alerts: Vec::new(),
    }
}

pub fn trend(seed: usize) -> Vec<Option<f64>> {
    let value = |at: usize| (seed * 7919 + at * 104_729) % 97;
    (0..12)
        .map(|at| (value(at) > 2).then(|| 0.05 + value(at) as f64 / 250.0 + (at % 5) as f64 / 30.0))
        .collect()
}

pub fn failed(mut server: Server, status: ServerStatus, seconds: i64, why: &str) -> Server {
    server.contact = Contact { status, last_success: Some(ago(seconds)), error: Some(why.into()) };
    server
}

/// A state with most kinds of trouble in it.
pub fn troubled() -> State {
    let mut state = state();
    state.slots[0] = Slot {
        kind: SlotType::Deployed,
        repository: Some("https://github.com/acme/shop.git".into()),
        branch: Some("main".into()),
        commit: Some("3f2a91c0d4e5f60718293a4b5c6d7e8f90a1b2c3".into()),
        deployed_at: Some(ago(7_500)),
        deployed_by: Some("anna".into()),
        more: None,
        ..slot("a", 3001)
    };
    state.slots[3].serving = false;
    state.slots[3].status = Some(Status::Launching);
    state.slots[4].foreign_owner = Some("nginx (pid 812)".into());
    let launching = &mut state.processes[4];
    (launching.status, launching.pid, launching.started_at) = (Status::Launching, None, None);
    launching.readings = Readings::default();
    for instance in 0..4 {
        let mut api = process("api", instance, 6 + instance);
        api.exec_mode = "cluster".into();
        api.restarts.crash = 9 + u64::from(instance);
        api.exceptions = 2;
        api.last_exit = Some(ExitInfo { code: Some(1), signal: None, at: ago(340) });
        if instance == 3 {
            (api.status, api.pid, api.started_at) = (Status::Errored, None, None);
            api.readings = Readings::default();
        }
        state.processes.push(api);
    }
    let mut worker = process("mail-worker", 0, 10);
    worker.status = Status::WaitingRestart;
    worker.restarts.crash = 1_204;
    worker.restarts.oom = 3;
    (worker.pid, worker.started_at) = (None, None);
    state.processes.push(worker);
    state.processes.sort_by(|a, b| a.instance.cmp(&b.instance));
    state
}

pub fn troubled_server() -> Server {
    let mut server = server("vm1-prod", "eu", troubled());
    server.crashes = [((app("mail-worker"), None), 14), ((app("api"), None), 5)].into();
    server.host_cpu = Some(0.81);
    server
}

pub fn alert(name: &str, severity: Severity, of: Option<&str>, description: &str) -> AlertRow {
    let (name, description) = (name.to_owned(), description.to_owned());
    AlertRow { name, severity, app: of.map(app), pm2_home: None, description }
}

pub fn process_cpu(server: &Server) -> BTreeMap<Instance, f64> {
    let processes = server.state.iter().flat_map(|state| &state.processes);
    processes
        .filter(|process| process.pid.is_some())
        .map(|process| (process.instance.clone(), f64::from(process.pm_id * 37 % 110) / 100.0))
        .collect()
}

pub fn events() -> Vec<EventRow> {
    let event = |kind: EventKind, severity, name: Option<&str>, message: &str| Event {
        app: name.map(app),
        ..Event::new(kind, severity, message)
    };
    let mut exception = event(
        EventKind::EXCEPTION,
        Severity::Error,
        Some("api"),
        "TypeError: Cannot read properties of undefined (reading 'total')",
    );
    exception.details.insert(
        "stack".into(),
        "TypeError: Cannot read properties of undefined (reading 'total')\n    at \
         sum (/srv/slots/a/app.js:14:22)\n    at process.processTicksAndRejections"
            .into(),
    );
    let all = [
        (
            12,
            "vm1-prod",
            event(
                EventKind::EXIT,
                Severity::Error,
                Some("mail-worker"),
                "exit code 137 by SIGKILL, cause oom",
            ),
        ),
        (15, "vm1-prod", exception),
        (
            41,
            "vm1-prod",
            event(
                EventKind::ERRORED,
                Severity::Critical,
                Some("api"),
                "PM2 gave up restarting instance 3 after 16 tries",
            ),
        ),
        (
            180,
            "vm7-staging",
            event(EventKind::SERVER_OFFLINE, Severity::Critical, None, "connection refused"),
        ),
        (
            3_700,
            "vm2-prod",
            event(EventKind::ONLINE, Severity::Info, Some("slot-b"), "online with pid 4726"),
        ),
        (
            3_702,
            "vm2-prod",
            event(EventKind::RESTART, Severity::Info, Some("slot-b"), "restart asked for by anna"),
        ),
        (
            90_000,
            "vm3-prod",
            event(
                EventKind::PM2_DISCONNECTED,
                Severity::Warning,
                None,
                "lost the daemon: socket closed",
            ),
        ),
    ];
    all.into_iter()
        .zip(0..)
        .map(|((seconds, server, event), index)| EventRow {
            id: 900 - index,
            server: server_id(server),
            time: ago(seconds),
            event,
        })
        .collect()
}

pub fn commands() -> Vec<CommandRow> {
    let record = |id: &str, action, status, seconds: i64, took: Option<i64>| CommandRecord {
        id: id.parse().unwrap(),
        target: Target::App(app("slot-a")),
        action,
        pm2_home: None,
        status,
        requested_by: "anna".into(),
        requested_at: ago(seconds),
        finished_at: took.map(|millis| ago(seconds).plus_millis(millis)),
        error: None,
        reply: None,
        outcomes: Vec::new(),
        before: Vec::new(),
        after: Vec::new(),
    };
    let mut restart = record("c-1", Action::Restart, CommandStatus::Succeeded, 64, Some(340));
    restart.before = vec![process("slot-a", 0, 1)];
    restart.after = vec![process("slot-a", 0, 2)];
    let mut reload = record("c-2", Action::Reload, CommandStatus::Succeeded, 4_000, Some(4_250));
    reload.target = Target::App(app("api"));
    reload.before = (0..4).map(|instance| process("api", instance, instance)).collect();
    reload.after = reload.before.clone();
    let mut refused = record("c-3", Action::Delete, CommandStatus::Refused, 5_000, Some(2));
    refused.error = Some("token ci may not delete on vm1-prod".into());
    refused.requested_by = "ci".into();
    let mut unknown = record("c-4", Action::Stop, CommandStatus::Unknown, 90_000, Some(30_000));
    unknown.target = Target::Slot("b".parse().unwrap());
    unknown.error = Some("no answer within 30 s after it was sent".into());
    let running = record("c-5", Action::Restart, CommandStatus::Running, 1, None);
    [running, restart, reload, refused, unknown]
        .into_iter()
        .map(|record| CommandRow { server: server_id("vm1-prod"), record })
        .collect()
}

/// Some servers of each kind.
pub fn mixed_fleet() -> FleetPage {
    let servers = vec![
        troubled_server(),
        server("vm2-prod", "eu", state()),
        server("vm10-prod", "eu", state()),
        failed(
            server("vm3-prod", "us", state()),
            ServerStatus::Stale,
            42,
            "timed out after 5 s waiting for the answer",
        ),
        failed(
            server("vm7-staging", "us", state()),
            ServerStatus::Offline,
            11_000,
            "connection refused (os error 111)",
        ),
        Server {
            contact: Contact { status: ServerStatus::Offline, last_success: None, error: None },
            state: None,
            host_cpu: None,
            ..server("vm9-new", "", state())
        },
    ];
    FleetPage {
        page: page(),
        filter: FleetFilter::default(),
        registered: servers.len(),
        alerts: Vec::new(),
        servers,
        groups: vec!["eu".into(), "us".into()],
        tags: vec!["prod".into(), "staging".into()],
        events: events(),
    }
}

/// `number` servers; every 25th is offline, and with `number` below 10 all are well.
pub fn fleet(number: usize) -> FleetPage {
    let groups = ["eu-central", "eu-west", "us-east", "us-west"];
    let shared = state();
    let servers = (0..number)
        .map(|index| {
            let well = server(&format!("vm{index}-prod"), groups[index % 4], shared.clone());
            match index % 25 {
                9 => failed(well, ServerStatus::Offline, 5_000, "connection refused"),
                _ => Server { host_cpu: Some((index * 7 % 60) as f64 / 100.0), ..well },
            }
        })
        .collect();
    FleetPage {
        page: page(),
        filter: FleetFilter::default(),
        servers,
        registered: number,
        alerts: Vec::new(),
        groups: groups.map(str::to_owned).to_vec(),
        tags: vec!["prod".into()],
        events: events(),
    }
}

pub fn server_page(server: Server) -> ServerPage {
    ServerPage {
        page: page(),
        process_cpu: process_cpu(&server),
        server,
        over_time: OverTime { charts: host_charts(), ..over_time(1) },
        events: events(),
        commands: commands(),
    }
}

pub fn host_charts() -> Vec<Chart> {
    let mut all = charts(1);
    let [cpu, memory, ..] = &mut all[..] else { return all };
    (cpu.unit, cpu.about) = (Unit::Share, "of 4 cores".into());
    (memory.about, memory.series[0].label) = ("7.8 GiB in all".into(), String::new());
    all.truncate(2);
    all
}

pub fn over_time(instances: u32) -> OverTime {
    let note = |seconds, kind, text: &str| Note { time: ago(seconds), kind, text: text.into() };
    OverTime {
        range: Range::Hour,
        from: ago(3_600),
        to: now(),
        charts: charts(instances),
        notes: vec![
            note(3_000, NoteKind::Deploy, "deployed 3f2a91c of main by anna"),
            note(1_500, NoteKind::Fault, "exit code 1, cause crash"),
            note(1_480, NoteKind::Change, "online with pid 4726"),
            note(340, NoteKind::Warning, "memory 410 MiB over its limit"),
        ],
        problem: None,
    }
}

pub fn charts(instances: u32) -> Vec<Chart> {
    let points = |instance: u32, scale: f64| -> Vec<Point> {
        (0..360)
            .filter(|index| !(120..150).contains(index) && *index != 260 && *index != 262)
            .map(|index| {
                let turn = f64::from(index) / 30.0 + f64::from(instance);
                let noise = f64::from(index * 7919 % 97) / 970.0;
                let mean = scale * (0.5 + 0.25 * turn.sin() + noise + f64::from(instance) * 0.2);
                Point {
                    time: ago(3_600 - i64::from(index) * 10),
                    min: mean * 0.85,
                    mean,
                    max: mean * (1.1 + noise * 3.0),
                }
            })
            .collect()
    };
    let series = |scale: f64| -> Vec<Series> {
        (0..instances)
            .map(|instance| Series {
                label: if instances > 1 { format!("instance {instance}") } else { String::new() },
                points: points(instance, scale),
            })
            .collect()
    };
    let chart = |title: &str, unit, series| Chart {
        title: title.into(),
        unit,
        about: String::new(),
        from: ago(3_600),
        to: now(),
        step_millis: 10_000,
        series,
    };
    vec![
        chart("CPU", Unit::Cores, series(0.4)),
        chart("Memory", Unit::Bytes, series(180.0 * MIB as f64)),
        chart("Event loop latency", Unit::Seconds, series(0.002)),
        chart("Requests", Unit::Rate, series(40.0)),
    ]
}

pub fn app_page(name: &str, instances: u32) -> AppPage {
    let server = troubled_server();
    let of_app = |name: &Option<AppName>| name.as_deref() == Some("api");
    AppPage {
        page: page(),
        process_cpu: process_cpu(&server),
        server,
        app: app(name),
        homes: Homes::default(),
        over_time: over_time(instances),
        exceptions: events()
            .into_iter()
            .filter(|row| row.event.kind == EventKind::EXCEPTION)
            .collect(),
        events: events().into_iter().filter(|row| of_app(&row.event.app)).collect(),
        commands: commands(),
        may: wire::Action::ALL.to_vec(),
        done: None,
    }
}

pub fn events_page() -> EventsPage {
    EventsPage {
        page: page(),
        filter: EventFilter::default(),
        problem: None,
        events: events(),
        older: Some("1790001234250.893".into()),
        paged: false,
    }
}

pub fn commands_page() -> CommandsPage {
    CommandsPage {
        whole: None,
        page: page(),
        filter: CommandFilter::default(),
        problem: None,
        commands: commands(),
        older: None,
        paged: true,
    }
}

pub fn event_page() -> EventPage {
    EventPage { page: page(), event: events().remove(1), around: events() }
}

pub fn audit_page() -> AuditPage {
    let viewer = Viewer::SignedIn { name: "anna".into(), role: "admin".into() };
    let row = |id: i64, act: &str, outcome: &str, subject: &str, detail: Option<&str>| AuditRow {
        id,
        time: ago(100 * (60 - id)),
        who: "anna".into(),
        via: None,
        address: "192.0.2.17".into(),
        act: act.into(),
        outcome: outcome.into(),
        server: (act == "command").then(|| "vm1-prod".into()),
        subject: subject.into(),
        detail: detail.map(str::to_owned),
        command: (act == "command").then(|| format!("c-{}", id / 2)),
        repeats: if outcome == "refused" { 3 } else { 0 },
        hash: format!("{id:064x}"),
    };
    AuditPage {
        page: Page { viewer, ..page() },
        filter: AuditFilter::default(),
        problem: None,
        rows: vec![
            row(57, "command", "succeeded", "restart app api", None),
            row(56, "command", "requested", "restart app api", None),
            row(55, "command", "refused", "delete app api", Some("token ci may not delete")),
            row(54, "token create", "succeeded", "token ci", Some("role operator")),
        ],
        older: Some("54".into()),
        paged: false,
    }
}

pub fn login_page(error: Option<&str>) -> LoginPage {
    LoginPage {
        page: Page { viewer: Viewer::Nobody, ..page() },
        error: error.map(str::to_owned),
        next: "/servers/vm1-prod".into(),
        name: String::new(),
    }
}

/// Names as nobody should give them: markup, the writing turned round, as long as can be.
pub fn hostile_names() -> [String; 4] {
    [
        "<script>alert(1)</script>&\"'><img src=x onerror=alert(2)>".into(),
        "evil\u{202e}gpj.exe\u{2067}x".into(),
        "W".repeat(255),
        "..".into(),
    ]
}

pub fn hostile_server() -> Server {
    let mut state = state();
    for (name, id) in hostile_names().iter().zip(20..) {
        let mut bad = process(name, 0, id);
        bad.instance.namespace = name.as_str().into();
        bad.status = Status::Errored;
        bad.version.clone_from(name);
        bad.readings.custom[0].name = name.into();
        bad.readings.node.insert(name.into(), 1.0);
        state.processes.push(bad);
    }
    state.slots[0].repository = Some(hostile_names()[0].clone());
    state.slots[1].foreign_owner = Some(hostile_names()[1].clone());
    state.exporter.hostname = hostile_names()[0].clone();
    state.pm2.home = hostile_names()[2].clone();
    let mut server = server("vm1", &hostile_names()[0], state);
    server.tags = hostile_names().to_vec();
    server.contact.error = Some(hostile_names()[0].clone());
    server
}

pub fn hostile_events() -> Vec<EventRow> {
    hostile_names()
        .iter()
        .zip(1..)
        .map(|(name, id)| {
            let mut event = Event::new(EventKind::EXIT, Severity::Error, name.clone());
            event.app = Some(app(name));
            event.details.insert(name.clone(), format!("\u{1b}[31m{name}\n</pre>"));
            EventRow { id, server: server_id("vm1"), time: ago(5), event }
        })
        .collect()
}

/// Two PM2s on one server; `api` stands in both, and in the second one of its two is errored.
pub const HOMES: [&str; 2] = ["/home/app/.pm2", "/home/web & co/.pm2"];

pub fn server_of_two_homes() -> Server {
    let mut state = state();
    let home = |home: &str| Pm2State { home: home.into(), ..state.pm2.clone() };
    state.homes = HOMES.map(home).into();
    for process in &mut state.processes {
        process.instance.pm2_home = Some(HOMES[0].into());
    }
    for (home, id) in [(0, 6), (1, 7), (1, 8)] {
        let mut api = process("api", u32::from(id == 8), id);
        api.instance.pm2_home = Some(HOMES[home].into());
        api.restarts.crash = [10, 200][home];
        api.readings.open_fds = Some([31, 47][home]);
        if id == 8 {
            (api.status, api.pid) = (Status::Errored, None);
            api.last_exit = Some(ExitInfo { code: Some(9), signal: None, at: ago(340) });
        }
        state.processes.push(api);
    }
    server("vm1-prod", "eu", state)
}

/// The page of an app there, with a PM2 in its address where one is given.
pub fn app_page_in(name: &str, home: Option<&str>) -> AppPage {
    let server = server_of_two_homes();
    let homes = Homes::of(server.state.as_deref(), &app(name), home).unwrap();
    AppPage { homes, process_cpu: process_cpu(&server), server, ..app_page(name, 1) }
}

pub fn logs_page_in(home: Option<&str>) -> LogsPage {
    let AppPage { page, server, app, homes, .. } = app_page_in("api", home);
    let line = LogLine { instance: 1, error: false, text: "listening on 3000".into() };
    LogsPage {
        page,
        server,
        app,
        text: Ok(if homes.is_open() { vec![] } else { vec![line] }),
        homes,
        stream: "out".into(),
        lines: 200,
        q: String::new(),
    }
}

pub fn action_page_in(home: Option<&str>) -> ActionPage {
    let AppPage { page, server, app, homes, .. } = app_page_in("api", home);
    ActionPage {
        page,
        server: server.id,
        target: Target::App(app),
        homes,
        action: Action::Restart,
        given: BTreeMap::new(),
        problem: None,
        away: false,
        deployments: vec![],
    }
}
