"""Answers, and tells in its log of calls that it had; neither for as long as the test holds it back."""

import http.server
import os
import sys
import threading
import time

port, held, took = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def is_held(what):
    return os.path.exists(held.replace("WHAT", what))


class Alive(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if is_held("alive") else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


def work():
    with open("log/calls", "a", buffering=1) as log:
        while True:
            time.sleep(0.1)
            if not is_held("calls"):
                log.write(f"took {took} s\n")


threading.Thread(target=work, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", port), Alive).serve_forever()
