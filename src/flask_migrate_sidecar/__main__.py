"""The entrypoint: settings, one run, an exit code.

Nothing outside the standard library is imported before the application's own packages are found.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .attempts import Attempts
from .command_line import CommandLine, format_help, parse_command_line
from .errors import ConfigurationError, Interrupted, SidecarError
from .packages import Packages, add_site_packages
from .reaper import leave_process_one
from .settings import Settings, find_unknown, load_settings, read_setting

if TYPE_CHECKING:
    from .run import Run
    from .streams import Streams

# Time for what an application registered with atexit; some of it hangs.
_ATEXIT_SECONDS = 3.0


def main() -> NoReturn:
    """Run `flask-migrate` and end the process with its exit code."""
    leave_process_one()
    os.environ["FLASK_MIGRATE_SIDECAR"] = "1"
    attempts = Attempts.take_over(os.environ)
    forget_working_directory()
    line, packages, error = CommandLine(), Packages(), None
    try:
        line = parse_command_line(sys.argv[1:])
        if line.help:
            sys.stdout.write(format_help())
            sys.exit(0)
        packages = prepare_packages(line, os.environ)
        if line.version:
            sys.stdout.write(format_versions())
            sys.exit(0)
    except SidecarError as early:
        error = early
    try:
        import structlog  # noqa: F401 - see whether the extra is installed
    except ModuleNotFoundError:
        sys.exit(report_missing_extra())
    Process(line, packages, attempts).run(error)


def forget_working_directory() -> None:
    """Look for our own imports elsewhere: the application's modules may be called like Flask's.

    `python -m` puts the working directory first on the path; it comes back with the application.
    """
    if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())]:
        del sys.path[0]


def prepare_packages(line: CommandLine, environ: Mapping[str, str]) -> Packages:
    """Let the application's own packages be found before ours."""
    folders = read_setting("site_packages", line.flags, environ)
    beside = [*read_setting("app_dir", line.flags, environ), "."][0]
    return add_site_packages(folders, beside=Path(beside).absolute())


