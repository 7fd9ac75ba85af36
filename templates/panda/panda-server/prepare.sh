#!/bin/sh
# Builds {{ build.name }} once, as the virtual environment that every node will see at the same path.
set -eu

{% include "panda/common.sh" %}

PYTHON={{ vars.python }}
RELEASE=releases/{{ build.digest }}

need "$PYTHON" "$(basename "$PYTHON") $(basename "$PYTHON")-venv $(basename "$PYTHON")-dev"
need /usr/bin/apxs apache2-dev
need /usr/bin/gcc gcc
need /usr/bin/zstd zstd

NODE=$PWD/node
rm -rf "$NODE"
mkdir "$NODE"
own_dirs "$NODE/run" "$NODE/releases" "$NODE/cache" "$NODE/tmp"
check_namespace
cp "$STAGEGATE_LOCK_FILE" "$NODE/lock.txt"
chmod a+r "$NODE/lock.txt"
if [ -n "${STAGEGATE_CACHE_DIR:-}" ]; then
    CACHE=$STAGEGATE_CACHE_DIR/pip
    own_dirs "$CACHE"
fi

in_node "$PYTHON" -m venv "/mnt/$RELEASE"
# DISABLE_MM: the package's build hook posts to a chat otherwise. VIRTUAL_ENV: it writes these paths into its configuration.
# No dependency is resolved here: the lock names every file by its hash.
in_node DISABLE_MM=1 VIRTUAL_ENV="/mnt/$RELEASE" TMPDIR=/mnt/tmp PIP_CACHE_DIR=/mnt/cache PIP_DISABLE_PIP_VERSION_CHECK=1 \
    "/mnt/$RELEASE/bin/pip" install --no-input --progress-bar off --require-hashes --no-deps -r /mnt/lock.txt
in_node "/mnt/$RELEASE/bin/pip" check || echo "pip check: the lock set does not fit together (see above); it is what the index resolved"

# mtimes are kept: they tie the compiled modules to their sources.
tar --directory "$NODE/$RELEASE" --sort=name --owner=0 --group=0 --numeric-owner \
    --use-compress-program 'zstd -3 -T0 -q' --create --file "$STAGEGATE_ARTIFACT/venv.tar.zst.new" .
mv "$STAGEGATE_ARTIFACT/venv.tar.zst.new" "$STAGEGATE_ARTIFACT/venv.tar.zst"
cp "$NODE/lock.txt" "$STAGEGATE_ARTIFACT/lock.txt"
cat >"$STAGEGATE_ARTIFACT/venv.json" <<JSON
{
  "build": "{{ build.name }}",
  "path": "/mnt/$RELEASE",
  "python": "$("$PYTHON" -c 'import platform; print(platform.python_version())')",
  "machine": "$(uname -m)",
  "unpackedKiB": $(du -sk "$NODE/$RELEASE" | cut -f1)
}
JSON
rm -rf "$NODE"
