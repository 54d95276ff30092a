use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use service::problem::ProblemResponse;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::no_home;
use super::places::{Address, place};
use super::processes::app_name;
use super::query::{Parameters, shown};
use super::{Follower, Reads};
use crate::app::App;
use crate::logs::Tail;
use crate::pm2::{Home, LogFile};

/// A reader that takes nothing for this long is let go: nobody waits for it.
const SLOW: Duration = Duration::from_secs(20);
/// The bus tells of a line before PM2 has written it; this much later it is there.
const SETTLED: Duration = Duration::from_millis(30);
/// Where the bus told nothing, files are looked at anyway.
const ANYWAY: Duration = Duration::from_secs(1);
/// So much is sent at a time, roughly.
const PIECE: usize = 64 * 1024;
/// A stream of events says that it lives.
const ALIVE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Events,
}

struct Source {
    file: LogFile,
    tail: Tail,
}

pub(super) async fn show(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    mut parameters: Parameters,
    from: Address,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    let stream = parameters.take("stream", |text| match text {
        "out" => Ok(Some(false)),
        "err" => Ok(Some(true)),
        "all" => Ok(None),
        _ => Err(format!("{:?} is not out, err or all", shown(text))),
    })?;
    let lines = parameters.take("lines", |text| {
        text.parse::<usize>()
            .ok()
            .filter(|lines| *lines <= wire::MAX_LIMIT)
            .ok_or_else(|| format!("{:?} is not 0 to {}", shown(text), wire::MAX_LIMIT))
    })?;
    let follow = parameters.truth("follow")?.unwrap_or(false);
    let pm2_home = parameters.pm2_home()?;
    parameters.end("stream, lines, follow, pm2_home")?;

    let name = app_name(&name)?;
    let slot = app.slots.served_by(&name);
    who.see(&name, slot)?;
    let home = app.homes.of_app(&name, pm2_home.as_deref()).map_err(|error| no_home(&error))?;
    // Elsewhere a slot's name is one like any other.
    who.see(&name, slot.filter(|_| Arc::ptr_eq(home, app.homes.first())))?;
    let home = Arc::clone(home);
    let files = home.table(|table| table.log_files(&name));
    let wanted = stream.flatten();
    let files: Vec<LogFile> = files
        .into_iter()
        .filter(|file| wanted.is_none_or(|error| file.is_error == error))
        .collect();
    if files.is_empty() {
        return Err(ProblemResponse::not_found(
            "no_log_file",
            format!("PM2 keeps no log file for {name:?} (it is set to /dev/null)"),
        ));
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let events = accept.is_some_and(|accept| accept.contains("text/event-stream"));
    let form = if events { Form::Events } else { Form::Text };
    let several = files.iter().any(|file| file.instance_id != files[0].instance_id);
    // Before files are opened: a log is not cut where it lies while somebody knows a place in it.
    let place = place(&app, &who, &from).await?;
    let mut sources = Vec::with_capacity(files.len());
    let count = files.len();
    for file in files {
        let opened = Tail::open_behind(FilePath::new(&*file.path), lines.unwrap_or(100), count);
        let tail = opened.map_err(|error| {
            let why = format!("the log of {name:?} cannot be read: {error}");
            ProblemResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "log_unreadable", why)
        })?;
        sources.push(Source { file, tail });
        // Others are let in between megabytes.
        tokio::task::yield_now().await;
    }
    let (send, receive) = mpsc::channel(if follow { 4 } else { 1 });
    let is_first = Arc::ptr_eq(&home, app.homes.first());
    let follower = Follower::new(headers, move |app, who| {
        who.sees(&name, app.slots.served_by(&name).filter(|_| is_first))
    });
    let mut reader = LogReader { form, several, pending: String::new(), send };
    let (whole, is_whole) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut ended = reader.last(&mut sources, follow).await;
        if ended && follow {
            ended = reader.follow(&app, &home, follower, sources).await;
        }
        if ended {
            let _ = whole.send(());
        }
        drop(place);
    });
    let body = body(receive, is_whole);
    let kind = match form {
        Form::Text => "text/plain; charset=utf-8",
        Form::Events => "text/event-stream",
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// What comes by a channel. What is cut off ends as a broken connection, and not as if it were all.
fn body(receive: mpsc::Receiver<Bytes>, is_whole: oneshot::Receiver<()>) -> Body {
    Body::from_stream(stream::unfold(Some((receive, is_whole)), |open| async move {
        let (mut receive, is_whole) = open?;
        if let Some(chunk) = receive.recv().await {
            return Some((Ok::<Bytes, io::Error>(chunk), Some((receive, is_whole))));
        }
        let cut_off = is_whole.await.err()?;
        Some((Err(io::Error::other(cut_off)), None))
    }))
}

/// Who reads, and what is about to be sent to them.
struct LogReader {
    form: Form,
    several: bool,
    pending: String,
    send: mpsc::Sender<Bytes>,
}

impl LogReader {
    fn push(&mut self, file: &LogFile, line: &str) {
        push(&mut self.pending, self.form, self.several, file, line);
    }

    /// Sends what is pending. `false` when the reader has gone or is too slow.
    async fn give(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        let chunk = Bytes::from(std::mem::take(&mut self.pending));
        match timeout(SLOW, self.send.send(chunk)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                tracing::info!("a reader of logs is too slow and is let go");
                false
            }
        }
    }

    /// The last lines of one file after the other; what they end with that is no whole line is told to
    /// who does not follow. `false` when the reader has gone, is too slow, or a file cannot be read.
    async fn last(&mut self, sources: &mut [Source], follow: bool) -> bool {
        for source in sources {
            loop {
                let (lines, more) = match source.tail.read_last() {
                    Ok(read) => read,
                    Err(error) => return unreadable(&error),
                };
                let rest = if follow || more { None } else { source.tail.rest() };
                for line in lines.into_iter().chain(rest) {
                    self.push(&source.file, &line);
                }
                if self.pending.len() >= PIECE && !self.give().await {
                    return false;
                }
                // Others are let in between pieces.
                tokio::task::yield_now().await;
                if !more {
                    break;
                }
            }
        }
        self.give().await
    }

    /// Follows until the reader goes, may no more, or the program stops. `false` when the reader is too
    /// slow, or a file cannot be read.
    async fn follow(
        mut self,
        app: &App,
        home: &Home,
        mut follower: Follower,
        mut sources: Vec<Source>,
    ) -> bool {
        let mut logged = home.logged();
        let mut spoke = tokio::time::Instant::now();
        while follower.may(app) {
            if self.form == Form::Events && spoke.elapsed() > ALIVE {
                self.pending.push_str(": alive\n\n");
            }
            if !self.pending.is_empty() {
                spoke = tokio::time::Instant::now();
                if !self.give().await {
                    return false;
                }
            }
            let mut more = false;
            for source in &mut sources {
                match source.tail.read() {
                    Ok((lines, more_of_it)) => {
                        more |= more_of_it;
                        for line in lines {
                            self.push(&source.file, &line);
                        }
                    }
                    Err(error) => return unreadable(&error),
                }
            }
            if more || !self.pending.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = app.shutdown.drain.cancelled() => return true,
                () = self.send.closed() => return true,
                _ = logged.changed() => tokio::time::sleep(SETTLED).await,
                () = tokio::time::sleep(ANYWAY) => {}
            }
        }
        true
    }
}

