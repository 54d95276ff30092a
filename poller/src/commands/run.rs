//! Sending one command and learning what became of it. It is sent once: silence afterwards is
//! looked into by asking, never by sending again, since an exporter that was restarted has
//! forgotten which ids it ran.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use wire::{CommandId, CommandRecord, CommandStatus, InstanceOutcome, Problem, Process};

use super::MAX_ERROR;
use super::order::one_line;
use crate::client::{Answer, CallError, Client};
use crate::config::Target;
use crate::poll::percent_encoded;

/// Largest record that is read: all instances of an app, before and after.
const MAX_RECORD: usize = wire::MAX_BODY_BYTES;
/// How long the exporter is asked to hold the first answer back.
const HOLD: Duration = Duration::from_secs(30);
/// How long one question may take, and how far apart they are.
const ASK_WITHIN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Questions about a command that nothing came back for.
const ASK_TRIES: u32 = 5;
/// A command that may take long is given up when its exporter is silent for so long.
const SILENCE: Duration = Duration::from_secs(300);

/// What is kept of an answer: what an application returned, as exporters bound it, in bytes, and
/// instances.
const MAX_REPLY: usize = 64 * 1024;
const MAX_OUTCOMES: usize = 1000;

/// What an outcome is called of which nothing was sent.
pub(super) const UNREACHABLE: &str = "unreachable";

/// How a command ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Final.
    pub(super) status: CommandStatus,
    /// What went wrong: a word that programs branch on.
    pub(super) problem: Option<String>,
    /// The same for people.
    pub(super) error: Option<String>,
    /// What the application returned.
    pub(super) reply: Option<String>,
    /// Instance by instance.
    pub(super) outcomes: Vec<InstanceOutcome>,
    /// The processes before.
    pub(super) before: Vec<Process>,
    /// The processes after.
    pub(super) after: Vec<Process>,
}

impl Outcome {
    /// Leaves out what the server said went wrong: it may repeat what it was sent, and that is not
    /// known any more.
    pub(super) fn forget_words(&mut self) {
        const WORDS: &str = "not kept, since the poller was stopped meanwhile: what went wrong may \
             repeat a secret. The server's events have it";
        let errors = self.outcomes.iter_mut().map(|of| &mut of.error);
        for error in errors.chain([&mut self.error]).flatten() {
            WORDS.clone_into(error);
        }
    }
}

/// `by` is who asked here, which the exporter's record tells together with this poller's token.
///
/// # How it ends
/// - the exporter's own words once it says that the command has ended;
/// - `failed` (`unreachable`) when no connection came about: nothing was sent;
/// - `refused`, with the exporter's word, when it would not take the command;
/// - `unknown` when it was sent and nobody says what became of it.
pub(super) async fn run(
    client: &Client,
    target: &Target,
    (id, by): (&CommandId, &str),
    body: Vec<u8>,
    timeout: Duration,
) -> Outcome {
    let deadline = Instant::now() + timeout;
    let hold = HOLD.min(timeout / 2);
    // The exporter knows the poller's token only.
    let by = percent_encoded(by);
    let path = format!("/api/commands/{id}?wait={}ms&by={by}", hold.as_millis());
    let left = deadline.saturating_duration_since(Instant::now()).min(hold + ASK_WITHIN);
    match client.ask(Method::PUT, target, &path, Some(body), left, MAX_RECORD).await {
        Ok(answer) if answer.status.is_success() => match record(&answer, id) {
            Some(record) if record.status.is_final() => told(record),
            // Taken, and under way.
            _ => follow(client, target, id, deadline, u32::MAX).await,
        },
        Ok(answer) => not_taken(&answer),
        Err(error) if !error.may_have_been_sent() => {
            let words = format!("the exporter cannot be reached: {error}");
            ended(CommandStatus::Failed, UNREACHABLE, words)
        }
        Err(error) => {
            tracing::warn!(command = %id, server = %target.id, %error, "no answer to a command: asking for it");
            follow(client, target, id, deadline, ASK_TRIES).await
        }
    }
}

/// Asks for a command of a former life, and follows it for as long as is left of its time.
pub(super) async fn settle(
    client: &Client,
    target: Option<&Target>,
    id: &CommandId,
    left: Duration,
) -> Outcome {
    let tries = if left > ASK_WITHIN { ASK_TRIES } else { 1 };
    match target {
        Some(target) => {
            follow(client, target, id, Instant::now() + left.max(ASK_WITHIN), tries).await
        }
        None => ended(
            CommandStatus::Unknown,
            "interrupted",
            "the poller was stopped meanwhile, and the server is no longer registered".to_owned(),
        ),
    }
}

