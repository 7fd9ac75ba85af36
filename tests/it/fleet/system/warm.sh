set -eu
python3 -I -S - <<'PYTHON'
import socket

with socket.create_connection(("{{ node.address }}", {{ node.ports.http }})) as call:
    call.sendall(b"GET /work HTTP/1.0\r\n\r\n")
    assert b" 200 " in call.recv(64)
PYTHON
