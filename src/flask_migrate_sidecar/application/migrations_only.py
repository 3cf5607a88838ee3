"""Runs a migration repository without its application: an app of our own around the URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flask import Config, Flask
from sqlalchemy import URL, make_url

from flask_migrate_sidecar.database.connect import DEFAULT
from flask_migrate_sidecar.database.driver import parse_url, sync_url
from flask_migrate_sidecar.database.url import is_memory, sqlite_path
from flask_migrate_sidecar.errors import ConfigurationError
from flask_migrate_sidecar.log.redaction import find_secrets, secrets
from flask_migrate_sidecar.settings.options import Settings, normalise_bind

from .discovery import is_discoverable
from .import_failure import explain_folder

MIGRATIONS_ONLY = "migrations-only"
# What is told of such a run, since nothing of it can be seen in the repository.
UNKNOWN = (
    "what the application gives Migrate(...) and Migrate.configure is not known without it: a "
    "version table of another name is --version-table, everything else stays as env.py has it"
)
NO_APP = "none"
_VARIABLES = ("SQLALCHEMY_DATABASE_URI", "DATABASE_URL")
_URL_HINT = "give it as --database-url, MIGRATE_DATABASE_URL, " + " or ".join(_VARIABLES)
# Revisions for several databases: `def upgrade(engine_name)` calls one of `def upgrade_NAME()`.
_SEVERAL = re.compile(r"^def upgrade\(\s*\w", re.MULTILINE)
_NAMED = re.compile(r"^def upgrade_(\w+)\(", re.MULTILINE)


class MissingKeyError(KeyError):
    """A revision or `env.py` reads a key that the application's configuration would have."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    @property
    def hint(self) -> str:
        """How to give the key (Flask's `Config.from_prefixed_env`)."""
        return (
            f"set the variable FLASK_{self.key} (JSON or text; FLASK_{self.key}__NAME for an item "
            "of a dictionary), or run with the application"
        )


class _Config(Config):
    """A configuration that says which key it lacks."""

    def __missing__(self, key: str) -> Any:
        raise MissingKeyError(key)


class _App(Flask):
    config_class = _Config


def wants_migrations_only(settings: Settings, arguments: Sequence[str]) -> bool:
    """Decide whether the migrations run without the application.

    Args:
        settings: the settings.
        arguments: those of the subcommand, where `-d` may name the repository.

    Raises:
        ConfigurationError: there is no application, and a repository or a URL is missing.
    """
    if settings.app is not None:
        return settings.app.strip().lower() == NO_APP
    if is_discoverable():
        return False
    repository = find_repository(settings, arguments)
    missing = [] if repository.is_dir() else [f"no migration repository at {repository}"]
    if not _find_url(settings, os.environ):
        missing.append("no database URL to run migrations without an application")
    if missing:
        raise ConfigurationError(
            f"there is no application in {Path.cwd()} (neither wsgi.py nor app.py), and "
            + " and ".join(missing),
            hint="mount the application there, or name it with --app or --app-dir; or mount its "
            f"migrations ({settings.directory or 'migrations'}, or --directory), and for the URL: "
            + _URL_HINT,
        )
    return True


def find_repository(settings: Settings, arguments: Sequence[str]) -> Path:
    """Give the folder of the repository; `-d` behind the subcommand goes before the setting."""
    words = iter(arguments)
    for word in words:
        if word in {"-d", "--directory"}:
            return Path(next(words, ".")).absolute()
        if word.startswith("--directory="):
            return Path(word.partition("=")[2]).absolute()
    return Path(settings.directory or "migrations").absolute()


