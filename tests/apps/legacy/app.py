"""A blog as written for Flask-Migrate 2: everything in one module, the app at its top level."""

import os
from pathlib import Path

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_migrate import Migrate

DEFAULT_URL = f"sqlite:///{Path(__file__).parent / 'blog.db'}"

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL") or DEFAULT_URL
app.config["SQLALCHEMY_TRACK_MODIFICATIONS"] = False

db = SQLAlchemy(app)
migrate = Migrate(app, db)


class User(db.Model):  # type: ignore[name-defined,misc]
    """Someone who blogs."""

    id = db.Column(db.Integer, primary_key=True)
    username = db.Column(db.String(64), index=True, unique=True)
    email = db.Column(db.String(120), index=True, unique=True)
    password_hash = db.Column(db.String(256))
    website = db.Column(db.String(140))


class Post(db.Model):  # type: ignore[name-defined,misc]
    """What a user wrote."""

    id = db.Column(db.Integer, primary_key=True)
    body = db.Column(db.String(280))
    language = db.Column(db.String(5))
    timestamp = db.Column(db.DateTime, index=True)
    user_id = db.Column(db.Integer, db.ForeignKey("user.id", name="fk_post_user_id"))


@app.route("/")
def list_posts() -> dict[str, list[str]]:
    """Return the posts, the newest first."""
    newest = db.select(Post).order_by(Post.timestamp.desc())
    return {"posts": [post.body for post in db.session.scalars(newest)]}
