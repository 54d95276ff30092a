use std::collections::{BTreeMap, BTreeSet};

use exposition::alerts;
use proptest::prelude::*;
use reqwest::Url;

use super::super::alert::Finding;
use super::super::receiver::{Address, Kind};
use super::*;

pub(crate) fn receiver() -> Receiver {
    Receiver {
        name: "team".to_owned(),
        kind: Kind::Webhook(None),
        address: Address(Url::parse("http://127.0.0.1:1/hook").unwrap()),
        headers: Vec::new(),
        tls: None,
        severities: BTreeSet::new(),
        alerts: BTreeSet::new(),
        servers: BTreeSet::new(),
        groups: BTreeSet::new(),
        tags: BTreeSet::new(),
        hold: None,
        group_wait: Duration::from_secs(10),
        repeat_interval: Duration::from_secs(3600),
        resolved: true,
        timeout: Duration::from_secs(1),
        runbook_url: None,
        page_url: None,
    }
}

pub(crate) fn key(alert: &exposition::Alert, server: &str) -> Key {
    let labels = [("server".to_owned(), server.to_owned())];
    Key { alert: alert.name.to_owned(), labels: labels.into() }
}

fn finding(key: Key) -> Finding {
    Finding {
        key,
        description: "It is so.".to_owned(),
        group: "eu".to_owned(),
        tags: vec!["prod".to_owned()],
    }
}

/// What holds at one moment, to the next.
struct World {
    now: Time,
    ledger: Ledger,
    book: Book,
    receiver: Receiver,
}

impl World {
    fn new(receiver: Receiver) -> Self {
        let now = Time::from_millis(1_700_000_000_000);
        Self { now, ledger: Ledger::default(), book: Book::default(), receiver }
    }

    /// After so many seconds these hold; gives what is to be told, in short.
    fn after(&mut self, seconds: i64, hold: &[&Key]) -> Option<Message> {
        self.now = self.now.plus_millis(seconds * 1000);
        let findings = hold.iter().map(|key| finding((*key).clone())).collect();
        self.ledger.look(self.now, findings, |_, _| false);
        self.book.message(self.now, &self.ledger, &self.receiver)
    }

    fn tell(&mut self, message: Option<Message>) -> Vec<(bool, String)> {
        let message = message.expect("a message");
        let told = message
            .notices
            .iter()
            .map(|notice| (notice.ended.is_none(), notice.key.label("server").unwrap().to_owned()))
            .collect();
        self.book.sent(self.now, message);
        told
    }
}

#[test]
fn a_condition_is_told_when_it_has_held_with_others_and_again_and_when_it_is_over() {
    let mut world = World::new(receiver());
    let (one, two) = (key(&alerts::SERVER_DOWN, "vm1"), key(&alerts::SERVER_DOWN, "vm2"));
    assert_eq!(world.after(0, &[&one]), None);
    assert_eq!(world.after(119, &[&one]), None, "two minutes are not over");
    assert_eq!(world.after(1, &[&one, &two]), None, "others may follow");
    assert_eq!(world.after(9, &[&one, &two]), None);
    let message = world.after(1, &[&one, &two]);
    assert_eq!(world.tell(message), [(true, "vm1".to_owned())], "vm2 has not held for long enough");
    assert_eq!(world.after(60, &[&one, &two]), None);
    assert_eq!(world.after(60, &[&one]), None, "vm2 was over before it was told");
    assert_eq!(world.after(3478, &[&one]), None);
    let message = world.after(2, &[&one]);
    assert_eq!(world.tell(message), [(true, "vm1".to_owned())], "an hour is over");
    assert_eq!(world.after(1, &[]), None, "others may end");
    assert_eq!(world.after(9, &[]), None);
    let message = world.after(1, &[]);
    assert_eq!(message.as_ref().unwrap().notices[0].ended, Some(world.now));
    assert_eq!(world.tell(message), [(false, "vm1".to_owned())]);
    assert_eq!(world.after(7200, &[]), None);
    assert_eq!(world.book, Book::default(), "nothing is left of it");
}

