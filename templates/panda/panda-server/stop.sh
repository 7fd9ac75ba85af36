#!/bin/sh
# Stops the server once its calls are answered: a call that is cut off loses its update.
set -eu

{% include "panda/common.sh" %}

if ! pid=$(pid_in run/httpd.pid); then
    # Killed from outside: its workers may live on.
    end_all
    echo "does not run"
    exit 0
fi
# WINCH is Apache's graceful stop: no new connections from now on, the calls in flight are finished.
kill -s WINCH "$pid"
patience=$((${STAGEGATE_DEADLINE_S:-60} - 15))
[ $patience -ge 5 ] || patience=5
wait_gone "$pid" $patience || echo "calls are still unanswered $patience s after the graceful stop; ending them"
end_all
echo "stopped $pid"
