//! Every page, rendered from a fleet as it could be: what does a person read?
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod html;
mod sample;

use dashboards::*;
use html::Html;
use sample::*;
use wire::{AppName, Problem, Severity};

fn read(html: Result<String, Error>) -> Html {
    Html::read(&html.unwrap())
}

#[test]
fn the_fleet_says_first_what_is_wrong() {
    let page = read(mixed_fleet().render());
    page.says(&[
        "Not all right · pm2-fleet",
        "Not all right: 1 server offline, 1 process errored, 1 crash loop, 1 port taken, \
         1 slot not serving, 1 server stale, 1 server not asked yet",
        "Needs attention",
        "offline vm7-staging connection refused (os error 111); last answer 3 h ago",
        "errored vm1-prod / api PM2 gave up restarting 1 of 4 instances; exit code 1, 5 min ago",
        "crash loop vm1-prod / mail-worker 14 crashes in 10 min",
        "port taken vm1-prod / slot-e slot e: port 3005 belongs to nginx (pid 812)",
        "not serving vm1-prod / slot-d slot d: nothing listens on port 3004; the process is launching",
        "stale vm3-prod timed out after 5 s waiting for the answer; last answer 42 s ago",
        "not asked yet vm9-new waiting for its first poll",
        "eu 3 servers online; CPU 35 % on average, 81 % on vm1-prod",
        "vm1-prod prod online 4 s ago 81 % 3.1 of 7.8 GiB 8 of 11, 1 errored 4 of 5",
        "vm2-prod prod online 4 s ago 12 % 3.1 of 7.8 GiB 6 of 6 5 of 5",
        "vm10-prod",
        "us 2 servers, 0 online",
        "vm3-prod prod stale timed out after 5 s waiting for the answer 42 s ago",
        "No group 1 server, 0 online",
        "vm9-new prod not asked yet never – – – –",
        "Latest events",
        "12 s ago error vm1-prod / mail-worker exit",
    ]);
}

#[test]
fn a_fleet_that_is_well_says_so_in_one_line() {
    let page = read(fleet(6).render());
    page.says(&[
        "Everything is all right: 6 servers online, 36 processes online, 30 slots serving",
    ]);
    page.does_not_say("Needs attention");
}

/// What is told to people is never called all right.
#[test]
fn what_alerts_tell_is_told_by_the_page_too() {
    let mut servers = vec![server("vm1", "eu", state()), server("vm2", "eu", state())];
    let grows = "Instance 0 of api (namespace default) on vm2 would grow by 900 MiB.";
    servers[1].alerts = vec![
        alert("Pm2MemoryGrowth", Severity::Warning, Some("api"), grows),
        // The page tells these by itself, and sooner.
        alert("Pm2ProcessErrored", Severity::Critical, Some("api"), "Instance 0 is errored."),
    ];
    let pager = "3 messages to the receiver pager failed.";
    let alerts = vec![alert("Pm2PollerNotifyFailing", Severity::Critical, None, pager)];
    let page = FleetPage { servers: servers.clone(), registered: 2, alerts, ..fleet(0) };
    let page = read(page.render());
    page.says(&[
        "Not all right: the poller is failing, memory of 1 process grows",
        "poller failing",
        "this poller",
        pager,
        "memory grows",
        grows,
    ]);
    page.does_not_say("Instance 0 is errored.");
    let page = read(server_page(servers.remove(1)).render());
    page.says(&["Needs attention", "memory grows", grows]);
    let page = FleetPage { servers, registered: 1, ..fleet(0) };
    read(page.render()).says(&["Everything is all right"]);
}

#[test]
fn a_process_that_somebody_stopped_is_no_alarm_and_not_hidden() {
    let mut state = state();
    state.processes[0].status = wire::Status::Stopped;
    (state.slots[1].status, state.slots[1].serving) = (Some(wire::Status::Stopped), false);
    let servers = vec![server("vm1", "", state)];
    let page = FleetPage { servers, registered: 1, ..fleet(0) };
    read(page.render()).says(&[
        "Everything is all right: 1 server online, 5 of 6 processes online, 4 of 5 slots serving",
    ]);
}

