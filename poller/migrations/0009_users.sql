-- People with passwords, and what tokens and people are limited to.
CREATE TABLE users (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    role        TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password    TEXT NOT NULL,      -- argon2id, in the PHC string format
    password_at INTEGER NOT NULL,   -- sessions of an earlier password end
    limits      TEXT NOT NULL,      -- JSON: servers, groups, tags, actions; {}: none
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    last_used   INTEGER             -- to the minute or so
) STRICT;

ALTER TABLE tokens ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tokens ADD COLUMN last_used INTEGER;
UPDATE tokens SET limits = json_object('servers', json(servers)) WHERE servers IS NOT NULL;
ALTER TABLE tokens DROP COLUMN servers;
