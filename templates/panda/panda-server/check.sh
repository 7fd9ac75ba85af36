#!/bin/sh
# Read only: can this host carry a node of the server, and does the database answer from here?
set -eu

{% include "panda/common.sh" %}

PYTHON={{ vars.python }}
need "$PYTHON" "$(basename "$PYTHON")"
need /usr/sbin/apache2 apache2-bin
need /usr/bin/zstd zstd
need /usr/bin/curl curl
check_namespace

# can ADDRESS PORT listen|connect
can() {
    "$PYTHON" - "$@" <<'PYTHON_END'
import socket, sys

address, port, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
try:
    if what == "connect":
        socket.create_connection((address, port), timeout=5).close()
    else:
        family, kind, proto, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
except OSError as error:
    sys.exit(f"cannot {what} at {address}:{port}: {error}")
PYTHON_END
}
can '{{ nodes.database[0].address }}' '{{ nodes.database[0].ports.postgres }}' connect
if pid=$(pid_in run/httpd.pid); then
    echo "runs as $pid"
else
    can '{{ node.address }}' '{{ node.ports.http }}' listen
    can '{{ node.address }}' '{{ node.ports.https }}' listen
    echo "can run here; does not run now"
fi
