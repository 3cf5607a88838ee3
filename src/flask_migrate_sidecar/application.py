"""Finds, mounts and imports the application, and says which databases it has."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click
from flask.cli import NoAppException, ScriptInfo
from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from .databases import DEFAULT, Database, identity, parse_url
from .databases import secrets as url_secrets
from .errors import AppError, ConfigurationError, RefusedError, SidecarError, UnavailableError
from .log import get_logger
from .masking import secrets
from .settings import Settings, normalise_bind
from .wait import Verdict, classify

if TYPE_CHECKING:
    from flask import Flask

logger = get_logger(__name__)

NO_APP = "none"
DRIVERS = frozenset({"psycopg", "psycopg2", "pymysql", "MySQLdb", "asyncpg", "aiosqlite"})


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


def load_application(settings: Settings) -> Application:
    """Import or create the application.

    Raises:
        ConfigurationError: there is nothing to import; the driver of its database is missing.
        AppError: it cannot be imported or created, or has no `Migrate`.
        UnavailableError, RefusedError: it queries its database at import, and that failed.
    """
    started = monotonic()
    with _limit_time(settings.app_timeout):
        app = _import_application(settings.app)
    application = _inspect(app)
    logger.info(
        "app.loaded",
        app=app.import_name,
        source=application.source,
        folder=str(Path.cwd()),
        duration_ms=round((monotonic() - started) * 1000),
    )
    return application


def _import_application(name: str | None) -> Flask:
    if name is None and not _is_discoverable():
        raise ConfigurationError(
            f"there is no application in {Path.cwd()}: neither wsgi.py nor app.py",
            hint="mount the application there, or name it with --app or --app-dir",
        )
    try:
        return ScriptInfo(app_import_path=name).load_app()
    except NoAppException as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, (ImportError, SyntaxError)):
            raise explain_import_error(cause, name) from cause
        raise AppError(
            str(error).strip().splitlines()[0],
            hint="name the application as --app MODULE:NAME or --app 'MODULE:FACTORY(ARGUMENTS)'",
        ) from error
    except SidecarError:
        raise
    except SystemExit as error:
        raise AppError(
            f"the application ended the process while it was imported (exit code {error.code})",
            hint="it must not call sys.exit() at import; FLASK_MIGRATE_SIDECAR=1 tells it apart",
        ) from error
    except Exception as error:
        raise explain_import_error(error, name) from error


def _is_discoverable() -> bool:
    """Tell whether `flask` would find something by itself."""
    here = Path.cwd()
    return any(
        (here / name).exists()
        for name in ("wsgi.py", "app.py", "wsgi/__init__.py", "app/__init__.py")
    )


def explain_import_error(error: BaseException, name: str | None = None) -> SidecarError:
    """Turn what an import raised into an error with the right exit code."""
    if isinstance(error, (ArgumentError, NoSuchModuleError)):
        return ConfigurationError(
            "the application's database URL is malformed or names an unknown dialect: "
            + str(error).splitlines()[0],
            hint="check SQLALCHEMY_DATABASE_URI and SQLALCHEMY_BINDS",
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _explain_missing(error.name, name)
    if isinstance(error, DBAPIError) and error.orig is not None:
        return explain_database_error(error)
    subject = f"the application {name}" if name else "the application"
    return AppError(
        f"{subject} could not be loaded: {type(error).__name__}: {error}",
        hint="the traceback in this line shows where; 'flask routes' fails in the same way",
    )


def _explain_missing(module: str, name: str | None) -> SidecarError:
    if name is not None and name.partition(":")[0] == module:
        return AppError(
            f"there is no application {name!r} in {Path.cwd()}",
            hint="check --app, and what is mounted at --app-dir",
        )
    if module.partition(".")[0] in DRIVERS:
        return ConfigurationError(
            f"the database driver {module!r} is not installed",
            hint=f"install {module}, or add the application's packages with --site-packages",
        )
    return AppError(
        f"the application imports {module!r}, which is not installed",
        hint=f"bring the module {module!r}: --site-packages with the application's own packages, "
        "an image derived from this one, or --app none with only the migrations",
    )


def explain_database_error(error: DBAPIError) -> SidecarError:
    """Turn an error of a query at import into one that says whether to try again."""
    verdict, reason = classify(error, URL.create(_guess_backend(error)))
    kind = RefusedError if verdict is Verdict.REFUSED else UnavailableError
    return kind(
        f"the application queries its database while it is imported, and that failed: {reason}",
        hint="move the query out of the factory, or give the URL as --database-url, so that it is "
        "waited for before the import",
        reason=reason,
    )


def _guess_backend(error: DBAPIError) -> str:
    module = type(error.orig).__module__.partition(".")[0]
    return {"psycopg": "postgresql", "psycopg2": "postgresql", "sqlite3": "sqlite"}.get(
        module, "mysql"
    )


def _inspect(app: Flask) -> Application:
    """Find the migration commands of the application."""
    state = app.extensions.get("migrate")
    if state is None or not hasattr(state, "migrate"):
        raise AppError(
            f"the application {app.import_name!r} has no Migrate",
            hint="add Migrate(app, db) where the application is created",
        )
    name = getattr(state.migrate, "command", None) or "db"
    group = app.cli.commands.get(name)
    if not isinstance(group, click.Group):
        raise AppError(
            f"the application {app.import_name!r} has no group of commands called {name!r}",
            hint="call Migrate.init_app() where the application is created",
        )
    return Application(app, state, group, "mounted")


class _ImportTimeout(BaseException):
    """Ends an import; no `except Exception` of the application may swallow it."""


@contextmanager
def _limit_time(seconds: float | None) -> Iterator[None]:
    """Raise where the import takes longer than the setting allows."""
    if not seconds:
        yield
        return

    def stop(*_: object) -> None:
        raise _ImportTimeout

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _ImportTimeout as error:
        raise AppError(
            f"the import of the application took longer than {seconds:g} s",
            hint="the traceback shows where it was; raise --app-timeout if that is expected",
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
