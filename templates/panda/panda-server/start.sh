#!/bin/sh
# Starts the release that `current` points to, with the configuration that the environment asks for now.
set -eu

{% include "panda/common.sh" %}

{% set ports = node.ports %}

if pid=$(pid_in run/httpd.pid); then
    echo "runs already as $pid"
    exit 0
fi
[ -r "$STAGEGATE_RELEASE_DIR/version" ] || fail "no complete release in $STAGEGATE_RELEASE_DIR"
RELEASE=/mnt/releases/${STAGEGATE_RELEASE_DIR##*/}
read -r VERSION <"$STAGEGATE_RELEASE_DIR/version"
open_node
own_dirs "$NODE/log/pandacache"
# Worker processes outlive a killed parent, and its sockets with them; and Apache takes any live pid in its file for itself.
end_all
rm -f "$NODE/run/httpd.pid"

# Nothing rotates these while the service runs: its processes write the same files.
find "$NODE/log" -maxdepth 1 -name '*.log' -size +100M -exec mv {} {}.1 ';'

mkdir -p "$NODE/etc/tls" "$NODE/etc/panda" "$NODE/etc/config_json"
chmod 755 "$NODE/etc" "$NODE/etc/tls" "$NODE/etc/panda" "$NODE/etc/config_json"

# private FROM TO: for nobody but the service's user, from the first byte on.
private() {
    [ -s "$1" ] || fail "no secret in $1"
    rm -f "$2.new"
    (umask 077 && cat "$1" >"$2.new")
    give "$2.new"
    mv "$2.new" "$2"
}
private "$STAGEGATE_SECRETS_DIR/ca" "$NODE/etc/tls/ca.pem"
private "$STAGEGATE_SECRETS_DIR/host-certificate" "$NODE/etc/tls/host.pem"
private "$STAGEGATE_SECRETS_DIR/host-key" "$NODE/etc/tls/host.key"

# The build's own configuration; what a site must say differently is laid over it by PanDA itself, from the JSON file.
cp "$STAGEGATE_RELEASE_DIR/etc/panda/panda_server.cfg.rpmnew" "$NODE/etc/panda/panda_server.cfg"
{{ vars.python }} - "$STAGEGATE_SECRETS_DIR/db-password" '{{ node.address }}' >"$STAGEGATE_SECRETS_DIR/overlay.json" <<'PYTHON_END'
{% include "panda/panda-server/settings.py" %}
PYTHON_END
private "$STAGEGATE_SECRETS_DIR/overlay.json" "$NODE/etc/config_json/panda_server_config.json"
cat >"$NODE/etc/panda/panda_common.cfg" <<'CONF'
{% include "panda/panda-server/panda_common.cfg" %}
CONF

PACKAGES=$(cd "$STAGEGATE_RELEASE_DIR" && echo lib/python3*/site-packages)
MOD_WSGI=$(cd "$STAGEGATE_RELEASE_DIR" && echo "$PACKAGES"/mod_wsgi/server/mod_wsgi-py*.so)
[ -e "$STAGEGATE_RELEASE_DIR/$MOD_WSGI" ] || fail "no mod_wsgi in $STAGEGATE_RELEASE_DIR"
sed -e "s#@RELEASE@#$RELEASE#g" -e "s#@MOD_WSGI@#$RELEASE/$MOD_WSGI#g" -e "s#@PANDA@#$RELEASE/$PACKAGES/pandaserver#g" \
    -e 's#@ADDRESS@#{{ node.address }}#g' -e 's#@NAME@#{{ node.address }}#g' >"$NODE/etc/httpd.conf" <<'CONF'
{% include "panda/panda-server/httpd.conf" %}
CONF
chmod 644 "$NODE/etc/httpd.conf" "$NODE/etc/panda"/*.cfg

# PGAPPNAME: a session in the database says which node and build it belongs to.
in_node VIRTUAL_ENV="$RELEASE" PATH="$RELEASE/bin:/usr/bin:/bin" PANDA_HOME=/mnt \
    PYTHONPATH="$RELEASE/$PACKAGES/pandacommon:$RELEASE/$PACKAGES/pandaserver" PYTHONDONTWRITEBYTECODE=1 \
    PGAPPNAME="{{ component.name }}/{{ node.name }}/$VERSION" X509_CERT_DIR=/mnt/etc/tls RUCIO_ACCOUNT=panda RUCIO_APPID=pandasrv \
    PANDA_URL='http://{{ node.address }}:{{ node.ports.http }}/server/panda' \
    PANDA_URL_SSL='https://{{ node.address }}:{{ node.ports.https }}/server/panda' \
    PANDACACHE_URL='https://{{ node.address }}:{{ node.ports.https }}/server/panda' PANDA_BEHIND_REAL_LB=1 \
    PANDA_API_URL='http://{{ node.address }}:{{ node.ports.http }}/api/v1' \
    PANDA_API_URL_SSL='https://{{ node.address }}:{{ node.ports.https }}/api/v1' \
    /usr/sbin/apache2 -f /mnt/etc/httpd.conf -k start || fail "Apache refused to start"

# It leaves its pid a moment after the command has ended.
end=$(($(date +%s) + ${STAGEGATE_DEADLINE_S:-60} - 2))
until pid=$(pid_in run/httpd.pid); do
    if [ "$(date +%s)" -ge "$end" ] || [ -z "$(node_pids)" ]; then
        tail -n 10 "$NODE/log/httpd-error.log" 2>/dev/null || true
        fail "Apache did not come up"
    fi
    sleep 0.1
done
echo "started panda-server $VERSION as $pid"
