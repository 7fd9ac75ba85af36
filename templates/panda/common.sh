# Shared by every action of this pack: who runs the services, and where they see their files.
#
# A node's files may lie anywhere below a directory only Stagegate may enter. So every build and every
# service runs in a mount namespace of its own, as an ordinary user, with the node directory at /mnt:
# the same paths on all nodes, one build for all of them, and no service that sees another node's files.

umask 022
NODE=${STAGEGATE_NODE_DIR:-$PWD}
SERVICE_USER={{ vars.serviceUser }}
CACHE=

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# in_node [NAME=VALUE...] COMMAND...: runs it as the service's user, in /mnt, with the action's environment but for the
# paths in it, which mean nothing there. Root becomes $SERVICE_USER; anybody else stays who they are, in a user
# namespace (the inner one gives the own id back: PostgreSQL refuses to run as root, mapped or not).
in_node() {
    if is_root; then
        # shellcheck disable=SC2016 # expanded by the inner shell
        unshare --mount --propagation private -- sh -euc '
            node=$1 cache=$2 user=$3; shift 3
            mount --bind "$node" /mnt
            if [ -n "$cache" ]; then mount --bind "$cache" /mnt/cache; fi
            cd /mnt
            exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups --no-new-privs \
                env -u STAGEGATE_NODE_DIR -u STAGEGATE_RELEASE_DIR -u STAGEGATE_SECRETS_DIR -u STAGEGATE_ARTIFACT \
                    HOME=/mnt/run PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TZ=UTC "$@"
        ' in_node "$NODE" "$CACHE" "$SERVICE_USER" "$@"
    else
        # shellcheck disable=SC2016 # expanded by the inner shell
        unshare --user --map-root-user --mount --propagation private -- sh -euc '
            node=$1 cache=$2 uid=$3 gid=$4; shift 4
            mount --bind "$node" /mnt
            if [ -n "$cache" ]; then mount --bind "$cache" /mnt/cache; fi
            cd /mnt
            exec unshare --user --map-user="$uid" --map-group="$gid" -- \
                env -u STAGEGATE_NODE_DIR -u STAGEGATE_RELEASE_DIR -u STAGEGATE_SECRETS_DIR -u STAGEGATE_ARTIFACT \
                    HOME=/mnt/run PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TZ=UTC "$@"
        ' in_node "$NODE" "$CACHE" "$(id -u)" "$(id -g)" "$@"
    fi
}

# own_dirs DIR...: makes directories that belong to the service's user.
own_dirs() {
    mkdir -p "$@"
    give "$@"
}

# give FILE...: to the service's user.
give() {
    if is_root; then chown "$SERVICE_USER:$(id -g "$SERVICE_USER")" "$@"; fi
}

# Lets the service's user pass through, but not list, what the agent made for itself.
open_node() {
    chmod a+x "$NODE"
    own_dirs "$NODE/run" "$NODE/log"
}

# lives_here PID: whether it is a live process of this node. A recycled pid never is.
lives_here() {
    [ "$(stat -L -c %d:%i "/proc/$1/root/mnt" 2>/dev/null)" = "$(stat -L -c %d:%i "$NODE")" ]
}

# pid_in FILE: the pid on its first line, when that process lives in this node; fails otherwise.
pid_in() {
    [ -s "$NODE/$1" ] || return 1
    read -r found <"$NODE/$1" || return 1
    case $found in '' | *[!0-9]*) return 1 ;; esac
    lives_here "$found" || return 1
    printf '%s\n' "$found"
}

# node_pids: every process that lives in this node, one a line.
node_pids() {
    here=$(stat -L -c %d:%i "$NODE")
    # Processes come and go under the glob, and foreign ones may not be looked into: stat's complaints are noise.
    { stat -L -c '%d:%i %n' /proc/[0-9]*/root/mnt 2>/dev/null || true; } |
        sed -n "s#^$here /proc/\([0-9]*\)/root/mnt\$#\1#p"
}

# wait_gone PID SECONDS: fails when it still lives after that time.
wait_gone() {
    end=$(($(date +%s) + $2))
    while lives_here "$1"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# Ends what still lives in the node, for its directory is about to go.
end_all() {
    for signal in TERM KILL; do
        pids=$(node_pids)
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086 # one word a pid
        echo "sending $signal to" $pids
        for pid in $pids; do kill -s "$signal" "$pid" 2>/dev/null || true; done
        for pid in $pids; do wait_gone "$pid" 10 || true; done
    done
    pids=$(node_pids)
    [ -z "$pids" ] || fail "still running in $NODE after SIGKILL: $pids"
}

# check_namespace: one line on what to do when in_node cannot work here.
check_namespace() {
    if is_root; then
        id -u "$SERVICE_USER" >/dev/null 2>&1 || fail "no user $SERVICE_USER here: create it, or set the variable serviceUser"
        unshare --mount --propagation private -- mount --bind "$NODE" /mnt 2>/dev/null ||
            fail "cannot mount over /mnt in a mount namespace: run on a host (or in a container) that grants CAP_SYS_ADMIN"
    else
        unshare --user --map-root-user --mount --propagation private -- mount --bind "$NODE" /mnt 2>/dev/null ||
            fail "no user namespaces for $(id -un): run as root, or allow them (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0, kernel.apparmor_restrict_unprivileged_userns=0)"
    fi
}

# need FILE PACKAGE: fails with the command that installs it.
need() {
    [ -e "$1" ] || fail "$1 is missing: apt-get install $2"
}
