"""The entrypoint: settings, one command, an exit code, and a last line whatever happens.

Nothing outside the standard library is imported before the application's own packages are found.
"""

from __future__ import annotations

from .process import early_signals

# Before all else is imported, which takes a tenth of a second.
early_signals.listen()

import os
import signal
import sys
from _thread import allocate_lock
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .application.broken_packages import broken_packages_explained, require_extra
from .application.dotenv import load_dotenv
from .application.site_packages import Packages, add_site_packages
from .errors import ConfigurationError, Interrupted, KilledError, SidecarError, describe
from .log.last_resort import end, explain, require_outputs, write_last_line
from .process.early_signals import SIGNALS, heard
from .process.os_exit import EXIT, forked_children_ended, guard_exec, guard_exit, run_atexit
from .process.process_one import leave_process_one
from .process.restart import Attempts
from .process.writing import write_all
from .settings.command_line import CommandLine, parse_command_line
from .settings.options import RUNNING, Settings
from .settings.sources import find_unknown, read_settings

if TYPE_CHECKING:
    from .commands.session import Result

# The settings that decide where packages and `.env` are found.
_EARLIEST: Final = ("app_dir", "site_packages")


def main() -> NoReturn:
    """Run `flask-migrate` and end the process with its exit code."""
    try:
        require_outputs()
        leave_process_one(say_killed)
        end_at_signals()
        guard_exit(say_early_exit)
        os.environ[RUNNING] = "1"
        attempts = Attempts.take_over(os.environ)
        forget_working_directory()
        line, folder, packages, problem = prepare(sys.argv[1:], os.environ)
        require_extra()
        Process(line, folder, packages, attempts).run(problem)
    except BaseException as error:  # noqa: BLE001 - the last resort: no end without a line
        end(error)


def end_at_signals() -> None:
    """End at once, with the last line, where a signal comes before anything was begun."""

    def leave(number: int, _frame: object) -> NoReturn:
        end(Interrupted(signal.Signals(number)))

    for number in SIGNALS:
        signal.signal(number, leave)
    for number in heard:
        leave(number, None)


def say_killed(number: signal.Signals) -> int:
    """Write the last line for a run that could not: the kernel, or a crash, ended it."""
    return write_last_line(KilledError(number))


def say_early_exit(code: int) -> int:
    """Write the last line where a package, or a `.pth` file of theirs, ended the process."""
    return write_last_line(
        ConfigurationError(
            f"code among the application's packages called os._exit({code})",
            hint="--site-packages, or a .venv beside the application: a .pth file there or a "
            "package that is imported at the start ends the process",
        )
    )


def forget_working_directory() -> None:
    """Look for our own imports elsewhere: the application's modules may be called like Flask's.

    `python -m` puts the working directory first on the path; it comes back with the application.
    """
    if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())]:
        del sys.path[0]


def prepare(
    argv: list[str], environ: Mapping[str, str]
) -> tuple[CommandLine, Path, Packages, SidecarError | None]:
    """Read the command line, and let the application's own packages be found before ours.

    `--help` and `--version` are answered at once.

    Returns:
        The command line, the application's folder, where packages are searched, and the error
        that the log is to tell once it can.
    """
    line, folder, packages = CommandLine(), Path(), Packages()
    try:
        line = parse_command_line(argv)
        if line.help:
            from .settings.help import format_help

            leave_with(format_help())
        settings, error = read_settings(line.flags, environ, _EARLIEST)
        folder = Path(settings.app_dir or ".").absolute()
        packages = add_site_packages(settings.site_packages, beside=folder)
        if line.version:
            from .application.versions import format_versions

            leave_with(format_versions())
    except SidecarError as early:
        error = early
    return line, folder, packages, error


def leave_with(text: str) -> NoReturn:
    """Print what was asked for, and end well."""
    try:
        write_all(1, text.encode())
    except BrokenPipeError as error:
        raise Interrupted(signal.SIGPIPE) from error
    except OSError as error:
        raise ConfigurationError(
            f"standard output cannot be written: {error.strerror}",
            hint="what it is written to is full, or not to be written to",
        ) from error
    EXIT(0)


