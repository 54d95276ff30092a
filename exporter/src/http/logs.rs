use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use service::problem::ProblemResponse;
use tokio::sync::mpsc;
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
    let place = if follow { Some(place(&app, &who, &from).await?) } else { None };
    let mut first = String::new();
    let mut sources = Vec::with_capacity(files.len());
    let count = files.len();
    for file in files {
        let opened = Tail::open_beside(FilePath::new(&*file.path), lines.unwrap_or(100), count);
        let (mut tail, last) = opened.map_err(|error| {
            let why = format!("the log of {name:?} cannot be read: {error}");
            ProblemResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "log_unreadable", why)
        })?;
        let rest = if follow { None } else { tail.rest() };
        for line in last.into_iter().chain(rest) {
            push(&mut first, form, several, &file, &line);
        }
        sources.push(Source { file, tail });
        // Others are let in between megabytes.
        tokio::task::yield_now().await;
    }
    let body = if let Some(place) = place {
        let (send, receive) = mpsc::channel(4);
        let is_first = Arc::ptr_eq(&home, app.homes.first());
        let follower = Follower::new(headers, move |app, who| {
            who.sees(&name, app.slots.served_by(&name).filter(|_| is_first))
        });
        tokio::spawn(async move {
            run(&app, &home, follower, sources, first, form, several, send).await;
            drop(place);
        });
        Body::from_stream(stream::unfold(receive, |mut receive| async move {
            let chunk: Bytes = receive.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(chunk), receive))
        }))
    } else {
        Body::from(first)
    };
    let kind = match form {
        Form::Text => "text/plain; charset=utf-8",
        Form::Events => "text/event-stream",
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// Follows until the reader goes, is too slow, may no more, or the program stops.
#[expect(clippy::too_many_arguments, reason = "they are all there is of a reader")]
async fn run(
    app: &App,
    home: &Home,
    mut follower: Follower,
    mut sources: Vec<Source>,
    first: String,
    form: Form,
    several: bool,
    send: mpsc::Sender<Bytes>,
) {
    let mut logged = home.logged();
    let mut pending = first;
    let mut spoke = tokio::time::Instant::now();
    while follower.may(app) {
        if form == Form::Events && spoke.elapsed() > ALIVE {
            pending.push_str(": alive\n\n");
        }
        if !pending.is_empty() {
            spoke = tokio::time::Instant::now();
            let chunk = Bytes::from(std::mem::take(&mut pending));
            match timeout(SLOW, send.send(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::info!("a reader of logs is too slow and is let go");
                    return;
                }
            }
        }
        let mut more = false;
        for source in &mut sources {
            match source.tail.read() {
                Ok((lines, more_of_it)) => {
                    more |= more_of_it;
                    for line in lines {
                        push(&mut pending, form, several, &source.file, &line);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a log file cannot be read any more");
                    return;
                }
            }
        }
        if more || !pending.is_empty() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = app.shutdown.drain.cancelled() => return,
            () = send.closed() => return,
            _ = logged.changed() => tokio::time::sleep(SETTLED).await,
            () = tokio::time::sleep(ANYWAY) => {}
        }
    }
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
