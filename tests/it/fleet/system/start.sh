set -eu
exec "$STAGEGATE_RELEASE_DIR/start" {{ node.ports.http }} {{ vars.shared }}
