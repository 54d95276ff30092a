//! Events that the poller itself tells.

use std::time::Duration;

use wire::{Event, EventKind, JournalPage, ServerId, Severity};

use super::ahead::Corrected;
use super::failure::Failure;
use crate::store::Cursor;

pub(super) fn online(server: &ServerId) -> Event {
    Event::new(EventKind::SERVER_ONLINE, Severity::Info, format!("{server} answers"))
}

pub(super) fn offline(server: &ServerId, silence: Duration, failure: &Failure) -> Event {
    let message =
        format!("{server} has not answered for {} s: {}", silence.as_secs(), failure.message);
    let mut event = Event::new(EventKind::SERVER_OFFLINE, Severity::Critical, message);
    event.details.insert("reason".into(), failure.reason.to_string());
    event
}

pub(super) fn lost(page: &JournalPage, from: &Cursor) -> Event {
    let lost = page.lost;
    let message = format!("{lost} entries of the server's journal are gone for good");
    let mut event = Event::new(EventKind::JOURNAL_LOST, Severity::Warning, message);
    event.details.insert("lost".into(), lost.to_string());
    positions(&mut event, page, from);
    event
}

pub(super) fn flood(server: &ServerId, (cut, dropped): (u64, u64)) -> Event {
    let message = format!(
        "{server} tells of more than is kept: {cut} events are without details, {dropped} are not kept"
    );
    let mut event = Event::new(EventKind::EVENTS_DROPPED, Severity::Warning, message);
    event.details.insert("cut".into(), cut.to_string());
    event.details.insert("dropped".into(), dropped.to_string());
    event
}

pub(super) fn ahead(server: &ServerId, corrected: Corrected) -> Event {
    let Corrected { samples, events, ahead } = corrected;
    let ahead = ahead / 1000;
    let message = format!(
        "{server}'s clock was ahead by up to {ahead} s: samples left out: {samples}; events that have \
         the time of what followed them: {events}"
    );
    let mut event = Event::new(EventKind::CLOCK_AHEAD, Severity::Warning, message);
    event.details.insert("samples".into(), samples.to_string());
    event.details.insert("events".into(), events.to_string());
    event.details.insert("ahead_seconds".into(), ahead.to_string());
    event
}

pub(super) fn reset(page: &JournalPage, from: &Cursor) -> Event {
    let message = "the server's journal has begun anew: what it had not told yet is gone";
    let mut event = Event::new(EventKind::JOURNAL_RESET, Severity::Info, message);
    positions(&mut event, page, from);
    event
}

fn positions(event: &mut Event, page: &JournalPage, from: &Cursor) {
    event.details.insert("epoch".into(), page.journal.epoch.to_string());
    event.details.insert("former_epoch".into(), from.epoch.to_string());
    event.details.insert("after".into(), from.after.to_string());
}