#[test]
fn what_began_and_ended_within_the_window_is_not_told() {
    let mut world = World::new(Receiver { hold: Some(Duration::ZERO), ..receiver() });
    let one = key(&alerts::SERVER_DOWN, "vm1");
    assert_eq!(world.after(0, &[&one]), None);
    assert_eq!(world.book.untold(), 1);
    assert_eq!(world.after(5, &[]), None);
    assert_eq!(world.after(60, &[]), None);
    assert_eq!(world.book, Book::default());
}

#[test]
fn a_receiver_that_fails_is_left_alone_for_longer_and_longer_and_hears_how_it_is_then() {
    let mut world = World::new(Receiver {
        hold: Some(Duration::ZERO),
        group_wait: Duration::ZERO,
        ..receiver()
    });
    let (one, two) = (key(&alerts::SERVER_DOWN, "vm1"), key(&alerts::SERVER_DOWN, "vm2"));
    assert!(world.after(0, &[&one]).is_some());
    for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        world.book.failed(world.now, None);
        assert_eq!(world.after(pause - 1, &[&one]), None, "{pause}");
        assert!(world.after(1, &[&one]).is_some(), "{pause}");
    }
    world.book.failed(world.now, Some(Duration::from_secs(86_400)));
    assert_eq!(world.after(899, &[&one]), None, "a day is more than it gets");
    let message = world.after(1, &[&two]);
    assert_eq!(world.tell(message), [(true, "vm2".to_owned())], "vm1 is well, and never was told");
    world.book.failed(world.now, Some(Duration::from_secs(7)));
    assert_eq!(world.after(6, &[]), None, "the wait that it asked for");
    let message = world.after(1, &[]);
    assert_eq!(world.tell(message), [(false, "vm2".to_owned())]);
    assert_eq!(world.book.failures(), 0);
}

#[test]
fn a_storm_comes_in_pieces_one_after_the_other() {
    let mut world = World::new(Receiver { hold: Some(Duration::ZERO), ..receiver() });
    let keys: Vec<Key> =
        (0..250).map(|n| key(&alerts::SERVER_DOWN, &format!("vm{n:03}"))).collect();
    let keys: Vec<&Key> = keys.iter().collect();
    assert_eq!(world.after(0, &keys), None);
    let mut told = Vec::new();
    for (after, left) in [(10, 150), (1, 50), (1, 0)] {
        let message = world.after(after, &keys);
        assert_eq!(message.as_ref().unwrap().left, left);
        told.extend(world.tell(message));
    }
    assert_eq!(told.len(), 250);
    assert_eq!(world.after(1, &keys), None);
}

#[test]
fn filters() {
    let mut active = Active {
        since: Time::from_millis(0),
        description: String::new(),
        group: "eu".to_owned(),
        tags: vec!["prod".to_owned(), "db".to_owned()],
        found: true,
    };
    let (down, drift) = (key(&alerts::SERVER_DOWN, "vm1"), key(&alerts::DUMP_DRIFT, "vm1"));
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let critical = Receiver { severities: [wire::Severity::Critical].into(), ..receiver() };
    assert!(critical.wants(&down, &active) && !critical.wants(&drift, &active));
    let named = Receiver { alerts: ["Pm2DumpDrift"].into(), ..receiver() };
    assert!(!named.wants(&down, &active) && named.wants(&drift, &active));
    let elsewhere = Receiver { groups: set(&["us"]), ..receiver() };
    assert!(!elsewhere.wants(&down, &active));
    let tagged = Receiver { tags: set(&["db", "cache"]), groups: set(&["eu"]), ..receiver() };
    assert!(tagged.wants(&down, &active));
    let server = Receiver { servers: ["vm2".parse().unwrap()].into(), ..receiver() };
    assert!(!server.wants(&down, &active));
    let own = Key { alert: alerts::POLLER_BEHIND.name.to_owned(), labels: BTreeMap::new() };
    (active.group, active.tags) = (String::new(), Vec::new());
    assert!(receiver().wants(&own, &active) && !tagged.wants(&own, &active));
    assert!(!server.wants(&own, &active), "the poller itself is of no server");
}

