use super::*;
use proptest::prelude::*;

fn id(number: u32) -> CommandId {
    format!("d{number}").parse().unwrap()
}

/// PM2 and the disk, as far as a slot needs them.
#[derive(Debug, Default)]
struct World {
    processes: Vec<Occupant>,
    releases: Vec<CommandId>,
}

impl World {
    fn seen(&self) -> Seen {
        match &self.processes[..] {
            [] => Seen::Nothing,
            [one] => Seen::Occupant(one.clone()),
            _ => Seen::Other,
        }
    }

    /// Does half of a step (a crash), or all of it.
    fn perform(&mut self, change: &Change, part: Part) -> Option<Went> {
        let start = match change.phase {
            Phase::Fetch => {
                self.releases.push(change.id.clone());
                None
            }
            Phase::Switch => Some(change.to.clone()),
            Phase::PutBack => Some(change.from.clone()),
            Phase::LastResort => Some(Occupant::Placeholder),
            _ => None,
        };
        if let Some(occupant) = start {
            if part == Part::CrashBefore {
                return None;
            }
            self.processes.clear();
            if part == Part::CrashBetween {
                return None;
            }
            if part == Part::Wrong && change.phase != Phase::LastResort {
                return Some(Went::Wrong("PM2 refused".to_owned()));
            }
            self.processes.push(occupant);
        }
        match part {
            Part::Well => Some(Went::Well),
            Part::Wrong if change.phase == Phase::LastResort => Some(Went::Well),
            Part::Wrong => Some(Went::Wrong("wrong".to_owned())),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Well,
    Wrong,
    CrashBefore,
    CrashBetween,
    CrashAfter,
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        6 => Just(Part::Well),
        2 => Just(Part::Wrong),
        1 => Just(Part::CrashBefore),
        1 => Just(Part::CrashBetween),
        1 => Just(Part::CrashAfter),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        4 => Just(Wish::Deploy),
        2 => Just(Wish::Stop),
        2 => Just(Wish::Restart),
        2 => Just(Wish::Rollback(None)),
        2 => (0u32..40).prop_map(|number| Wish::Rollback(Some(id(number)))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_slot_has_exactly_one_process_at_rest(
        wishes in proptest::collection::vec((wish(), proptest::collection::vec(part(), 40)), 1..40)
    ) {
        let mut world =
            World { processes: vec![Occupant::Placeholder], ..World::default() };
        let mut slot = Standing::default();
        for (number, (wish, parts)) in (0u32..).zip(wishes) {
            let before = slot.clone();
            let mut parts = parts.into_iter();
            if slot.begin(id(number), wish.clone()).is_err() {
                prop_assert_eq!(&slot, &before);
                continue;
            }
            let mut end = None;
            while end.is_none() && slot.change.is_some() {
                // What is on disk when the step begins is what a crash leaves.
                let change = slot.change.clone().unwrap();
                let part = parts.next().unwrap_or(Part::Well);
                end = match world.perform(&change, part) {
                    Some(went) => slot.went(went),
                    None => slot.resume(&world.seen()),
                };
            }
            let end = end.unwrap();
            if let Some(discard) = &end.discard {
                world.releases.retain(|release| release != discard);
            }
            for old in slot.prune(5) {
                world.releases.retain(|release| *release != old);
            }
            prop_assert_eq!(&world.processes, &vec![slot.current.clone()], "{:?} {:?}", wish, end);
            // Whole: either what was wanted runs, or what ran before, or the last resort.
            if end.failure.is_none() {
                match wish {
                    Wish::Deploy => prop_assert_eq!(&slot.current, &Occupant::Release(id(number))),
                    Wish::Stop => prop_assert_eq!(&slot.current, &Occupant::Placeholder),
                    Wish::Restart => prop_assert_eq!(&slot.current, &before.current),
                    Wish::Rollback(_) => prop_assert_ne!(&slot.current, &before.current),
                }
            } else if wish != Wish::Stop {
                prop_assert!(
                    slot.current == before.current || slot.current == Occupant::Placeholder
                );
            }
            // Nothing is on disk that nobody can use, and what runs is there.
            prop_assert!(slot.kept.len() <= 5);
            for release in &world.releases {
                prop_assert!(slot.kept.contains(release), "{} is left over", release);
            }
            if let Occupant::Release(current) = &slot.current {
                prop_assert!(world.releases.contains(current));
            }
        }
    }
}

#[test]
fn what_is_not_there_is_refused_and_changes_nothing() {
    let mut slot = Standing::default();
    assert_eq!(slot.begin(id(1), Wish::Rollback(None)), Err(Refusal::NoFormer));
    assert_eq!(slot.begin(id(1), Wish::Rollback(Some(id(0)))), Err(Refusal::NotKept(id(0))));
    slot.begin(id(1), Wish::Deploy).unwrap();
    assert_eq!(slot.begin(id(2), Wish::Stop), Err(Refusal::Busy));
}
