use proptest::prelude::*;
use wire::{CustomMetric, EventKind, JournalPosition, SampledProcess, Severity, Status};

use super::*;

fn now() -> Time {
    Time::from_millis(1_700_000_000_000)
}

fn check(page: JournalPage, from: &Cursor, now: Time) -> Result<Checked, Failure> {
    super::check(page, from, now, Future::Refused)
}

fn instance(name: &str, instance_id: u32) -> Instance {
    Instance {
        name: name.parse().unwrap(),
        namespace: "default".into(),
        instance_id,
        pm2_home: None,
    }
}

fn sampled(instance_id: u32) -> SampledProcess {
    SampledProcess {
        instance: instance("api", instance_id),
        status: Status::Online,
        restarts: 0,
        readings: Readings {
            cpu_seconds: Some(1.5),
            memory_bytes: Some(1 << 20),
            custom: vec![CustomMetric { name: "users".into(), value: -1.0, unit: "".into() }],
            ..Readings::default()
        },
    }
}

fn sample(seq: u64) -> Entry {
    let sample = Sample { host: None, processes: vec![sampled(0), sampled(1)] };
    Entry { seq, time: now(), record: Record::Sample(sample) }
}

fn event(seq: u64) -> Entry {
    let event = Event::new(EventKind::EXIT, Severity::Warning, "api exited");
    Entry { seq, time: now(), record: Record::Event(event) }
}

/// Entries 4 to 6 of a journal that keeps 3 to 6, after 3.
fn page() -> JournalPage {
    JournalPage {
        now: now(),
        journal: JournalPosition { epoch: "e".into(), first: 3, next: 7 },
        entries: vec![sample(4), event(5), sample(6)],
        after: 6,
        lost: 0,
        anew: false,
        more: false,
        state_revision: 1,
        state: None,
    }
}

fn from(epoch: &str, after: u64) -> Cursor {
    Cursor { epoch: epoch.into(), after }
}

fn refused(page: JournalPage, from: &Cursor) -> Reason {
    check(page, from, now()).unwrap_err().reason
}

#[test]
fn a_good_page_moves_the_cursor() {
    let checked = check(page(), &from("e", 3), now()).unwrap();
    assert_eq!((checked.cursor, checked.anew), (from("e", 6), false));
}

#[test]
fn an_empty_page_leaves_the_cursor() {
    let empty = JournalPage { entries: Vec::new(), ..page() };
    assert_eq!(check(empty, &from("e", 6), now()).unwrap().cursor, from("e", 6));
}

