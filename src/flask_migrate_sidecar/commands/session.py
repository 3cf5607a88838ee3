"""What every command works with: the settings, the application, its databases, the streams."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from flask_migrate_sidecar.application.databases_of_app import (
    list_databases,
    list_known_databases,
)
from flask_migrate_sidecar.application.import_retry import retry_import
from flask_migrate_sidecar.application.loading import Application, enter_folder, load_application
from flask_migrate_sidecar.application.subcommand import may_read, own_options
from flask_migrate_sidecar.database.connect import Database, limit_connecting
from flask_migrate_sidecar.database.redirect import check_place
from flask_migrate_sidecar.database.url import is_memory
from flask_migrate_sidecar.database.wait import wait_for_databases
from flask_migrate_sidecar.errors import (
    AppError,
    ConfigurationError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from flask_migrate_sidecar.history.environment import Environments, Readings, label
from flask_migrate_sidecar.history.progress import Step
from flask_migrate_sidecar.history.reading import Patience
from flask_migrate_sidecar.history.repository import send_results_to
from flask_migrate_sidecar.process.output import Streams
from flask_migrate_sidecar.process.restart import Attempts
from flask_migrate_sidecar.process.signals import Interruption
from flask_migrate_sidecar.settings.command_line import (
    STOCK,
    CommandLine,
    find_subcommand,
    parse_command_line,
)
from flask_migrate_sidecar.settings.options import Settings
from flask_migrate_sidecar.settings.sources import Flags, load_settings, read_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

# They steer how the application is found and what is logged until it is there: behind a command of
# its own they come too late.
_EARLY: Final = frozenset(
    {"app", "app_dir", "app_timeout", "site_packages", "log_format", "log_level", "termination_log"}
)
# They limit how often its import is tried: there a guess does.
_LIMITS: Final = frozenset({"wait_timeout", "refused_grace"})


# What became of a revision, in the last line.
_DONE: Final = {"upgrade": "applied", "downgrade": "reverted", "stamp": "stamped"}


@dataclass(frozen=True)
class Session:
    """What the commands share.

    Args:
        line: the command line.
        settings: the settings.
        application: the loaded application.
        databases: its databases, as this run reaches them.
        environments: Alembic's environments.
        streams: where results go.
    """

    line: CommandLine
    settings: Settings
    application: Application
    databases: Sequence[Database]
    environments: Environments
    streams: Streams

    @property
    def lasting(self) -> Sequence[Database]:
        """The databases that outlast the process: those that are not in memory."""
        return [database for database in self.databases if not is_memory(database.url)]

    @property
    def patience(self) -> Patience:
        """How long a reading waits for a table that somebody else has locked."""
        settings = self.settings
        limits = settings.lock_timeout, settings.heartbeat
        return Patience(*limits, self.databases, settings.connect_timeout)

    def wait(
        self, databases: Sequence[Database], *, writes: bool, timeout: float | None = None
    ) -> None:
        """Wait for databases, by default as long as `--wait-timeout` says."""
        _wait(self.settings, databases, writes=writes, timeout=timeout)


@dataclass(frozen=True)
class Result:
    """What a command did, for the last line.

    Args:
        steps: the revisions that ran, and in which direction.
        before: what the databases held.
        after: what they hold.
    """

    steps: Sequence[Step] = ()
    before: Readings = field(default_factory=dict)
    after: Readings = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Give the fields of the last line."""
        told: dict[str, Any] = {"applied": []}
        for step in self.steps:
            done = told.setdefault(_DONE[step.direction], [])
            # A stamp with `base` leads to none.
            done += [step.revision] if step.revision is not None else []
        moved = {"from": label(self.before), "to": label(self.after)} if self.before else {}
        return {**told, **moved}


