"""The guestbook's front end: the page at /, and the calls of the original at /guestbook.php.

Writes go to the leader, reads to a replica. GET_HOSTS_FROM says where their names come from: `dns` (default) or `env`.
"""

import html
import http.server
import json
import os
import socket
import urllib.parse

import redis

PAGE = """<!doctype html><meta charset=utf-8><title>Guestbook</title>
<style>body{{font:16px/1.5 sans-serif;max-width:34em;margin:3em auto;padding:0 1em;color:#222}}
input{{font:inherit;padding:.4em;width:70%}}button{{font:inherit;padding:.4em 1em}}li{{padding:.2em 0}}
small{{color:#777}}</style>
<h1>Guestbook</h1>
<form method=post action=/><input name=value autofocus maxlength=200> <button>Sign</button></form>
<ul>{entries}</ul><small>answered by {host}</small>"""


def database(role):
    """A connection to the `master` or a `replica`."""
    host = "redis-" + role
    if role == "replica":
        try:
            socket.getaddrinfo(host, 6379)
        except OSError:
            host = "redis-slave"  # what the example of 2016 calls it
    if os.environ.get("GET_HOSTS_FROM") == "env":
        host = os.environ["REDIS_%s_SERVICE_HOST" % role.upper()]
    return redis.Redis(host=host, port=6379, decode_responses=True, socket_timeout=5)


class Guestbook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, kind, text, headers=()):
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            if url.path == "/guestbook.php":
                self.answer(200, "application/json", json.dumps(self.call(query)))
            elif url.path == "/":
                entries = (database("replica").get("messages") or "").split(",")
                items = "".join("<li>%s</li>" % html.escape(e) for e in entries if e)
                self.answer(200, "text/html", PAGE.format(entries=items, host=socket.gethostname()))
            else:
                self.answer(404, "text/plain", "not found\n")
        except redis.RedisError as error:
            self.answer(503, "text/plain", "the database cannot be reached: %s\n" % error)

    def call(self, query):
        key = query.get("key", "messages")
        if query.get("cmd") == "set":
            database("master").set(key, query.get("value", ""))
            return {"message": "Updated"}
        return {"data": database("replica").get(key) or ""}

    def do_POST(self):
        length = min(int(self.headers.get("Content-Length") or 0), 65536)
        form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode("utf-8", "replace")))
        try:
            value = form.get("value", "").replace(",", " ").strip()
            if value:
                master = database("master")
                master.append("messages", "," + value if master.exists("messages") else value)
            self.answer(303, "text/plain", "", [("Location", "/")])
        except redis.RedisError as error:
            self.answer(503, "text/plain", "the database cannot be reached: %s\n" % error)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", 80), Guestbook).serve_forever()
