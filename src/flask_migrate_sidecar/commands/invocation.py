"""Runs a subcommand under observation, and says what stayed where it fails."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from flask_migrate_sidecar.application.migrations_only import MIGRATIONS_ONLY
from flask_migrate_sidecar.application.subcommand import Subcommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.errors import ConfigurationError, Interrupted, MigrationError
from flask_migrate_sidecar.history.environment import Readings, label_place
from flask_migrate_sidecar.history.failure import explain, explained
from flask_migrate_sidecar.history.heartbeat import beating
from flask_migrate_sidecar.history.outcome import find_outcome
from flask_migrate_sidecar.history.progress import Progress, Step
from flask_migrate_sidecar.history.reading import Patience, read_databases
from flask_migrate_sidecar.history.repository import Repository, open_repository
from flask_migrate_sidecar.history.revisions import open_history, strict_history
from flask_migrate_sidecar.lock.acquire import hold_locks
from flask_migrate_sidecar.lock.base import LockTarget
from flask_migrate_sidecar.lock.watch import Guard
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.log.origin import describe_origin
from flask_migrate_sidecar.settings.options import normalise_bind

from .session import Result, Session

logger: Final = get_logger(__name__)


def invoke(
    session: Session,
    subcommand: Subcommand,
    repository: Repository | None = None,
    verify: Callable[[], None] = lambda: None,
) -> Result:
    """Run the subcommand itself.

    Args:
        session: what the commands share.
        subcommand: what to run.
        repository: where it has one; then a failure says what stayed.
        verify: called between revisions; raises to stop the run.

    Raises:
        SidecarError: it failed.
    """
    progress = Progress(verify, session.environments.find_tenant)
    folder = repository.folder if repository is not None else None
    try:
        with _observed(session, subcommand, progress):
            subcommand.run()
    except Interrupted as interruption:
        kept = _tell_what_stayed(session, subcommand, progress)
        where = describe_origin(interruption, folder) if progress.running else {}
        interruption.fields = {**where, **kept, **interruption.fields}
        raise
    except BaseException as error:
        explained = explain(error, repository=folder)
        explained.fields = {**_tell_what_stayed(session, subcommand, progress), **explained.fields}
        raise explained from error
    if repository is not None and progress.applied and not subcommand.is_own:
        _read_back(session, subcommand, repository, progress)
    applied = [step.revision for step in progress.applied]
    return Result(applied, progress.before, progress.after)


def read_selected(
    session: Session,
    subcommand: Subcommand,
    repository: Repository,
    script: Any,
    patience: Patience | None = None,
    **options: Any,
) -> Readings:
    """Read the databases that the subcommand is about, by default with the run's patience.

    Raises:
        ConfigurationError: one that was named is none of the repository's.
    """
    found = read_databases(
        session.application,
        session.environments,
        repository.config,
        script,
        patience or session.patience,
        **options,
    )
    require_managed(session, {place.database for place in found}, subcommand.binds)
    require_version_table(session, found)
    return {place: held for place, held in found.items() if subcommand.selects(place.database)}


def require_managed(session: Session, found: Collection[str], binds: Sequence[str] = ()) -> None:
    """Want what was asked for by name to be a database that the repository's `env.py` comes to.

    Args:
        session: what the commands share.
        found: the databases that `env.py` came to.
        binds: the databases that `--bind` names; none means all.

    Raises:
        ConfigurationError: `--bind` names one that it does not come to, or a URL was given for it.
    """
    redirected = session.settings.bind_urls()
    for database in session.databases:
        name = database.name
        is_wanted = name in binds if binds else normalise_bind(name) in redirected
        if is_wanted and name not in found:
            raise ConfigurationError(
                f"the repository does not migrate the database {name!r}: its env.py does not come "
                "to it",
                hint="leave the bind out, or use a repository for several databases: "
                "'db init --multidb' makes one",
                database=name,
            )


def require_version_table(session: Session, found: Readings) -> None:
    """Want an empty database to be empty: without its application, nothing says where it looks.

    Raises:
        ConfigurationError: the revisions may be in a table of another name.
        SidecarError: the database could not be asked.
    """
    settings = session.settings
    if session.application.source != MIGRATIONS_ONLY or settings.version_table is not None:
        return
    known = {name for p in found for name in (p.table, f"{p.schema}.{p.table}")}
    empty = {place.database: place for place, revisions in found.items() if not revisions}
    for database in session.lasting:
        place = empty.get(database.name)
        if place is None:
            continue
        dialect = find_dialect(database.url.get_backend_name())
        engine = database.engine(connect_timeout=settings.connect_timeout)
        with explained(), engine.connect() as connection:
            others = [n for n in dialect.find_version_tables(connection) if n not in known]
        if others:
            raise ConfigurationError(
                f"the database {place.database} has no revision in {place.table}, but a table of "
                f"that form called {', '.join(others)}",
                hint=f"--version-table {others[0]}, if the application says Migrate(..., "
                f"version_table={others[0].rpartition('.')[2]!r}); --version-table {place.table}, "
                "if it is somebody else's",
                database=place.database,
                tables=others,
            )


def warn_of_unmanaged(databases: Sequence[Database], found: Readings) -> None:
    """Say once that a database is none of the repository's, or that there is nothing in any.

    Args:
        databases: those that the command is about.
        found: the version tables that `env.py` came to.
    """
    managed = {place.database for place in found}
    names = [database.name for database in databases if database.name not in managed]
    if names:
        logger.warning(
            "database.unmanaged",
            databases=names,
            hint="the repository's env.py does not come to them: nothing is migrated there"
            if managed
            else "env.py has come to no version table: are there no tenants yet?",
        )


def _read_back(
    session: Session, subcommand: Subcommand, repository: Repository, progress: Progress
) -> None:
    """Read on new connections what the databases hold now, and compare it with what was done.

    An `env.py` that begins a transaction before `context.configure` has to commit it itself:
    Alembic leaves a transaction alone that is not its own (`MigrationContext.configure`).

    Raises:
        MigrationError: something was not committed.
        SidecarError: the databases could not be read.
    """
    with explained(repository.folder):
        script = open_history(repository.config)
        now = read_selected(session, subcommand, repository, script)
    lasting = {database.name for database in session.lasting}
    lost = [
        label_place(place, progress.after)
        for place, held in progress.after.items()
        if place.database in lasting and {*held} != {*now.get(place, ())}
    ]
    if lost:
        outcome = find_outcome(progress, script, now)
        if not progress.is_transactional and subcommand.name != "stamp":
            # Its DDL commits by itself: what is not recorded may be there all the same.
            outcome = {**outcome, "rolled_back": [], "unfinished": outcome["rolled_back"]}
        raise MigrationError(
            f"what ran was not committed in {', '.join(lost)}: the database does not hold what "
            "was reached",
            hint="env.py runs a statement on its connection before context.configure, which begins "
            "a transaction that Alembic leaves to it: commit there, connection.commit()",
            **outcome,
        )


@contextmanager
def hold(
    session: Session, subcommand: Subcommand, databases: Sequence[Database]
) -> Iterator[Guard]:
    """Hold the lock of each database; where there is none, there is nothing to hold.

    Raises:
        ConfigurationError: two that are migrated are one.
    """
    find_table, settings = session.environments.find_version_table, session.settings
    targets = [LockTarget(d, *find_table(d.name)) for d in databases]
    with hold_locks(
        targets,
        kind=settings.lock,
        timeout=settings.lock_timeout,
        connect_timeout=settings.connect_timeout,
        heartbeat=settings.heartbeat,
    ) as guard:
        for watch in guard.watches if not subcommand.is_own else ():
            _require_distinct(session, watch.databases)
        yield guard


def _require_distinct(session: Session, databases: Sequence[str]) -> None:
    """Want each database that is migrated to have a version table of its own.

    The second would find what the first has done and make no table; where `env.py` has a
    transaction open in both, it waits for the first for ever.

    Raises:
        ConfigurationError: some of those under one lock have not.
    """
    places = [place for place in session.environments.places if place.database in databases]
    tables = {place._replace(database="") for place in places}
    migrated = [name for name in databases if name in {place.database for place in places}]
    if len(migrated) > 1 and len(tables) < len(places):
        raise ConfigurationError(
            f"the databases {' and '.join(migrated)} are one, and have one version table",
            hint="give each a database of its own, or keep their tables under one of the names",
            databases=migrated,
        )


@contextmanager
def _observed(session: Session, subcommand: Subcommand, progress: Progress) -> Iterator[None]:
    """Follow the revisions that run, and say of a long one that it still does."""
    stdout = session.streams.released() if subcommand.keeps_stdout else nullcontext()
    heartbeat = beating(
        progress,
        session.environments,
        session.databases,
        period=session.settings.heartbeat,
        connect_timeout=session.settings.connect_timeout,
    )
    with strict_history(), stdout, heartbeat, session.environments.followed_by(progress.follow):
        yield


def _describe_place(step: Step) -> dict[str, Any]:
    """Give the fields of the last line that say where it was."""
    tenant = {} if step.tenant is None else {"tenant": step.tenant}
    return {"revision": step.revision, "database": step.place.database, **tenant}


def _tell_what_stayed(
    session: Session, subcommand: Subcommand, progress: Progress
) -> dict[str, Any]:
    """Read the databases again after a failure, to say what stayed and what did not."""
    if not progress.has_begun:
        return {}
    running = progress.running
    place = _describe_place(running) if running is not None else {}
    try:
        x_arg = subcommand.params.get("x_arg")
        repository = open_repository(session.application, subcommand.directory, x_arg)
        script = open_history(repository.config)
        # The way out is not blocked: what is locked is not known.
        after = read_selected(session, subcommand, repository, script, Patience())
        return {**place, **find_outcome(progress, script, after)}
    except Exception as reason:  # noqa: BLE001 - the first error is the one to report
        said = str(reason).splitlines()[:1]
        return {**place, "kept": None, "kept_error": said[0] if said else ""}
