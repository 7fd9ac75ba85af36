-- Signed proof that commits were checked. The columns are what is searched by; what counts is in the envelope, and is verified
-- each time that it is read. AUTOINCREMENT: the newest is the one with the highest number, also after pruning.
CREATE TABLE attestations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    repository TEXT NOT NULL,
    commit_id  TEXT NOT NULL,
    envelope   TEXT NOT NULL,
    stored_us  INTEGER NOT NULL
) STRICT;
CREATE INDEX attestations_of_commit ON attestations (commit_id, id);
