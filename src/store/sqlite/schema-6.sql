-- What a promotion is told of, its own events and those of its upgrade.
ALTER TABLE events ADD COLUMN promotion TEXT;
CREATE INDEX events_of_promotion ON events (promotion, seq) WHERE promotion IS NOT NULL;

-- Acts in a chain of hashes (audit.rs). That nothing of it is changed by a mistake of ours is kept here; who has the file can do
-- anything with it, and is found by the hashes.
CREATE TABLE audit (
    seq  INTEGER PRIMARY KEY,
    act  TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is only added to');
END;
