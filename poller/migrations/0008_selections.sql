-- One command for many servers: a record, and a command for each of its parts.
CREATE TABLE selections (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    selected        TEXT NOT NULL,  -- JSON of what was asked for
    target          TEXT NOT NULL,  -- JSON of wire::Target
    action          TEXT NOT NULL,
    status          TEXT NOT NULL,
    requested_by    TEXT NOT NULL,
    token           INTEGER,
    requested_from  TEXT NOT NULL,
    requested_at    INTEGER NOT NULL,
    finished_at     INTEGER,
    problem         TEXT,           -- word that programs branch on, when it did not succeed
    error           TEXT,           -- the same for people
    summary         TEXT,
    batch           INTEGER NOT NULL,
    max_unavailable INTEGER,
    settle          INTEGER NOT NULL, -- milliseconds
    idempotency_key TEXT,
    body_hash       BLOB CHECK (length(body_hash) = 32),
    UNIQUE (token, idempotency_key)
) STRICT;
CREATE INDEX selections_by_time ON selections (requested_at);

ALTER TABLE commands ADD COLUMN part_of TEXT;
CREATE INDEX commands_by_selection ON commands (part_of, seq) WHERE part_of IS NOT NULL;