#[test]
fn a_loop_is_over_once_somebody_stopped_it_and_told_though_events_are_missing() {
    let mut state = state();
    let name = state.processes[0].instance.name.clone();
    let mut looping = server("vm1", "", state.clone());
    looping.crashes = [((name.clone(), None), 14)].into();
    let mut told = server("vm2", "", state.clone());
    let said = "Instance 0 crashed or ran out of memory 3 times within 10 minutes.";
    told.alerts = vec![alert("Pm2CrashLoop", Severity::Critical, Some(name.as_str()), said)];
    let mut both = looping.clone();
    both.alerts.clone_from(&told.alerts);
    state.processes[0].status = wire::Status::Stopped;
    let mut stopped = server("vm3", "", state);
    stopped.crashes.clone_from(&looping.crashes);
    stopped.alerts.clone_from(&told.alerts);
    // Stopped between two of its crashes.
    let mut quick = stopped.clone();
    let state = std::sync::Arc::make_mut(quick.state.as_mut().unwrap());
    state.processes[0].last_exit = Some(wire::ExitInfo { at: ago(2), ..Default::default() });
    // Of two PM2s, and of neither often enough.
    let mut apart = server("vm4", "", sample::state());
    let of = |home: &str, count| ((name.clone(), Some(home.into())), count);
    apart.crashes = [of("/a", 2), of("/b", 2)].into();
    for (server, says) in [
        (looping, "14 crashes in 10 min"),
        (told, said),
        (both, "14 crashes in 10 min"),
        (quick, "14 crashes in 10 min"),
        (stopped, "Everything is all right"),
        (apart, "Everything is all right"),
    ] {
        let page = read(FleetPage { servers: vec![server], registered: 1, ..fleet(0) }.render());
        page.says(&[says]);
        match says.starts_with("Everything") {
            true => page.does_not_say("crash loop"),
            false => page.says(&["Not all right: 1 crash loop"]),
        }
    }
}

#[test]
fn a_server_whose_pm2_is_down_is_not_well() {
    let mut state = state();
    state.pm2.up = false;
    state.pm2.error = Some("no socket at /home/app/.pm2/rpc.sock".into());
    state.processes.clear();
    let servers = vec![server("vm1", "", state)];
    read(FleetPage { servers, registered: 1, ..fleet(0) }.render()).says(&[
        "Not all right: PM2 down on 1 server",
        "PM2 down vm1 no socket at /home/app/.pm2/rpc.sock",
        "Servers 1 server online",
        "PM2 down",
    ]);
}

#[test]
fn an_empty_fleet_says_how_to_begin() {
    let page =
        FleetPage { page: Page { viewer: Viewer::ReadOnly, ..page() }, events: vec![], ..fleet(0) };
    let page = read(page.render());
    page.says(&["read only view Sign in", "No servers yet", "poller.toml", "[[servers]]", "url ="]);
    assert_eq!(page.all("table").count(), 0);
}

#[test]
fn a_filter_stays_in_the_form_and_says_what_it_leaves_out() {
    let mut fleet = mixed_fleet();
    fleet.filter = FleetFilter {
        group: "eu".into(),
        tag: "gone".into(),
        status: Some(ServerStatus::Online),
        q: "vm\"1".into(),
    };
    fleet.servers.truncate(3);
    let page = read(fleet.render());
    page.says(&["3 of 6 servers Show all"]);
    let chosen: Vec<_> = page
        .all("option")
        .filter(|option| option.get("selected").is_some())
        .map(|option| option.get("value").unwrap())
        .collect();
    assert_eq!(chosen, ["eu", "gone", "online"]);
    let search = page.all("input").next().unwrap();
    assert_eq!((search.get("name"), search.get("value")), (Some("q"), Some("vm\"1")));
    fleet.servers.clear();
    read(fleet.render()).says(&["No server matches", "0 of 6 servers Show all"]);
}

