"""`flask-migrate db`: runs a subcommand of the application's group, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, TypeVar

from flask_migrate_sidecar.application.subcommand import (
    Subcommand,
    parse_subcommand,
    refuse_comparing,
)
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.url import is_memory
from flask_migrate_sidecar.errors import (
    ConfigurationError,
    HistoryError,
    RefusedError,
    SidecarError,
    UnavailableError,
    UsageError,
)
from flask_migrate_sidecar.history.environment import Readings
from flask_migrate_sidecar.history.failure import explained
from flask_migrate_sidecar.history.reading import retry_locked
from flask_migrate_sidecar.history.repository import Repository, open_repository
from flask_migrate_sidecar.history.revisions import check_places, open_history
from flask_migrate_sidecar.log.logger import bind_everywhere, get_logger

from .coverage import list_managed, read_selected, require_managed, require_no_twin
from .invocation import hold, invoke
from .session import Result, Session
from .upgrade import run_upgrade

T = TypeVar("T")

logger: Final = get_logger(__name__)


def run_subcommand(session: Session) -> Result:
    """Parse and run a subcommand.

    Raises:
        SidecarError: it could not be done; the error knows its exit code.
    """
    application, directory = session.application, session.settings.directory
    if directory:
        # Upstream reads one of them in `init`, the other elsewhere.
        application.state.migrate.directory = application.state.directory = directory
    subcommand = _unless_ended(lambda: _parse(session))
    if subcommand is None:
        return Result()
    bind_everywhere(command=subcommand.name)
    _require_targets(subcommand)
    refuse_comparing(application, subcommand)
    with application.app.app_context(), ExitStack() as stack:
        if _unless_ended(lambda: subcommand.prepare(stack)) is None:
            return Result()
        if subcommand.name in {"init", "list-templates"} and not subcommand.is_own:
            return invoke(session, subcommand)
        x_arg = subcommand.params.get("x_arg")
        repository = open_repository(application, subcommand.directory, x_arg)
        return _run_with_repository(session, subcommand, repository)


def _require_targets(subcommand: Subcommand) -> None:
    """Want a revision where a command was given one.

    Raises:
        UsageError: it is an empty text, as a variable that is not set makes it.
    """
    given = [subcommand.params.get(name) for name in ("revision", "revisions")]
    # Some commands take several under either name.
    is_empty = any(names == "" or (isinstance(names, tuple) and "" in names) for names in given)
    if not subcommand.is_own and is_empty:
        raise UsageError(
            f"{subcommand.name} was given an empty revision",
            hint="leave it out, or name one: a variable may not be set where the command is made",
        )


def _parse(session: Session) -> Subcommand:
    application, directory = session.application, session.settings.directory
    with session.streams.released():
        return parse_subcommand(application, session.line.arguments, directory=directory)


def _unless_ended(step: Callable[[], T]) -> T | None:
    """Take a step in which code of the application's may end the command: a callback, `--help`.

    Returns:
        What the step gives, None where it ended the command well.

    Raises:
        SidecarError: it ended it otherwise, or raised.
    """
    with explained():
        try:
            return step()
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
    return None


def _run_with_repository(
    session: Session, subcommand: Subcommand, repository: Repository
) -> Result:
    if not subcommand.is_own:
        makes_folder = subcommand.name in {"migrate", "revision"}
        with explained(repository.folder):
            check_places(repository.config, may_be_missing=makes_folder)
    if not subcommand.reads(revision_environment=repository.has_environment_for_files):
        return _look(session, subcommand, repository)
    databases = _select_databases(session, subcommand)
    # What the sidecar reads on its own account keeps to the selected databases too.
    repository.config.cmd_opts.bind = subcommand.binds
    session.wait(databases, writes=subcommand.writes)
    if not subcommand.writes:
        return _look(session, subcommand, repository)
    require_no_twin(session, subcommand, repository)
    if subcommand.name == "upgrade" and not subcommand.is_own:
        return run_upgrade(session, subcommand, repository, databases)
    found = _learn_version_tables(session, subcommand, repository)
    before = found if subcommand.params.get("purge") and not subcommand.is_own else None
    locked = databases if subcommand.is_own else list_managed(databases, found)
    with hold(session, subcommand, locked) as guard:
        return invoke(session, subcommand, repository, guard, before)


def _look(session: Session, subcommand: Subcommand, repository: Repository) -> Result:
    """Run a subcommand that changes no database.

    Raises:
        ConfigurationError: one was named that `env.py` did not come to.
    """
    if subcommand.is_own:
        result = invoke(session, subcommand, repository)
    else:
        result = retry_locked(
            lambda: invoke(session, subcommand, repository), session.environments, session.patience
        )
    found = session.environments.version_tables
    if found:
        require_managed(session, found, subcommand.binds)
    return result


def _learn_version_tables(
    session: Session, subcommand: Subcommand, repository: Repository
) -> Readings | None:
    """Let `env.py` say where the version tables are: the locks of the databases are named so.

    Whatever else is wrong with it is told behind the lock.

    Returns:
        What they hold, as far as it could be read.

    Raises:
        ConfigurationError: one that was named is none of the repository's.
        UnavailableError, RefusedError: a database could not be asked.
    """
    options = {
        "tag": subcommand.params.get("tag"),
        "destination_rev": subcommand.params.get("revision"),
    }
    try:
        with explained(repository.folder):
            script = open_history(repository.config)
            return read_selected(session, subcommand, repository, script, **options)
    except (ConfigurationError, UnavailableError, RefusedError):
        raise
    except SidecarError as error:
        is_known = isinstance(error, HistoryError) and subcommand.name == "downgrade"
        if session.environments.is_idle or is_known:
            raise
        logger.debug("database.unread", reason=str(error))
        return None


def _select_databases(session: Session, subcommand: Subcommand) -> list[Database]:
    """Give the databases that the subcommand is about and that outlast it.

    Raises:
        UsageError: `--bind` names one that is not there.
    """
    names = [database.name for database in session.databases]
    unknown = sorted({*subcommand.binds} - {*names})
    if unknown:
        raise UsageError(
            f"no database is called {', '.join(unknown)}; there are {', '.join(names)}"
        )
    selected = [d for d in session.databases if subcommand.selects(d.name)]
    kept = [d for d in selected if not is_memory(d.url)]
    if len(kept) < len(selected):
        logger.warning("database.memory", hint="nothing is kept of a database in memory")
    return kept
