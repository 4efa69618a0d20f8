import os

import flask

app = flask.Flask(__name__)


@app.route("/")
def index():
    return "python " + flask.__name__ + "\n"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=int(os.environ["PORT"]))
