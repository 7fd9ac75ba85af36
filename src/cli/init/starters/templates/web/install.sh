#!/bin/sh
# Fills $STAGEGATE_RELEASE_DIR from the build in $STAGEGATE_ARTIFACT while the node still serves.
set -eu
cp -R "$STAGEGATE_ARTIFACT/." "$STAGEGATE_RELEASE_DIR/"
