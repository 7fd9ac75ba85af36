#!/bin/sh
# Starts the service from the active release and leaves its process id where the environment's pidFile says.
# Runs in the node's directory; its output is kept in the node's steps/.
set -eu
mkdir -p run log
{{ vars.python }} -m http.server {{ node.ports.http }} --bind {{ node.address }} --directory "$STAGEGATE_RELEASE_DIR" \
    >log/web.log 2>&1 </dev/null &
echo $! >run/pid
