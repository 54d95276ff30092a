//! How much a server may tell. Its events are kept for months, and one that never stops telling, by
//! mischief or by an application that throws without end, would fill the disk and push out what others
//! said. Far beyond what an exporter keeps of its past, events lose their details, and then come no more.

use std::time::Duration;

use tokio::time::Instant;
use wire::{Entry, Event, Record};

/// Bytes of events: at once, more than any exporter's journal holds, and an hour.
const BYTES: (f64, f64) = (16e6, 4e6);
/// Events at once and an hour.
const EVENTS: (f64, f64) = (20_000.0, 7_200.0);
/// Longest message of an event without its details, in characters.
const MESSAGE: usize = 200;
/// It is told again after so long.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// What may still be taken, and fills again with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    most: f64,
    each_hour: f64,
}

impl Bucket {
    fn new((most, each_hour): (f64, f64)) -> Self {
        Self { left: most, most, each_hour }
    }

    fn fill(&mut self, passed: Duration) {
        self.left = self.most.min(self.left + self.each_hour * passed.as_secs_f64() / 3600.0);
    }

    /// Whether there was so much; then it is gone.
    fn take(&mut self, amount: f64) -> bool {
        let there = self.left >= amount;
        if there {
            self.left -= amount;
        }
        there
    }
}

/// How much of it a server has used up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    bytes: Bucket,
    events: Bucket,
    at: Instant,
    told: Option<Instant>,
    /// Events that lost their details, and that did not come, and nobody heard of that yet.
    cut: u64,
    dropped: u64,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        let (bytes, events) = (Bucket::new(BYTES), Bucket::new(EVENTS));
        Self { bytes, events, at: now, told: None, cut: 0, dropped: 0 }
    }

    /// Lets through what may be kept of a page. What is gone since it was last told is given, where
    /// that is to be told now.
    pub(super) fn pass(&mut self, now: Instant, entries: &mut Vec<Entry>) -> Option<(u64, u64)> {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.bytes.fill(passed);
        self.events.fill(passed);
        entries.retain_mut(|entry| match &mut entry.record {
            Record::Sample(_) => true,
            Record::Event(event) => self.admit(event),
        });
        let is_due = self.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        if self.cut + self.dropped == 0 || !is_due {
            return None;
        }
        self.told = Some(now);
        Some((std::mem::take(&mut self.cut), std::mem::take(&mut self.dropped)))
    }

    fn admit(&mut self, event: &mut Event) -> bool {
        if !self.events.take(1.0) {
            self.dropped += 1;
            return false;
        }
        if !self.bytes.take(size(event) as f64) {
            let end = event.end();
            event.details.clear();
            // How a command ended is told nowhere else.
            if let Some((id, status)) = end {
                event.tell_end(&id, status);
            }
            event.message = event.message.chars().take(MESSAGE).collect();
            self.cut += 1;
        }
        true
    }
}

/// Bytes of an event's words.
pub(super) fn size(event: &Event) -> usize {
    let details = event.details.iter().map(|(name, value)| name.len() + value.len());
    event.message.len() + details.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{CommandId, CommandStatus, EventKind, Severity, Time};

    fn page(events: usize, bytes: usize) -> Vec<Entry> {
        let mut event = Event::new(EventKind::EXCEPTION, Severity::Error, "m".repeat(300));
        event.details.insert("stack".to_owned(), "s".repeat(bytes));
        let entry = |seq| Entry { seq, time: Time::now(), record: Record::Event(event.clone()) };
        (0..events as u64).map(entry).collect()
    }

    #[test]
    fn how_a_command_ended_passes_a_flood() {
        let begin = Instant::now();
        let mut flood = Flood::new(begin);
        while flood.pass(begin, &mut page(1, 60_000)).is_none() {}
        let id: CommandId = "c1".parse().unwrap();
        let mut entries = page(1, 60_000);
        if let Record::Event(event) = &mut entries[0].record {
            event.tell_end(&id, CommandStatus::Failed);
        }
        flood.pass(begin, &mut entries);
        let Record::Event(event) = &entries[0].record else { panic!("{entries:?}") };
        assert_eq!((event.end(), event.details.len()), (Some((id, CommandStatus::Failed)), 2));
    }

    #[test]
    fn more_than_a_journal_passes_and_a_flood_loses_details_and_then_itself() {
        let begin = Instant::now();
        let mut flood = Flood::new(begin);
        // Twice what an exporter keeps.
        let mut entries = page(1000, 4000);
        let before = entries.clone();
        assert_eq!(flood.pass(begin, &mut entries), None);
        assert_eq!(entries, before);
        let (mut bytes, mut events, mut told) = (0, 0, Vec::new());
        for second in 0..3600 {
            let mut entries = page(10, 60_000);
            told.extend(flood.pass(begin + Duration::from_secs(second), &mut entries));
            events += entries.len();
            bytes += entries
                .iter()
                .map(|it| match &it.record {
                    Record::Event(event) => size(event),
                    Record::Sample(_) => 0,
                })
                .sum::<usize>();
        }
        assert!((26_000..27_000).contains(&events), "{events}");
        assert!((19_000_000..27_000_000).contains(&bytes), "{bytes}");
        assert_eq!(told.len(), 1, "once an hour: {told:?}");
        let mut entries = page(1, 10);
        let (cut, dropped) = flood.pass(begin + TELL_EVERY * 2, &mut entries).unwrap();
        assert!(cut > 20_000 && dropped > 8_000, "{cut} {dropped}");
        assert_eq!(
            entries,
            page(1, 10)
                .into_iter()
                .map(|it| Entry { time: entries[0].time, ..it })
                .collect::<Vec<_>>()
        );
    }
}
