//! A request as the record that is kept of it.

use wire::{CommandId, CommandRecord, CommandStatus};

use super::Request;
use crate::store::{NewCommand, StoredCommand};

/// As it is put on record.
pub(super) fn record(
    id: &CommandId,
    request: &Request,
    status: CommandStatus,
    refusal: Option<(String, String)>,
) -> NewCommand {
    NewCommand {
        id: id.clone(),
        server: request.server.clone(),
        target: request.target.clone(),
        action: request.action,
        pm2_home: request.order.pm2_home().cloned(),
        status,
        requested_by: request.caller.name().to_owned(),
        token: request.caller.token(),
        requested_from: request.address.to_string(),
        requested_via: request.caller.via(),
        requested_at: crate::world::now(),
        refusal,
        idempotency_key: request.key.clone(),
        summary: request.order.summary(request.action),
        body_hash: None,
        follow_until: None,
        queued_until: None,
        body: None,
        part_of: None,
    }
}

/// As it is shown while it runs.
pub(super) fn running(new: NewCommand) -> StoredCommand {
    StoredCommand {
        seq: 0,
        server: new.server,
        record: CommandRecord {
            status: new.status,
            pm2_home: new.pm2_home,
            ..CommandRecord::queued(
                new.id,
                new.target,
                new.action,
                new.requested_by,
                new.requested_at,
            )
        },
        requested_from: new.requested_from,
        summary: new.summary,
        problem: None,
        body_hash: new.body_hash,
        follow_until: new.follow_until,
        queued_until: new.queued_until,
        body: None,
        token: new.token,
        part_of: new.part_of,
    }
}

/// A random UUID (RFC 9562, version 4).
pub(super) fn new_id() -> anyhow::Result<CommandId> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-").parse()?)
}
