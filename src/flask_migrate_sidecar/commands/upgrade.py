"""`flask-migrate db upgrade`: one upgrade, whoever of several migrators does it.

What is pending is read before the lock. Behind it, the databases are read again: another migrator
may have done the work, or a part of it before it died, or something else altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flask_migrate_sidecar.application.subcommand import Subcommand
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.errors import (
    ConfigurationError,
    HistoryError,
    MigrationError,
    RefusedError,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.history.environment import Place, Readings, label
from flask_migrate_sidecar.history.failure import explained
from flask_migrate_sidecar.history.position import (
    check_known,
    check_progress,
    find_missing,
    judge,
)
from flask_migrate_sidecar.history.repository import Repository
from flask_migrate_sidecar.history.revisions import (
    find_pending,
    is_known,
    is_relative,
    open_history,
)
from flask_migrate_sidecar.log.logger import get_logger

from .coverage import list_managed, read_selected, warn_of_unmanaged
from .invocation import hold, invoke
from .session import Result, Session

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

logger: Final = get_logger(__name__)

Pending = dict[Place, list[str]]


@dataclass(frozen=True)
class _Upgrade:
    """What is asked for, and of which history.

    Args:
        session: what the commands share.
        subcommand: its parameters.
        repository: where the history is.
        script: the history, loaded.
        target: the revision to reach.
    """

    session: Session
    subcommand: Subcommand
    repository: Repository
    script: ScriptDirectory
    target: str

    def read(self) -> Readings:
        """Read what the selected databases hold."""
        options: dict[str, Any] = {
            "tag": self.subcommand.params.get("tag"),
            "destination_rev": self.target,
        }
        with explained(self.repository.folder):
            return read_selected(
                self.session, self.subcommand, self.repository, self.script, **options
            )

    def read_early(self) -> Readings | None:
        """Read before the lock; what fails for a reason of its own is read again behind it."""
        try:
            return self.read()
        except (ConfigurationError, UnavailableError, RefusedError):
            raise
        except SidecarError:
            if self.session.environments.is_idle:
                raise
            return None

    def read_again(self) -> Readings | None:
        """Read behind the lock; an `env.py` that raises may need what is about to be migrated."""
        try:
            return self.read()
        except MigrationError:
            return None

    def find_work(self, current: Readings) -> Pending:
        """Give the pending revisions of each database, or nothing where nothing is to be done."""
        if self.is_ahead(current):
            return {}
        with explained(self.repository.folder):
            pending = find_pending(self.script, self.target, current)
        if any(pending.values()):
            return pending
        logger.info("migration.plan", count=0, revisions=[], reason="nothing to do")
        return {}

    def is_ahead(self, current: Readings) -> bool:
        """Tell whether nothing is to be done because the databases are ahead of the code.

        Raises:
            HistoryError: they are, and that is no success, or only some of them are.
        """
        if all(is_known(self.script, r) for revisions in current.values() for r in revisions):
            return False
        if self.session.settings.if_ahead == "fail":
            check_known(self.script, current)
        states = {name: judge(self.script, held) for name, held in label(current).items()}
        if {*states.values()} - {"at_head", "ahead"}:
            raise HistoryError(
                "a database is ahead of this code while another is not at its head: "
                + ", ".join(f"{name} is {state}" for name, state in states.items()),
                hint="deploy the code that has the unknown revisions",
                states=states,
            )
        logger.warning("database.ahead", states=states, hint="--if-ahead ignore: nothing was done")
        return True

    def was_done(self, before: Readings, after: Readings, pending: Pending) -> bool:
        """Tell whether another migrator has done the work while this one waited for the lock.

        Raises:
            HistoryError: the databases moved to somewhere else.
        """
        if after == before:
            return False
        if self.is_ahead(after):
            return True
        relative = is_relative(self.target)
        check_progress(self.script, before, after, pending, is_relative=relative)
        if find_missing(self.script, after, pending):
            return False
        logger.info("migration.plan", count=0, reason="another migrator did it")
        return True


def run_upgrade(
    session: Session,
    subcommand: Subcommand,
    repository: Repository,
    databases: Sequence[Database],
) -> Result:
    """Upgrade the databases, unless another migrator has.

    Args:
        session: what the commands share.
        subcommand: `upgrade` with its parameters.
        repository: where the history is.
        databases: what to lock.

    Raises:
        SidecarError: it could not be done; the error knows its exit code.
    """
    with explained(repository.folder):
        script = open_history(repository.config)
    target = str(subcommand.params["revision"])
    upgrade = _Upgrade(session, subcommand, repository, script, target)
    before = upgrade.read_early()
    if before is not None and not script.get_heads():
        logger.warning("history.empty", place=script.dir, hint="there is no revision to apply")
    if before is not None:
        warn_of_unmanaged(databases, before)
    pending = {} if before is None else upgrade.find_work(before)
    if before is not None and not pending:
        return _stay(before)
    with hold(session, subcommand, list_managed(databases, before)) as guard:
        after = upgrade.read_again() if before is None else upgrade.read()
        if before is None and after is not None and not upgrade.find_work(after):
            return _stay(after)
        if before is not None and after is not None and upgrade.was_done(before, after, pending):
            return Result(before=before, after=after)
        return invoke(session, subcommand, repository, guard)


def _stay(current: Readings) -> Result:
    return Result(before=current, after=current)
