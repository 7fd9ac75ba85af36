#!/bin/sh
# Makes the directories of a server node. Its configuration is written at each start, for it depends on the build.
set -eu

{% include "panda/common.sh" %}

check_namespace
open_node
own_dirs "$NODE/log/pandacache"
echo "made the directories of {{ node.name }}"