#[test]
fn a_filter_that_changes_makes_nothing_over() {
    let mut world = World::new(Receiver {
        hold: Some(Duration::ZERO),
        group_wait: Duration::ZERO,
        ..receiver()
    });
    let one = key(&alerts::SERVER_DOWN, "vm1");
    let message = world.after(0, &[&one]);
    world.tell(message);
    world.receiver.alerts = ["Pm2DumpDrift"].into();
    assert_eq!(world.after(1, &[&one]), None);
    assert_eq!(world.after(1, &[]), None);
    world.receiver = Receiver { resolved: false, ..world.receiver };
}

#[derive(Clone, Debug)]
enum Step {
    /// So many seconds pass, and these hold then; those that are not seen are of unknown state.
    Look {
        seconds: i64,
        hold: u8,
        unseen: u8,
        works: bool,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (1i64..400, any::<u8>(), any::<u8>(), any::<bool>()).prop_map(
            |(seconds, hold, unseen, works)| Step::Look { seconds, hold, unseen: unseen & 0x11, works }
        ),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Against a model of what each side knows: whatever happens, and however often the program
    /// ends in between, a receiver hears of nothing twice within the interval, of no end of what
    /// it had not heard of, of nothing that had not held for long enough, and in the end knows
    /// how things are.
    #[test]
    fn a_receiver_always_comes_to_know_how_things_are(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let keys: Vec<Key> =
            (0..8).map(|n| key(&alerts::SERVER_DOWN, &format!("vm{n}"))).collect();
        let mut world = World::new(receiver());
        let mut since: BTreeMap<Key, Time> = BTreeMap::new();
        let mut told: BTreeMap<Key, Time> = BTreeMap::new();
        let settle = [Step::Look { seconds: 1, hold: 0b1010, unseen: 0, works: true }]
            .into_iter()
            .chain(std::iter::repeat_n(
                Step::Look { seconds: 130, hold: 0b1010, unseen: 0, works: true },
                8,
            ));
        for step in steps.into_iter().chain(settle) {
            let (seconds, hold, unseen, works) = match step {
                Step::Look { seconds, hold, unseen, works } => (seconds, hold, unseen, works),
                Step::Restart => {
                    let active: Vec<(&Key, &Active)> = world.ledger.active().iter().collect();
                    let text = serde_json::to_string(&active).unwrap();
                    let active = serde_json::from_str(&text).unwrap();
                    world.ledger = Ledger::restored(active, world.now);
                    world.book = Book::restored(&world.book.kept(0), world.now).unwrap();
                    continue;
                }
            };
            world.now = world.now.plus_millis(seconds * 1000);
            let is = |bits: u8, n: usize| bits & (1 << n) != 0;
            let findings = keys.iter().enumerate()
                .filter(|(n, _)| is(hold, *n) && !is(unseen, *n))
                .map(|(_, key)| finding(key.clone())).collect();
            let unknown =
                |key: &Key, _: &Active| keys.iter().position(|it| it == key).is_some_and(|n| is(unseen, n));
            world.ledger.look(world.now, findings, unknown);
            for (n, key) in keys.iter().enumerate().filter(|(n, _)| !is(unseen, *n)) {
                if is(hold, n) {
                    since.entry(key.clone()).or_insert(world.now);
                } else {
                    since.remove(key);
                }
            }
            let Some(message) = world.book.message(world.now, &world.ledger, &world.receiver) else {
                continue;
            };
            prop_assert!(!message.notices.is_empty());
            for notice in &message.notices {
                let before = told.get(&notice.key);
                if notice.ended.is_none() {
                    let held = world.now.millis_since(since[&notice.key]);
                    prop_assert!(held >= 120_000, "{notice:?} after {held} ms");
                    if let Some(before) = before {
                        prop_assert!(world.now.millis_since(*before) >= 3_600_000, "{notice:?}");
                    }
                } else {
                    prop_assert!(before.is_some(), "{notice:?} is over, and was never told");
                }
            }
            if works {
                for notice in &message.notices {
                    match notice.ended {
                        None => { told.insert(notice.key.clone(), world.now); }
                        Some(_) => { told.remove(&notice.key); }
                    }
                }
                world.book.sent(world.now, message);
            } else {
                world.book.failed(world.now, None);
            }
        }
        let known: Vec<&Key> = told.keys().collect();
        prop_assert_eq!(known, [&keys[1], &keys[3]]);
    }
}
