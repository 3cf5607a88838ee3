"""Runs a subcommand under observation, and says what stayed where it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.application.subcommand import Subcommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.errors import (
    Interrupted,
    LockedError,
    MigrationError,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.history.environment import Readings, label, label_place
from flask_migrate_sidecar.history.failure import explain, explained
from flask_migrate_sidecar.history.heartbeat import beating
from flask_migrate_sidecar.history.outcome import find_outcome
from flask_migrate_sidecar.history.progress import Progress, Step
from flask_migrate_sidecar.history.reading import Patience, read_databases
from flask_migrate_sidecar.history.repository import Repository, open_repository
from flask_migrate_sidecar.history.revisions import open_history, strict_history
from flask_migrate_sidecar.history.statements import commits_noted, statements_checked
from flask_migrate_sidecar.lock.acquire import hold_locks
from flask_migrate_sidecar.lock.base import LockTarget
from flask_migrate_sidecar.lock.watch import Guard
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.log.origin import describe_origin

from .coverage import require_distinct, require_managed, require_version_table
from .session import Result, Session

logger: Final = get_logger(__name__)


def invoke(
    session: Session,
    subcommand: Subcommand,
    repository: Repository | None = None,
    guard: Guard | None = None,
) -> Result:
    """Run the subcommand itself.

    Args:
        session: what the commands share.
        subcommand: what to run.
        repository: where it has one; then a failure says what stayed.
        guard: the locks; without one that holds, no revision and no statement of it is begun.

    Raises:
        SidecarError: it failed.
    """
    guard = guard or Guard()
    progress = Progress(guard.verify, session.environments.find_tenant)
    folder = repository.folder if repository is not None else None
    try:
        with _observed(session, subcommand, progress), _locks_required(session, guard):
            subcommand.run()
    except Interrupted as interruption:
        kept = _tell_what_stayed(session, subcommand, progress)
        where = describe_origin(interruption, folder) if progress.running else {}
        interruption.fields = {**where, **kept, **interruption.fields}
        raise
    except BaseException as error:
        explained = _find_lost_lock(guard, explain(error, repository=folder))
        explained.fields = {**_tell_what_stayed(session, subcommand, progress), **explained.fields}
        unfinished = explained.fields.get("unfinished")
        is_retried = isinstance(explained, (UnavailableError, LockedError))
        if is_retried and isinstance(unfinished, list) and unfinished:
            # What is to be run again is not what it was.
            explained.hint = (
                f"{explained.hint}, but first undo or finish what the first statements of "
                f"{', '.join(unfinished)} have left"
            )
        raise explained from error
    if repository is not None and progress.applied and not subcommand.is_own:
        _read_back(session, subcommand, repository, progress)
        _tell_committed(progress)
        _warn_of_indexes(session, progress)
    return Result(progress.applied, progress.before, progress.after)


@contextmanager
def _locks_required(session: Session, guard: Guard) -> Iterator[None]:
    """Begin no statement of a revision once a lock is known to be lost: another one may run it."""

    def check(connection: Connection) -> None:
        if connection is session.environments.connection:
            guard.require_held()

    with statements_checked(check):
        yield


def _find_lost_lock(guard: Guard, error: SidecarError) -> SidecarError:
    """Give the error that counts: whatever fails where a lock was lost comes of what others do."""
    if isinstance(error, UnavailableError):
        return error
    try:
        guard.verify()
    except UnavailableError as lost:
        lost.fields = {**error.fields, **lost.fields}
        return lost
    return error


def _find_invalid_indexes(session: Session, progress: Progress) -> list[str]:
    """Name indexes that were not built to their end, in the databases that a run was in."""
    names = {step.place.database for step in progress.applied}
    names |= {progress.running.place.database} if progress.running is not None else set()
    found: list[str] = []
    for database in session.lasting:
        dialect = find_dialect(database.url.get_backend_name())
        if database.name in names and dialect.has_invalid_indexes:
            engine = database.engine(connect_timeout=session.settings.connect_timeout)
            # What the server does not tell changes nothing of how the run ended.
            with suppress(DBAPIError), engine.connect() as connection:
                found += dialect.find_invalid_indexes(connection)
    return found


def _warn_of_indexes(session: Session, progress: Progress) -> None:
    """Say that an index is there which no query uses: `IF NOT EXISTS` passes it over."""
    indexes = _find_invalid_indexes(session, progress)
    if indexes:
        logger.warning(
            "database.index_invalid",
            indexes=indexes,
            hint="CREATE INDEX CONCURRENTLY was cut short there: DROP INDEX, and build it again",
        )


def _tell_committed(progress: Progress) -> None:
    """Say of revisions that were told before their transaction ended that they stay."""
    if progress.open_steps:
        revisions = [_describe_place(step) for step in progress.open_steps]
        logger.info("migration.committed", count=len(revisions), revisions=revisions)


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
            require_distinct(session, watch.databases)
        yield guard


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
    following = session.environments.followed_by(progress.follow)
    with strict_history(), stdout, heartbeat, following, commits_noted(progress.note_commit):
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
        indexes = _find_invalid_indexes(session, progress)
        broken = {"invalid_indexes": indexes} if indexes else {}
        held = {"from": label(progress.before), "to": label(after)}
        return {**place, **held, **find_outcome(progress, script, after), **broken}
    except Exception as reason:  # noqa: BLE001 - the first error is the one to report
        said = str(reason).splitlines()[:1]
        left = [running.revision] if running is not None and progress.leaves_a_part else []
        unfinished = {"unfinished": left} if left else {}
        return {**place, "kept": None, "kept_error": said[0] if said else "", **unfinished}