fn unreadable(error: &io::Error) -> bool {
    tracing::warn!(%error, "a log file cannot be read any more");
    false
}

fn push(out: &mut String, form: Form, several: bool, file: &LogFile, line: &str) {
    let stream = if file.is_error { "err" } else { "out" };
    match form {
        Form::Text => {
            if several {
                out.push_str(&format!("{} | ", file.instance_id));
            }
            out.push_str(line);
            out.push('\n');
        }
        Form::Events => {
            let data = serde_json::json!({
                "instance_id": file.instance_id, "stream": stream, "line": line,
            });
            out.push_str(&format!("event: {stream}\ndata: {data}\n\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_too_slow_gets_no_whole_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text = "a line of thirty-two bytes here\n".repeat(32 * 1024);
        std::fs::write(&path, &text).unwrap();
        for (wait, is_all) in [(Duration::ZERO, true), (SLOW / 2, true), (SLOW * 2, false)] {
            let file =
                LogFile { instance_id: 0, is_error: false, path: path.to_str().unwrap().into() };
            let tail = Tail::open_behind(&path, 100_000, 1).unwrap();
            let (send, receive) = mpsc::channel(1);
            let (whole, is_whole) = oneshot::channel();
            let pending = String::new();
            let mut reader = LogReader { form: Form::Text, several: false, pending, send };
            tokio::spawn(async move {
                if reader.last(&mut [Source { file, tail }], false).await {
                    let _ = whole.send(());
                }
            });
            let body = body(receive, is_whole);
            tokio::time::sleep(wait).await;
            let read = axum::body::to_bytes(body, usize::MAX).await;
            assert_eq!(read.ok().is_some_and(|read| read == text), is_all, "{wait:?}");
        }
    }
}
