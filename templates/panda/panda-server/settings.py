# settings.py PASSWORD-FILE ADDRESS: prints what a node's PanDA says otherwise than its package, which PanDA lays over that.
import json, sys

with open(sys.argv[1]) as secret:
    password = secret.readline().rstrip("\n")
address = sys.argv[2]
json.dump({"server": {
    "backend": "postgres",
    "dbhost": "{{ nodes.database[0].address }}",
    "dbport": "{{ nodes.database[0].ports.postgres }}",
    "dbname": "{{ vars.database }}",
    "dbuser": "panda",
    "dbpasswd": password,
    "schemaPANDA": "DOMA_PANDA",
    "schemaJEDI": "DOMA_PANDA",
    "schemaMETA": "DOMA_PANDAMETA",
    "schemaPANDAARCH": "DOMA_PANDAARCH",
    "schemaDEFT": "DOMA_DEFT",
    "production_dns": "Robot Pilot",
    "pilot_owners": "Robot Pilot",
    "token_authType": "None",
    "auth_config": "/mnt/etc/panda/auth/",
    "logdir": "/mnt/log",
    "cache_dir": "/mnt/log/pandacache",
    "home_dir_cwd": "/mnt/run",
    "pserveralias": address,
    "pserverhost": address,
    "pserverport": "{{ ports.https }}",
    "pserverporthttp": "{{ ports.http }}",
}}, sys.stdout)
