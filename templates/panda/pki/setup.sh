#!/bin/sh
# A private CA, one certificate for all server hosts and one for a pilot. No service: files in pki/ of this node.
set -eu

{% include "panda/common.sh" %}

need /usr/bin/openssl openssl
mkdir -p "$NODE/pki"
chmod 700 "$NODE/pki"
cd "$NODE/pki"
umask 077

# A key pair is complete when its NAME.for file says what it was made for; that is written last.
key_and() {
    openssl "$@" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes 2>&1
}

if [ ! -f ca.for ]; then
    key_and req -x509 -days 3650 -subj '/DC=stagegate/CN={{ env.name }} CA' -keyout ca.key -out ca.pem ||
        fail "openssl could not make the CA of {{ env.name }}"
    echo ca >ca.for
fi

# issue NAME SUBJECT EXTENSIONS DAYS: again when it was made for something else, or ends within 30 days.
issue() {
    wanted=$(printf '%s\n%s' "$2" "$3")
    if [ "$(cat "$1.for" 2>/dev/null)" = "$wanted" ] && openssl x509 -checkend 2592000 -noout -in "$1.pem" >/dev/null; then
        return 0
    fi
    rm -f "$1.for"
    key_and req -subj "$2" -keyout "$1.key" -out "$1.csr" || fail "openssl could not make the key of $1"
    printf '%s\n' "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 15)" -days "$4" \
        -extfile "$1.ext" -out "$1.pem" 2>&1 || fail "openssl could not sign the certificate of $1"
    rm "$1.csr" "$1.ext"
    printf '%s\n' "$wanted" >"$1.for"
    echo "issued $1.pem for $2"
}

names=DNS:localhost,IP:127.0.0.1
for address in{% for server in nodes["panda-server"] %} '{{ server.address }}'{% endfor %}; do
    case $address in
        *:*) name=IP:$address ;;
        *[!0-9.]*) name=DNS:$address ;;
        *) name=IP:$address ;;
    esac
    case ,$names, in *",$name,"*) ;; *) names=$names,$name ;; esac
done
issue host '/DC=stagegate/CN=localhost' "subjectAltName=$names" 825
# PanDA takes a client for a pilot when its subject holds one of the names in `production_dns`.
issue pilot '/DC=stagegate/CN=Robot Pilot' 'extendedKeyUsage=clientAuth' 825