def format_versions() -> str:
    """Name our own version and those of the packages that a run would use."""
    from importlib import metadata

    from . import __version__

    versions = [f"Python {sys.version.split()[0]}"]
    for name in ("Alembic", "SQLAlchemy", "Flask"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    return f"flask-migrate-sidecar {__version__} ({', '.join(versions)})\n"


def report_missing_extra() -> int:
    """Say which extra to install; the log itself needs it."""
    error = ConfigurationError("structlog is not installed")
    event = {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": "error",
        "event": "command.failed",
        "logger": __name__,
        "exit_code": error.exit_code,
        "error": {"type": "ConfigurationError", "message": str(error)},
        "hint": "pip install 'flask-migrate-sidecar[sidecar]'",
    }
    sys.stderr.write(json.dumps(event) + "\n")
    return error.exit_code


class Process:
    """The process around one run: streams, log, signals and the way out.

    Args:
        line: the command line.
        packages: where packages are searched.
        attempts: what processes before this one went through.
    """

    def __init__(self, line: CommandLine, packages: Packages, attempts: Attempts) -> None:
        from . import log, signals
        from .streams import Streams

        self.line = line
        self.packages = packages
        self.attempts = attempts
        self.log = log.get_logger("flask_migrate_sidecar")
        self.streams: Streams = Streams(log.log_output)
        self.interruption = signals.Interruption(self.leave)
        self.current: Run | None = None
        self._exit = signals.guard_exit(self._say_last_word)
        self._lock = threading.Lock()

    def run(self, error: BaseException | None) -> NoReturn:
        """Run, log the last line, and end the process.

        Args:
            error: what is wrong with the command line already.
        """
        summary: dict[str, Any] = {}
        with self.interruption.installed():
            try:
                settings = self._set_up(error)
                summary = self._execute(settings)
            except BaseException as caught:  # noqa: BLE001 - this is where errors end
                error = self.interruption.judge(caught)
        self._run_atexit()
        self.leave(error, summary)

    def _set_up(self, error: BaseException | None) -> Settings:
        """Read the settings and set up the log; an error waits until the log can tell it."""
        from . import log, termination
        from .masking import hide_settings

        settings = Settings()
        # For errors on the way to the real settings.
        log.configure_log(self.streams, form=settings.log_format, level=settings.log_level)
        try:
            load_dotenv(self.line)
            settings = load_settings(self.line.flags, os.environ)
        except SidecarError as unreadable:
            error = error or unreadable
        log.configure_log(self.streams, form=settings.log_format, level=settings.log_level)
        log.take_over_logging(settings.log_level)
        hide_settings(settings, os.environ)
        log.bind_place(os.environ)
        path = termination.find_path(self.line.flags, os.environ)
        log.report_last_event(lambda event: termination.write_message(path, event))
        # Not before the log can tell of it.
        self.interruption.listen()
        if error is not None:
            raise error
        return settings

    def _execute(self, settings: Settings) -> dict[str, Any]:
        with explain_broken_packages():
            from .run import Run

        self.current = Run(
            self.line,
            settings,
            self.streams,
            self.interruption,
            packages=self.packages,
            attempts=self.attempts,
        )
        for variable, meant in find_unknown(os.environ).items():
            self.current.warnings.append({"variable": variable, "meant": meant})
        return self.current.execute()

    @staticmethod
    def _run_atexit() -> None:
        """Run what the application left for the end, but do not wait for it forever."""
        thread = threading.Thread(target=atexit._run_exitfuncs, daemon=True)  # noqa: SLF001
        thread.start()
        thread.join(_ATEXIT_SECONDS)

    def leave(
        self, error: BaseException | None = None, summary: Mapping[str, Any] | None = None
    ) -> NoReturn:
        """Log the last line and end the process, whatever threads still run."""
        from . import log

        with self._lock:
            with suppress(Exception):
                self.streams.finish()
            code = 0
            if error is None:
                self.log.info("command.finished", exit_code=0, **(summary or {}))
            else:
                code = self._log_failure(error)
            log.close_log()
            self._exit(code)

    def _log_failure(self, error: BaseException) -> int:
        """Log the last line of a bad run and give its exit code."""
        code = getattr(error, "exit_code", SidecarError.exit_code)
        known = isinstance(error, (SidecarError, Interrupted))
        fields = dict(getattr(error, "fields", None) or {})
        hint = getattr(error, "hint", None)
        if isinstance(error, Interrupted):
            hint = "what was not committed is rolled back, and the lock is given back: run again"
            if fields.get("unfinished"):
                hint = "the first statements of the unfinished revision may stay: see to them first"
        if not known:
            hint = "this was not foreseen: please report it, with the traceback in this line"
        if not known or getattr(error, "shows_traceback", False):
            fields["exc_info"] = error
        self.log.error(
            "command.failed",
            exit_code=code,
            error={"type": type(error).__name__, "message": str(error)},
            hint=hint,
            **fields,
        )
        return int(code)

    def _say_last_word(self, code: int) -> int:
        """Log that user code ended the process."""
        from .errors import AppError, MigrationError

        is_loading = self.current is None or self.current.application is None
        kind = AppError if is_loading else MigrationError
        error = kind(
            f"the application's code called os._exit({code})",
            hint="FLASK_MIGRATE_SIDECAR=1 is in the environment: do not exit where it is set",
        )
        self.streams.finish()
        return self._log_failure(error)


@contextmanager
def explain_broken_packages() -> Iterator[None]:
    """Say what is wrong where Flask, Alembic or another package cannot be imported.

    Raises:
        ConfigurationError: one of them is missing, or does not fit the others.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"the installed packages cannot be imported: {error}",
            hint="'pip check' in that environment, --site-packages included, shows what is wrong",
        ) from error


def load_dotenv(line: CommandLine) -> None:
    """Read `.env` and `.flaskenv` as `flask` does, where python-dotenv is installed."""
    with explain_broken_packages():
        from flask.cli import load_dotenv as load

    [folder] = [*read_setting("app_dir", line.flags, os.environ), "."][:1]
    if os.environ.get("FLASK_SKIP_DOTENV", "0") in {"", "0"}:
        before = Path.cwd()
        with suppress(OSError):
            os.chdir(folder)
            load()
        os.chdir(before)


if __name__ == "__main__":
    main()
