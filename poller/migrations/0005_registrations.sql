-- Notes for people; and servers that were removed stay known until their history is gone.
ALTER TABLE registry ADD COLUMN note TEXT NOT NULL DEFAULT '';

-- Every server that is or was registered, wherever: as it was last.
CREATE TABLE registrations (
    server       TEXT PRIMARY KEY,
    url          TEXT NOT NULL,
    server_group TEXT NOT NULL,
    tags         TEXT NOT NULL,     -- JSON array of texts
    note         TEXT NOT NULL,
    origin       TEXT NOT NULL,     -- configuration, file, database; empty: not known
    retired_at   INTEGER            -- since when it is not registered any more
) STRICT, WITHOUT ROWID;
INSERT INTO registrations
    SELECT server, '', '', '[]', '', '', NULL FROM servers WHERE server <> 'pm2-poller';
