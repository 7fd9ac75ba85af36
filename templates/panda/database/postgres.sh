# Where PostgreSQL 15 is, and how to talk to it from inside the node.
PGBIN=/usr/lib/postgresql/15/bin

# psql_here DATABASE: SQL from stdin, as superuser over the socket inside the node. Never with a secret in its arguments.
psql_here() {
    in_node "$PGBIN/psql" --no-psqlrc --quiet --set ON_ERROR_STOP=1 --host /mnt/run --port '{{ node.ports.postgres }}' \
        --username postgres --dbname "$1" --file -
}

# set_from_file VARIABLE FILE: the psql command that puts the file's first line into the variable.
set_from_file() {
    [ -s "$2" ] || fail "no secret in $2"
    printf "\\\\set %s '" "$1"
    head -n 1 "$2" | tr -d '\n' | sed -e 's/\\/\\\\/g' -e "s/'/\\\\'/g"
    printf "'\n"
}
