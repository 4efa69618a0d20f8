from flask import Flask
app = Flask(__name__)
@app.route("/")
def hello():
    try:
        import pytest  # a dependency of development, which the image does without

        return "poetry with " + pytest.__name__
    except ImportError:
        return "poetry without pytest"
