-- The audit is a chain: the hash of a row covers the row and the hash before it
-- (store/audit/chain.rs). Rows that are there already get theirs when the database is opened.
ALTER TABLE audit ADD COLUMN via TEXT;          -- 'token', 'session', 'command line', …
ALTER TABLE audit ADD COLUMN repeats INTEGER;   -- for how many more of its kind a row stands
ALTER TABLE audit ADD COLUMN hash BLOB CHECK (length(hash) = 32);

-- What the oldest row follows: number and hash of the last one that retention took away.
CREATE TABLE audit_anchor (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    id     INTEGER NOT NULL,
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    sealed INTEGER NOT NULL CHECK (sealed IN (0, 1)) -- 0: there may be rows without a hash
) STRICT;
INSERT INTO audit_anchor (one, id, hash, sealed)
    SELECT 1, coalesce((SELECT min(id) FROM audit) - 1, 0), zeroblob(32), 0;
