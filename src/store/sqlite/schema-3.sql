-- Full runs of commits' hooks: asked for, under way, done. One row for what is the same question.

CREATE TABLE commit_runs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    repository  TEXT NOT NULL,
    commit_id   TEXT NOT NULL,
    policy      TEXT NOT NULL,
    engine      TEXT NOT NULL,
    reference   TEXT,
    base_branch TEXT,
    base_tip    TEXT,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    queued_us   INTEGER NOT NULL,
    not_before_us INTEGER NOT NULL DEFAULT 0,
    started_us  INTEGER,
    holder      TEXT,
    -- How the last attempt ended: a verdict, or why there is none.
    verdict     TEXT,
    last_error  TEXT,
    UNIQUE (repository, commit_id, policy, engine)
) STRICT;
CREATE INDEX commit_runs_waiting ON commit_runs (id) WHERE state <> 'done';
CREATE INDEX commit_runs_of_commit ON commit_runs (commit_id, id);
