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
from flask_migrate_sidecar.database.url import is_memory
from flask_migrate_sidecar.errors import HistoryError
from flask_migrate_sidecar.lock.lease import LEASE_TABLE

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection, Engine

Function = Callable[[Any, Any], Iterable[Any]]


class VersionTable(NamedTuple):
    """Where `env.py` keeps the revisions of a database."""

    schema: str | None = None
    name: str = "alembic_version"


class Place(NamedTuple):
    """One version table of a run, of which a database with tenants has several.

    Args:
        database: name of the database.
        schema: where the table is; None where that database has no schemas.
        table: its name.
        server: host and port of a database that only `env.py` knows.
    """

    database: str
    schema: str | None = None
    table: str = VersionTable().name
    server: str | None = None


# The current revisions in each version table.
Readings = Mapping[Place, tuple[str, ...]]


class Follower(Protocol):
    """Is told of the steps of a command."""

    def __call__(
        self, place: Place, revisions: Any, context: MigrationContext, function: Function
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
        # What env.py has configured until now, in its order.
        self.version_tables: Final[dict[str, list[VersionTable]]] = {}
        self.places: Final[dict[Place, None]] = {}
        # The one that was come to last.
        self.place = Place(DEFAULT)
        self._engines: set[Engine] = set()
        # Whether a run of env.py has done nothing at all.
        self.is_idle = False
        self.connection: Connection | None = None
        # The database whose migrations run, or are looked at, and its version table.
        self.reading: tuple[str, VersionTable] | None = None
        # The server's number for it; what another thread can do with the connection is little.
        self.session: int | None = None
        # Those of the command that is followed, with the names of their databases.
        self.sessions: set[tuple[str, int]] = set()
        self._engine_name: str | None = None
        self._follower: Follower | None = None
        # What is known of the command that is followed, or was.
        self._tell: Callable[[], dict[str, Any]] = dict

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
            name = environments.name_database(context)
            table = VersionTable(context.version_table_schema, context.version_table)
            known = environments.version_tables.setdefault(name, [])
            known += [table] if table not in known else []
            try:
                if context.connection is not None and not context.as_sql:
                    environments.reading = name, table
                    environments._engines.add(context.connection.engine)
                    environments.check(name, context.connection)
                    if environments._follower is not None:
                        environments._note_session(name, context.connection)
                        find_dialect(context.dialect.name).watch_client(context.connection)
                run(self, **arguments)
            finally:
                # What env.py commits behind this can be cancelled too.
                if environments._follower is None:
                    environments.connection = environments.session = None

        def configured(self: EnvironmentContext, *args: Any, **options: Any) -> None:
            options["include_name"] = leave_out(LEASE_TABLE, options.get("include_name"))
            configure(self, *args, **options)

        EnvironmentContext.configure = configured  # type: ignore[method-assign]
        EnvironmentContext.__init__ = init  # type: ignore[method-assign]
        EnvironmentContext.run_migrations = run_migrations  # type: ignore[method-assign]

    @contextmanager
    def followed_by(self, follower: Follower, tell: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """Tell a follower of the steps of every command inside of the block.

        Args:
            follower: is told of them.
            tell: says what it knows.
        """
        self._follower, self._tell = follower, tell
        self.sessions.clear()
        try:
            yield
        finally:
            self._follower = self.connection = self.session = None

    def tell(self) -> dict[str, Any]:
        """Say what is known of a command that does not come to its end."""
        return self._tell()

    def _note_session(self, database: str, connection: Connection) -> None:
        dialect = find_dialect(connection.dialect.name)
        number = dialect.find_session(connection, self.session)
        if number is not None:
            self.sessions.add((database, number))

    def cancel(self) -> None:
        """Cancel the statement that runs, from another thread."""
        connection = self.connection
        if connection is not None and not connection.closed:
            find_dialect(connection.dialect.name).cancel(connection, self.session)

    def forget_sessions(self) -> None:
        """Close what is left in the pools of the engines that `env.py` took its connections from.

        It may have set a search path or another default database, which the next run of it would
        find, though it is written to run once.
        """
        engines, self._engines = self._engines, set()
        for engine in engines:
            # A database in memory would be gone, and an asynchronous driver wants its loop.
            if not engine.dialect.is_async and not is_memory(engine.url):
                engine.dispose()

    def find_version_table(self, database: str) -> VersionTable:
        """Give where the revisions of a database are, as far as `env.py` has told.

        Tenants come and go: the usual one stands for several, so that their number changes nothing.
        """
        known = self.version_tables.get(database, [])
        return known[0] if len(known) == 1 else VersionTable()

    def find_tenant(self, place: Place) -> str | None:
        """Give what tells a place from others of its database, None where there are no others."""
        label = label_place(place, self.places)
        return None if label == place.database else label.removeprefix(f"{place.database}/")

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
            _require_revisions(context, revisions)
            self.place = place = self._find_place(context)
            self.places[place] = None
            if self._follower is None or context.as_sql:
                yield from function(revisions, context) or ()
            else:
                yield from self._follower(place, revisions, context, function)

        return steps

    def _find_place(self, context: MigrationContext) -> Place:
        """Tell which version table a context is about, which it has just read.

        Where `env.py` gave no schema it is the session's: some set the tenant's by `search_path`.
        """
        schema, connection = context.version_table_schema, context.connection
        if schema is None and connection is not None and not context.as_sql:
            schema = find_dialect(connection.dialect.name).find_schema(connection)
        server = None
        if self._engine_name is None and connection is not None and not context.as_sql:
            schema = self._find_own_database(connection, schema)
            server = self._find_own_server(connection)
        return Place(self.name_database(context), schema, context.version_table, server)

    def _find_own_server(self, connection: Connection) -> str | None:
        url = connection.engine.url
        is_own = url.host is not None and str(url) not in self.names
        return f"{url.host}:{url.port}" if is_own and url.port else url.host if is_own else None

    def _find_own_database(self, connection: Connection, schema: str | None) -> str | None:
        """Tell a database of `env.py`'s own, which is none of the application's, from others."""
        url = connection.engine.url
        own = url.database
        if own is None or str(url) in self.names or own == schema:
            return schema
        return f"{own}.{schema}" if schema else own


def _require_revisions(context: MigrationContext, revisions: Any) -> None:
    """Want a version table to hold texts.

    Raises:
        HistoryError: it holds something else.
    """
    strange = [revision for revision in revisions or () if not isinstance(revision, str)]
    if strange and not context.as_sql:
        raise HistoryError(
            f"the version table {context.version_table} holds {strange[0]!r}, which is no revision",
            hint="its column must be a text, as in VARCHAR(32) NOT NULL; 'stamp --purge REVISION' "
            "writes its row anew",
        )


def label_place(place: Place, among: Iterable[Place]) -> str:
    """Name a place by its database, and where that has several, by what tells them apart."""
    others = [other for other in among if other.database == place.database]
    if all(other == place for other in others):
        return place.database
    schemas = [other.schema for other in others]
    if len({*schemas}) == len(schemas):
        return f"{place.database}/{place.schema}"
    several = len({other.server for other in others}) > 1
    server = f"{place.server}/" if several and place.server else ""
    return f"{place.database}/{server}{place.schema}.{place.table}"


def label(readings: Readings) -> dict[str, tuple[str, ...]]:
    """Give readings by the names of their places."""
    return {label_place(place, readings): revisions for place, revisions in readings.items()}


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
