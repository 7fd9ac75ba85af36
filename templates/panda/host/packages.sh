#!/bin/sh
# Installs the Debian packages named as arguments for an environment whose nodes are local. Needs root; says what it does.
# Debian would make and start a PostgreSQL cluster of its own: it is told not to, and no package may start a service meanwhile.
set -eu

[ "$(id -u)" -eq 0 ] || { echo "packages.sh: run as root (sudo), for it calls apt-get" >&2; exit 1; }
[ -r /etc/debian_version ] || { echo "packages.sh: this is no Debian; install yourself: $*" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive

missing=
for package in "$@"; do
    case $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
if [ -z "$missing" ]; then
    echo "all installed: $*"
    exit 0
fi

# Read by pg_createcluster's defaults (include_dir in createcluster.conf), also when written before the package comes; of
# no use once it is installed.
drop_in=/etc/postgresql-common/createcluster.d/stagegate.conf
ours=
trap 'rm -f $ours' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ ! -e "$drop_in" ]; then
    echo "writing $drop_in: installing postgresql makes no cluster of its own"
    mkdir -p "${drop_in%/*}"
    ours="$ours $drop_in"
    echo 'create_main_cluster = false' >"$drop_in"
fi

# The one switch for "start no service" that every Debian package asks. A switch that is there already is somebody's; it stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    ours="$ours $policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "apt-get update"
apt-get update -qq
echo "apt-get install$missing"
# shellcheck disable=SC2086 # one word a package
apt-get install --yes --quiet --no-install-recommends $missing
echo "installed:$missing"
