-- Everything here is append-only: a change is a further file.
-- Times are milliseconds since the Unix epoch, UTC.

-- Servers that an administrator added at the command line. Those of the configuration are not
-- here, and win when both name one.
CREATE TABLE registry (
    server      TEXT PRIMARY KEY,
    url         TEXT NOT NULL,
    token_file  TEXT,               -- a path; the token itself is never stored
    server_group TEXT NOT NULL,
    tags        TEXT NOT NULL,      -- JSON array of texts
    added_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every server ever polled: its number, and how far its journal is taken in.
CREATE TABLE servers (
    id           INTEGER PRIMARY KEY,
    server       TEXT NOT NULL UNIQUE,
    epoch        TEXT NOT NULL DEFAULT '',
    after        INTEGER NOT NULL DEFAULT 0,
    last_success INTEGER,
    online       INTEGER            -- what was told last: 1 server_online, 0 server_offline
) STRICT;

-- What a server said last, readings aside. Apart from servers, whose rows change at every poll.
CREATE TABLE states (
    server   INTEGER PRIMARY KEY REFERENCES servers (id),
    state    TEXT NOT NULL          -- JSON of wire::State
) STRICT;

-- Names that samples refer to by number. last_seen is kept to the hour or so.
CREATE TABLE instances (
    id          INTEGER PRIMARY KEY,
    server      INTEGER NOT NULL REFERENCES servers (id),
    name        TEXT NOT NULL,
    namespace   TEXT NOT NULL,
    instance_id INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    UNIQUE (server, name, namespace, instance_id)
) STRICT;

CREATE TABLE metrics (
    id        INTEGER PRIMARY KEY,
    server    INTEGER NOT NULL REFERENCES servers (id),
    name      TEXT NOT NULL,
    unit      TEXT NOT NULL,
    last_seen INTEGER NOT NULL,
    UNIQUE (server, name, unit)
) STRICT;

-- One row a sample of a whole server, in the order in which it is asked for. seq, the number
-- in the server's journal, keeps two apart when its clock is set back.
CREATE TABLE samples (
    server INTEGER NOT NULL,
    time   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    data   BLOB NOT NULL,           -- store/sample.rs
    PRIMARY KEY (server, time, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    server   INTEGER NOT NULL REFERENCES servers (id),
    time     INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    severity INTEGER NOT NULL,      -- 0 info, 1 warning, 2 error, 3 critical
    app      TEXT,
    event    TEXT NOT NULL          -- JSON of wire::Event
) STRICT;
CREATE INDEX events_by_time ON events (time, id);
CREATE INDEX events_by_server ON events (server, time, id);

CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    servers    TEXT,                -- JSON array of ids; NULL: all
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
-- A name may be used again once its token is revoked: that is how tokens are rotated.
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE commands (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    server          TEXT NOT NULL,
    target          TEXT NOT NULL,  -- JSON of wire::Target
    app             TEXT,           -- name of the app, when it is one
    action          TEXT NOT NULL,
    status          TEXT NOT NULL,
    requested_by    TEXT NOT NULL,
    token           INTEGER,        -- number of the token that asked
    requested_from  TEXT NOT NULL,  -- address of who asked
    requested_at    INTEGER NOT NULL,
    finished_at     INTEGER,
    problem         TEXT,           -- word that programs branch on, when it did not succeed
    error           TEXT,           -- the same for people
    outcome         TEXT,           -- JSON: outcomes, before, after
    idempotency_key TEXT,
    UNIQUE (token, idempotency_key)
) STRICT;
CREATE INDEX commands_by_time ON commands (requested_at);
CREATE INDEX commands_open ON commands (status) WHERE status IN ('queued', 'running');

-- Who did, or tried to do, what. Rows are only ever added.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    time    INTEGER NOT NULL,
    who     TEXT NOT NULL,
    address TEXT NOT NULL,          -- network address, or 'command line'
    act     TEXT NOT NULL,          -- 'command', 'token create', …
    outcome TEXT NOT NULL,          -- 'requested', 'refused', 'succeeded', …
    server  TEXT,
    subject TEXT NOT NULL,          -- what it was about: 'restart app api', 'token ci'
    detail  TEXT,
    command TEXT                    -- id of the command
) STRICT;
CREATE INDEX audit_by_time ON audit (time);
