"""Runs a subcommand under observation, and says what stayed where it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

from sqlalchemy import Connection

from flask_migrate_sidecar.application.subcommand import Subcommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.errors import (
    Interrupted,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.history.environment import Readings
from flask_migrate_sidecar.history.failure import explain
from flask_migrate_sidecar.history.heartbeat import beating
from flask_migrate_sidecar.history.progress import Progress
from flask_migrate_sidecar.history.repository import Repository
from flask_migrate_sidecar.history.revisions import strict_history
from flask_migrate_sidecar.history.statements import Commits, commits_noted, statements_checked
from flask_migrate_sidecar.lock.acquire import hold_locks
from flask_migrate_sidecar.lock.base import LockTarget
from flask_migrate_sidecar.lock.watch import Guard
from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.log.origin import describe_origin

from .aftermath import read_back, tell_committed, tell_what_stayed, warn_of_indexes
from .coverage import require_distinct
from .session import Result, Session

logger: Final = get_logger(__name__)

# Seconds until a server has noticed that a client is gone: PostgreSQL looks each 5 s where it can
# (`client_connection_check_interval`, which `watch_client` sets).
_NOTICES: Final = 8.0
# And until it has cancelled a statement: the end by force comes 8 s after a signal.
_CANCELS: Final = 4.0


def invoke(
    session: Session,
    subcommand: Subcommand,
    repository: Repository | None = None,
    guard: Guard | None = None,
    before: Readings | None = None,
) -> Result:
    """Run the subcommand itself.

    Args:
        session: what the commands share.
        subcommand: what to run.
        repository: where it has one; then a failure says what stayed.
        guard: the locks; without one that holds, no revision and no statement of it is begun.
        before: what the databases hold, where the command deletes that before it looks.

    Raises:
        SidecarError: it failed.
    """
    guard = guard or Guard()
    progress = Progress(guard.verify, session.environments.find_tenant, dict(before or {}))
    folder = repository.folder if repository is not None else None
    try:
        with (
            _observed(session, subcommand, progress) as commits,
            _locks_required(session, guard),
        ):
            subcommand.run()
        if repository is not None and progress.applied and not subcommand.is_own:
            pending = [p for p, c in progress.connections.items() if commits.is_pending(c)]
            read_back(session, subcommand, repository, progress, pending)
            guard.verify()
    except Interrupted as interruption:
        kept = tell_what_stayed(session, subcommand, progress, patience=_CANCELS)
        where = describe_origin(interruption, folder) if progress.running else {}
        interruption.fields = {**where, **kept, **interruption.fields}
        raise
    except BaseException as error:
        explained = _find_lost_lock(guard, explain(error, repository=folder))
        is_lost = isinstance(explained, UnavailableError)
        told = tell_what_stayed(session, subcommand, progress, patience=_NOTICES if is_lost else 0)
        explained.fields = {**told, **explained.fields}
        if explained.hint:
            explained.hint = _say_first(explained.hint, told.get("unfinished"))
        if explained is error:
            raise
        raise explained from error
    if repository is not None and progress.applied and not subcommand.is_own:
        tell_committed(progress)
        warn_of_indexes(session, progress)
    return Result(progress.applied, progress.before, progress.after)


def _say_first(hint: str, unfinished: Sequence[str] | None) -> str:
    """Say what to do before a run that is not what it was, where a hint is to run again."""
    if not unfinished:
        return hint
    left = f"undo or finish what the first statements of {', '.join(unfinished)} have left"
    return hint.replace("run again", f"{left}, and run again", 1)


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
def _observed(session: Session, subcommand: Subcommand, progress: Progress) -> Iterator[Commits]:
    """Follow the revisions that run, and say of a long one that it still does."""
    stdout = session.streams.released() if subcommand.keeps_stdout else nullcontext()
    heartbeat = beating(
        progress,
        session.environments,
        session.databases,
        period=session.settings.heartbeat,
        connect_timeout=session.settings.connect_timeout,
    )
    following = session.environments.followed_by(progress.follow, progress.describe)
    noting = commits_noted(progress.note_commit, progress.take_commit_back)
    with strict_history(), stdout, heartbeat, following, noting as commits:
        yield commits