#[test]
fn a_server_shows_its_machine_processes_and_slots() {
    let page = read(server_page(troubled_server()).render());
    page.says(&[
        "vm1-prod · pm2-fleet",
        "Fleet / vm1-prod",
        "vm1-prod online",
        "answered 4 s ago",
        "CPU",
        "81 % of 4 cores",
        "3.1 of 7.8 GiB 40 %",
        "29 of 40 GiB 11 GiB free",
        "0.42 over one minute",
        "7.0.4 /home/app/.pm2",
        "0.1.0 vm1, linux x86_64",
        "Processes",
        "admin-server online 0 % 38.1 MiB 0.61 ms 2 d 4 h 2 2 deploy 4700",
        "api #3 errored – – – – 14 12 crash, 2 deploy 2 exceptions –",
        "mail-worker waiting restart – 118 MiB 0.61 ms – 1,210 1,204 crash, 1 manual, 2 deploy, 3 out of memory –",
        "slot-d launching – – – –",
        "Slots",
        "a 3001 serving https://github.com/acme/shop.git main, 3f2a91c deployed 2 h ago by anna slot-a",
        "d 3004 not serving placeholder",
        "e 3005 port taken by nginx (pid 812)",
        "Latest events",
        "Latest commands",
        "restart slot-a running anna 1 s ago –",
        "restart slot-a succeeded anna 1 min ago 340 ms online, pid 4713 → online, pid 4726",
        "reload api succeeded anna 1 h ago 4.2 s 4 of 4 online → 4 of 4 online",
        "delete slot-a refused ci 1 h ago 2 ms token ci may not delete on vm1-prod",
        "stop slot b unknown anna 1 d ago 30 s no answer within 30 s",
    ]);
}

#[test]
fn what_is_old_is_called_old_and_does_not_grow() {
    let stale = failed(server("vm1", "", state()), ServerStatus::Stale, 180, "timed out");
    let page = read(server_page(stale).render());
    page.says(&[
        "vm1 stale",
        "Shown as of 3 min ago, when the server last answered. The last poll failed: timed out",
        // Started 187,200 s before now: 3 minutes less were seen.
        "admin-server online 0 % 38.1 MiB 0.61 ms 2 d 3 h",
    ]);
    let offline = failed(server("vm1", "", state()), ServerStatus::Offline, 9_000, "refused");
    read(server_page(offline).render()).says(&["vm1 offline", "Shown as of 2 h ago", "refused"]);
}

#[test]
fn a_server_that_never_answered_shows_no_numbers() {
    let mut never = server("vm1", "", state());
    never.state = None;
    never.contact.last_success = None;
    never.contact.status = ServerStatus::Offline;
    let page = read(server_page(never.clone()).render());
    page.says(&[
        "not asked yet",
        "This server was not asked yet.",
        "Unknown until the server answers",
    ]);
    never.contact.error = Some("certificate expired".into());
    let mut page = server_page(never);
    page.over_time.charts.clear();
    let page = read(page.render());
    page.says(&["offline", "has never answered. The last poll failed: certificate expired"]);
    page.does_not_say(" %");
}

#[test]
fn an_app_shows_its_instances_ledger_and_charts() {
    let page = read(app_page("api", 4).render());
    page.says(&[
        "Fleet / vm1-prod / api",
        "3 of 4 instances online",
        "Over time times in UTC",
        "1 hour 24 hours 7 days 30 days 1 year CSV",
        "CPU percent of one core",
        "instance 3",
        "Memory",
        "Event loop latency",
        "Requests per second",
        "fault warning deployment 4 events in this time",
        "2026-09-21 14:28:14 warning memory 410 MiB over its limit",
        "instance 0 cluster, Node.js 20.11.1, version 1.4.2 online 2 % 50.1 MiB",
        "Restarts by cause",
        "crash 42",
        "reload 0",
        "out of memory 0",
        "Last exit of instance 0: exit code 1, 5 min ago",
        "Readings",
        "open files 23 23 23 –",
        "event loop latency 0.61 ms",
        "heap used 21.4 MiB",
        "http rate 12.25 /s",
        "Orders in work 17 orders",
        "Exceptions",
        "15 s ago error TypeError: Cannot read properties",
        "at sum (/srv/slots/a/app.js:14:22)",
    ]);
    let drawings: Vec<_> = page.all("svg").filter_map(|svg| svg.get("aria-label")).collect();
    assert_eq!(drawings.len(), 4);
    assert!(drawings[0].starts_with("CPU, 13:33 to 14:33 UTC: instance 0: now "), "{drawings:?}");
    let events =
        page.all("a").find(|link| link.get("href") == Some("/events?server=vm1-prod&app=api"));
    assert!(events.is_some());
}

