use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use service::problem::ProblemResponse;
use wire::SlotId;

use super::places::{Address, Place, place};
use super::query::Parameters;
use super::slots::{not_taken, slot_id};
use super::{Follower, Reads};
use crate::app::App;

/// A log that is followed is looked at this often.
const LOOK: Duration = Duration::from_millis(150);
/// Bytes of a log that are sent at once.
const PIECE: u64 = 64 * 1024;

/// `GET /api/slots/{slot}/deployments/{id}/log?follow=`
pub(super) async fn show(
    Reads(who): Reads,
    State(app): State<Arc<App>>,
    Path((slot, id)): Path<(String, String)>,
    mut parameters: Parameters,
    from: Address,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    let follow = parameters.truth("follow")?.unwrap_or(false);
    parameters.end("follow")?;
    let slot = slot_id(&slot)?;
    who.slot(&slot)?;
    let manager = app.slots.manager();
    let deployment = manager.deployment(&slot, &id).map_err(not_taken)?;
    let path = manager.workshop.store.log(&slot, &deployment.id);
    let place = if follow { Some(place(&app, &who, &from).await?) } else { None };
    let of = slot.clone();
    let follower = Follower::new(headers, move |_, who| who.reaches_slot(&of));
    let app = Arc::clone(&app);
    let reader = Reader { app, follower, slot, id, path, at: 0, follow, _place: place };
    let body = Body::from_stream(stream::unfold(reader, Reader::next));
    let mut response = body.into_response();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Sends a log as it grows.
struct Reader {
    app: Arc<App>,
    follower: Follower,
    slot: SlotId,
    id: String,
    path: PathBuf,
    at: u64,
    follow: bool,
    _place: Option<Place>,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        while self.follower.may(&self.app) {
            // Before the file is read: what is written after it ended is not missed.
            let over = self
                .app
                .slots
                .manager()
                .deployment(&self.slot, &self.id)
                .map_or(true, |deployment| deployment.status.is_final());
            match self.read() {
                Ok(piece) if !piece.is_empty() => {
                    self.at += piece.len() as u64;
                    return Some((Ok(Bytes::from(piece)), self));
                }
                Ok(_) if self.follow && !over => {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        () = self.app.shutdown.drain.cancelled() => return None,
                    }
                }
                _ => return None,
            }
        }
        None
    }

    fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.at))?;
        let mut piece = Vec::new();
        file.take(PIECE).read_to_end(&mut piece)?;
        Ok(piece)
    }
}