#[test]
fn a_new_epoch_goes_on_or_begins_anew() {
    assert!(!check(page(), &from("", 0), now()).unwrap().anew, "never asked before");
    assert!(!check(page(), &from("former", 3), now()).unwrap().anew, "goes on");
    assert!(check(page(), &from("former", 99), now()).unwrap().anew);
    assert!(check(JournalPage { anew: true, ..page() }, &from("former", 3), now()).unwrap().anew);
    // What of the new journal is gone is told by `lost`, not by this.
    let late = JournalPage { lost: 2, ..page() };
    assert_eq!(check(late, &from("", 0), now()).unwrap().page.lost, 2);
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    type Wrong = (&'static str, fn(&mut JournalPage));
    let wrong: [Wrong; 9] = [
        ("a gap", |page| page.entries[1].seq = 6),
        ("a repeat", |page| page.entries[1].seq = 4),
        ("backwards", |page| page.entries.reverse()),
        ("before the journal", |page| page.journal.first = 5),
        ("beyond the journal", |page| page.journal.next = 6),
        ("another after", |page| page.after = 7),
        ("first beyond next", |page| page.journal.first = 8),
        ("more of nothing", |page| {
            page.entries.clear();
            page.after = 3;
            page.more = true;
        }),
        ("no epoch", |page| page.journal.epoch = "".into()),
    ];
    for (what, change) in wrong {
        let mut page = page();
        change(&mut page);
        assert_eq!(refused(page, &from("e", 3)), Reason::Journal, "{what}");
    }
    assert_eq!(refused(page(), &from("e", 2)), Reason::Journal, "something was left out");
    assert_eq!(refused(page(), &from("e", 4)), Reason::Journal, "something comes again");
    assert_eq!(refused(page(), &from("e", 7)), Reason::Journal, "a cursor it never gave");
}

#[test]
fn what_is_much_all_together_is_refused_though_each_of_it_may_be() {
    let with = |details: usize| {
        let mut page = page();
        let Record::Event(event) = &mut page.entries[1].record else { panic!("no event") };
        let detail = |n: usize| (n.to_string(), "x".repeat(40_000));
        event.details.extend((0..details).map(detail));
        page
    };
    assert!(check(with(2), &from("e", 3), now()).is_ok());
    assert_eq!(refused(with(3), &from("e", 3)), Reason::Limits);
    // Names that many series have.
    let with = |home: usize| {
        let json = include_str!("../../../../wire/golden/state.json");
        let mut state: State = serde_json::from_str(json).unwrap();
        state.time = now();
        let metric =
            |n: usize| CustomMetric { name: n.to_string().into(), value: 1.0, unit: "".into() };
        let mut process = state.processes[0].clone();
        process.readings.node.clear();
        process.readings.custom = (0..60).map(metric).collect();
        process.instance.pm2_home = Some("x".repeat(home).into());
        state.processes = (0..900)
            .map(|n| {
                let mut process = process.clone();
                process.instance.instance_id = n;
                process
            })
            .collect();
        JournalPage { state: Some(Box::new(state)), ..page() }
    };
    assert!(check(with(50), &from("e", 3), now()).is_ok());
    assert_eq!(refused(with(3500), &from("e", 3)), Reason::Limits);
}

#[test]
fn times_of_the_present_that_have_not_come_are_not_taken() {
    let json = include_str!("../../../../wire/golden/state.json");
    let mut state: State = serde_json::from_str(json).unwrap();
    state.time = now();
    state.slots[0].more = Some(Box::default());
    let with = |time: Time| {
        let mut state = state.clone();
        state.exporter.started_at = time;
        state.pm2.confirmed_at = Some(time);
        state.host.as_mut().unwrap().booted_at = Some(time);
        state.processes[0].started_at = Some(time);
        state.processes[0].last_exit = Some(wire::ExitInfo { at: time, ..Default::default() });
        state.slots[0].deployed_at = Some(time);
        state.slots[0].more.as_mut().unwrap().last_deploy_at = Some(time);
        let page = JournalPage { state: Some(Box::new(state)), ..page() };
        check(page, &from("e", 3), now()).unwrap().page.state.unwrap()
    };
    let seen = |state: &State| {
        let slot = &state.slots[0];
        let kept = [
            Some(state.exporter.started_at),
            state.pm2.confirmed_at,
            state.processes[0].last_exit.as_ref().map(|exit| exit.at),
        ];
        let booted = state.host.as_ref().unwrap().booted_at;
        let deployed = slot.more.as_ref().unwrap().last_deploy_at;
        (kept, [booted, state.processes[0].started_at, slot.deployed_at, deployed])
    };
    for good in [now().plus_millis(-86_400_000), now().plus_millis(AHEAD)] {
        assert_eq!(seen(&with(good)), ([Some(good); 3], [Some(good); 4]));
    }
    let late = with(now().plus_millis(86_400_000));
    assert_eq!(seen(&late), ([Some(now()); 3], [None; 4]));
    let mut twice = state.clone();
    let token = wire::TokenExpiry { name: "t".into(), expires_at: now() };
    twice.exporter.token_expiries = vec![token.clone(), token];
    let page = JournalPage { state: Some(Box::new(twice)), ..page() };
    assert_eq!(refused(page, &from("e", 3)), Reason::Malformed);
}

#[test]
fn times_in_the_future_are_refused() {
    let ahead = |millis| {
        let mut page = page();
        page.entries[1].time = now().plus_millis(millis);
        page
    };
    assert!(check(ahead(60_000), &from("e", 3), now()).is_ok());
    assert_eq!(refused(ahead(60_001), &from("e", 3)), Reason::FutureTime);
    let wrong_clock = || JournalPage { now: now().plus_millis(60_001), ..page() };
    assert_eq!(refused(wrong_clock(), &from("e", 3)), Reason::FutureTime);
    let right = super::check(ahead(60_001), &from("e", 3), now(), Future::SetRight).unwrap();
    assert_eq!((right.cursor, right.page.entries.len()), (from("e", 6), 3));
    assert_eq!(right.page.entries[1].time, now());
    assert_eq!(right.corrected.map(|it| (it.samples, it.events)), Some((0, 1)));
    assert!(super::check(wrong_clock(), &from("e", 3), now(), Future::SetRight).is_err());
}

/// Changes the first process of the first sample.
fn with(change: impl Fn(&mut SampledProcess)) -> JournalPage {
    let mut page = page();
    if let Record::Sample(sample) = &mut page.entries[0].record {
        change(&mut sample.processes[0]);
    }
    page
}

#[test]
fn values_that_cannot_be_are_refused() {
    for value in [f64::NAN, f64::INFINITY, -0.1] {
        let page = with(|process| process.readings.cpu_seconds = Some(value));
        assert_eq!(refused(page, &from("e", 3)), Reason::Value);
    }
    let page = with(|process| process.readings.custom[0].value = f64::NAN);
    assert_eq!(refused(page, &from("e", 3)), Reason::Value);
}

#[test]
fn too_much_of_anything_is_refused() {
    let page_of = |processes: u32| {
        let mut page = page();
        let processes = (0..processes).map(sampled).collect();
        page.entries[0].record = Record::Sample(Sample { host: None, processes });
        page
    };
    assert!(check(page_of(1000), &from("e", 3), now()).is_ok());
    assert_eq!(refused(page_of(1001), &from("e", 3)), Reason::Limits);
    let long = "x".repeat(10_000);
    let page = with(|process| process.readings.custom[0].name = long.as_str().into());
    assert_eq!(refused(page, &from("e", 3)), Reason::Limits);
    let page = with(|process| process.instance.namespace = long.clone().into());
    assert_eq!(refused(page, &from("e", 3)), Reason::Limits);
}

#[test]
fn what_would_make_two_series_of_one_name_is_refused() {
    let page = with(|process| process.instance = instance("api", 1));
    assert_eq!(refused(page, &from("e", 3)), Reason::Malformed);
    let page = with(|process| {
        let twice = process.readings.custom[0].clone();
        process.readings.custom.push(twice);
    });
    assert_eq!(refused(page, &from("e", 3)), Reason::Malformed);
}

proptest! {
    /// Whatever is accepted takes the reader on without a hole: every entry after the cursor
    /// and up to the new one, in order, or a loss that is told.
    #[test]
    fn what_is_accepted_has_no_hole(
        seqs in proptest::collection::vec(0..12u64, 0..6),
        first in 0..10u64,
        next in 0..14u64,
        after in 0..14u64,
        asked in 0..12u64,
        same in any::<bool>(),
        more in any::<bool>(),
    ) {
        let page = JournalPage {
            journal: JournalPosition { epoch: "e".into(), first, next },
            entries: seqs.iter().map(|seq| event(*seq)).collect(),
            after,
            more,
            ..page()
        };
        let cursor = from(if same { "e" } else { "other" }, asked);
        if let Ok(checked) = check(page, &cursor, now()) {
            let begin = seqs.first().copied().unwrap_or(after + 1);
            let expected: Vec<u64> = (begin..=after).collect();
            prop_assert_eq!(&seqs, &expected);
            prop_assert!(begin >= first && after < next);
            if same {
                prop_assert!(begin == asked + 1 || begin == first);
                prop_assert!(begin > asked);
            }
            prop_assert_eq!(checked.cursor.after, after);
        }
    }
}
