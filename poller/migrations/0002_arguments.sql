-- Commands that take something: what of it may be told, and what tells two requests apart.
-- Values are secrets and stand nowhere.
ALTER TABLE commands ADD COLUMN summary TEXT;   -- names only: 'env: A, B', 'signal: SIGUSR2'
-- SHA-256 of the id and the canonical body, where there is an idempotency key.
ALTER TABLE commands ADD COLUMN body_hash BLOB CHECK (length(body_hash) = 32);
-- Until when it is asked what became of it.
ALTER TABLE commands ADD COLUMN follow_until INTEGER;
