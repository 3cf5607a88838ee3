"""Notes in one database, accounts in a second, and an audit trail that got a third later."""

import os
from datetime import datetime
from typing import TYPE_CHECKING

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Index, MetaData, String, Text, UniqueConstraint, false, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_migrate import Migrate

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# Flask-SQLAlchemy hands the naming convention on to every bind.
db = SQLAlchemy(metadata=MetaData(naming_convention=NAMING))
migrate = Migrate()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """Stands for db.Model, which is made at run time, where a type checker cannot see it."""

else:
    Model = db.Model


class Note(Model):
    """Lives in the main database."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    author: Mapped[str] = mapped_column(String(80))
    body: Mapped[str] = mapped_column(Text)
    pinned: Mapped[bool] = mapped_column(server_default=false())


class Account(Model):
    """Lives in the bind `users`."""

    __bind_key__ = "users"
    __tablename__ = "account"
    __table_args__ = (UniqueConstraint("login"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(80))
    display_name: Mapped[str | None] = mapped_column(String(120))


class Event(Model):
    """Lives in the bind `audit`."""

    __bind_key__ = "audit"
    __tablename__ = "event"
    __table_args__ = (Index("ix_event_actor_happened_at", "actor", "happened_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    actor: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(120))
    happened_at: Mapped[datetime] = mapped_column(server_default=func.now())


def create_app() -> Flask:
    """Build the app; nothing is queried here, for the tables may not exist yet."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///notes.db")
    app.config["SQLALCHEMY_BINDS"] = {
        "users": os.environ.get("USERS_DATABASE_URL", "sqlite:///users.db"),
        "audit": os.environ.get("AUDIT_DATABASE_URL", "sqlite:///audit.db"),
    }
    db.init_app(app)
    migrate.init_app(app, db)
    app.add_url_rule("/", view_func=count_rows)
    return app


def count_rows() -> dict[str, int]:
    """Return how many rows each of the three databases holds."""
    models: tuple[type[Model], ...] = (Note, Account, Event)
    counts = {}
    for model in models:
        rows = select(func.count()).select_from(model)
        counts[model.__tablename__] = db.session.scalars(rows).one()
    return counts
