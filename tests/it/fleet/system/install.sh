set -eu
cp -R "$STAGEGATE_ARTIFACT/." "$STAGEGATE_RELEASE_DIR/"
# Long enough that a driver's end can fall into it, and as long as a test wants.
sleep 0.2
while [ -e "{{ vars.test }}/hold-installs" ]; do sleep 0.02; done
if [ -x "$STAGEGATE_RELEASE_DIR/install" ]; then "$STAGEGATE_RELEASE_DIR/install"; fi
