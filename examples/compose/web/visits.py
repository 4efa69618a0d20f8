"""Counts visits in Redis, which a link of the compose file calls `store`."""

import os
import signal
import socketserver
import sys
from http.server import BaseHTTPRequestHandler

import redis


class Visits(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        store = redis.Redis(host="store", port=6379, socket_timeout=3)
        body = f"visit {store.incr('visits')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    # A container's first process ends at SIGTERM only if it says so.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with Server(("", int(os.environ.get("PORT", "8080"))), Visits) as server:
        server.serve_forever()
