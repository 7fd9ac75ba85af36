"""The service of a trivial system: answers /alive at once, and /work as its build says.

Usage: service.py PORT SHARED RUNNER. Its build's directory may hold `delay_s` (every answer takes as long), `answer` (what it says
instead of being right) and `lives_s` (it crashes so much later). A file `slow` in its node's directory makes this node slow, the file SHARED every node.
It ends by itself when the process RUNNER is gone: a run of tests that is killed takes nothing down.
"""

import http.server
import os
import pathlib
import signal
import socketserver
import sys
import threading
import time

SLOW_S = 3

release = pathlib.Path(__file__).parent
node = pathlib.Path(os.environ["STAGEGATE_NODE_DIR"])
port, shared, runner = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]


def stated(name, otherwise):
    file = release / name
    return file.read_text().strip() if file.exists() else otherwise


version = stated("version", "")
answer = stated("answer", f"done by {version}")
delay_s = float(stated("delay_s", "0"))


class Call(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"alive {version}\n"
        if self.path == "/work":
            body = f"{answer}\n"
            slow = (node / "slow").exists() or shared.exists()
            time.sleep(delay_s or (SLOW_S if slow else 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Service(http.server.ThreadingHTTPServer):
    # A stop waits for the calls in flight.
    daemon_threads = False
    request_queue_size = 256

    def server_bind(self):
        # Without the base class' question to a name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


def end_with_runner():
    while os.path.exists(f"/proc/{runner}"):
        time.sleep(1)
    os._exit(0)


def crash_when_its_time_has_come(lives_s):
    time.sleep(lives_s)
    os._exit(1)


service = Service(("127.0.0.1", port), Call)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=service.shutdown).start())
threading.Thread(target=end_with_runner, daemon=True).start()
if lives_s := float(stated("lives_s", "0")):
    threading.Thread(target=crash_when_its_time_has_come, args=(lives_s,), daemon=True).start()
with open(node / "log/starts", "a") as starts:
    starts.write(f"{time.time():.3f} {os.getpid()} {version}\n")
mine = node / "run/pid.new"
mine.write_text(f"{os.getpid()}\n")
mine.rename(node / "run/pid")
service.serve_forever(0.02)
service.server_close()