#[test]
fn who_may_only_look_is_told_so() {
    let page = read(AppPage { may: vec![], ..app_page("api", 4) }.render());
    page.says(&["You may look here and change nothing: buttons are for operators."]);
    assert_eq!(page.all("button").filter(|it| it.get("form").is_some()).count(), 0);
    read(app_page("api", 4).render()).does_not_say("change nothing");
}

#[test]
fn an_app_that_is_gone_keeps_its_past() {
    let page = read(app_page("gone", 1).render());
    page.says(&["not in PM2's list now", "PM2 has no process of this name now", "Latest events"]);
    let mut nothing = app_page("gone", 1);
    nothing.over_time.charts.iter_mut().for_each(|chart| chart.series.clear());
    read(nothing.render()).says(&["CPU", "No readings in this time."]);
    nothing.over_time.charts.clear();
    read(nothing.render()).says(&["1 hour", "Nothing was measured in this time."]);
    nothing.over_time.problem = Some("the database is busy".into());
    read(nothing.render()).says(&["The history cannot be read now: the database is busy"]);
}

#[test]
fn events_show_details_and_page_on() {
    let mut events = events_page();
    events.filter.severity = Some(Severity::Error);
    events.filter.since = "2026-09-01T00:00:00Z".into();
    events.paged = true;
    let page = read(events.render());
    page.says(&[
        "Events times in UTC",
        "2026-09-21 14:33:39 error vm1-prod / api exception TypeError",
        "Details",
        "stack",
        "at sum (/srv/slots/a/app.js:14:22)",
        "Newest Older",
    ]);
    let hrefs: Vec<_> = page.all("a").filter_map(|link| link.get("href")).collect();
    let filter = "/events?severity=error&since=2026-09-01T00%3A00%3A00Z";
    assert!(hrefs.contains(&filter), "{hrefs:?}");
    assert!(hrefs.contains(&format!("{filter}&cursor=1790001234250.893").as_str()), "{hrefs:?}");
    assert_eq!(page.all("li").filter(|item| item.get("id") == Some("e899")).count(), 1);
    let wrong = EventsPage { problem: Some("since: \"x\" is no time".into()), ..events_page() };
    read(wrong.render()).says(&["since: \"x\" is no time"]);
    let none = EventsPage { events: vec![], older: None, ..events_page() };
    read(none.render()).says(&["No events yet."]);
}

#[test]
fn commands_tell_who_did_what_where_when_and_how_it_ended() {
    let page = read(commands_page().render());
    page.says(&[
        "Commands times in UTC",
        "restart slot-a on vm1-prod succeeded anna 2026-09-21 14:32:50 340 ms online, pid 4713",
        "stop slot b on vm1-prod unknown anna",
        "Newest",
    ]);
    let none = CommandsPage { commands: vec![], paged: false, ..commands_page() };
    read(none.render()).says(&["Nobody has commanded anything yet."]);
}

#[test]
fn signing_in_asks_for_a_password_or_a_token_and_nothing_else() {
    let page = read(login_page(None).render());
    page.says(&["Sign in", "Name", "Password", "Token"]);
    // Who may not read is shown no way in.
    page.does_not_say("Events");
    assert_eq!(page.all("script").count(), 0);
    let fields: Vec<_> =
        page.all("input").map(|input| (input.get("name"), input.get("value"))).collect();
    let next = (Some("next"), Some("/servers/vm1-prod"));
    let (name, password) = ((Some("name"), Some("")), (Some("password"), None));
    assert_eq!(fields, [next, name, password, next, (Some("token"), None)]);
    let form = page.all("form").next().unwrap();
    assert_eq!((form.get("method"), form.get("action")), (Some("post"), Some("/login")));
    let away = LoginPage { next: "//evil.example".into(), ..login_page(Some("Not valid.")) };
    let page = read(away.render());
    page.says(&["Not valid."]);
    assert_eq!(page.all("input").next().unwrap().get("value"), Some("/"));
}

