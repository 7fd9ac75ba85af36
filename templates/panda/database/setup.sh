#!/bin/sh
# Makes the database of {{ env.name }}: cluster, roles, schema, the row of the site. A finished one is left alone.
set -eu

{% include "panda/common.sh" %}

{% include "panda/database/postgres.sh" %}

need "$PGBIN/initdb" postgresql-15
check_namespace
open_node
if [ -d "$NODE/data" ]; then
    echo "the database is there already"
    exit 0
fi

# Everything is made in new/, which becomes data/ in one rename: a setup that was killed starts over.
end_all
rm -rf "$NODE/new"
own_dirs "$NODE/new"
in_node chmod 700 new
in_node "$PGBIN/initdb" --pgdata new --username postgres --auth trust --encoding UTF8 --locale C.UTF-8 --no-instructions >/dev/null
in_node "$PGBIN/pg_ctl" --pgdata new --log log/setup.log --wait --silent \
    --options "-c listen_addresses='' -c unix_socket_directories=/mnt/run -p {{ node.ports.postgres }}" start

# Statements are not logged on an error: they hold the passwords.
{
    set_from_file db_password "$STAGEGATE_SECRETS_DIR/db-password"
    set_from_file monitor_password "$STAGEGATE_SECRETS_DIR/monitor-password"
    cat <<'SQL'
\set database '{{ vars.database }}'
SET log_min_error_statement = panic;
CREATE ROLE panda LOGIN PASSWORD :'db_password';
ALTER ROLE panda SET search_path = doma_panda, public;
-- Stagegate's own: sees every session with its statement, makes test jobs and looks at what became of them.
CREATE ROLE stagegate LOGIN PASSWORD :'monitor_password' IN ROLE pg_monitor;
CREATE DATABASE :"database" OWNER panda;
SQL
} | psql_here postgres

{
    cat <<'SQL'
{% include "panda/database/schema.sql" %}
GRANT USAGE ON SCHEMA doma_deft, doma_panda, doma_pandaarch, doma_pandabigmon, doma_pandameta TO stagegate;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA doma_deft, doma_panda, doma_pandaarch, doma_pandabigmon, doma_pandameta TO stagegate;
GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA doma_deft, doma_panda, doma_pandaarch, doma_pandabigmon, doma_pandameta TO stagegate;
\set site '{{ vars.site }}'
-- 0.5.1 updates this very row for each job that turns `running`: the row of the incident.
INSERT INTO doma_pandameta.sitedata (site, flag, hours) VALUES (:'site', 'production', 3);
SQL
} | psql_here '{{ vars.database }}'

in_node "$PGBIN/pg_ctl" --pgdata new --mode fast --wait --silent stop
mv "$NODE/new" "$NODE/data"
echo "made the database {{ vars.database }} with the roles panda and stagegate"
