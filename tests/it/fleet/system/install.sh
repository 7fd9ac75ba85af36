set -eu
cp -R "$STAGEGATE_ARTIFACT/." "$STAGEGATE_RELEASE_DIR/"
# Long enough that a driver's end can fall into it.
sleep 0.2
if [ -x "$STAGEGATE_RELEASE_DIR/install" ]; then "$STAGEGATE_RELEASE_DIR/install"; fi
