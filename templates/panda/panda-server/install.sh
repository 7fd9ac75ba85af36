#!/bin/sh
# Unpacks {{ build.name }} beside the releases that are there; the running one is not touched.
set -eu

{% include "panda/common.sh" %}

need /usr/bin/zstd zstd
check_namespace
tar --directory "$STAGEGATE_RELEASE_DIR" --no-same-owner --use-compress-program 'zstd -d -q' --extract --file "$STAGEGATE_ARTIFACT/venv.tar.zst"

# Its paths were fixed when it was built, and its interpreter is this host's: better to see here than at the restart.
open_node
RELEASE=/mnt/releases/${STAGEGATE_RELEASE_DIR##*/}
in_node "$RELEASE/bin/python" -B -c 'import mod_wsgi, psycopg2, pandacommon, pandaserver' ||
    fail "{{ build.name }} does not run in $RELEASE on this host"
grep -qx "#!$RELEASE/bin/python.*" "$STAGEGATE_RELEASE_DIR/bin/pip" || fail "{{ build.name }} was not built for $RELEASE"
echo "installed {{ build.name }}"
