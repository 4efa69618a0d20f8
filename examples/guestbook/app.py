"""A guestbook: entries are kept in a Redis leader and read from its followers."""

import json
import os
import signal
import socket
import sys
import time

import redis
import waitress
from flask import Flask, redirect, render_template, request, url_for

PORT = int(os.environ.get("PORT", "8080"))
LEADER = os.environ.get("REDIS_LEADER", "redis-leader")
FOLLOWER = os.environ.get("REDIS_FOLLOWER", "redis-follower")
REDIS_PORT = 6379

ENTRIES = "guestbook:entries"
# A page of entries that a person would read; older ones are dropped, so that the list cannot grow without end.
MAX_ENTRIES = 100
MAX_NAME = 40
MAX_TEXT = 280

FRONT_END = socket.gethostname()

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 16 * 1024


def connect(host):
    """A new connection each time, so that every read may go to another follower."""
    return redis.Redis(
        host=host, port=REDIS_PORT, decode_responses=True, socket_connect_timeout=2, socket_timeout=3
    )


def read_entries():
    """The newest entries first, and the address of the follower that they came from."""
    with connect(FOLLOWER) as follower:
        entries = [json.loads(entry) for entry in follower.lrange(ENTRIES, 0, MAX_ENTRIES - 1)]
        return entries, follower.client_info()["laddr"].rsplit(":", 1)[0]


def keep(name, text):
    """Keeps an entry in the leader and waits, for a moment, until the followers have it too."""
    entry = json.dumps({"name": name, "text": text, "at": int(time.time()), "via": FRONT_END})
    with connect(LEADER) as leader:
        leader.lpush(ENTRIES, entry)
        leader.ltrim(ENTRIES, 0, MAX_ENTRIES - 1)
        leader.wait(leader.info("replication")["connected_slaves"], 500)


def page(status=200, problem=None, name="", text=""):
    entries, follower = [], None
    try:
        entries, follower = read_entries()
    except redis.RedisError as error:
        app.logger.warning("no follower answered: %s", error)
        problem, status = problem or "No Redis follower answers just now. Reload in a moment.", 503
    body = render_template(
        "page.html", entries=entries, follower=follower, front_end=FRONT_END, problem=problem, name=name, text=text,
        max_name=MAX_NAME, max_text=MAX_TEXT,
    )
    return body, status, {"X-Front-End": FRONT_END, "Cache-Control": "no-store"}


@app.get("/")
def show():
    return page()


@app.post("/")
def sign():
    name = request.form.get("name", "").strip()[:MAX_NAME] or "Somebody"
    text = request.form.get("text", "").strip()[:MAX_TEXT]
    if not text:
        return page(400, "An entry needs a few words.", name)
    try:
        keep(name, text)
    except redis.RedisError as error:
        app.logger.warning("the leader did not take an entry: %s", error)
        return page(503, "The Redis leader does not answer just now. Your words are still below.", name, text)
    print(f"entry by {name!r}", flush=True)
    return redirect(url_for("show"), 303)


@app.template_filter("when")
def when(seconds):
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


if __name__ == "__main__":
    # A container's first process ends at SIGTERM only if it says so.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print(f"front end {FRONT_END} listens on port {PORT}", flush=True)
    waitress.serve(app, host="0.0.0.0", port=PORT, threads=8, ident=None)