#[test]
fn signing_out_is_a_form_and_only_for_who_is_signed_in() {
    let page = read(mixed_fleet().render());
    page.says(&["anna operator", "Sign out"]);
    assert!(page.all("form").any(|form| form.get("action") == Some("/logout")
        && form.get("method") == Some("post")));
    let anyone = Page { viewer: Viewer::ReadOnly, ..sample::page() };
    let page = read(ErrorPage::not_found(anyone, "No server is called vm9.").render());
    page.says(&["read only view Sign in", "Not found", "No server is called vm9.", "Status 404"]);
    page.does_not_say("Sign out");
}

#[test]
fn who_may_not_see_something_is_told_how_to() {
    for (status, way) in [(401, "Sign in"), (403, "Sign in with another token")] {
        let problem = Problem {
            kind: "forbidden".into(),
            status,
            title: "Not allowed".into(),
            detail: "Token ci may not see vm1-prod.".into(),
        };
        read(ErrorPage { page: sample::page(), problem }.render()).says(&[
            "Not allowed",
            "Token ci may not see vm1-prod.",
            way,
        ]);
    }
}

#[test]
fn hostile_names_are_text() {
    let [markup, turned, long, dots] = hostile_names();
    let mut fleet = mixed_fleet();
    fleet.servers = vec![hostile_server()];
    fleet.groups = hostile_names().to_vec();
    fleet.tags = hostile_names().to_vec();
    fleet.filter.q = markup.clone();
    fleet.events = hostile_events();
    let mut server = server_page(hostile_server());
    server.events = hostile_events();
    server.page.viewer = Viewer::SignedIn { name: markup.clone(), role: turned.clone() };
    let app = |name: &str| {
        let mut app = app_page("api", 1);
        app.server = hostile_server();
        app.app = name.parse::<AppName>().unwrap();
        app.over_time.charts[0].series[0].label = name.to_owned();
        app.over_time.charts[0].title = name.to_owned();
        app.over_time.charts[0].about = name.to_owned();
        app.over_time.notes[0].text = name.to_owned();
        app.events = hostile_events();
        app
    };
    let mut events = events_page();
    events.events = hostile_events();
    events.filter.app = markup.clone();
    let error = ErrorPage::not_found(sample::page(), format!("{markup}{turned}"));
    let mut pages = vec![fleet.render(), server.render(), events.render(), error.render()];
    pages.extend(hostile_names().iter().map(|name| app(name).render()));
    for html in pages {
        let html = html.unwrap();
        for mark in ['\u{202e}', '\u{2067}'] {
            assert!(!html.contains(mark), "a mark of direction came through");
        }
        // Balance, handlers and addresses are checked while it is read.
        let page = Html::read(&html);
        assert!(
            page.all("script").all(|script| script.get("src").unwrap().starts_with("/static/"))
        );
    }
    let page = read(server.render());
    page.says(&[&markup, "evil\u{fffd}gpj.exe\u{fffd}x", &long]);
    let hrefs: Vec<_> = page.all("a").filter_map(|link| link.get("href")).collect();
    assert!(hrefs.contains(&format!("/servers/vm1/apps/{long}").as_str()));
    assert!(hrefs.iter().any(|href| href.starts_with("/servers/vm1/apps/%3Cscript%3E")));
    assert!(hrefs.iter().all(|href| !href.contains(&dots)), "no browser keeps .. in a path");
}

