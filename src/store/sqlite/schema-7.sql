-- Which message of a chat a thread hangs on, and what may have been sent there (store/threads.rs).
CREATE TABLE threads (
    sink    TEXT NOT NULL,
    thread  TEXT NOT NULL,
    state   TEXT NOT NULL,
    used_us INTEGER NOT NULL,
    PRIMARY KEY (sink, thread)
) STRICT, WITHOUT ROWID;
CREATE INDEX threads_by_use ON threads (used_us);
-- Whose threads somebody has in hand (outbox.rs).
CREATE INDEX outbox_in_hand ON outbox (sink, thread, claimed_until_us) WHERE state = 'waiting' AND claimed_until_us > 0;
