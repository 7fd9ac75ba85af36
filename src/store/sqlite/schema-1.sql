-- Texts in JSON are what people and other versions read; columns are what is searched by.
-- Times are microseconds since the Unix epoch (_us).

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE resources (
    kind             TEXT NOT NULL,
    name             TEXT NOT NULL,
    spec             TEXT NOT NULL,
    status           TEXT NOT NULL,
    generation       INTEGER NOT NULL,
    resource_version INTEGER NOT NULL,
    created_us       INTEGER NOT NULL,
    updated_us       INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE upgrades (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    name             TEXT NOT NULL UNIQUE,
    environment      TEXT NOT NULL,
    spec             TEXT NOT NULL,
    status           TEXT NOT NULL,
    -- The operator's, apart from what the driver writes, so that neither makes the other's write fail.
    wish             TEXT NOT NULL,
    wish_version     INTEGER NOT NULL,
    resource_version INTEGER NOT NULL,
    finished         INTEGER NOT NULL CHECK (finished IN (0, 1)),
    created_us       INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_unfinished_upgrade ON upgrades (environment) WHERE finished = 0;
CREATE INDEX upgrades_of_environment ON upgrades (environment, id);

-- A row is never deleted: the counter must outlive the holder and the environment.
CREATE TABLE leases (
    environment TEXT PRIMARY KEY,
    counter     INTEGER NOT NULL,
    holder      TEXT,
    acquired_us INTEGER NOT NULL,
    renewed_us  INTEGER NOT NULL,
    ttl_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a number is not used again after pruning, for it is part of the dedupe key.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    environment TEXT NOT NULL,
    upgrade     TEXT,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_environment ON events (environment, seq);
CREATE INDEX events_of_upgrade ON events (upgrade, seq);

CREATE TABLE outbox (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    seq              INTEGER NOT NULL,
    environment      TEXT NOT NULL,
    upgrade          TEXT,
    sink             TEXT NOT NULL,
    thread           TEXT NOT NULL,
    dedupe_key       TEXT NOT NULL,
    payload          TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts         INTEGER NOT NULL DEFAULT 0,
    next_attempt_us  INTEGER NOT NULL DEFAULT 0,
    last_error       TEXT,
    claimed_by       TEXT,
    claimed_until_us INTEGER NOT NULL DEFAULT 0,
    settled_us       INTEGER,
    UNIQUE (sink, dedupe_key)
) STRICT;
-- Heads of threads are looked up for every delivery; settled rows must not slow that down.
CREATE INDEX outbox_waiting ON outbox (sink, thread, id) WHERE state = 'waiting';
CREATE INDEX outbox_settled ON outbox (state, id) WHERE state <> 'waiting';