#[test]
fn pages_are_light() {
    let weigh = |number| fleet(number).render().unwrap().len();
    assert!(weigh(50) < 30_000, "{}", weigh(50));
    assert!(weigh(1000) < 380_000, "{}", weigh(1000));
    let app = app_page("api", 4).render().unwrap().len();
    assert!(app < 40_000, "{app}");
}

#[test]
fn a_range_is_a_link_and_the_chosen_one_is_marked() {
    let mut page = app_page("api", 1);
    page.over_time.range = dashboards::chart::Range::Month;
    let page = read(page.render());
    let links = page.all("a").filter(|link| link.around.iter().any(|name| name == "nav"));
    let ranges: Vec<_> = links
        .filter_map(|link| Some((link.get("href")?, link.get("aria-current").is_some())))
        .filter(|(href, _)| href.starts_with("/servers/vm1-prod/apps/api") || href.contains("csv"))
        .collect();
    let path = "/servers/vm1-prod/apps/api";
    let with = |range: &str| format!("{path}?range={range}");
    assert_eq!(
        ranges,
        [
            (path, false),
            (with("24h").as_str(), false),
            (with("7d").as_str(), false),
            (with("30d").as_str(), true),
            (with("1y").as_str(), false),
            (&format!("/api{path}/metrics?from=30d&format=csv"), false),
        ]
    );
}

#[test]
fn of_many_servers_those_that_are_well_are_folded_away() {
    let page = read(fleet(1000).render());
    page.says(&[
        "Not all right: 40 servers offline",
        "Needs attention",
        "30 more",
        "eu-central 250 servers, 240 online",
        "offline",
        "240 servers that are well",
    ]);
    // Asked for by a filter, they are there to be seen.
    let mut some = fleet(1000);
    some.filter.group = "eu-west".into();
    read(some.render()).does_not_say("that are well");
    read(fleet(100).render()).does_not_say("that are well");
}

#[test]
fn an_event_has_a_page_with_what_happened_around_it() {
    let page = read(event_page().render());
    page.says(&[
        "Events / 899",
        "exception of api on vm1-prod error",
        "TypeError: Cannot read properties",
        "2026-09-21 14:33:39 UTC 15 s ago",
        "stack",
        "at sum (/srv/slots/a/app.js:14:22)",
        "Around it on vm1-prod",
        "exit code 137",
        "curl -H",
        "/api/events/899",
    ]);
}

#[test]
fn the_audit_tells_who_tried_what_and_is_for_admins() {
    let page = read(audit_page().render());
    page.says(&[
        "Fleet Events Commands Audit",
        "Audit who did, or tried to do, what",
        "restart app api on vm1-prod command succeeded anna",
        "192.0.2.17 record",
        "delete app api on vm1-prod command refused anna",
        "token ci may not delete",
        "Older",
        "/api/audit",
    ]);
    read(mixed_fleet().render()).does_not_say("Audit");
}

#[test]
fn what_a_deployment_rarely_needs_is_folded_away_until_it_is_given() {
    let mut form = ActionPage {
        page: page(),
        server: server_id("vm1"),
        target: wire::Target::Slot("a".parse().unwrap()),
        homes: Homes::default(),
        action: wire::Action::Deploy,
        given: [("repository".to_owned(), "https://x/y.git".to_owned())].into(),
        problem: Some("branch: no such branch".into()),
        away: false,
        deployments: vec![],
    };
    let open = |page: &Html| {
        page.all("details").any(|it| it.get("class") == Some("rare") && it.get("open").is_some())
    };
    let first = read(form.render());
    first.says(&[
        "Deploy to slot a on vm1?",
        "branch: no such branch",
        "Repository",
        "More",
        "Commit",
    ]);
    assert!(!open(&first));
    form.given.insert("subdir".into(), "app".into());
    assert!(open(&read(form.render())));
    first.does_not_say("does not answer now");
    let away = ActionPage { away: true, action: wire::Action::Restart, ..form };
    read(away.render()).says(&[
        "Restart slot a on vm1?",
        "vm1 does not answer now.",
        "do it as soon as it answers, within 10 minutes",
        "try now, and give up",
    ]);
}

