#!/bin/sh
# Builds {{ build.name }} once, as the virtual environment that every node will see at the same path.
set -eu

{% include "panda/common.sh" %}

PYTHON={{ vars.python }}
RELEASE=/mnt/releases/{{ build.digest | replace(from="sha256:", to="") }}
# What the source distributions of this lock are built with: they are installed first, from the lock like all else.
BUILD_TOOLS='hatchling|hatch[-_.]vcs|setuptools|cython|requests'

need "$PYTHON" "$(basename "$PYTHON") $(basename "$PYTHON")-venv $(basename "$PYTHON")-dev"
need /usr/bin/apxs apache2-dev
need /usr/bin/gcc gcc
need /usr/bin/zstd zstd

NODE=$PWD/node
rm -rf "$NODE"
mkdir "$NODE"
own_dirs "$NODE/run" "$NODE/releases" "$NODE/cache" "$NODE/tmp"
check_namespace
# One name a spelling, so that a line is found by it.
sed -e 's/^\([A-Za-z0-9._-]*\)==/\L\1==/' "$STAGEGATE_LOCK_FILE" >"$NODE/lock.txt"
grep '^pip==' "$NODE/lock.txt" >"$NODE/pip.txt" || fail "no pip in the lock: name it in the source's \`also\`"
grep -E "^($BUILD_TOOLS)==" "$NODE/lock.txt" >"$NODE/tools.txt" || fail "no build tools in the lock: name them in the source's \`also\`"
chmod a+r "$NODE"/*.txt
if [ -n "${STAGEGATE_CACHE_DIR:-}" ]; then
    # mod_wsgi takes a minute to compile and is bound to the Apache and the Python that it was compiled against.
    CACHE=$STAGEGATE_CACHE_DIR/pip-httpd$(apxs -q HTTPD_VERSION)-$("$PYTHON" -c 'import platform; print(platform.python_version())')
    own_dirs "$CACHE"
fi

# pip ARGUMENT...: of the new environment. It takes nothing whose hash is not in the lock, nor a built wheel from its
# cache unless that was made from a file with such a hash.
# DISABLE_MM: PanDA's build hook posts to a chat otherwise. VIRTUAL_ENV: it makes log directories below.
pip() {
    in_node DISABLE_MM=1 VIRTUAL_ENV="$RELEASE" TMPDIR=/mnt/tmp PIP_CACHE_DIR=/mnt/cache PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$RELEASE/bin/pip" "$@"
}

in_node "$PYTHON" -m venv "$RELEASE"
# The pip that comes with Python 3.11 takes no hashes from constraints, so the lock brings its own.
pip install --no-input --quiet --require-hashes --no-deps -r /mnt/pip.txt
pip install --no-input --quiet --require-hashes -r /mnt/tools.txt -c /mnt/lock.txt
# No isolated builds: those would fetch their tools by name, past the lock.
pip install --no-input --quiet --require-hashes --no-deps --no-build-isolation -r /mnt/lock.txt
pip check || echo "the locked set does not fit together (see above); it is what the index resolved"
echo '{{ build.version }}' >"$NODE/version"
mv "$NODE/version" "$NODE/releases/${RELEASE##*/}/version"

# mtimes are kept: they tie the compiled modules to their sources.
tar --directory "$NODE/releases/${RELEASE##*/}" --sort=name --owner=0 --group=0 --numeric-owner \
    --use-compress-program 'zstd -3 -T0 -q' --create --file "$STAGEGATE_ARTIFACT/venv.tar.zst.new" .
mv "$STAGEGATE_ARTIFACT/venv.tar.zst.new" "$STAGEGATE_ARTIFACT/venv.tar.zst"
rm -rf "$NODE"
echo "built {{ build.name }}: $(du -h "$STAGEGATE_ARTIFACT/venv.tar.zst" | cut -f1)"
