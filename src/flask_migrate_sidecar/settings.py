"""Every setting, declared once: flag, variables, type, default and help derive from here.

Only the standard library is imported: some settings decide where packages are found, so they
are read before any package is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .errors import ConfigurationError, UsageError

_DURATION: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h)?", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Read `30`, `30s`, `5m`, `1h` or `500ms` as seconds.

    Raises:
        ValueError: the text is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a duration such as 30, 30s or 5m is needed")
    return float(match["number"]) * _UNITS[match["unit"]]


def parse_count(text: str) -> int:
    """Read a whole number that is not negative."""
    if not re.fullmatch(r"\d+", text.strip(), re.ASCII):
        raise ValueError("a whole number is needed")
    return int(text)


def parse_text(text: str) -> str:
    """Take the text as it is, but not an empty one."""
    if not text.strip():
        raise ValueError("it is empty")
    return text


def choose(*choices: str) -> Callable[[str], str]:
    """Make a parser that accepts one of the choices, in any case."""

    def parse(text: str) -> str:
        if text.strip().lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)} is needed")
        return text.strip().lower()

    parse.choices = choices  # type: ignore[attr-defined]
    return parse


@dataclass(frozen=True)
class Setting:
    """One setting: where it comes from, how it is read, what it means.

    Args:
        name: attribute of `Settings`; flag and variable follow from it.
        help: one sentence for `--help`.
        parse: turns the text into the value, or raises ValueError with what is needed.
        default: value where nothing is given.
        shown: how `--help` and the README name the default.
        variables: further variables, read after `MIGRATE_*`.
        multiple: repeatable flag; the variable is split at `os.pathsep`.
        secret: never shown in a log.
        metavar: what stands behind the flag in the help.
    """

    name: str
    help: str
    parse: Callable[[str], Any] = parse_text
    default: Any = None
    shown: str = ""
    variables: tuple[str, ...] = ()
    multiple: bool = False
    secret: bool = False
    metavar: str = "TEXT"

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable of our own; `_FILE` behind it names a file."""
        return "MIGRATE_" + self.name.upper()


SETTINGS: Final = (
    Setting(
        "app",
        "Application or factory to load; 'none' forces migrations-only mode.",
        shown="as flask finds it",
        variables=("FLASK_APP",),
    ),
    Setting(
        "app_dir",
        "Folder of the application: put on sys.path and made the working directory.",
        shown="working directory",
        metavar="DIR",
    ),
    Setting(
        "app_timeout",
        "The longest that the import of the application may take.",
        parse_duration,
        shown="off",
        metavar="DURATION",
    ),
    Setting(
        "site_packages",
        "Folder of the application's own packages, searched before ours; repeatable.",
        default=(),
        shown=".venv beside the app, if there",
        multiple=True,
        metavar="DIR",
    ),
    Setting(
        "directory",
        "Migration repository.",
        shown="the app's own, else migrations",
        variables=("FLASK_DB_DIRECTORY",),
        metavar="DIR",
    ),
    Setting(
        "database_url",
        "Connect here instead of where the application does, for example past a pooler.",
        shown="the app's own",
        secret=True,
        metavar="URL",
    ),
    Setting(
        "bind_url",
        "The same for a bind; repeatable. Variable: MIGRATE_DATABASE_URL__NAME.",
        default=(),
        shown="the app's own",
        multiple=True,
        secret=True,
        metavar="NAME=URL",
    ),
    Setting(
        "wait_timeout",
        "Wall clock for the databases to accept a login; 0 tries once.",
        parse_duration,
        60.0,
        "60s",
        metavar="DURATION",
    ),
    Setting(
        "connect_timeout",
        "The longest that one attempt to connect may take.",
        parse_duration,
        5.0,
        "5s",
        metavar="DURATION",
    ),
    Setting(
        "refused_grace",
        "How long a refusal may persist before it counts.",
        parse_duration,
        10.0,
        "10s",
        metavar="DURATION",
    ),
    Setting(
        "head_timeout",
        "How long 'wait head' waits.",
        parse_duration,
        600.0,
        "10m",
        metavar="DURATION",
    ),
    Setting(
        "lock",
        "Lock between migrators; all migrators of one database must use the same.",
        choose("auto", "advisory", "table", "file", "none"),
        "auto",
        "auto",
        metavar="KIND",
    ),
    Setting(
        "lock_timeout",
        "How long to wait for another migrator; 0 tries once.",
        parse_duration,
        300.0,
        "5m",
        metavar="DURATION",
    ),
    Setting(
        "if_ahead",
        "What 'upgrade' does where the database is ahead of the code.",
        choose("fail", "ignore"),
        "fail",
        "fail",
    ),
    Setting(
        "log_format",
        "Form of the log: console on a terminal and JSON elsewhere, or always one.",
        choose("auto", "json", "console"),
        "auto",
        "auto",
        metavar="FORMAT",
    ),
    Setting(
        "log_level",
        "Least severe level that is logged.",
        choose("debug", "info", "warning", "error", "critical"),
        "info",
        "info",
        metavar="LEVEL",
    ),
    Setting(
        "heartbeat",
        "Period of 'migration.running' and 'lock.waiting' in the log.",
        parse_duration,
        30.0,
        "30s",
        metavar="DURATION",
    ),
)