#[test]
fn a_thousand_servers_in_trouble_are_counted_and_not_all_listed() {
    let mut fleet = fleet(1000);
    for server in &mut fleet.servers {
        *server = failed(server.clone(), ServerStatus::Offline, 600, "connection refused");
    }
    let page = read(fleet.render());
    page.says(&["Not all right: 1,000 servers offline", "And 960 more", "eu-central"]);
}

#[test]
fn addresses_of_static_files_change_with_their_content() {
    let page = read(mixed_fleet().render());
    let style =
        page.all("link").filter_map(|link| link.get("href")).find(|href| href.contains("style"));
    assert_eq!(style, Some(asset("style.css").unwrap().href().as_str()));
    assert_eq!(page.all("script").count(), 1);
}

/// Links of the choice of a PM2: where to, and whether it is the one that is meant.
fn choice(page: &Html) -> Vec<(&str, bool)> {
    let rest = page.elements.iter().skip_while(|it| it.get("aria-label") != Some("PM2")).skip(1);
    let links = rest.take_while(|it| it.around.last().is_some_and(|it| it == "nav" || it == "a"));
    links
        .filter_map(|link| Some((link.get("href")?, link.get("aria-current") == Some("page"))))
        .collect()
}

const IN_FIRST: &str = "pm2_home=%2Fhome%2Fapp%2F.pm2";
const IN_SECOND: &str = "pm2_home=%2Fhome%2Fweb%20%26%20co%2F.pm2";

#[test]
fn a_name_in_several_pm2s_is_chosen_from_before_anything_is_done() {
    let path = "/servers/vm1-prod/apps/api";
    let mut app = app_page_in("api", None);
    app.over_time.range = dashboards::chart::Range::Month;
    let page = read(app.render());
    page.says(&[
        "PM2 in /home/app/.pm2 /home/web & co/.pm2",
        "Several PM2s here have an app of this name: choose one to act on it.",
    ]);
    let hrefs: Vec<_> = page.all("a").filter_map(|link| link.get("href")).collect();
    for home in [IN_FIRST, IN_SECOND] {
        assert!(hrefs.contains(&&*format!("{path}?{home}&range=30d")), "{hrefs:?}");
    }
    let acts = ["/start", "/restart", "/stop", "/delete", "/api/commands"];
    let no_acts = |page: &Html| {
        page.all("button").all(|it| it.get("form").is_none())
            && !page.all("a").any(|it| it.get("data-ask").is_some())
            && acts.iter().all(|act| !page.text.contains(act))
    };
    assert!(no_acts(&page), "{}", page.text);
    let watcher = AppPage { may: vec![], ..app_page_in("api", None) };
    let watcher = read(watcher.render());
    watcher.does_not_say("to act on it");
    assert_eq!(choice(&watcher).len(), 2);

    let page = read(logs_page_in(None).render());
    page.says(&["PM2 in", "choose one to read its log."]);
    page.does_not_say("curl");
    assert!(page.elements.iter().all(|it| it.get("data-follow").is_none()), "nothing is followed");
    let with = |home: &str| format!("{path}/logs?{home}&stream=out");
    assert_eq!(choice(&page), [(&*with(IN_FIRST), false), (&*with(IN_SECOND), false)]);

    let page = read(action_page_in(None).render());
    page.says(&["Restart api on vm1-prod?", "PM2 in", "choose one.", "Cancel"]);
    assert!(page.all("form").all(|form| form.get("action") == Some("/logout")), "nothing to send");
    let with = |home: &str| format!("{path}/restart?{home}");
    assert_eq!(choice(&page), [(&*with(IN_FIRST), false), (&*with(IN_SECOND), false)]);
}

