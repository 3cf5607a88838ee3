"""What Alembic does and finds, seen from outside.

Works with our library and with upstream's: it touches only what Alembic itself offers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from . import log
from .databases import DEFAULT
from .lock import LEASE_TABLE
from .signals import cancel_statement

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    from .application import Application

logger = log.get_logger(__name__)

Revisions = Mapping[str, tuple[str, ...]]
Function = Callable[[Any, Any], Iterable[Any]]


@dataclass(frozen=True)
class Step:
    """One revision that runs in one database."""

    database: str
    direction: str
    revision: str | None
    down_revision: str | None
    message: str

    def describe(self) -> dict[str, Any]:
        """Give the fields of a log line."""
        return {
            "database": self.database,
            "direction": self.direction,
            "revision": self.revision,
            "down_revision": self.down_revision,
            "message": self.message,
        }


@dataclass
class Observer:
    """Follows a command through its revisions, and logs them.

    Args:
        on_step: called between revisions; may raise to stop the run.
    """

    on_step: Callable[[], None] = lambda: None
    before: dict[str, tuple[str, ...]] = field(default_factory=dict)
    after: dict[str, tuple[str, ...]] = field(default_factory=dict)
    applied: list[Step] = field(default_factory=list)
    running: Step | None = None
    running_since: float = 0.0
    is_transactional: bool = True
    version_tables: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    engine_name: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    is_muted: bool = False
    connection: Connection | None = None

    def cancel(self) -> None:
        """Cancel the statement that runs, from another thread."""
        if self.connection is not None:
            cancel_statement(self.connection)

    def install(self) -> None:
        """See every environment that is made from now on, whichever library makes it."""
        observer = self
        make, run = EnvironmentContext.__init__, EnvironmentContext.run_migrations
        configure = EnvironmentContext.configure

        def init(self: EnvironmentContext, config: Any, script: Any, **options: Any) -> None:
            function = options.get("fn")
            if function is not None:
                options["fn"] = observer.follow(function)
            make(self, config, script, **options)

        def run_migrations(self: EnvironmentContext, **arguments: Any) -> None:
            observer.engine_name = arguments.get("engine_name")
            observer.connection = self.get_context().connection
            try:
                run(self, **arguments)
            finally:
                observer.connection = None

        def configured(self: EnvironmentContext, *args: Any, **options: Any) -> None:
            options["include_name"] = leave_out(LEASE_TABLE, options.get("include_name"))
            configure(self, *args, **options)

        EnvironmentContext.configure = configured  # type: ignore[method-assign]
        EnvironmentContext.__init__ = init  # type: ignore[method-assign]
        EnvironmentContext.run_migrations = run_migrations  # type: ignore[method-assign]

    def name_database(self, context: MigrationContext) -> str:
        """Name the database that a context is about."""
        if self.engine_name is not None:
            return self.engine_name or DEFAULT
        if context.as_sql or context.connection is None:
            return DEFAULT  # offline, Alembic has a connection that only looks like one
        return self.names.get(str(context.connection.engine.url), DEFAULT)

    def follow(self, function: Function) -> Function:
        """Wrap the function that yields the steps of a command."""

        def steps(revisions: Any, context: MigrationContext) -> Iterator[Any]:
            database = self.name_database(context)
            self.version_tables[database] = (context.version_table_schema, context.version_table)
            if context.as_sql or self.is_muted:
                yield from function(revisions, context) or ()
                return
            key = _add(self.before, database, revisions)
            pending = list(function(revisions, context) or ())
            if pending:
                yield from self._run_steps(database, pending, context)
            self.after[key] = context.get_current_heads() if pending else self.before[key]

        return steps

    def _run_steps(
        self, database: str, pending: Sequence[Any], context: MigrationContext
    ) -> Iterator[Any]:
        steps = [_describe_step(database, step) for step in pending]
        logger.info(
            "migration.plan",
            database=database,
            count=len(steps),
            revisions=[{"revision": s.revision, "message": s.message} for s in steps],
        )
        for number, (step, raw) in enumerate(zip(steps, pending, strict=True), start=1):
            self.on_step()
            self.running, self.running_since = step, monotonic()
            self.is_transactional = bool(context.impl.transactional_ddl)
            yield raw
            self.running = None
            self.applied.append(step)
            connection = context.connection
            logger.info(
                "migration.applied",
                **step.describe(),
                step=number,
                steps=len(steps),
                duration_ms=round((monotonic() - self.running_since) * 1000),
                committed=connection is None or not connection.in_transaction(),
            )
        self.on_step()


def _add(found: dict[str, tuple[str, ...]], name: str, revisions: Any) -> str:
    """Note what a database holds; an `env.py` with tenants comes to the same one repeatedly."""
    key, number = name, 1
    while key in found:
        number += 1
        key = f"{name}/{number}"
    found[key] = tuple(revisions or ())
    return key


def leave_out(table: str, include_name: Callable[..., bool] | None) -> Callable[..., bool]:
    """Make autogenerate blind to a table, whichever library configures it."""

    def include(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "table" and name == table:
            return False
        return include_name is None or include_name(name, type_, parents)

    return include


def _describe_step(database: str, step: Any) -> Step:
    """Read what Alembic tells of a step, which may be an upgrade, a downgrade or a stamp."""
    info = step.info
    direction = "stamp" if info.is_stamp else "upgrade" if info.is_upgrade else "downgrade"
    down = ", ".join(info.down_revision_ids) or None
    up = ", ".join(info.up_revision_ids) or None
    script = None if info.is_stamp else info.up_revision
    return Step(database, direction, up, down, script.doc if script is not None else "")


@contextmanager
def strict_history() -> Iterator[None]:
    """Make errors of what Alembic only warns of: duplicate and missing revisions."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"Revision .* is present more than once")
        warnings.filterwarnings("error", message=r"Revision .* is not present")
        yield


def load_history(config: Any) -> ScriptDirectory:
    """Load every revision of a repository.

    Raises:
        HistoryError: a file cannot be loaded, or the revisions do not fit together.
    """
    with strict_history():
        script = ScriptDirectory.from_config(config)
        _ = script.revision_map.heads
        return script


def read_revisions(
    application: Application, observer: Observer, config: Any, script: ScriptDirectory, **opts: Any
) -> dict[str, tuple[str, ...]]:
    """Read which revisions each database holds, through the repository's own `env.py`.

    It is run as for `alembic current`, so custom version tables, schemas and tenants are right.
    """
    found: dict[str, tuple[str, ...]] = {}

    def collect(revisions: Any, context: MigrationContext) -> list[Any]:
        _add(found, observer.name_database(context), revisions)
        return []

    environment = EnvironmentContext(config, script, fn=collect, dont_mutate=True, **opts)
    with _muted(observer), _keep_arguments(application), environment:
        script.run_env()
    return found


@contextmanager
def _muted(observer: Observer) -> Iterator[None]:
    """Look without a word in the log."""
    before, observer.is_muted = observer.is_muted, True
    log.quiet.set()
    try:
        yield
    finally:
        observer.is_muted = before
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


def send_results_to(application: Application, results: TextIO) -> None:
    """Let Alembic print what a command exists to print to the real stdout."""

    def redirect(config: Any) -> Any:
        config.stdout = config.output_buffer = results
        return config

    application.state.migrate.configure_callbacks.append(redirect)
