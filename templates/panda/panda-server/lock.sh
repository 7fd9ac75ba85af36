#!/bin/sh
# Resolves panda-server {{ build.version }} against the package index into the full set of files, each by its hash.
set -eu

{% include "panda/common.sh" %}

PYTHON={{ vars.python }}
need "$PYTHON" "$(basename "$PYTHON") $(basename "$PYTHON")-venv $(basename "$PYTHON")-dev"
need /usr/bin/apxs apache2-dev

NODE=$PWD/node
rm -rf "$NODE"
mkdir "$NODE"
own_dirs "$NODE/run" "$NODE/cache" "$NODE/tmp"
check_namespace
if [ -n "${STAGEGATE_CACHE_DIR:-}" ]; then
    CACHE=$STAGEGATE_CACHE_DIR/pip
    own_dirs "$CACHE"
fi

in_node "$PYTHON" -m venv /mnt/tmp/resolver
# A source distribution tells its dependencies only when built, so the build hook runs here too: not as root, and silent.
in_node DISABLE_MM=1 TMPDIR=/mnt/tmp PIP_CACHE_DIR=/mnt/cache PIP_DISABLE_PIP_VERSION_CHECK=1 \
    /mnt/tmp/resolver/bin/pip install --no-input --quiet --dry-run --ignore-installed --report /mnt/tmp/report.json \
    'panda-server[postgres]=={{ build.version }}'

in_node "$PYTHON" - >"$STAGEGATE_LOCK_FILE.new" <<'PYTHON_END'
import json

with open("/mnt/tmp/report.json") as report:
    installs = json.load(report)["install"]
lines = []
for install in installs:
    name, version = install["metadata"]["name"], install["metadata"]["version"]
    digest = install["download_info"]["archive_info"]["hashes"]["sha256"]
    lines.append(f"{name.lower().replace('_', '-')}=={version} --hash=sha256:{digest}")
print("\n".join(sorted(lines)))
PYTHON_END
mv "$STAGEGATE_LOCK_FILE.new" "$STAGEGATE_LOCK_FILE"
rm -rf "$NODE"
