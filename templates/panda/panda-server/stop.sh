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
deadline=${STAGEGATE_DEADLINE_S:-60}
grace=10
[ "$deadline" -gt $((2 * grace)) ] || grace=$((deadline / 2))
if ! wait_gone "$pid" $((deadline - grace)); then
    echo "calls are still unanswered $((deadline - grace)) s after the graceful stop; ending them"
    kill -s TERM "$pid"
    wait_gone "$pid" "$grace" || fail "Apache ($pid) still runs"
fi
end_all
echo "stopped $pid"