def make_application(
    settings: Settings, environ: Mapping[str, str], arguments: Sequence[str] = ()
) -> Flask:
    """Make a Flask application with Flask-SQLAlchemy and `Migrate` around the URLs.

    Args:
        settings: they, else the environment, have the URLs.
        environ: the environment; `FLASK_*` becomes the configuration.
        arguments: those of the subcommand, where `-d` may name the repository.

    Raises:
        ConfigurationError: no URL, a malformed one, or none for a database of the revisions.
        RefusedError: the folder for a SQLite file cannot be made.
    """
    from flask_sqlalchemy import SQLAlchemy

    from flask_migrate import Migrate

    folder = Path.cwd()
    app = _App(MIGRATIONS_ONLY, root_path=str(folder), instance_path=str(folder / "instance"))
    app.config.from_prefixed_env()
    main = _find_url(settings, environ) or app.config.get("SQLALCHEMY_DATABASE_URI")
    if not main:
        raise ConfigurationError(
            "--app none: there is no database URL to run the migrations on", hint=_URL_HINT
        )
    binds = {**(app.config.get("SQLALCHEMY_BINDS") or {})}
    binds |= _find_binds(settings, find_repository(settings, arguments), known=binds)
    app.config["SQLALCHEMY_DATABASE_URI"] = _render(main, DEFAULT, settings.database_url == main)
    app.config["SQLALCHEMY_BINDS"] = {name: _bind(url, name) for name, url in binds.items()}
    try:
        db = SQLAlchemy(app)
    except OSError as error:
        raise explain_folder(error) from error
    place = _find_version_table(settings.version_table)
    Migrate(app, db, directory=settings.directory or "migrations", **place)
    return app


def _find_version_table(given: str | None) -> dict[str, Any]:
    """Give Alembic's arguments for the version table (`EnvironmentContext.configure`)."""
    if given is None:
        return {}
    schema, _, name = given.rpartition(".")
    place = {"version_table": name}
    return {**place, "version_table_schema": schema} if schema else place


def describe_drivers(app: Flask) -> dict[str, str]:
    """Name the dialect and driver that each URL came to mean."""
    names = {DEFAULT: app.config["SQLALCHEMY_DATABASE_URI"], **app.config["SQLALCHEMY_BINDS"]}
    return {
        name: make_url(url["url"] if isinstance(url, dict) else url).drivername
        for name, url in names.items()
    }


def _find_url(settings: Settings, environ: Mapping[str, str]) -> str | None:
    found = (environ.get(variable, "") for variable in _VARIABLES)
    return settings.database_url or next(filter(None, found), None)


def _find_binds(settings: Settings, repository: Path, *, known: Collection[str]) -> dict[str, str]:
    """Give the URLs of binds under the names that the revisions use.

    Args:
        settings: they have the URLs.
        repository: its revisions have the names.
        known: names of binds that have a URL already.

    Raises:
        ConfigurationError: the revisions are for a database that no URL is given for.
    """
    settings.bind_urls()  # complains of entries that are malformed or clash
    named = {normalise_bind(name): name for name in _read_bind_names(repository)}
    urls = {}
    for entry in settings.bind_url:
        name, _, url = entry.partition("=")
        # A variable's name is all capitals; a flag may spell the name as the application does.
        spelled = name if not name.isupper() else name.lower()
        urls[named.get(normalise_bind(name), spelled)] = url
    missing = [name for name in named.values() if name not in {*urls, *known}]
    if missing:
        raise ConfigurationError(
            "the revisions are for several databases, and no URL is given for "
            + ", ".join(missing),
            hint=f"give it as --bind-url {missing[0]}=URL or "
            f"MIGRATE_DATABASE_URL__{missing[0].upper()}",
        )
    return urls


def _read_bind_names(repository: Path) -> Iterator[str]:
    """Find the databases that a repository of the template `flask-multidb` is for."""
    for file in sorted(repository.glob("versions/**/*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if _SEVERAL.search(text):
            yield from _NAMED.findall(text)


def _bind(url: Any, name: str) -> Any:
    """Settle the driver of a bind, which FLASK_SQLALCHEMY_BINDS may give as a dictionary."""
    if isinstance(url, dict):
        return {**url, "url": _render(str(url.get("url", "")), name)}
    return _render(str(url), name)


def _render(text: str, name: str, is_setting: bool = False) -> str:
    secrets.add(find_secrets(text))
    url = sync_url(parse_url(text, name=name))
    secrets.add(find_secrets(url))
    # Flask-SQLAlchemy takes a relative file from `instance`, as with the application; the
    # sidecar's own setting means the working directory, with and without one.
    return (_keep_place(url) if is_setting else url).render_as_string(hide_password=False)


def _keep_place(url: URL) -> URL:
    """Make a relative path absolute: it is meant from the working directory."""
    if url.get_backend_name() != "sqlite" or is_memory(url) or "file:" in str(url.database):
        return url
    return url.set(database=str(sqlite_path(url)))