/// Asks until the command has ended, the time is over, `tries` questions stayed without an
/// answer, or the exporter was silent for too long.
async fn follow(
    client: &Client,
    target: &Target,
    id: &CommandId,
    deadline: Instant,
    mut tries: u32,
) -> Outcome {
    let path = format!("/api/commands/{id}");
    let mut last = "it has not ended in time".to_owned();
    let mut heard = Instant::now();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || tries == 0 || heard.elapsed() > SILENCE {
            return ended(
                CommandStatus::Unknown,
                "no_answer",
                format!("sent, and nobody knows what became of it: {last}"),
            );
        }
        let answer =
            client.ask(Method::GET, target, &path, None, left.min(ASK_WITHIN), MAX_RECORD).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => match record(&answer, id) {
                Some(record) if record.status.is_final() => return told(record),
                Some(_) => {
                    heard = Instant::now();
                    last = "it has not ended in time".to_owned();
                }
                None => {
                    tries -= 1;
                    last = "the exporter's answer makes no sense".to_owned();
                }
            },
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                // It never arrived, or the exporter was restarted and has forgotten: the two
                // cannot be told apart, so it is not sent again.
                return ended(
                    CommandStatus::Unknown,
                    "forgotten",
                    "the exporter does not know the command: it never arrived, or the exporter \
                     was restarted since"
                        .to_owned(),
                );
            }
            Ok(answer) => {
                tries -= 1;
                last = format!("the exporter answered {}", answer.status);
            }
            Err(error) => {
                tries -= 1;
                last = match error {
                    CallError::Timeout(_) => "the exporter does not answer".to_owned(),
                    error => error.to_string(),
                };
            }
        }
        tokio::time::sleep(ASK_AGAIN.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

fn parsed<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
    serde_json::from_slice(&answer.body).ok()
}

fn record(answer: &Answer, id: &CommandId) -> Option<CommandRecord> {
    parsed::<CommandRecord>(answer).filter(|record| record.id == *id)
}

/// What is beyond what exporters send is left out: it would be kept for a year.
fn told(mut record: CommandRecord) -> Outcome {
    record.reply = record.reply.filter(|reply| reply.len() <= MAX_REPLY);
    record.outcomes.truncate(MAX_OUTCOMES);
    for error in record.outcomes.iter_mut().filter_map(|it| it.error.as_mut()) {
        *error = error.chars().take(MAX_ERROR).collect();
    }
    for processes in [&mut record.before, &mut record.after] {
        if !crate::poll::are_good(processes) {
            processes.clear();
        }
    }
    Outcome {
        status: record.status,
        problem: None,
        error: record.error.as_deref().map(one_line),
        reply: record.reply,
        outcomes: record.outcomes,
        before: record.before,
        after: record.after,
    }
}

fn not_taken(answer: &Answer) -> Outcome {
    let problem: Option<Problem> = parsed(answer);
    let said = problem.as_ref().map_or_else(
        || format!("the exporter answered {}", answer.status),
        |problem| one_line(&problem.detail),
    );
    let kind = problem.as_ref().map(|problem| problem.kind.as_str());
    match (answer.status, kind) {
        // The poller's own token is meant, not that of who asked.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => ended(
            CommandStatus::Refused,
            "exporter_denied",
            format!("the exporter does not let this poller command it: {said}"),
        ),
        (
            _,
            Some(
                kind @ ("unknown_app" | "unknown_slot" | "unknown_deployment" | "unknown_action"
                | "conflict" | "busy" | "pm2_unavailable"),
            ),
        ) => ended(CommandStatus::Refused, kind, said),
        (status, _) if status.is_client_error() => {
            ended(CommandStatus::Refused, "exporter_refused", said)
        }
        _ => ended(CommandStatus::Failed, "exporter_failed", said),
    }
}

/// An outcome without anything of an exporter's.
pub(super) fn ended(status: CommandStatus, problem: &str, error: String) -> Outcome {
    Outcome {
        status,
        problem: Some(problem.to_owned()),
        error: Some(error),
        reply: None,
        outcomes: Vec::new(),
        before: Vec::new(),
        after: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_exporter_sends_is_not_kept() {
        let json = include_str!("../../../wire/golden/state.json");
        let state: wire::State = serde_json::from_str(json).unwrap();
        let mut process = state.processes[0].clone();
        let mut record = CommandRecord::queued(
            "a".parse().unwrap(),
            wire::Target::App("api".parse().unwrap()),
            wire::Action::Trigger,
            "ci".to_owned(),
            wire::Time::now(),
        );
        record.reply = Some("x".repeat(MAX_REPLY));
        record.before = vec![process.clone()];
        let outcome = told(record.clone());
        assert_eq!((outcome.reply, outcome.before), (record.reply.clone(), record.before.clone()));
        record.reply = Some("x".repeat(MAX_REPLY + 1));
        process.interpreter = "x".repeat(300);
        record.after = vec![process];
        let one = InstanceOutcome { pm_id: 1, error: Some("x".repeat(10_000)) };
        record.outcomes = vec![one; 2000];
        let outcome = told(record);
        assert_eq!((outcome.reply, outcome.before.len(), outcome.after.len()), (None, 1, 0));
        assert_eq!(outcome.outcomes.len(), MAX_OUTCOMES);
        assert_eq!(outcome.outcomes[0].error.as_ref().map(String::len), Some(MAX_ERROR));
    }
}
