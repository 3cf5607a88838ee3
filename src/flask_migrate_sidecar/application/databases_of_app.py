"""The databases of an application: their names, and where the run will reach them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine

from flask_migrate_sidecar.database.connect import DEFAULT, Database
from flask_migrate_sidecar.database.driver import parse_url
from flask_migrate_sidecar.database.redirect import Move, lead_connections, remove_place
from flask_migrate_sidecar.errors import ConfigurationError
from flask_migrate_sidecar.log.redaction import find_secrets, secrets
from flask_migrate_sidecar.settings.options import Settings, normalise_bind

from .loading import Application

if TYPE_CHECKING:
    from flask import Flask


def list_known_databases(settings: Settings) -> list[Database]:
    """List the databases that the settings name: they are known before the application is.

    Raises:
        ConfigurationError: a URL is malformed, or two are given for one bind.
    """
    given = {DEFAULT: settings.database_url, **settings.bind_urls()}
    databases = []
    for name, text in given.items():
        if text:
            url = parse_url(text, name=name)
            secrets.add(find_secrets(url))
            # Whether there is such a bind, only the application knows.
            databases += [Database.of_app(name, url)] if name == DEFAULT else []
    return databases


def list_databases(application: Application, settings: Settings) -> list[Database]:
    """List the databases of the application, as the run will reach them.

    Raises:
        ConfigurationError: a URL was given for a bind that does not exist, or of another dialect.
    """
    app, db = application.app, application.state.db
    given = {DEFAULT: settings.database_url, **settings.bind_urls()}
    databases, moves = [], []
    for name, engine in _list_engines(app, db).items():
        key = name if name == DEFAULT else normalise_bind(name)
        override = given.pop(key, None)
        url: URL = engine.url
        target = url if override is None else _check_override(name, url, override)
        secrets.add(find_secrets(url) | find_secrets(target))
        moves.append(Move(url, target, engine))
        databases.append(_make_database(name, moves[-1], _connect_args(app, name)))
    unknown = [name for name, url in given.items() if url]
    if unknown:
        raise ConfigurationError(
            f"a URL is given for {', '.join(unknown)}, which the application does not have",
            hint=f"its databases are {', '.join(d.name for d in databases)}",
        )
    if any(database.is_redirected for database in databases):
        lead_connections(moves)
    return databases


def _make_database(name: str, move: Move, arguments: dict[str, Any]) -> Database:
    """Describe a database as the run reaches it."""
    if move.target == move.url:
        return Database.of_app(name, move.url, arguments, source=move.engine)
    login = {"user": move.target.username, "password": move.target.password}
    given = [name for name, value in login.items() if value]
    database = Database.of_app(name, move.target, remove_place(arguments, given))
    return replace(database, is_redirected=True)


def _list_engines(app: Flask, db: Any) -> dict[str, Engine]:
    """Give the engine of each database, the main one first."""
    if hasattr(type(db), "engines"):  # Flask-SQLAlchemy 3, Flask-SQLAlchemy-Lite
        engines = {name or DEFAULT: engine for name, engine in db.engines.items()}
    else:  # Flask-SQLAlchemy 2, Alchemical
        engines = {DEFAULT: db.engine if hasattr(type(db), "engine") else db.get_engine()}
        names = db.bind_names() if hasattr(db, "bind_names") else app.config.get("SQLALCHEMY_BINDS")
        engines |= {name: db.get_engine(bind=name) for name in names or ()}
    # What is asynchronous stands before an engine that is not.
    plain = {name: getattr(engine, "sync_engine", engine) for name, engine in engines.items()}
    return dict(sorted(plain.items(), key=lambda item: item[0] != DEFAULT))


def _connect_args(app: Flask, name: str) -> dict[str, Any]:
    """Give the driver arguments that the application set for a database."""
    # Flask-SQLAlchemy 3 has these for the main database alone.
    options = dict(app.config.get("SQLALCHEMY_ENGINE_OPTIONS") or {} if name == DEFAULT else {})
    bind = (app.config.get("SQLALCHEMY_BINDS") or {}).get(name)
    if isinstance(bind, dict):
        options |= bind
    return dict(options.get("connect_args") or {})


def _check_override(name: str, url: URL, text: str) -> URL:
    override = parse_url(text, name=name)
    if override.get_backend_name() != url.get_backend_name():
        raise ConfigurationError(
            f"the URL given for {name} is of {override.get_backend_name()}, but the application "
            f"uses {url.get_backend_name()}",
            hint="the revisions are written for the application's database",
        )
    # The application's driver stays: its arguments and engine options are made for it.
    return override.set(drivername=url.drivername)
