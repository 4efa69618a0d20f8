"""The application tier of a bulletin board, written for docker's links: it finds its database by the variables that
a link as `db` gives, and once more by the name itself."""

import html
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pymysql

LINKED = dict(
    user=os.environ["DB_ENV_MYSQL_USER"],
    password=os.environ["DB_ENV_MYSQL_PASSWORD"],
    database=os.environ["DB_ENV_MYSQL_DATABASE"],
    autocommit=True,
)


def by_variables():
    port = int(os.environ["DB_PORT_3306_TCP_PORT"])
    return pymysql.connect(host=os.environ["DB_PORT_3306_TCP_ADDR"], port=port, **LINKED)


def by_name():
    return pymysql.connect(host="db", **LINKED)


class Board(BaseHTTPRequestHandler):
    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        with by_variables() as connection, connection.cursor() as cursor:
            cursor.execute("create table if not exists entry (id serial, text text)")
            cursor.execute("insert into entry (text) values (%s)", form["entry"])
        self.answer(303, "", {"Location": "/"})

    def do_GET(self):
        with by_name() as connection, connection.cursor() as cursor:
            cursor.execute("create table if not exists entry (id serial, text text)")
            cursor.execute("select text from entry order by id")
            entries = [html.escape(text) for (text,) in cursor]
        self.answer(200, "<h1>Bulletin board</h1>\n" + "".join(f"<p>{entry}</p>\n" for entry in entries), {})

    def answer(self, status, body, headers):
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "text/html", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
ThreadingHTTPServer(("", 5555), Board).serve_forever()
