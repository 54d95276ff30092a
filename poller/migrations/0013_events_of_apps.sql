-- The events of an app that has few are found beside one that has many.
CREATE INDEX events_by_server_app ON events (server, app, time, id) WHERE app IS NOT NULL;
CREATE INDEX events_by_app ON events (app, time, id) WHERE app IS NOT NULL;
