#!/bin/sh
# Starts PostgreSQL of {{ env.name }} with the configuration that the environment asks for now.
set -eu

{% include "panda/common.sh" %}

{% include "panda/database/postgres.sh" %}

if pid=$(pid_in data/postmaster.pid); then
    echo "runs already as $pid"
    exit 0
fi
[ -d "$NODE/data" ] || fail "no database in $NODE/data: run the setup action first"
open_node
mkdir -p "$NODE/etc"
cat >"$NODE/etc/postgresql.conf" <<'CONF'
data_directory = '/mnt/data'
hba_file = '/mnt/etc/pg_hba.conf'
ident_file = '/mnt/data/pg_ident.conf'
listen_addresses = '{{ node.address }}'
port = {{ node.ports.postgres }}
unix_socket_directories = '/mnt/run'
unix_socket_permissions = 0700
max_connections = 300
shared_buffers = 100MB
cluster_name = '{{ env.name }}/{{ node.name }}'
# A blocked statement is evidence: PanDA's longest have several kB, and the default keeps 1 kB.
track_activity_query_size = 16kB
# A server process that was killed while it waited for a lock would stay in the queue until it got the lock.
client_connection_check_interval = 2s
log_lock_waits = on
deadlock_timeout = 1s
log_line_prefix = '%m [%p] %q%u@%d %a '
log_timezone = 'UTC'
timezone = 'UTC'
# A week of logs, a file a day, each emptied before it is used again.
logging_collector = on
log_directory = '/mnt/log'
log_filename = 'postgres-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
CONF
cat >"$NODE/etc/pg_hba.conf" <<'CONF'
# The socket lies in this node's own directory, where only its user comes.
local  all                  all              trust
host   {{ vars.database }}  panda,stagegate  samenet  scram-sha-256
CONF
chmod 755 "$NODE/etc"
chmod 644 "$NODE/etc/postgresql.conf" "$NODE/etc/pg_hba.conf"

# The pid of a killed postmaster may by now be another process of the same user, which PostgreSQL would take for it.
if [ -z "$(node_pids)" ]; then rm -f "$NODE/data/postmaster.pid"; fi
in_node "$PGBIN/pg_ctl" --pgdata data --log log/postgres-start.log --wait --timeout "${STAGEGATE_DEADLINE_S:-60}" --silent \
    --options '-c config_file=/mnt/etc/postgresql.conf' start || {
    tail -n 5 "$NODE/log/postgres-start.log" "$NODE/log/postgres-$(LC_ALL=C date -u +%a).log" 2>/dev/null
    fail "PostgreSQL did not start"
}
echo "started as $(pid_in data/postmaster.pid)"
