-- Commands for servers that are away.
ALTER TABLE commands ADD COLUMN queued_until INTEGER;
-- What the exporter is to be sent; gone once the command has ended. Only bodies without any value
-- that may be a secret are queued.
ALTER TABLE commands ADD COLUMN body BLOB;
