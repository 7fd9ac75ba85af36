set -eu
pid=$(cat run/pid)
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
