#!/bin/sh
# Calls until each worker process has answered once: until then the first ones wait for the imports.
set -eu

{% include "panda/common.sh" %}

pid=$(pid_in run/httpd.pid) || fail "does not run"
workers={{ vars.workers }}
# What is answered does not matter (1.x forbids this path): every call goes through the same code.
url='http://{{ node.address }}:{{ node.ports.http }}/server/panda/isAlive'
end=$(($(date +%s) + ${STAGEGATE_DEADLINE_S:-60} - 5))

# warm_workers: how many of the worker processes that live now have written of a call.
warm_workers() {
    warm=0
    for worker in $(pgrep -P "$pid" -f '^panda-worker'); do
        if grep -aq "PID=$worker " "$NODE/log/panda-Entry.log" 2>/dev/null; then warm=$((warm + 1)); fi
    done
    echo "$warm"
}

calls=
for _ in $(seq $((2 * workers))); do calls="$calls --output /dev/null $url"; done
# An import that fails answers 500 at once and is tried again at the next call; ten rounds of nothing else are no accident.
broken=0
while [ "$(warm_workers)" -lt "$workers" ]; do
    # shellcheck disable=SC2086 # one word an argument
    codes=$(curl --no-progress-meter --parallel --parallel-immediate --max-time 20 --write-out '%{http_code}\n' $calls 2>/dev/null) || true
    if printf '%s\n' "$codes" | grep -qv '^500$'; then broken=0; else broken=$((broken + 1)); fi
    if [ $broken -ge 10 ] || [ "$(date +%s)" -ge "$end" ] || ! lives_here "$pid"; then
        tail -n 3 "$NODE/log/httpd-error.log" 2>/dev/null | cut -c 1-300
        fail "only $(warm_workers) of $workers worker processes have answered"
    fi
    sleep 0.2
done
echo "all $workers worker processes have answered"