def open_session(
    line: CommandLine,
    settings: Settings,
    streams: Streams,
    interruption: Interruption,
    attempts: Attempts,
) -> Session:
    """Load the application; a database whose URL is known is waited for before.

    Args:
        line: the command line, as far as it can be read without the application.
        settings: the settings.
        streams: where results go.
        interruption: is told how to cancel what runs.
        attempts: what processes before this one went through.

    Raises:
        SidecarError: the application cannot be had, or its databases cannot.
    """
    limit_connecting(settings.connect_timeout)
    enter_folder(settings)
    _wait_for_known(line, settings)
    guess = _guess_late_flags(line)
    try:
        application = load_application(settings, line.arguments, interruption.force)
    except (UnavailableError, RefusedError) as error:
        limits = {name: values for name, values in guess.items() if name in _LIMITS}
        guessed, _malformed = read_settings({**line.flags, **limits}, os.environ)
        is_gate = line.command == "wait head"
        retry_import(error, attempts, guessed, streams.restore, is_gate=is_gate)
    except (ConfigurationError, AppError):
        # For the lack of what stands there, it may be.
        _refuse_late(line, guess)
        raise
    interruption.reinstall()
    line, settings = _read_late_options(line, settings, application)
    with application.app.app_context():
        databases = list_databases(application, settings)
    redirected = {d.name: d for d in databases if d.is_redirected}

    def check(name: str, connection: Connection) -> None:
        if name in redirected:
            check_place(connection, redirected[name], settings.connect_timeout)

    # Of two with one URL it is the first, the main one.
    environments = Environments({str(d.url): d.name for d in reversed(databases)}, check)
    environments.install()
    interruption.cancel = environments.cancel
    interruption.tell = environments.tell
    send_results_to(application, streams.results)
    return Session(line, settings, application, databases, environments, streams)


def _wait_for_known(line: CommandLine, settings: Settings) -> None:
    """Wait for databases that the settings name: factories query at import."""
    known = list_known_databases(settings)
    if known and (line.command != "db" or may_read(line.arguments)):
        timeout = settings.head_timeout if line.command == "wait head" else None
        _wait(settings, known, writes=False, timeout=timeout)


def _read_late_options(
    line: CommandLine, settings: Settings, application: Application
) -> tuple[CommandLine, Settings]:
    """Read again what stands behind `db`, now that the subcommand's own options are known.

    Raises:
        UsageError: an option of ours came too late for what it steers.
    """
    if line.command != "db":
        return line, settings
    late = parse_command_line(line.argv, own_options(application.group, line.arguments))
    if late.flags == line.flags:
        return late, settings
    _refuse_late(line, late.flags)
    return late, load_settings(late.flags, os.environ)


def _guess_late_flags(line: CommandLine) -> Flags:
    """Read the options behind a command as if it had none of its own, which is not known yet."""
    try:
        return parse_command_line(line.argv, ()).flags
    except UsageError:
        return {}


def _refuse_late(line: CommandLine, flags: Flags) -> None:
    """Refuse options that stand behind a command of the application's own and steer its import.

    Raises:
        UsageError: there is one.
    """
    too_late = {name for name in _EARLY if flags.get(name) != line.flags.get(name)}
    if not too_late:
        return
    flag = "--" + min(too_late).replace("_", "-")
    subcommand = str(find_subcommand(line.arguments))
    meant = [] if subcommand in STOCK else get_close_matches(subcommand, STOCK, 1)
    raise UsageError(
        f"{flag} must stand before 'db': behind it, it could be an option of {subcommand!r}",
        hint=f"did you mean 'db {meant[0]}'?"
        if meant
        else f"flask-migrate {flag} ... db {subcommand}",
    )


def _wait(
    settings: Settings, databases: Sequence[Database], *, writes: bool, timeout: float | None
) -> None:
    wait_for_databases(
        databases,
        timeout=settings.wait_timeout if timeout is None else timeout,
        connect_timeout=settings.connect_timeout,
        refused_grace=settings.refused_grace,
        writes=writes,
    )
