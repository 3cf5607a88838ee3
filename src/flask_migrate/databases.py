"""The databases of an application by name, and the ones that a command was told to touch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError
from flask import current_app

from .state import find_state

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import URL

# What `--bind` calls the main database, whose own name is ''.
MAIN_DATABASE = "default"


def list_databases() -> list[str]:
    """Name the databases of the application as `env.py` does: '' for the main one, and binds."""
    db = find_state().db
    names = [*(getattr(db, "engines", None) or ()), *(getattr(db, "async_engines", None) or ())]
    if not names:
        names = _list_without_engines(db)
    return [*dict.fromkeys(name or "" for name in names)]


def function_of(database: str) -> str:
    """Name the function of a database as the template does."""
    return "upgrade_" + re.sub(r"\W", "_", database)


def check_functions(databases: Iterable[str]) -> None:
    """Refuse two databases of one function.

    Raises:
        CommandError: each would get the other's tables.
    """
    names: dict[str, str] = {}
    for name in databases:
        other = names.setdefault(function_of(name), name)
        if other != name:
            raise CommandError(
                f"The databases {other} and {name} share the function {function_of(name)}: "
                "each would get the other's tables. Rename one of the binds."
            )


def list_tables(database: str) -> list[str]:
    """Name the tables of the models of one database, as far as the database object tells them."""
    db = find_state().db
    if hasattr(db, "metadatas"):
        metadata = db.metadatas.get(database or None)
        return sorted(metadata.tables) if metadata is not None else []
    tables = getattr(getattr(db, "metadata", None), "tables", {})
    return sorted(n for n, table in tables.items() if table.info.get("bind_key") == database)


def list_urls() -> list[URL]:
    """Give the URLs of the application's databases, with their passwords."""
    db = find_state().db
    engines = [*(getattr(db, "engines", None) or {}).values()]
    engines += (getattr(db, "async_engines", None) or {}).values()
    if not engines:
        names = [name for name in _list_without_engines(db) if name is not None]
        engines = [db.get_engine(), *(db.get_engine(bind=name) for name in names)]
    return [engine.url for engine in engines if engine is not None]


def _list_without_engines(db: Any) -> list[str | None]:
    """Name the databases for Flask-SQLAlchemy 2 and Alchemical, which offer `get_engine()`."""
    if not hasattr(db, "bind_names"):
        return [None, *(current_app.config.get("SQLALCHEMY_BINDS") or ())]
    # Alchemical knows its binds only once it has made its engines.
    main = [None] if db.get_engine() is not None else []
    return [*main, *db.bind_names()]


def selected_binds(config: Config) -> tuple[str, ...]:
    """Give the names that were given as `--bind`; none means all databases."""
    return tuple(getattr(config.cmd_opts, "bind", None) or ())


def check_binds(config: Config) -> tuple[str, ...]:
    """Give the selected binds.

    Raises:
        CommandError: the application has no database of such a name.
    """
    selected = selected_binds(config)
    if not selected:
        return ()
    known = sorted(name or MAIN_DATABASE for name in list_databases())
    unknown = sorted({*selected} - {*known})
    if unknown:
        raise CommandError(
            f"No database is called {', '.join(unknown)}; there are {', '.join(known)}."
        )
    return selected
