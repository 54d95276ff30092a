-- History in blocks. Recent samples are kept in the order in which they came, and folded after
-- a while.

DROP TABLE samples;

-- Rows of about a page with the records of many servers: store/recent.rs.
CREATE TABLE recent (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

-- tier 0: samples as they came, an hour a block; 1: by minute, six hours a block; 2: by hour,
-- two days a block. store/history/block.rs has the form of data.
CREATE TABLE blocks (
    id       INTEGER PRIMARY KEY,
    server   INTEGER NOT NULL REFERENCES servers (id),
    tier     INTEGER NOT NULL CHECK (tier BETWEEN 0 AND 2),
    start    INTEGER NOT NULL,          -- multiple of the block's length
    folded   INTEGER NOT NULL DEFAULT 0 CHECK (folded IN (0, 1)), -- the tier above has it
    readings INTEGER NOT NULL,          -- how many; a step of tier 1 or 2 counts as three
    bytes    INTEGER NOT NULL,          -- length of data
    data     BLOB NOT NULL,
    UNIQUE (server, tier, start)
) STRICT;
-- With what is summed up now and then, so that no block need be opened for it.
CREATE INDEX blocks_by_time ON blocks (tier, folded, start, bytes, readings);

-- Recent rows up to this one are in blocks, as far as the server is concerned.
ALTER TABLE servers ADD COLUMN folded INTEGER NOT NULL DEFAULT 0;
-- Counts the epochs, so that records need not carry the name.
ALTER TABLE servers ADD COLUMN epoch_number INTEGER NOT NULL DEFAULT 0;
