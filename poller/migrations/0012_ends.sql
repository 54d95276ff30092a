-- What an event tells of the end of a command, and the commands of which nobody knows it.
CREATE INDEX events_ends ON events (json_extract(event, '$.details.command_id'))
    WHERE json_extract(event, '$.details.outcome') IS NOT NULL;
CREATE INDEX commands_unknown ON commands (seq) WHERE status = 'unknown';
