"""What the databases hold: the revisions in the version tables that `env.py` configures."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import Connection, Engine, column, event, inspect, select, table
from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.application.loading import Application
from flask_migrate_sidecar.database.backoff import next_pause
from flask_migrate_sidecar.database.causes import Verdict
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.database.errors import Moment, diagnose
from flask_migrate_sidecar.errors import LockedError, MigrationError
from flask_migrate_sidecar.log import logger as log

from .environment import Environments, Place, Readings
from .locks_of_env import locks_left_out
from .revisions import load, require_lines

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

T = TypeVar("T")

logger: Final = log.get_logger(__name__)


class Patience(NamedTuple):
    """How a reading waits for a table that somebody else has locked.

    Args:
        limit: seconds; 0 tries once.
        heartbeat: seconds between two lines that say so; 0 says it once.
        databases: where to ask who holds it.
        connect_timeout: seconds that one attempt to connect may take.
    """

    limit: float = 0
    heartbeat: float = 0
    databases: Sequence[Database] = ()
    connect_timeout: float = 5


def read_databases(
    application: Application,
    environments: Environments,
    config: Any,
    script: ScriptDirectory,
    patience: Patience,
    **options: Any,
) -> Readings:
    """Read which revisions each database holds, through the repository's own `env.py`.

    It is run as for `alembic current`, so custom version tables, schemas and tenants are right; but
    it takes no lock, and nothing is held while a lock of somebody else's is waited for.

    Raises:
        DBAPIError: a table is locked at the limit, or cannot be read.
    """
    return retry_locked(
        lambda: _read(application, environments, config, script, options), environments, patience
    )


def read_version_table(connection: Connection, place: Place) -> tuple[str, ...] | None:
    """Read one version table as it stands, where `env.py` does not come to it any more.

    Returns:
        The revisions, none where there is no table, and None where its schema is not there either.
    """
    inspector = inspect(connection)
    if place.schema is not None and place.schema not in inspector.get_schema_names():
        return None
    if not inspector.has_table(place.table, place.schema):
        return ()
    revisions = table(place.table, column("version_num"), schema=place.schema)
    return tuple(connection.scalars(select(revisions.c.version_num)))


def retry_locked(read: Callable[[], T], environments: Environments, patience: Patience) -> T:
    """Read, and again where a lock of somebody else's was in the way, and say so.

    Args:
        read: the reading, which neither takes a lock nor waits in one for long.
        environments: know what was read.
        patience: for how long.

    Raises:
        DBAPIError, LockedError: what the last reading raised.
    """
    started, attempt, told = monotonic(), 0, 0.0
    while True:
        attempt += 1
        try:
            with locks_left_out():
                return read()
        except (DBAPIError, LockedError) as error:
            found = diagnose(error, moment=Moment.REVISION)
            elapsed = monotonic() - started
            pause = next_pause(elapsed)
            if found.verdict is not Verdict.LOCKED or elapsed + pause > patience.limit:
                raise
            if attempt == 1 or (patience.heartbeat and elapsed - told >= patience.heartbeat):
                told = elapsed
                logger.info(
                    "database.waiting",
                    attempt=attempt,
                    elapsed=round(elapsed, 1),
                    reason=found.reason,
                    next_try=round(pause, 3),
                    **_find_blockers(environments, patience),
                )
        sleep(pause)


def _find_blockers(environments: Environments, patience: Patience) -> Mapping[str, Any]:
    """Say which version table it was, and who holds it, as far as the server tells."""
    name, table = environments.reading or (None, None)
    database = next((d for d in patience.databases if d.name == name), None)
    if database is None or table is None:
        return {}
    dialect = find_dialect(database.url.get_backend_name())
    blockers: Sequence[Mapping[str, Any]] = []
    with suppress(Exception):
        engine = database.engine(connect_timeout=patience.connect_timeout)
        with engine.connect() as connection:
            blockers = dialect.find_holders(connection, table.schema, table.name)
    return {"database": name, "waits_for": table.name, "blocked_by": blockers}


def _read(
    application: Application,
    environments: Environments,
    config: Any,
    script: ScriptDirectory,
    options: Mapping[str, Any],
) -> Readings:
    found: dict[Place, tuple[str, ...]] = {}

    def collect(revisions: Any, _context: MigrationContext) -> list[Any]:
        load(script)
        found[environments.place] = tuple(revisions or ())
        require_lines(script, found[environments.place])
        return []

    environment = EnvironmentContext(config, script, fn=collect, dont_mutate=True, **options)
    environments.forget_sessions()  # those of the command
    try:
        with _silent(), _keep_arguments(application), environment, _connections_counted() as asked:
            script.run_env()
    finally:
        environments.forget_sessions()
    environments.is_idle = not found and not asked and not _has_loop(Path(script.env_py_location))
    if environments.is_idle:
        raise MigrationError(
            "env.py ran no migrations, and asked no database whether there are any to run",
            hint="it must call context.configure() and context.run_migrations(), whatever the "
            "surroundings: is it empty, or is the call behind a condition?",
        )
    return found


def _has_loop(file: Path) -> bool:
    """Tell whether env.py goes through something, as tenants, of which there may be none."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, (ast.For, ast.While, ast.comprehension)) for node in nodes)


@contextmanager
def _connections_counted() -> Iterator[list[Connection]]:
    """Note each connection that is opened: who looks for tenants and finds none asks for them."""
    asked: list[Connection] = []

    def note(connection: Connection) -> None:
        asked.append(connection)

    event.listen(Engine, "engine_connect", note)
    try:
        yield asked
    finally:
        event.remove(Engine, "engine_connect", note)


@contextmanager
def _silent() -> Iterator[None]:
    """Look without a word of Alembic's in the log."""
    log.quiet.set()
    try:
        yield
    finally:
        log.quiet.clear()


@contextmanager
def _keep_arguments(application: Application) -> Iterator[None]:
    """Let `env.py` change the dictionaries that it finds, but not for the command after this."""
    state, settings = application.state, application.app.config
    arguments, binds = getattr(state, "configure_args", None), settings.get("SQLALCHEMY_BINDS")
    if arguments is not None:
        state.configure_args = dict(arguments)
    if binds is not None:
        settings["SQLALCHEMY_BINDS"] = dict(binds)
    try:
        yield
    finally:
        if arguments is not None:
            state.configure_args = arguments
        if binds is not None:
            settings["SQLALCHEMY_BINDS"] = binds
