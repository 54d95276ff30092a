use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dashboards::SlotPage;
use wire::SlotId;

use super::server::{find, no_server};
use super::visitor::{Visitor, html};
use super::{LATEST, act, command_row, done, event_row, exporter, look_back, server};
use crate::app::App;
use crate::http::params::Params;
use crate::store::{CommandFilter, EventFilter};

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<Arc<App>>,
    Path((id, slot)): Path<(String, String)>,
    mut params: Params,
) -> Response {
    let Some(member) = find(&app, &visitor, &id) else { return no_server(visitor, &id) };
    let id = member.target.id.clone();
    let known = slot.parse::<SlotId>().ok().and_then(|wanted| {
        let slots = member.state.iter().flat_map(|state| &state.slots);
        slots.into_iter().find(|slot| slot.slot == wanted).cloned()
    });
    let Some(slot) = known else {
        return visitor.not_found(format!("{id} has no slot of that name."));
    };
    let shown = params.text("deployment").ok().flatten();
    let done = match done(&app, &visitor, &mut params).await {
        Ok(done) => done,
        Err(error) => return visitor.store_failed(error),
    };
    // Slots belong to the first of several PM2s: elsewhere its process' name is one like any other.
    let several = member.state.as_deref().filter(|state| state.homes.len() > 1);
    let first = several.map(|state| state.pm2.home.clone());
    let latest = EventFilter {
        server: Some(id.clone()),
        app: Some(slot.process.to_string()),
        pm2_home: first,
        limit: LATEST,
        ..EventFilter::default()
    };
    let commands = CommandFilter {
        server: Some(id.clone()),
        slot: Some((slot.slot.clone(), slot.process.clone())),
        limit: LATEST,
        ..CommandFilter::default()
    };
    let read = async {
        let events = app.store.events(&latest).await?;
        let commands = app.store.commands(&commands).await?;
        Ok((events, commands, look_back(&app, &visitor).await?))
    };
    let (events, commands, mut past) = match read.await {
        Ok(read) => read,
        Err(error) => return visitor.store_failed(error),
    };

    let deployments = exporter::deployments(&app, &id, &slot.slot).await;
    // The one asked for, or the one under way, or the newest.
    let wanted = deployments.iter().flatten().find(|it| match &shown {
        Some(shown) => it.id.as_str() == shown,
        None => true,
    });
    let log = match wanted {
        Some(it) => {
            let log = exporter::log(&app, &id, &slot.slot, &it.id).await;
            Some((it.id.to_string(), log))
        }
        None => None,
    };
    html(
        SlotPage {
            may: act::of_slots(&visitor.caller),
            page: visitor.page,
            server: server(&app, &member, &mut past),
            slot,
            deployments,
            log,
            events: events.into_iter().map(event_row).collect(),
            commands: commands.into_iter().map(command_row).collect(),
            done,
        }
        .render(),
    )
}
