"""The story of one run, in the order in which it happens."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import click

from .application import Application, enter_folder, list_databases, load_application
from .attempts import Attempts
from .command_line import CommandLine, parse_command_line
from .databases import DEFAULT, Database, is_memory, parse_url
from .databases import secrets as url_secrets
from .errors import (
    ConfigurationError,
    HistoryError,
    LockedError,
    PendingError,
    RefusedError,
    SidecarError,
    UnavailableError,
    UsageError,
)
from .explanation import explain
from .heartbeat import beating
from .lock import LockTarget, choose_kind, hold_locks, read_holder
from .log import bind_everywhere, get_logger
from .masking import secrets
from .migrations import (
    Observer,
    load_history,
    read_revisions,
    send_results_to,
    strict_history,
)
from .migrations_only import refuse_comparing
from .origins import log_start
from .packages import Packages
from .position import (
    check_known,
    check_progress,
    describe_revisions,
    find_missing,
    find_pending,
    is_known,
    is_relative,
    judge,
    split_applied,
)
from .settings import Settings, load_settings
from .status import parse_status_format, print_status
from .subcommand import Subcommand, may_read, own_options, parse_subcommand
from .wait import wait_for_databases

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from .signals import Interruption
    from .streams import Streams

logger = get_logger(__name__)

Readings = dict[str, tuple[str, ...]]


@dataclass
class Run:
    """One run of `flask-migrate`.

    Args:
        line: the command line.
        settings: the settings.
        streams: where results go.
        interruption: is told how to cancel what runs.
        packages: where packages are searched.
        attempts: what processes before this one went through.
        warnings: what is odd about the settings, logged behind the first line.
    """

    line: CommandLine
    settings: Settings
    streams: Streams
    interruption: Interruption
    packages: Packages
    attempts: Attempts
    warnings: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=monotonic)
    observer: Observer = field(default_factory=Observer)
    application: Application | None = None
    databases: list[Database] = field(default_factory=list)
    repository: str | None = None

    def execute(self) -> dict[str, Any]:
        """Do what was asked for, and give the fields of the last line.

        Raises:
            SidecarError: it could not be done; the error knows its exit code.
        """
        commands = {"db": self.run_db, "wait": self.run_wait, "status": self.run_status}
        command = commands.get(self.line.command)
        if command is None:
            known = ", ".join(commands)
            raise UsageError(
                f"unknown command {self.line.command!r}; the commands are {known}"
                if self.line.command
                else f"a command is needed; the commands are {known}"
            )
        if self.attempts.is_first:
            log_start(self.line, self.settings, self.packages)
            for fields in self.warnings:
                logger.warning("settings.unknown", **fields)
        command()
        return self.summarise()

    # The application and its databases

    def load(self) -> tuple[Application, list[Database]]:
        """Load the application; a database whose URL is known is waited for before."""
        enter_folder(self.settings)
        self._wait_for_known()
        application = self._import()
        self.application = application
        self.interruption.reinstall()
        with application.app.app_context():
            databases = self.databases = list_databases(application, self.settings)
        self.observer.names = {str(d.url): d.name for d in databases}
        self.observer.install()
        self.interruption.cancel = self.observer.cancel
        send_results_to(application, self.streams.results)
        return application, databases

    def _import(self) -> Application:
        """Load the application; where it queries a database that is not ready, begin anew."""
        try:
            return load_application(self.settings, self.line.arguments, self.interruption.force)
        except (UnavailableError, RefusedError) as error:
            is_gate = (self.line.command, *self.line.arguments[:1]) == ("wait", "head")
            self.attempts.try_again(error, self.settings, self.streams, is_gate=is_gate)

    def _wait_for_known(self) -> None:
        """Wait for databases that the settings name: factories query at import."""
        known = {DEFAULT: self.settings.database_url, **self.settings.bind_urls()}
        databases = []
        for name, text in known.items():
            if text:
                url = parse_url(text, name=name)
                secrets.add(url_secrets(url))
                databases.append(Database.of_app(name, url))
        connects = self.line.command == "wait" or may_read(self.line.arguments)
        if databases and connects:
            is_gate = (self.line.command, *self.line.arguments) == ("wait", "head")
            timeout = self.settings.head_timeout if is_gate else None
            self.wait(databases, writes=False, timeout=timeout)

    def wait(
        self, databases: Sequence[Database], *, writes: bool, timeout: float | None = None
    ) -> None:
        """Wait for databases, by default as long as `--wait-timeout` says."""
        wait_for_databases(
            databases,
            timeout=self.settings.wait_timeout if timeout is None else timeout,
            connect_timeout=self.settings.connect_timeout,
            refused_grace=self.settings.refused_grace,
            writes=writes,
        )

    def open_repository(self, directory: str | None, **options: Any) -> Any:
        """Give Alembic's configuration of the repository.

        Raises:
            ConfigurationError: there is none, or its alembic.ini cannot be read.
        """
        assert self.application is not None  # noqa: S101 - load() comes first
        migrate = self.application.state.migrate
        config = self._explained(lambda: migrate.get_config(directory, **options))
        folder = Path(config.get_main_option("script_location"))
        self.repository = str(folder)
        if not folder.is_dir():
            raise ConfigurationError(
                f"there is no migration repository at {folder.absolute()}",
                hint="mount it, name its folder with --directory, or make one with 'db init'",
            )
        ini = config.config_file_name
        if ini and not getattr(config, "toml_file_name", None):
            check_readable(Path(ini))
        return config

    # flask-migrate db

    def run_db(self) -> None:
        """Run a subcommand of the application's group."""
        application, databases = self.load()
        line = parse_command_line(
            self.line.argv, own_options(application.group, self.line.arguments)
        )
        if line.flags != self.line.flags:
            self.settings = load_settings(line.flags, os.environ)
        directory = self.settings.directory
        if directory:
            # Upstream reads one of them in `init`, the other elsewhere.
            application.state.migrate.directory = application.state.directory = directory
        try:
            with self.streams.released():
                subcommand = parse_subcommand(application, line.arguments, directory=directory)
        except click.exceptions.Exit:
            return  # --help was printed
        bind_everywhere(command=subcommand.name)
        refuse_comparing(application, subcommand)
        with application.app.app_context(), ExitStack() as stack:
            subcommand.prepare(stack)
            if subcommand.name in {"init", "list-templates"}:
                self.invoke(subcommand)
            else:
                self._run_with_repository(subcommand, databases)

    def _run_with_repository(self, subcommand: Subcommand, databases: list[Database]) -> None:
        config = self.open_repository(subcommand.directory, x_arg=subcommand.params.get("x_arg"))
        environment = str(config.get_main_option("revision_environment") or "").lower() == "true"
        if not subcommand.reads(revision_environment=environment):
            self.invoke(subcommand)
            return
        unknown = sorted({*subcommand.binds} - {d.name for d in databases})
        if unknown:
            raise UsageError(
                f"no database is called {', '.join(unknown)}; "
                f"there are {', '.join(d.name for d in databases)}"
            )
        # What the sidecar reads on its own account keeps to the selected databases too.
        config.cmd_opts.bind = subcommand.binds
        selected = [d for d in databases if subcommand.selects(d.name)]
        kept = [d for d in selected if not is_memory(d.url)]
        if len(kept) < len(selected):
            logger.warning("database.memory", hint="nothing is kept of a database in memory")
        self.wait(kept, writes=subcommand.writes)
        if not subcommand.writes:
            self.invoke(subcommand)
        elif subcommand.name == "upgrade":
            self._upgrade(subcommand, config, kept)
        else:
            with self.lock(kept):
                self.invoke(subcommand)

    def _upgrade(self, subcommand: Subcommand, config: Any, databases: list[Database]) -> None:
        """Upgrade once, whoever of several migrators does it (see the contract)."""
        target = str(subcommand.params["revision"])
        script = self._explained(lambda: load_history(config))
        options = {"tag": subcommand.params.get("tag"), "destination_rev": target}
        before = self._read_before(config, script, subcommand, options)
        pending = {} if before is None else self._find_work(script, target, before)
        if before is not None and not pending:
            return
        with self.lock(databases):
            after = self._read(config, script, subcommand, options)
            if before is None and not self._find_work(script, target, after):
                return
            if before is not None and after != before:
                if self._is_ahead(script, after):
                    return
                check_progress(script, before, after, pending, is_relative=is_relative(target))
                if not find_missing(script, after, pending):
                    logger.info("migration.plan", count=0, reason="another migrator did it")
                    self.observer.before, self.observer.after = before, after
                    return
            self.invoke(subcommand)

    def _find_work(
        self, script: ScriptDirectory, target: str, current: Readings
    ) -> dict[str, list[str]]:
        """Give the pending revisions of each database, or nothing where nothing is to be done."""
        if self._is_ahead(script, current):
            return {}
        pending: dict[str, list[str]] = self._explained(
            lambda: find_pending(script, target, current)
        )
        if any(pending.values()):
            return pending
        logger.info("migration.plan", count=0, revisions=[], reason="nothing to do")
        self.observer.before = self.observer.after = current
        return {}

    def _read_before(
        self, config: Any, script: ScriptDirectory, subcommand: Subcommand, options: dict[str, Any]
    ) -> Readings | None:
        """Read before the lock; what fails for a reason of its own is read again behind it."""
        try:
            return self._read(config, script, subcommand, options)
        except (UnavailableError, RefusedError):
            raise
        except SidecarError:
            return None

    def _read(
        self, config: Any, script: ScriptDirectory, subcommand: Subcommand, options: dict[str, Any]
    ) -> Readings:
        assert self.application is not None  # noqa: S101 - load() comes first
        application = self.application
        found = self._explained(
            lambda: read_revisions(application, self.observer, config, script, **options)
        )
        return {name: revs for name, revs in found.items() if subcommand.selects(name)}

    def _explained(self, function: Any) -> Any:
        try:
            return function()
        except Exception as error:
            raise explain(error, repository=self.repository) from error

    def _is_ahead(self, script: ScriptDirectory, current: Readings) -> bool:
        """Tell whether nothing is to be done because the databases are ahead of the code."""
        if all(is_known(script, r) for revisions in current.values() for r in revisions):
            return False
        if self.settings.if_ahead == "fail":
            check_known(script, current)
        states = {name: judge(script, revisions) for name, revisions in current.items()}
        bad = {name: state for name, state in states.items() if state not in {"at_head", "ahead"}}
        if bad:
            raise HistoryError(
                "a database is ahead of this code while another is not at its head: "
                + ", ".join(f"{name} is {state}" for name, state in states.items()),
                hint="deploy the code that has the unknown revisions",
                states=states,
            )
        logger.warning("database.ahead", states=states, hint="--if-ahead ignore: nothing was done")
        return True

    @contextmanager
    def lock(self, databases: Sequence[Database]) -> Iterator[None]:
        """Hold the lock of each database."""
        tables = self.observer.version_tables
        targets = [LockTarget(d, *tables.get(d.name, (None, "alembic_version"))) for d in databases]
        if not targets:
            yield
            return
        with hold_locks(
            targets,
            kind=self.settings.lock,
            timeout=self.settings.lock_timeout,
            connect_timeout=self.settings.connect_timeout,
            heartbeat=self.settings.heartbeat,
        ) as guard:
            self.observer.on_step = guard.verify
            try:
                yield
            finally:
                self.observer.on_step = lambda: None

    def invoke(self, subcommand: Subcommand) -> None:
        """Run the subcommand itself."""
        stdout = self.streams.released() if subcommand.keeps_stdout else nullcontext()
        heartbeat = beating(
            self.observer,
            self.databases,
            period=self.settings.heartbeat,
            connect_timeout=self.settings.connect_timeout,
        )
        try:
            with strict_history(), stdout, heartbeat:
                subcommand.run()
        except (Exception, SystemExit) as error:
            explained = explain(error, repository=self.repository)
            self._tell_what_was_kept(subcommand, explained)
            raise explained from error
        except KeyboardInterrupt as error:
            self._tell_what_was_kept(subcommand, error)
            raise

    def _tell_what_was_kept(self, subcommand: Subcommand, error: Any) -> None:
        """Read the databases again after a failure, to say what stayed and what did not."""
        observer = self.observer
        if not observer.applied and observer.running is None:
            return
        fields: dict[str, Any] = {}
        if observer.running is not None:
            fields |= {"revision": observer.running.revision, "database": observer.running.database}
        try:
            config = self.open_repository(
                subcommand.directory, x_arg=subcommand.params.get("x_arg")
            )
            script = load_history(config)
            after = self._read(config, script, subcommand, {})
        except Exception as reason:  # noqa: BLE001 - the first error is the one to report
            fields["kept"] = None
            fields["kept_error"] = str(reason).splitlines()[0] if str(reason) else ""
        else:
            fields |= split_applied(observer, script, after)
        error.fields = {**fields, **getattr(error, "fields", {})}

    def summarise(self) -> dict[str, Any]:
        """Give the fields of the last line of a good run."""
        observer = self.observer
        moved = {"from": observer.before, "to": observer.after} if observer.before else {}
        return {
            "applied": [step.revision for step in observer.applied],
            **moved,
            "duration_ms": round((monotonic() - self.started) * 1000),
        }

    # flask-migrate wait, flask-migrate status

    def run_wait(self) -> None:
        """Wait for the databases, or for the code's heads in them."""
        if self.line.arguments not in {("database",), ("head",)}:
            raise UsageError("wait: say 'wait database' or 'wait head'")
        bind_everywhere(command=f"wait {self.line.arguments[0]}")
        _, databases = self.load()
        databases = [d for d in databases if not is_memory(d.url)]
        if self.line.arguments == ("database",):
            self.wait(databases, writes=False)
        else:
            self._wait_for_head(databases)

    def _wait_for_head(self, databases: Sequence[Database]) -> None:
        """Return once every database is at the heads of the code, or ahead of them.

        Raises:
            PendingError: that did not come about before `--head-timeout`.
            UnavailableError: a database was never reachable.
        """
        assert self.application is not None  # noqa: S101 - load() comes first
        deadline = monotonic() + self.settings.head_timeout
        self.wait(databases, writes=False, timeout=self.settings.head_timeout)
        with self.application.app.app_context():
            config = self.open_repository(self.settings.directory)
            script = self._explained(lambda: load_history(config))
            pause, told = 0.05, None
            while True:
                outage: SidecarError | None = None
                try:
                    states = self._read_states(config, script)
                except (UnavailableError, LockedError) as error:
                    outage, states = error, {DEFAULT: "unreachable"}
                if states and all(state in {"at_head", "ahead"} for state in states.values()):
                    logger.info("head.reached", states=states)
                    return
                if states != told:
                    reason = {"reason": str(outage)} if outage else {}
                    logger.info("head.waiting", states=states, next_try=round(pause, 3), **reason)
                    told = states
                if monotonic() + pause > deadline:
                    if outage is not None:
                        raise UnavailableError(str(outage), hint=outage.hint) from outage
                    raise PendingError(
                        f"not at head after {self.settings.head_timeout:g} s: "
                        + ", ".join(f"{name} is {state}" for name, state in states.items()),
                        hint="look at the log of the migrating Job: it failed, or still runs",
                        states=states,
                    )
                sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
                pause = min(pause * 2, 1.0)

    def _read_states(self, config: Any, script: ScriptDirectory) -> dict[str, str]:
        """Judge each database."""
        assert self.application is not None  # noqa: S101 - load() comes first
        application = self.application
        found: Readings = self._explained(
            lambda: read_revisions(application, self.observer, config, script)
        )
        return {name: judge(script, revisions) for name, revisions in found.items()}

    def run_status(self) -> None:
        """Print what each database holds."""
        form = parse_status_format(self.line.arguments)
        bind_everywhere(command="status")
        application, databases = self.load()
        with application.app.app_context():
            config = self.open_repository(self.settings.directory)
            script = self._explained(lambda: load_history(config))
            failure, reached = None, []
            for database in databases:
                try:
                    wait_for_databases(
                        [database],
                        timeout=0,
                        connect_timeout=self.settings.connect_timeout,
                        refused_grace=0,
                        writes=False,
                    )
                    reached.append(database.name)
                except (UnavailableError, RefusedError) as error:
                    failure = error
            found: Readings = {}
            if reached:
                if failure is not None:
                    config.cmd_opts.bind = reached
                found = self._explained(
                    lambda: read_revisions(application, self.observer, config, script)
                )
            states = {d.name: self._describe(d, script, found.get(d.name)) for d in databases}
        print_status(states, form, self.streams.results)
        if failure is not None:
            raise failure

    def _describe(
        self, database: Database, script: ScriptDirectory, current: tuple[str, ...] | None
    ) -> dict[str, Any]:
        """Describe one database for `status`."""
        lock: dict[str, Any] = {"kind": self.settings.lock, "held": False, "holder": None}
        if current is None:
            nothing = {**describe_revisions(script, ()), "pending": []}
            return {**nothing, "state": "unreachable", "lock": {**lock, "held": None}}
        if not is_memory(database.url):
            table = self.observer.version_tables.get(database.name, (None, "alembic_version"))
            with suppress(SidecarError):
                timeout = self.settings.connect_timeout
                lock["kind"], _ = choose_kind(self.settings.lock, database, timeout)
                target = LockTarget(database, *table)
                held, holder = read_holder(target, kind=lock["kind"], connect_timeout=timeout)
                lock |= {"held": held, "holder": holder.describe() if holder else None}
        return {**describe_revisions(script, current), "lock": lock}


def check_readable(ini: Path) -> None:
    """Refuse a repository whose alembic.ini is missing or cannot be read.

    Raises:
        ConfigurationError: with the reason.
    """
    try:
        ini.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"{ini} cannot be read: {reason}",
            hint="it belongs to the repository: check what is mounted, and the file's rights",
        ) from error
