"""What a run has left: read back after a good one, and found out after one that failed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.application.subcommand import Subcommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import Dialect, find_dialect
from flask_migrate_sidecar.errors import MigrationError, UnavailableError
from flask_migrate_sidecar.history.environment import Place, Readings, label, label_place
from flask_migrate_sidecar.history.failure import UNCOMMITTED, explained
from flask_migrate_sidecar.history.outcome import find_outcome
from flask_migrate_sidecar.history.progress import Progress, describe_place
from flask_migrate_sidecar.history.reading import Patience, read_version_table
from flask_migrate_sidecar.history.repository import Repository, open_repository
from flask_migrate_sidecar.history.revisions import open_history
from flask_migrate_sidecar.log.logger import get_logger

from .coverage import read_selected
from .session import Session

logger: Final = get_logger(__name__)

_PAUSE: Final = 0.1


def read_back(
    session: Session,
    subcommand: Subcommand,
    repository: Repository,
    progress: Progress,
    pending: Sequence[Place] = (),
) -> None:
    """Read what the databases hold now, and compare it with what was done.

    An `env.py` that begins a transaction before `context.configure` has to commit it itself:
    Alembic leaves a transaction alone that is not its own (`MigrationContext.configure`).

    Args:
        session: what the commands share.
        subcommand: what has run.
        repository: whose revisions.
        progress: what was done.
        pending: the places whose connection is open, with what it has not committed: on that one
            all looks well, and it ends with this process.

    Raises:
        MigrationError: something was not committed.
        SidecarError: the databases could not be read.
    """
    with explained(repository.folder):
        script = open_history(repository.config)
        now = dict(_read_places(session, subcommand, repository, script, progress))
    now |= {place: progress.before[place] for place in pending}
    lasting = {database.name for database in session.lasting}
    lost = [
        label_place(place, progress.after)
        for place, held in progress.after.items()
        if place.database in lasting and {*held} != {*now.get(place, held)}
    ]
    if lost:
        outcome = find_outcome(progress, script, now)
        raise MigrationError(
            f"what ran was not committed in {', '.join(lost)}: the database does not hold what "
            "was reached",
            hint=UNCOMMITTED,
            **{"from": label(progress.before), "to": label(now)},
            **outcome,
        )


def tell_what_stayed(
    session: Session, subcommand: Subcommand, progress: Progress, *, patience: float = 0
) -> dict[str, Any]:
    """Read the databases again after a failure, to say what stayed and what did not.

    Args:
        session: what the commands share.
        subcommand: what failed.
        progress: how far it had come.
        patience: seconds in which the server may end what it was asked, where a connection to it
            was lost, or a statement cancelled.
    """
    if not progress.has_begun:
        return {}
    running = progress.running
    place = describe_place(running) if running is not None else {}
    try:
        if patience:
            _await_sessions(session, patience)
        x_arg = subcommand.params.get("x_arg")
        repository = open_repository(session.application, subcommand.directory, x_arg)
        script = open_history(repository.config)
        # The way out is not blocked: what is locked is not known.
        after = _read_places(session, subcommand, repository, script, progress, Patience())
        indexes = _find_invalid_indexes(session, progress)
        broken = {"invalid_indexes": indexes} if indexes else {}
        held = {"from": label(progress.before), "to": label(after)}
        return {**place, **held, **find_outcome(progress, script, after), **broken}
    except Exception as reason:  # noqa: BLE001 - the first error is the one to report
        said = str(reason).splitlines()[:1]
        left = [running.revision] if running is not None and progress.leaves_a_part else []
        unfinished = {"unfinished": left} if left else {}
        return {**place, "kept": None, "kept_error": said[0] if said else "", **unfinished}


def _read_places(
    session: Session,
    subcommand: Subcommand,
    repository: Repository,
    script: Any,
    progress: Progress,
    patience: Patience | None = None,
) -> Readings:
    """Read what the databases hold, in the places too that `env.py` does not come to again.

    It may take only the tenants that are not up to date yet, or one that was dropped since.
    """
    readings = dict(read_selected(session, subcommand, repository, script, patience))
    running = [progress.running.place] if progress.running is not None else []
    for place in {*progress.after, *(step.place for step in progress.applied), *running}:
        database = next((d for d in session.lasting if d.name == place.database), None)
        # A server that only env.py knows cannot be asked without it.
        if place in readings or place.server is not None or database is None:
            continue
        engine = database.engine(connect_timeout=session.settings.connect_timeout)
        with engine.connect() as connection:
            held = read_version_table(connection, place)
        if held is not None:
            readings[place] = held
    return readings


def _await_sessions(session: Session, patience: float) -> None:
    """Wait until the server has ended the sessions that migrated: a COMMIT may still come.

    Raises:
        UnavailableError: one is there for longer than a server needs to notice.
    """
    # Those that the application's pool keeps are not at work.
    session.environments.forget_sessions()
    deadline = monotonic() + patience
    for database in session.lasting:
        numbers = [n for name, n in session.environments.sessions if name == database.name]
        if numbers:
            _await_end(database, numbers, deadline, session.settings.connect_timeout)


def _await_end(
    database: Database, numbers: Sequence[int], deadline: float, connect_timeout: float
) -> None:
    dialect = find_dialect(database.url.get_backend_name())
    with database.engine(connect_timeout=connect_timeout).connect() as connection:
        while at_work := _list_working(dialect, connection, numbers):
            if monotonic() > deadline:
                raise UnavailableError(
                    f"session {at_work[0]} of this run is still at work on the server, and what it "
                    "does can stay"
                )
            sleep(_PAUSE)


def _list_working(dialect: Dialect, connection: Connection, numbers: Sequence[int]) -> list[int]:
    """List the sessions at work; a server that only speaks the protocol may not say."""
    try:
        return [number for number in numbers if dialect.is_at_work(connection, number)]
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return []
    finally:
        connection.rollback()


def tell_committed(progress: Progress) -> None:
    """Say of revisions that were told before their transaction ended that they stay."""
    if progress.open_steps:
        revisions = [describe_place(step) for step in progress.open_steps]
        logger.info("migration.committed", count=len(revisions), revisions=revisions)


def warn_of_indexes(session: Session, progress: Progress) -> None:
    """Say that an index is there which no query uses: `IF NOT EXISTS` passes it over."""
    indexes = _find_invalid_indexes(session, progress)
    if indexes:
        logger.warning(
            "database.index_invalid",
            indexes=indexes,
            hint="CREATE INDEX CONCURRENTLY was cut short there: DROP INDEX, and build it again",
        )


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
