"""The last line where the log is not set up yet: one JSON object, and the right exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from flask_migrate_sidecar.errors import (
    ConfigurationError,
    Interrupted,
    SidecarError,
    describe,
)
from flask_migrate_sidecar.process.os_exit import EXIT
from flask_migrate_sidecar.process.writing import write_all
from flask_migrate_sidecar.settings.command_line import parse_command_line
from flask_migrate_sidecar.settings.sources import read_settings

from .lines import LIMIT, encode, shorten
from .termination_message import find_path, write_message

# What is written where nothing can be made any more, for lack of memory; and with what.
_FLOOR: Final = (
    b'{"level": "error", "event": "command.failed", "logger": "flask_migrate_sidecar", '
    b'"exit_code": %d, "error": {"type": "SidecarError", "message": "the last line could not be '
    b'written"}, "hint": "raise the limits of the process, that of memory first"}\n'
)
_WRITE: Final = os.write
_OUTPUTS: Final = {1: "standard output", 2: "standard error"}


def require_outputs() -> None:
    """Refuse to run with a closed output: the next file that is opened would take its place.

    Raises:
        ConfigurationError: one of them is closed.
    """
    if not _is_open(0):
        os.open(os.devnull, os.O_RDONLY)
    for number, name in _OUTPUTS.items():
        if not _is_open(number):
            raise ConfigurationError(
                f"{name} is closed",
                hint=f"leave it open; {number}>/dev/null throws away what is written to it",
            )


def end(error: BaseException) -> NoReturn:
    """Write the last line, and end the process.

    Args:
        error: what kept the log from being set up.
    """
    EXIT(write_last_line(error))


def write_last_line(error: BaseException) -> int:
    """Write the last line without the log, and give the exit code.

    Args:
        error: what kept the log from writing it.
    """
    try:
        return _write_last_line(error)
    except BaseException:  # noqa: BLE001 - below this there is nothing
        known = error if isinstance(error, (SidecarError, Interrupted)) else ConfigurationError
        with suppress(OSError):
            _WRITE(2 if _is_open(2) else 1, _FLOOR % known.exit_code)
        return known.exit_code


def _write_last_line(error: BaseException) -> int:
    known = explain(error)
    event: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": "error",
        "event": "command.failed",
        "logger": __name__,
        "exit_code": known.exit_code,
        "error": {"type": type(known).__name__, "message": describe(known)},
        "hint": getattr(known, "hint", "nothing was begun: run again"),
    }
    if type(known) is SidecarError:
        event["exception"] = traceback.format_exception(error)
    with suppress(Exception):
        write_message(find_path(_find_termination_log()), event)
    line = encode(shorten(event, LIMIT - 1, lambda value: len(encode(value)))).encode() + b"\n"
    with suppress(OSError):
        write_all(2 if _is_open(2) else 1, line)
    return known.exit_code


def _find_termination_log() -> str | None:
    """Read this one setting, as far as the command line can be read."""
    flags: Mapping[str, list[str]] = {}
    with suppress(SidecarError):
        flags = parse_command_line(sys.argv[1:]).flags
    return read_settings(flags, os.environ, ("termination_log",))[0].termination_log


def explain(error: BaseException) -> SidecarError | Interrupted:
    """Say what is wrong with the process's surroundings: that is what fails so early."""
    if isinstance(error, (SidecarError, Interrupted)):
        return error
    if isinstance(error, UnicodeError):
        hint = "a name, a variable or a file is not UTF-8"
        return ConfigurationError(describe(error), hint=hint)
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return ConfigurationError(
            f"{error.strerror or describe(error)}{where}",
            hint="check the working directory, what is mounted, and the limits of the process",
        )
    if isinstance(error, MemoryError):
        return ConfigurationError("there is no memory left", hint="raise the limit of memory")
    return SidecarError(
        f"{type(error).__name__}: {describe(error)}",
        hint="this was not foreseen: please report it, with the traceback in this line",
    )


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