class Process:
    """The process around one command: streams, log, signals and the way out.

    Args:
        line: the command line.
        folder: the application's.
        packages: where packages are searched.
        attempts: what processes before this one went through.
    """

    def __init__(
        self, line: CommandLine, folder: Path, packages: Packages, attempts: Attempts
    ) -> None:
        with broken_packages_explained():
            from .log import logger as log
            from .process.output import Streams
            from .process.signals import Interruption

        self.line = line
        self.folder = folder
        self.packages = packages
        self.attempts = attempts
        self.started = monotonic()
        self.is_loaded = False
        self.log = log.get_logger("flask_migrate_sidecar")
        # Until the run handles it a signal could not be told: the last resort's line would be
        # captured.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.streams = Streams(log.log_output, log.log_skipped)
        # For errors on the way to the real settings.
        defaults = Settings()
        log.configure_log(self.streams, form=defaults.log_format, level=defaults.log_level)
        self.interruption = Interruption(self.leave)
        self._outcome: tuple[BaseException | None, dict[str, Any]] | None = None
        self._exit = guard_exit(self._say_last_word)
        guard_exec(self._hand_over)
        self._lock = allocate_lock()

    def run(self, error: BaseException | None) -> NoReturn:
        """Run the command, log the last line, and end the process.

        Args:
            error: what is wrong with the command line already.
        """
        summary: dict[str, Any] = {}
        try:
            with forked_children_ended(), self.interruption.installed():
                settings = self._set_up(error)
                summary = self._execute(settings).describe()
                error = None
        except BaseException as caught:  # noqa: BLE001 - this is where errors end
            error = self.interruption.judge(caught)
        error = self.streams.judge(error)
        self._outcome = error, summary
        run_atexit()
        self.leave(error, summary)

    def _set_up(self, error: BaseException | None) -> Settings:
        """Read the settings and set up the log; an error waits until the log can tell it."""
        # Reading may take for ever: a setting's file may be a pipe.
        self.interruption.listen()
        from .log import logger as log
        from .log import termination_message
        from .log.redaction import hide_settings
        from .log.stdlib import take_over_logging

        try:
            load_dotenv(self.folder)
        except SidecarError as unreadable:
            error = error or unreadable
        settings, malformed = read_settings(self.line.flags, os.environ)
        error = error or malformed
        log.configure_log(self.streams, form=settings.log_format, level=settings.log_level)
        take_over_logging(settings.log_level)
        hide_settings(settings, os.environ, sys.argv[1:])
        log.bind_place(os.environ)
        path = termination_message.find_path(settings.termination_log)
        log.report_last_event(lambda event: termination_message.write_message(path, event))
        if error is not None:
            raise error
        return settings

    def _execute(self, settings: Settings) -> Result:
        """Load the application and run the command in it."""
        with broken_packages_explained():
            from .application.versions import log_start
            from .commands.dispatch import RUNS
            from .commands.session import open_session
            from .log.logger import bind_everywhere

        if self.attempts.is_first:
            log_start(self.line, settings, self.packages)
            for variable, meant in find_unknown(os.environ).items():
                self.log.warning("settings.unknown", variable=variable, meant=meant)
        if self.line.command != "db":
            bind_everywhere(command=self.line.command)
        session = open_session(self.line, settings, self.streams, self.interruption, self.attempts)
        self.is_loaded = True
        return RUNS[self.line.command](session)

    def leave(
        self, error: BaseException | None = None, summary: Mapping[str, Any] | None = None
    ) -> NoReturn:
        """Log the last line and end the process, whatever threads still run."""
        from .log import logger as log

        with self._lock:
            with suppress(Exception):
                self.interruption.end_descendants()
                self.streams.finish()
            try:
                code = self._log_last_line(error, summary or {})
            except BaseException as unwritten:  # noqa: BLE001 - the last resort, once more
                self.streams.give_back()
                code = write_last_line(error or unwritten)
            log.close_log()
            self._exit(code)

    def _log_last_line(self, error: BaseException | None, summary: Mapping[str, Any]) -> int:
        """Log how the run ended and give its exit code."""
        if error is not None:
            return self._log_failure(error)
        duration = round((monotonic() - self.started) * 1000)
        self.log.info("command.finished", exit_code=0, **{**summary, "duration_ms": duration})
        return 0

    def _log_failure(self, error: BaseException) -> int:
        """Log the last line of a bad run and give its exit code."""
        # Others may have attributes of such names, which mean something else.
        known = isinstance(error, (SidecarError, Interrupted))
        told = explain(error)
        shown = error if type(told) is SidecarError else told
        code, hint, fields = told.exit_code, None, dict(told.fields)
        if isinstance(told, SidecarError):
            hint = told.hint
        if isinstance(error, Interrupted):
            hint = _explain_interruption(error, fields)
        if not known or getattr(error, "shows_traceback", False):
            fields["exc_info"] = error
        self.log.error(
            "command.failed",
            exit_code=code,
            error={"type": type(shown).__name__, "message": describe(shown)},
            hint=hint,
            **fields,
        )
        return code

    @contextmanager
    def _hand_over(self, program: str) -> Iterator[None]:
        """Give the outputs to what takes the place of this process, where it is not needed.

        An application may start itself anew at its import, with other variables.

        Raises:
            RuntimeError: the command has begun; it is one of the line that asked for this.
        """
        if self.is_loaded:
            raise RuntimeError(
                f"os.exec for {Path(program).name}, which would take the place of this run: start "
                "it as a child, with subprocess.run"
            )
        with self.streams.handed_over():
            yield

    def _say_last_word(self, code: int) -> int:
        """Log that user code ended the process."""
        if self._outcome is not None:
            # What the application registered with atexit changes nothing of how the run ended.
            self.leave(*self._outcome)
        from .errors import AppError, MigrationError

        kind = MigrationError if self.is_loaded else AppError
        error = kind(
            f"the application's code called os._exit({code})",
            hint="FLASK_MIGRATE_SIDECAR=1 is in the environment: do not exit where it is set",
            **self.interruption.tell(),
        )
        self.streams.finish()
        return self._log_failure(error)


def _explain_interruption(error: Interrupted, fields: Mapping[str, Any]) -> str:
    """Say what to do after a signal.

    Args:
        error: which one, and whether the run had to be ended by force.
        fields: what the last line says beside it.
    """
    unfinished = ", ".join(fields.get("unfinished") or ())
    if error.signal is signal.SIGPIPE:
        return "whoever read the result wanted no more of it"
    if error.is_forced:
        hint = (
            "something hung, a link to a database or the application's code: see whether the "
            "server still runs the statement before you run again"
        )
        undo = f", and undo what the first statements of {unfinished} have left"
        return hint + undo if unfinished else hint
    if unfinished:
        return "the first statements of the unfinished revision may stay: see to them first"
    if "kept" in fields and fields["kept"] is None:
        return (
            "the server did not answer any more: until it notices that this process is gone it "
            "keeps the lock and goes on; 'status' shows when that is over"
        )
    return "what was not committed is rolled back, and the lock is given back: run again"


if __name__ == "__main__":
    main()
