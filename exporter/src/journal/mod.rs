//! The journal: a bounded, numbered record of samples and events, in memory and, where there
//! is a folder for it, on disk as well.

mod file;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use file::{Epoch, JournalFile};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wire::{Entry, Event, JournalPosition, Record, Sample, Time};

/// A page is ended before its entries grow beyond this, well below what a poller accepts.
const PAGE_BYTES: usize = wire::MAX_BODY_BYTES / 4;

#[derive(Debug)]
struct Kept {
    seq: u64,
    json: Box<RawValue>,
}

#[derive(Debug)]
struct Ring {
    entries: VecDeque<Kept>,
    bytes: usize,
    next: u64,
    file: Option<JournalFile>,
}

impl Ring {
    fn push(&mut self, kept: Kept, capacity: usize) {
        self.bytes += kept.json.get().len();
        self.entries.push_back(kept);
        while self.bytes > capacity && self.entries.len() > 1 {
            if let Some(old) = self.entries.pop_front() {
                self.bytes -= old.json.get().len();
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    epoch: String,
    /// Earlier lives, whose positions are understood, and this one.
    epochs: Vec<Epoch>,
    capacity: usize,
    ring: Mutex<Ring>,
    /// Number of the last event.
    last_event: watch::Sender<u64>,
}

/// Entries after a position.
#[derive(Debug)]
pub struct Page {
    /// Where the journal stands.
    pub journal: JournalPosition,
    /// The entries' JSON, oldest first.
    pub entries: Vec<Box<RawValue>>,
    /// Position after the last of them.
    pub after: u64,
    /// Entries between the position asked for and the oldest kept.
    pub lost: u64,
    /// The position asked for is none of this journal's.
    pub anew: bool,
    /// More are there already.
    pub more: bool,
}

impl Journal {
    /// An empty journal that keeps about `capacity` bytes of entries.
    pub fn new(epoch: String, capacity: usize) -> Self {
        Self {
            epochs: vec![Epoch { epoch: epoch.clone(), first: 1 }],
            epoch,
            capacity,
            ring: Mutex::new(Ring { entries: VecDeque::new(), bytes: 0, next: 1, file: None }),
            last_event: watch::channel(0).0,
        }
    }

    /// Continues the journal that is kept in `folder`. Every start is a new epoch; a reader
    /// who stands in an earlier one goes on where it stood.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open(epoch: String, capacity: usize, folder: &Path) -> std::io::Result<Self> {
        let (file, found, epochs) = JournalFile::open(folder, &epoch, capacity)?;
        let next = epochs.last().map_or(1, |epoch| epoch.first);
        let mut ring = Ring { entries: VecDeque::new(), bytes: 0, next, file: Some(file) };
        let mut last_event = 0;
        // Entries before a lost tail cannot be told from a loss behind them.
        let whole = found.last().is_none_or(|last| last.seq + 1 == next);
        for entry in found.into_iter().filter(|_| whole) {
            if entry.is_event {
                last_event = entry.seq;
            }
            ring.push(Kept { seq: entry.seq, json: entry.json }, capacity);
        }
        let last_event = watch::channel(last_event).0;
        Ok(Self { epoch, epochs, capacity, ring: Mutex::new(ring), last_event })
    }

    /// The position in this life that a position of `epoch` means; `None` for no life of this
    /// journal's.
    fn position_in(&self, epoch: &str, after: u64) -> Option<u64> {
        let at = self.epochs.iter().position(|known| known.epoch == epoch)?;
        Some(match self.epochs.get(at + 1) {
            // Beyond its end the earlier life had entries that were lost with its tail.
            Some(next) => after.min(next.first - 1),
            None => after,
        })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened at `time`.
    pub fn event(&self, time: Time, event: Event) {
        let seq = self.add(time, Record::Event(event));
        // Two that come at once may be told in the other order: it never goes back.
        self.last_event.send_if_modified(|last| std::mem::replace(last, seq.max(*last)) < seq);
    }

    /// Readings were taken at `time`.
    pub fn sample(&self, time: Time, sample: Sample) {
        self.add(time, Record::Sample(sample));
    }

    fn add(&self, time: Time, record: Record) -> u64 {
        let mut ring = self.ring();
        let seq = ring.next;
        ring.next += 1;
        match to_raw_value(&Entry { seq, time, record }) {
            Ok(json) => {
                if let Some(file) = &mut ring.file {
                    file.add(json.get());
                }
                ring.push(Kept { seq, json }, self.capacity);
            }
            // No type of an entry can fail to be written; its number then stays missing, which
            // a reader sees as a loss.
            Err(error) => tracing::error!(%error, seq, "an entry cannot be written"),
        }
        seq
    }

    /// Where it stands.
    pub fn position(&self) -> JournalPosition {
        self.position_of(&self.ring())
    }

    fn position_of(&self, ring: &Ring) -> JournalPosition {
        JournalPosition {
            epoch: self.epoch.as_str().into(),
            first: ring.entries.front().map_or(ring.next, |kept| kept.seq),
            next: ring.next,
        }
    }

    /// Number of the last event, to be told when there is another.
    pub fn last_event(&self) -> watch::Receiver<u64> {
        self.last_event.subscribe()
    }

    /// At most `limit` entries after `after` of `epoch`; of another epoch, from the oldest.
    pub fn page(&self, epoch: Option<&str>, after: u64, limit: usize) -> Page {
        let ring = self.ring();
        let journal = self.position_of(&ring);
        let position = match epoch {
            Some(epoch) => self.position_in(epoch, after),
            None => Some(after),
        };
        // A position that this journal never reached is not of this journal.
        let position = position.filter(|after| *after < ring.next);
        let (after, anew) = (position.unwrap_or(0), position.is_none());
        let lost = journal.first.saturating_sub(after + 1);
        let start = ring.entries.partition_point(|kept| kept.seq <= after);
        let mut entries = Vec::new();
        let (mut last, mut bytes) = (after + lost, 0);
        for kept in ring.entries.iter().skip(start).take(limit) {
            bytes += kept.json.get().len();
            if bytes > PAGE_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(kept.json.clone());
            last = kept.seq;
        }
        Page { more: last + 1 < journal.next, journal, entries, after: last, lost, anew }
    }

    /// Waits until there is an event after `after`, but no longer than `wait`.
    pub async fn wait_for_event(&self, epoch: Option<&str>, after: u64, wait: Duration) {
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            return;
        }
        // Nothing that this journal ever told stands there: the answer must not wait.
        if after >= self.ring().next {
            return;
        }
        let mut last_event = self.last_event.subscribe();
        let _ = timeout_at(Instant::now() + wait, last_event.wait_for(|last| *last > after)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::{EventKind, Severity};

    fn event(journal: &Journal, message: &str) {
        let event = Event::new(EventKind::START, Severity::Info, message);
        journal.event(Time::from_millis(0), event);
    }

    fn sample(journal: &Journal) {
        journal.sample(Time::from_millis(0), Sample { host: None, processes: Vec::new() });
    }

    fn numbers(page: &Page) -> Vec<u64> {
        let read = |json: &RawValue| serde_json::from_str::<Entry>(json.get()).unwrap().seq;
        page.entries.iter().map(|json| read(json)).collect()
    }

    #[test]
    fn what_was_pushed_out_is_told_as_lost() {
        let journal = Journal::new("e".to_owned(), 400);
        for _ in 0..100 {
            event(&journal, "x");
        }
        let page = journal.page(Some("e"), 10, 1000);
        let first = page.journal.first;
        assert!(first > 90, "{first}");
        assert_eq!(page.lost, first - 11);
        assert_eq!(numbers(&page), (first..=100).collect::<Vec<_>>());
        assert!(!page.more);
    }

    #[test]
    fn another_epoch_or_a_position_from_the_future_starts_at_the_oldest() {
        let journal = Journal::new("e".to_owned(), 10_000);
        event(&journal, "x");
        for (epoch, after) in [(Some("other"), 1), (Some("e"), 2), (None, u64::MAX)] {
            let page = journal.page(epoch, after, 10);
            assert_eq!((numbers(&page), page.lost, page.anew), (vec![1], 0, true));
        }
        let page = journal.page(Some("e"), 1, 10);
        assert_eq!((page.entries.len(), page.after, page.more, page.anew), (0, 1, false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_an_event_and_not_with_a_sample() {
        let journal = std::sync::Arc::new(Journal::new("e".to_owned(), 10_000));
        let waiting = {
            let journal = journal.clone();
            tokio::spawn(async move {
                journal.wait_for_event(Some("e"), 0, Duration::from_secs(30)).await;
            })
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        sample(&journal);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        event(&journal, "x");
        tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();

        let begun = Instant::now();
        journal.wait_for_event(Some("e"), 2, Duration::from_secs(30)).await;
        assert_eq!(begun.elapsed().as_secs(), 30);
        journal.wait_for_event(Some("other"), 2, Duration::from_secs(30)).await;
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[test]
    fn a_restart_continues_without_a_gap_or_a_double() {
        let folder = tempfile::tempdir().unwrap();
        let open = |epoch: &str| Journal::open(epoch.to_owned(), 10_000, folder.path()).unwrap();
        let first = open("one");
        event(&first, "a");
        sample(&first);
        drop(first);
        let second = open("two");
        event(&second, "b");
        let page = second.page(Some("one"), 1, 10);
        assert_eq!((numbers(&page), page.lost, page.anew), (vec![2, 3], 0, false));
        // At its beginning as well: whether something is gone cannot be seen by the numbers there.
        assert!(!second.page(Some("one"), 0, 10).anew && second.page(Some("never"), 0, 10).anew);
        assert_eq!(page.journal.epoch, "two");
        // What the first life told behind its end was lost: its numbers mean other entries now.
        let page = second.page(Some("one"), 3, 10);
        assert_eq!((numbers(&page), page.lost), (vec![3], 0));
        assert_eq!(numbers(&second.page(Some("never"), 2, 10)), [1, 2, 3]);
    }

    /// As an upgrade that is tried again and again, or a crash at each start.
    #[test]
    fn many_restarts_push_nothing_out_that_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let lives = 50;
        for life in 0..lives {
            let journal = Journal::open(format!("life-{life}"), 1 << 20, folder.path()).unwrap();
            event(&journal, &format!("of {life}"));
            sample(&journal);
            drop(journal);
            if life % 10 == 7 {
                // One that was cut off while it wrote.
                let last = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path());
                let last = last.filter(|it| it.extension().is_some_and(|it| it == "jsonl")).max();
                let mut file = std::fs::File::options().append(true).open(last.unwrap()).unwrap();
                std::io::Write::write_all(&mut file, b"0badc0de {\"seq\":1").unwrap();
            }
        }
        let journal = Journal::open("end".to_owned(), 1 << 20, folder.path()).unwrap();
        let page = journal.page(Some("life-0"), 0, 1000);
        assert_eq!(numbers(&page), (1..=2 * lives).collect::<Vec<u64>>());
        assert_eq!((page.lost, page.anew), (0, false));
    }

    #[test]
    fn a_torn_tail_is_cut_and_its_numbers_are_the_new_lifes() {
        let folder = tempfile::tempdir().unwrap();
        let open = |epoch: &str| Journal::open(epoch.to_owned(), 10_000, folder.path()).unwrap();
        let first = open("one");
        for _ in 0..3 {
            event(&first, "a");
        }
        drop(first);
        let segment = folder.path().join("0000000001.jsonl");
        let text = std::fs::read(&segment).unwrap();
        std::fs::write(&segment, &text[..text.len() - 5]).unwrap();
        let second = open("two");
        event(&second, "b");
        assert_eq!(numbers(&second.page(Some("two"), 0, 10)), [1, 2, 3]);
        assert_eq!(numbers(&second.page(Some("one"), 3, 10)), [3]);
        // A reader of the first life that had only two gets the new third.
        assert_eq!(numbers(&second.page(Some("one"), 2, 10)), [3]);
    }

    #[test]
    fn the_files_are_bounded_and_hold_what_memory_holds() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open("one".to_owned(), 4_000, folder.path()).unwrap();
        for _ in 0..500 {
            event(&journal, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        }
        let bytes: u64 = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 4 * 4_000, "{bytes}");
        let first = journal.position().first;
        drop(journal);
        let journal = Journal::open("two".to_owned(), 4_000, folder.path()).unwrap();
        assert!(journal.position().first <= first);
        assert_eq!(journal.position().next, 501);
    }

    proptest! {
        #[test]
        fn reading_page_by_page_misses_nothing_and_repeats_nothing(
            capacity in 200usize..20_000, entries in 0u64..200, limit in 1usize..50,
        ) {
            let journal = Journal::new("e".to_owned(), capacity);
            for index in 0..entries {
                if index % 3 == 0 { sample(&journal) } else { event(&journal, "x") }
            }
            let (mut after, mut seen, mut lost) = (0, Vec::new(), 0);
            loop {
                let page = journal.page(Some("e"), after, limit);
                seen.extend(numbers(&page));
                lost += page.lost;
                after = page.after;
                if !page.more { break; }
            }
            prop_assert_eq!(after, entries);
            prop_assert_eq!(seen, (lost + 1..=entries).collect::<Vec<_>>());
        }
    }
}
