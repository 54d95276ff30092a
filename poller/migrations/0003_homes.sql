-- One exporter may watch several PM2s: the same app in two of them is two apps.
-- pm2_home is PM2's directory as the exporter names it; empty where it watches one only.
ALTER TABLE instances RENAME TO instances_before;
CREATE TABLE instances (
    id          INTEGER PRIMARY KEY,
    server      INTEGER NOT NULL REFERENCES servers (id),
    name        TEXT NOT NULL,
    namespace   TEXT NOT NULL,
    instance_id INTEGER NOT NULL,
    pm2_home    TEXT NOT NULL DEFAULT '',
    last_seen   INTEGER NOT NULL,
    UNIQUE (server, name, namespace, instance_id, pm2_home)
) STRICT;
INSERT INTO instances (id, server, name, namespace, instance_id, last_seen)
    SELECT id, server, name, namespace, instance_id, last_seen FROM instances_before;
DROP TABLE instances_before;
