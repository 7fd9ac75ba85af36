"""The first process of a server's pod: writes the configuration, runs Apache, and ends it gracefully when it is asked to end."""
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys

RELEASE = "{{ vars.release }}"
CONFIG, SECRETS = "/config", "/secrets"

for directory in ("run", "log/pandacache", "etc/panda", "etc/config_json"):
    os.makedirs(f"/mnt/{directory}", exist_ok=True)
if not os.path.islink("/mnt/etc/tls"):
    os.symlink(SECRETS, "/mnt/etc/tls")

# The build's own configuration; what a site must say differently is laid over it by PanDA itself, from the JSON file.
shutil.copy(f"{RELEASE}/etc/panda/panda_server.cfg.rpmnew", "/mnt/etc/panda/panda_server.cfg")
shutil.copy(f"{CONFIG}/panda_common.cfg", "/mnt/etc/panda/panda_common.cfg")
os.umask(0o077)
with open("/mnt/etc/config_json/panda_server_config.json", "w") as settings:
    arguments = [sys.executable, f"{CONFIG}/settings.py", f"{SECRETS}/db-password", socket.getfqdn()]
    subprocess.run(arguments, stdout=settings, check=True)
os.umask(0o022)

(packages,) = glob.glob(f"{RELEASE}/lib/python3*/site-packages")
(mod_wsgi,) = glob.glob(f"{packages}/mod_wsgi/server/mod_wsgi-py*.so")
with open(f"{CONFIG}/httpd.conf") as text:
    httpd = text.read()
for word, value in {
    "@RELEASE@": RELEASE,
    "@MOD_WSGI@": mod_wsgi,
    "@PANDA@": f"{packages}/pandaserver",
    # All of its pod, which has one address.
    "@ADDRESS@": "0.0.0.0",
    "@NAME@": socket.getfqdn(),
}.items():
    httpd = httpd.replace(word, value)
with open("/mnt/etc/httpd.conf", "w") as written:
    written.write(httpd)

# Calls are printed, too, for who follows the pod; what is there of an earlier container was printed by it.
subprocess.Popen(["/usr/bin/tail", "--lines=0", "--follow=name", "--retry", "--quiet", "/mnt/log/panda-Entry.log"], stderr=subprocess.DEVNULL)

with open(f"{RELEASE}/version") as text:
    version = text.read().strip()
server = subprocess.Popen(
    ["/usr/sbin/apache2", "-f", "/mnt/etc/httpd.conf", "-D", "FOREGROUND", "-E", "/dev/stderr"],
    env={
        **os.environ,
        "PATH": f"{RELEASE}/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{packages}/pandacommon:{packages}/pandaserver",
        "VIRTUAL_ENV": RELEASE,
        # A session in the database says which node and build it belongs to.
        "PGAPPNAME": f"{{ component.name }}/{socket.gethostname()}/{version}",
    },
)
# TERM would cut calls off in flight, and an update that is cut off is lost: WINCH lets them be answered.
signal.signal(signal.SIGTERM, lambda *_: server.send_signal(signal.SIGWINCH))
sys.exit(server.wait())
