set -eu
exec "$STAGEGATE_RELEASE_DIR/start" {{ node.ports.http }} "{{ vars.test }}/shared-is-slow" {{ vars.runner }}
