-- What receivers of alerts were told: a part a receiver, and one for the alerts that hold, each
-- as JSON that only poller/src/notify reads. Small, and written as a whole.

CREATE TABLE notify_memory (
    part TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
