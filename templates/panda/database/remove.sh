#!/bin/sh
# Ends whatever still runs in this node, for its directory is about to be deleted.
set -eu

{% include "panda/common.sh" %}

end_all
