"""Alembic's environments, seen from outside: which database one is about, and where it is.

Works with our library and with upstream's: it touches only what Alembic itself offers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from alembic.runtime.environment import EnvironmentContext

from flask_migrate_sidecar.database.connect import DEFAULT
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.lock.lease import LEASE_TABLE

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

Function = Callable[[Any, Any], Iterable[Any]]


class VersionTable(NamedTuple):
    """Where `env.py` keeps the revisions of a database."""

    schema: str | None = None
    name: str = "alembic_version"


class Follower(Protocol):
    """Is told of the steps of a command."""

    def __call__(
        self, database: str, revisions: Any, context: MigrationContext, function: Function
    ) -> Iterator[Any]:
        """Yield the steps that the function gives, one after the other."""


class Environments:
    """Every environment that Alembic makes while the process lives, whichever library makes it.

    Args:
        names: names of the databases by the text of their URLs.
        check: is told of each connection, and of which database, before anything runs on it.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        check: Callable[[str, Connection], None] = lambda _name, _connection: None,
    ) -> None:
        self.names: Final = names
        self.check: Final = check
        self.version_tables: Final[dict[str, VersionTable]] = {}
        self.connection: Connection | None = None
        # The database whose migrations run, or are looked at, and its version table.
        self.reading: tuple[str, VersionTable] | None = None
        # The server's number for it; what another thread can do with the connection is little.
        self.session: int | None = None
        self._engine_name: str | None = None
        self._follower: Follower | None = None

    def install(self) -> None:
        """See every environment that is made from now on."""
        environments = self
        make, run = EnvironmentContext.__init__, EnvironmentContext.run_migrations
        configure = EnvironmentContext.configure

        def init(self: EnvironmentContext, config: Any, script: Any, **options: Any) -> None:
            function = options.get("fn")
            if function is not None:
                options["fn"] = environments._observe(function)
            make(self, config, script, **options)

        def run_migrations(self: EnvironmentContext, **arguments: Any) -> None:
            environments._engine_name = arguments.get("engine_name")
            context = self.get_context()
            environments.connection = context.connection
            environments.session = identify_session(environments.connection)
            try:
                if context.connection is not None and not context.as_sql:
                    name = environments.name_database(context)
                    table = VersionTable(context.version_table_schema, context.version_table)
                    environments.reading = name, table
                    environments.check(name, context.connection)
                run(self, **arguments)
            finally:
                environments.connection = environments.session = None

        def configured(self: EnvironmentContext, *args: Any, **options: Any) -> None:
            options["include_name"] = leave_out(LEASE_TABLE, options.get("include_name"))
            configure(self, *args, **options)

        EnvironmentContext.configure = configured  # type: ignore[method-assign]
        EnvironmentContext.__init__ = init  # type: ignore[method-assign]
        EnvironmentContext.run_migrations = run_migrations  # type: ignore[method-assign]

    @contextmanager
    def followed_by(self, follower: Follower) -> Iterator[None]:
        """Tell a follower of the steps of every command inside of the block."""
        self._follower = follower
        try:
            yield
        finally:
            self._follower = None

    def cancel(self) -> None:
        """Cancel the statement that runs, from another thread."""
        connection = self.connection
        if connection is not None:
            find_dialect(connection.dialect.name).cancel(connection, self.session)

    def find_version_table(self, database: str) -> VersionTable:
        """Give where the revisions of a database are, as far as `env.py` has told."""
        return self.version_tables.get(database, VersionTable())

    def name_database(self, context: MigrationContext) -> str:
        """Name the database that a context is about."""
        if self._engine_name is not None:
            return self._engine_name or DEFAULT
        if context.as_sql or context.connection is None:
            return DEFAULT  # offline, Alembic has a connection that only looks like one
        return self.names.get(str(context.connection.engine.url), DEFAULT)

    def _observe(self, function: Function) -> Function:
        """Wrap the function that yields the steps of a command."""

        def steps(revisions: Any, context: MigrationContext) -> Iterator[Any]:
            database = self.name_database(context)
            table = VersionTable(context.version_table_schema, context.version_table)
            self.version_tables[database] = table
            if self._follower is None or context.as_sql:
                yield from function(revisions, context) or ()
            else:
                yield from self._follower(database, revisions, context, function)

        return steps


def identify_session(connection: Connection | None) -> int | None:
    """Give the server's number for a connection, None where there is none to be had."""
    # Offline, Alembic has a connection that only looks like one.
    with suppress(AttributeError):
        if connection is not None:
            dialect = find_dialect(connection.dialect.name)
            return dialect.identify_session(connection.connection.dbapi_connection)
    return None


def leave_out(table: str, include_name: Callable[..., bool] | None) -> Callable[..., bool]:
    """Make autogenerate blind to a table, whichever library configures it."""

    def include(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "table" and name == table:
            return False
        return include_name is None or include_name(name, type_, parents)

    return include
