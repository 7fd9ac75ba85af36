#!/bin/sh
# Stops the service gracefully: ends when its last request has been answered. After the deadline it is killed.
set -eu
pid=$(cat run/pid)
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
