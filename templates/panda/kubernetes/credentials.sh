#!/bin/sh
# Puts the certificates and the password that the servers' pods need into a Secret of their namespace. What lies in it is
# in no template and no argument.
set -eu

KUBECTL='{{ vars.kubectl }}'
cd "$STAGEGATE_SECRETS_DIR"
"$KUBECTL" --kubeconfig kubeconfig --namespace '{{ vars.namespace }}' create secret generic panda-server \
    --from-file=db-password --from-file=ca.pem=ca --from-file=host.pem=host-certificate --from-file=host.key=host-key \
    --dry-run=client --output yaml |
    "$KUBECTL" --kubeconfig kubeconfig apply --server-side --force-conflicts --field-manager stagegate-credentials --filename -
