#!/bin/sh
# Read only: can this host carry the database, and if it runs, is it whole?
set -eu

{% include "panda/common.sh" %}

{% include "panda/database/postgres.sh" %}

need "$PGBIN/postgres" postgresql-15
check_namespace
pid_in data/postmaster.pid >/dev/null || {
    echo "can run here; does not run now"
    exit 0
}
psql_here '{{ vars.database }}' <<'SQL'
\set site '{{ vars.site }}'
\pset tuples_only on
\pset format unaligned
SELECT 'runs; schema ' || major || '.' || minor || '.' || patch FROM doma_panda.pandadb_version WHERE component = 'PanDA';
SELECT EXISTS (SELECT FROM doma_pandameta.sitedata WHERE site = :'site' AND hours = 3) AS has_site \gset
\if :has_site
\else
    \warn the site is not in doma_pandameta.sitedata, so no job of it can be updated there
    SELECT 1 / 0 AS the_site_is_missing;
\endif
SQL