#[test]
fn the_pm2_that_is_meant_stays_in_every_address_and_is_all_that_is_shown() {
    let path = "/servers/vm1-prod/apps/api";
    let second = Some(HOMES[1]);
    let page = read(app_page_in("api", second).render());
    page.says(&[
        "1 of 2 instances online",
        "PM2 in /home/app/.pm2 /home/web & co/.pm2",
        "PM2 gave up restarting 1 of 2 instances",
        "instance 0",
        "instance 1",
        "crash 400",
        "Last exit of instance 1: exit code 9",
        "open files 47 47",
    ]);
    page.does_not_say("choose one");
    let with = |home: &str| format!("{path}?{home}");
    assert_eq!(choice(&page), [(&*with(IN_FIRST), false), (&*with(IN_SECOND), true)]);
    let hrefs: Vec<_> = page.all("a").filter_map(|link| link.get("href")).collect();
    for more in ["?pm2&range=24h", "/logs?pm2", "/restart?pm2", "/delete?pm2"] {
        let href = format!("{path}{}", more.replace("pm2", IN_SECOND));
        assert!(hrefs.contains(&&*href), "{href} is none of {hrefs:?}");
    }
    page.says(&["/api/commands/vm1-prod/apps/api/restart?wait=30s&", IN_SECOND]);
    let start = page.all("button").find_map(|it| it.get("formaction")).unwrap();
    assert_eq!(start, format!("{path}/start?{IN_SECOND}"));

    let page = read(app_page_in("api", Some(HOMES[0])).render());
    page.says(&["online", "crash 10", "open files 31"]);
    page.does_not_say("gave up restarting 1 of");
    page.does_not_say("Last exit");

    let page = read(logs_page_in(second).render());
    page.says(&["PM2 in", "listening on 3000", "curl -N", "lines=100&follow=true&", IN_SECOND]);
    let follow = page.elements.iter().find_map(|it| it.get("data-follow")).unwrap();
    assert_eq!(follow, format!("/api{path}/logs?stream=out&lines=0&follow=true&{IN_SECOND}"));
    let hidden = page.all("input").find(|it| it.get("type") == Some("hidden")).unwrap();
    assert_eq!((hidden.get("name"), hidden.get("value")), (Some("pm2_home"), second));
    assert!(page.all("a").any(|it| it.get("href") == Some(&with(IN_SECOND))), "the way back");

    let page = read(action_page_in(second).render());
    page.says(&["PM2 in", "Save PM2's list", "restart?wait=30s&", IN_SECOND]);
    let form = page.all("form").find(|it| it.get("action") != Some("/logout")).unwrap();
    assert_eq!(form.get("action"), Some(&*format!("{path}/restart?{IN_SECOND}")));
    let back = page.all("a").find(|it| it.get("data-close").is_some()).unwrap();
    assert_eq!(back.get("href"), Some(&*with(IN_SECOND)));
}

#[test]
fn where_nothing_is_to_be_chosen_nothing_is_said() {
    let state = || server_of_two_homes().state.unwrap();
    let of = |state: &wire::State, name: &str, home| Homes::of(Some(state), &app(name), home);
    // In one of two; with one PM2, whose name does no harm.
    for page in [app_page_in("slot-a", None), app_page("api", 4)] {
        let html = page.render().unwrap();
        assert!(!html.contains("pm2_home") && !html.contains("Several"), "{html}");
    }
    assert_eq!(of(&sample::state(), "api", Some("/home/app/.pm2/")), Some(Homes::default()));
    assert_eq!(of(&sample::state(), "api", Some("/nowhere")), None);
    assert_eq!(of(&state(), "api", Some("/nowhere")), None);
    assert_eq!(of(&state(), "api", Some("")), None);
    assert_eq!(of(&state(), "api", Some("/home/app//.pm2/")).unwrap().chosen(), Some(HOMES[0]));
    assert!(of(&state(), "api", None).unwrap().is_open());
    // The one that is meant has it no more: there is a way to the one that has.
    let page = read(app_page_in("slot-a", Some(HOMES[1])).render());
    page.says(&["not in PM2's list now", "PM2 in /home/app/.pm2 /home/web & co/.pm2"]);
    page.does_not_say("serves");
    assert_eq!(choice(&page).len(), 2);
    // Nobody knows what a server that never answered watches.
    let unknown = Homes::of(None, &app("api"), Some("/x")).unwrap();
    assert_eq!((unknown.chosen(), unknown.is_open()), (Some("/x"), false));
}
