"""Which databases a command comes to: none left out without a word, none under two names."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from .databases import MAIN_DATABASE, list_databases, list_tables
from .seen import Seen, logger
from .state import find_state

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

# What these are about is every database of the application.
WARNING_COMMANDS = ("revision", "check", "upgrade")
# These write, or compare, what stands in the place that they find.
REFUSING_COMMANDS = ("revision", "check", "upgrade", "downgrade", "stamp", "ensure_version")

# The database and the schema that unqualified names mean, and the server: pg_postmaster_start_time
# and the port are its own even where a pooler or another name of its host leads to it.
PLACES = {
    "postgresql": "SELECT current_database(), current_schema(), pg_postmaster_start_time(), "
    "current_setting('port')",
    "mysql": "SELECT DATABASE(), @@hostname, @@port, @@datadir",
    "mariadb": "SELECT DATABASE(), @@hostname, @@port, @@datadir",
    "sqlite": "SELECT nullif(file, '') FROM pragma_database_list WHERE name = 'main'",
}


def note_database(seen: Seen, context: MigrationContext, name: str | None) -> None:
    """Note that `env.py` came to a database.

    Args:
        seen: what the command has come across.
        context: Alembic's, of this database.
        name: what `env.py` calls it, in a repository for several.

    Raises:
        CommandError: it came to the same version table before, by another name. Both would be
            migrated by one row of it; on PostgreSQL the second connection would wait for the
            first one forever.
    """
    seen.databases.add(name)
    connection = context.connection
    if connection is None or context.as_sql:
        return
    seen.urls.add(str(connection.engine.url))
    place = _find_place(connection) if name is not None and connection.in_transaction() else None
    if place is None or seen.command not in REFUSING_COMMANDS:
        return
    table = (context.version_table_schema, context.version_table)
    other = seen.places.setdefault((*place, *table), str(name))
    if other != name:
        raise CommandError(
            f"{other or MAIN_DATABASE} and {name or MAIN_DATABASE} are the same database "
            f"({connection.engine.url.render_as_string()}), with one table {table[1]} for both: "
            "give each bind a database, a schema or a version table of its own, or remove it."
        )


def _find_place(connection: Connection) -> tuple[str, ...] | None:
    """Ask a database where it is, or take its URL; None where it is in memory, and so alone."""
    dialect = connection.dialect.name
    if dialect == "sqlite":
        (file,) = connection.exec_driver_sql(PLACES[dialect]).one()
        return (str(file),) if file is not None else None
    # What only speaks PostgreSQL's protocol may lack the functions: no reason to end the migration.
    if dialect in PLACES:
        with suppress(SQLAlchemyError), connection.begin_nested():
            return tuple(map(str, connection.exec_driver_sql(PLACES[dialect]).one()))
    return (connection.engine.url.render_as_string(hide_password=False),)


def warn_of_left_out(seen: Seen, selected: tuple[str, ...]) -> None:
    """Warn of databases that a command passed over, because the repository is not for them.

    Args:
        seen: what the command has come across.
        selected: names given as `--bind`; none means all.
    """
    # Where env.py came to none (a plain `revision`), it has not passed over any either.
    if seen.command not in WARNING_COMMANDS or not seen.databases or selected:
        return
    left = [name for name in list_binds() if not _was_seen(name, seen)]
    if left:
        logger.warning(
            "This repository does not migrate %s: %s neither compared nor made. The command "
            "'init --multidb' makes a repository for several databases.",
            ", ".join(left),
            describe_tables(left),
        )


def list_binds() -> list[str]:
    """Name the databases of the application beside its main one."""
    return [name for name in list_databases() if name not in ("", MAIN_DATABASE)]


def describe_tables(binds: list[str]) -> str:
    """Name the tables of some databases, as the beginning of a sentence."""
    tables = [table for name in binds for table in list_tables(name)]
    return (
        f"{', '.join(tables)} {'is' if len(tables) == 1 else 'are'}" if tables else "its tables are"
    )


def _was_seen(name: str, seen: Seen) -> bool:
    engines: dict[str | None, Any] = getattr(find_state().db, "engines", None) or {}
    return name in seen.databases or (
        name in engines and str(engines[name].url) in seen.urls and len(seen.urls) > 1
    )
