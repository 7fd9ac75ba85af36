#!/bin/sh
# Calls until each worker process has answered once: until then the first ones wait for the imports.
set -eu

{% include "panda/common.sh" %}

pid=$(pid_in run/httpd.pid) || fail "does not run"
workers={{ vars.workers }}
# What is answered does not matter (1.x forbids this path): every call goes through the same code.
url='http://{{ node.address }}:{{ node.ports.http }}/server/panda/isAlive'
end=$(($(date +%s) + ${STAGEGATE_DEADLINE_S:-60} - 5))

# How many of the worker processes that live now have written of a call.
count_warm() {
    warm=0
    for worker in $(pgrep -P "$pid" -f '^panda-worker'); do
        if grep -aq "PID=$worker " "$NODE/log/panda-Entry.log" 2>/dev/null; then warm=$((warm + 1)); fi
    done
}
count_warm
while [ "$warm" -lt "$workers" ]; do
    [ "$(date +%s)" -lt "$end" ] || {
        tail -n 10 "$NODE/log/httpd-error.log" 2>/dev/null || true
        fail "only $warm of $workers worker processes have answered"
    }
    lives_here "$pid" || fail "Apache ($pid) is gone"
    calls=
    for _ in $(seq $((2 * workers))); do calls="$calls --output /dev/null $url"; done
    # shellcheck disable=SC2086 # one word an argument
    curl --silent --parallel --parallel-immediate --max-time 20 $calls || true
    count_warm
done
echo "all $workers worker processes have answered"
