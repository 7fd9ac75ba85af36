#!/bin/sh
# Stops PostgreSQL of {{ env.name }}: open transactions are rolled back, sessions end.
set -eu

{% include "panda/common.sh" %}

{% include "panda/database/postgres.sh" %}

if ! pid=$(pid_in data/postmaster.pid); then
    echo "does not run"
    exit 0
fi
in_node "$PGBIN/pg_ctl" --pgdata data --mode fast --wait --timeout "${STAGEGATE_DEADLINE_S:-60}" --silent stop
echo "stopped $pid"
