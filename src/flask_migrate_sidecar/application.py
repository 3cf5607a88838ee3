"""Finds, mounts and imports the application, and says which databases it has."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import click
from flask.cli import NoAppException
from sqlalchemy import URL, Engine, event

from .databases import DEFAULT, Database, identity, parse_url
from .databases import secrets as url_secrets
from .discovery import find_application
from .errors import AppError, ConfigurationError, Interrupted, SidecarError
from .import_failure import explain_import_error, find_database_error
from .import_limit import ImportTimeoutError, limit_time
from .log import get_logger
from .masking import secrets
from .migrations_only import (
    MIGRATIONS_ONLY,
    describe_drivers,
    make_application,
    wants_migrations_only,
)
from .origins import warn_of_upstream
from .settings import Settings, normalise_bind

if TYPE_CHECKING:
    from flask import Flask

logger = get_logger(__name__)

MOUNTED = "mounted"


@dataclass(frozen=True)
class Application:
    """A loaded application.

    Args:
        app: the Flask application.
        state: what Flask-Migrate left in `app.extensions["migrate"]`.
        group: the commands, whatever the application called them.
        source: `mounted`, or `migrations-only`.
    """

    app: Flask
    state: Any
    group: click.Group
    source: str

    @property
    def command(self) -> str:
        """The name of the group."""
        return str(getattr(self.state.migrate, "command", None) or "db")


def enter_folder(settings: Settings) -> Path:
    """Make the application's folder the working directory, and importable.

    Raises:
        ConfigurationError: there is no such folder.
    """
    folder = Path(settings.app_dir or ".").absolute()
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigurationError(
            f"--app-dir {folder}: {error.strerror}", hint="check what is mounted there"
        ) from error
    for path in (folder / "src", folder):
        if path.is_dir() and str(path) not in sys.path:
            sys.path.insert(0, str(path))
    return folder


def load_application(
    settings: Settings,
    arguments: Sequence[str] = (),
    force: Callable[[Any], NoReturn] | None = None,
) -> Application:
    """Import or create the application, or make one around the migrations alone.

    Args:
        settings: the settings.
        arguments: what stands behind the command; `-d` there names a repository.
        force: ends the process where an import ends neither by itself nor at `--app-timeout`.

    Raises:
        ConfigurationError: there is nothing to import; the driver of its database is missing.
        AppError: it cannot be imported or created, or has no `Migrate`.
        UnavailableError, RefusedError: it queries its database at import, and that failed.
    """
    started, folder = monotonic(), Path.cwd()
    if wants_migrations_only(settings, arguments):
        app, source = make_application(settings, os.environ, arguments), MIGRATIONS_ONLY
    else:
        with limit_time(settings.app_timeout, force):
            app, source = _import_application(settings.app), MOUNTED
    # Some applications change it at import, and the repository's path is relative to it.
    os.chdir(folder)
    application = _inspect(app, source)
    logger.info(
        "app.loaded",
        app=app.import_name,
        source=source,
        folder=str(folder),
        duration_ms=round((monotonic() - started) * 1000),
        **({"drivers": describe_drivers(app)} if source == MIGRATIONS_ONLY else {}),
    )
    warn_of_upstream(application.group)
    return application


def _import_application(name: str | None) -> Flask:
    try:
        return find_application(name)
    except NoAppException as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ImportError):
            raise explain_import_error(cause, name) from cause
        if cause is not None and find_database_error(cause) is not None:
            raise explain_import_error(cause, name) from cause
        raise AppError(
            str(error).strip().splitlines()[0],
            hint="name the application as --app MODULE:NAME or --app 'MODULE:FACTORY(ARGUMENTS)', "
            "or run the migrations without it: --app none",
        ) from error
    except (SidecarError, Interrupted, ImportTimeoutError):
        raise
    except BaseException as error:
        # Also SystemExit, a KeyboardInterrupt that no signal sent, and what else derives from it.
        raise explain_import_error(error, name) from error


def _inspect(app: Flask, source: str) -> Application:
    """Find the migration commands of the application."""
    state = app.extensions.get("migrate")
    if state is None or not hasattr(state, "migrate"):
        raise AppError(
            f"the application {app.import_name!r} has no Migrate",
            hint="add Migrate(app, db) where the application is created",
        )
    name = getattr(state.migrate, "command", None) or "db"
    group = app.cli.commands.get(name)
    if not isinstance(group, click.Group) and not hasattr(state.migrate, "command"):
        # Flask-Migrate 3 does not add its commands to the application: Flask finds them by their
        # entry point, which `flask_migrate.cli.db` is.
        from flask_migrate.cli import db as group
    if not isinstance(group, click.Group):
        raise AppError(
            f"the application {app.import_name!r} has no group of commands called {name!r}",
            hint="call Migrate.init_app() where the application is created",
        )
    return Application(app, state, group, source)


def list_databases(application: Application, settings: Settings) -> list[Database]:
    """List the databases of the application, as the run will reach them.

    Raises:
        ConfigurationError: a URL was given for a bind that does not exist, or of another dialect.
    """
    app, db = application.app, application.state.db
    given = {DEFAULT: settings.database_url, **settings.bind_urls()}
    databases = []
    for name, url in _list_urls(app, db).items():
        key = name if name == DEFAULT else normalise_bind(name)
        override = given.pop(key, None)
        target = url if override is None else _check_override(name, url, override)
        secrets.add(url_secrets(url) | url_secrets(target))
        databases.append(Database.of_app(name, target, _connect_args(app, name)))
        if target != url:
            connect_elsewhere(url, target)
    unknown = [name for name, url in given.items() if url]
    if unknown:
        raise ConfigurationError(
            f"a URL is given for {', '.join(unknown)}, which the application does not have",
            hint=f"its databases are {', '.join(d.name for d in databases)}",
        )
    return databases


def _list_urls(app: Flask, db: Any) -> dict[str, URL]:
    """Give the URL of each database, the main one first."""
    if hasattr(type(db), "engines"):  # Flask-SQLAlchemy 3, Flask-SQLAlchemy-Lite
        engines = {name or DEFAULT: engine for name, engine in db.engines.items()}
    else:  # Flask-SQLAlchemy 2, Alchemical
        engines = {DEFAULT: db.engine if hasattr(type(db), "engine") else db.get_engine()}
        names = db.bind_names() if hasattr(db, "bind_names") else app.config.get("SQLALCHEMY_BINDS")
        engines |= {name: db.get_engine(bind=name) for name in names or ()}
    urls = {name: engine.url for name, engine in engines.items()}
    return dict(sorted(urls.items(), key=lambda item: item[0] != DEFAULT))


def _connect_args(app: Flask, name: str) -> dict[str, Any]:
    """Give the driver arguments that the application set for a database."""
    options = dict(app.config.get("SQLALCHEMY_ENGINE_OPTIONS") or {})
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


def connect_elsewhere(url: URL, target: URL) -> None:
    """Let every engine that would connect to one URL connect to another.

    The parameters are exchanged where SQLAlchemy hands them to the driver, so that engines which
    `env.py` makes itself are covered, and the application's engine options stay.
    """

    @event.listens_for(Engine, "do_connect")
    def redirect(dialect: Any, _record: Any, args: list[Any], parameters: dict[str, Any]) -> None:
        if dialect.name != url.get_backend_name():
            return
        old_args, old = dialect.create_connect_args(url)
        if list(old_args) == list(args) and old.items() <= parameters.items():
            new_args, new = dialect.create_connect_args(target)
            args[:] = new_args
            for key in old:
                del parameters[key]
            parameters.update({**new, **parameters})


def lock_order(databases: list[Database]) -> list[Database]:
    """Give each distinct database once, in an order that all migrators share."""
    return sorted(
        {identity(d.url): d for d in databases}.values(), key=lambda d: str(identity(d.url))
    )
