-- An event that was made durable elsewhere first is copied here under the name that it has there, once.
ALTER TABLE events ADD COLUMN source TEXT;
CREATE UNIQUE INDEX events_by_source ON events (source) WHERE source IS NOT NULL;
