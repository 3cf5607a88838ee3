"""`flask-migrate wait head`: the gate for pods that wait for another run's migrations."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, sleep
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from flask_migrate_sidecar.database.backoff import next_pause
from flask_migrate_sidecar.database.connect import DEFAULT
from flask_migrate_sidecar.errors import (
    ConfigurationError,
    LockedError,
    PendingError,
    SidecarError,
    UnavailableError,
)
from flask_migrate_sidecar.history.environment import Readings, label
from flask_migrate_sidecar.history.failure import explained
from flask_migrate_sidecar.history.position import judge
from flask_migrate_sidecar.history.reading import Patience, read_databases
from flask_migrate_sidecar.history.repository import Repository, open_repository
from flask_migrate_sidecar.history.revisions import open_history
from flask_migrate_sidecar.log.logger import get_logger

from .coverage import require_managed, require_version_table, warn_of_unmanaged
from .session import Result, Session

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

logger: Final = get_logger(__name__)


class _Look(NamedTuple):
    """What one look found.

    Args:
        states: the state of each database, and of each tenant.
        outage: why they could not be read.
        found: the version tables that `env.py` came to.
    """

    states: Mapping[str, str]
    outage: SidecarError | None = None
    found: Readings = MappingProxyType({})

    @property
    def is_open(self) -> bool:
        """Whether every version table is at the code's heads, or ahead of them.

        Without any tenant an upgrade has nothing to do, and so there is nothing to wait for.
        """
        return self.outage is None and {*self.states.values()} <= {"at_head", "ahead"}


def run_wait_head(session: Session) -> Result:
    """Return once every database is at the heads of the code, or ahead of them.

    Raises:
        PendingError: that did not come about before `--head-timeout`.
        UnavailableError: a database was not reachable then.
    """
    started, limit = monotonic(), session.settings.head_timeout
    session.wait(session.lasting, writes=False, timeout=limit)
    with session.application.app.app_context():
        repository = open_repository(
            session.application, session.settings.directory, session.line.x_arg or None
        )
        with explained(repository.folder):
            script = open_history(repository.config)
        told = None
        while not (look := _look(session, repository, script)).is_open:
            elapsed = monotonic() - started
            pause = next_pause(elapsed)
            if look.states != told:
                reason = {"reason": str(look.outage)} if look.outage else {}
                logger.info("head.waiting", states=look.states, next_try=round(pause, 3), **reason)
                told = look.states
            if elapsed + pause > limit:
                raise _give_up(look, limit)
            sleep(pause)
    warn_of_unmanaged(session.lasting, look.found)
    logger.info("head.reached", states=look.states)
    return Result()


def _look(session: Session, repository: Repository, script: ScriptDirectory) -> _Look:
    try:
        with explained(repository.folder):
            found = read_databases(
                session.application,
                session.environments,
                repository.config,
                script,
                Patience(),
            )
            is_empty = not script.get_heads()
            targets = session.line.targets
            states = {name: judge(script, held, targets) for name, held in label(found).items()}
    except (UnavailableError, LockedError) as outage:
        return _Look({DEFAULT: "unreachable"}, outage)
    if is_empty:
        raise ConfigurationError(
            f"there is no revision in {script.dir}: no database can be at its head",
            hint="check that the image or the volume holds the revisions",
        )
    require_managed(session, {place.database for place in found})
    require_version_table(session, found)
    return _Look(states, found=found)


def _give_up(look: _Look, limit: float) -> SidecarError:
    if look.outage is not None:
        return UnavailableError(str(look.outage), hint=look.outage.hint)
    return PendingError(
        f"not at head after {limit:g} s: "
        + ", ".join(f"{name} is {state}" for name, state in look.states.items()),
        hint="look at the log of the migrating Job: it failed, or still runs",
        states=look.states,
    )
