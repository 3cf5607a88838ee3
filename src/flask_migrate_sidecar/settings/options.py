"""Every setting, declared once: flag, variables, type, default and help derive from here.

Only the standard library is imported: some settings decide where packages are found, so they
are read before any package is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from flask_migrate_sidecar.errors import ConfigurationError, UsageError

from .values import choose, parse_duration, parse_text

# What stands in the environment while the sidecar runs, so that an application can tell.
RUNNING: Final = "FLASK_MIGRATE_SIDECAR"
# One variable a bind: MIGRATE_DATABASE_URL__NAME.
BIND_PREFIX: Final = "MIGRATE_DATABASE_URL__"


def declare(
    help: str,  # noqa: A002 - the standard library's word for it
    parse: Callable[[str], Any] = parse_text,
    *,
    default: Any = None,
    shown: str,
    variable: str | None = None,
    variables: tuple[str, ...] = (),
    multiple: bool = False,
    secret: bool = False,
    metavar: str = "TEXT",
) -> Any:
    """Declare a setting as a field of `Settings`.

    Args:
        help: one sentence for `--help`.
        parse: turns the text into the value, or raises ValueError with what is needed.
        default: value where nothing is given.
        shown: how `--help` and the README name the default.
        variable: its own variable, `MIGRATE_` and its name by default.
        variables: further variables, read after that one.
        multiple: repeatable flag; the variable is split at `os.pathsep`.
        secret: never shown in a log.
        metavar: what stands behind the flag in the help.
    """
    metadata = {
        "help": help,
        "parse": parse,
        "shown": shown,
        "own_variable": variable,
        "variables": variables,
        "multiple": multiple,
        "secret": secret,
        "metavar": metavar,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings of one run."""

    app: str | None = declare(
        "Application or factory to load; 'none' forces migrations-only mode.",
        shown="as flask finds it",
        variables=("FLASK_APP",),
    )
    app_dir: str | None = declare(
        "Folder of the application: put on sys.path and made the working directory.",
        shown="working directory",
        metavar="DIR",
    )
    app_timeout: float | None = declare(
        "The longest that the import of the application may take.",
        parse_duration,
        shown="off",
        metavar="DURATION",
    )
    site_packages: tuple[str, ...] = declare(
        "Folder of the application's own packages, searched before ours; repeatable.",
        default=(),
        shown=".venv beside the app, if there",
        multiple=True,
        metavar="DIR",
    )
    directory: str | None = declare(
        "Migration repository.",
        shown="the app's own, else migrations",
        variables=("FLASK_DB_DIRECTORY",),
        metavar="DIR",
    )
    version_table: str | None = declare(
        "Without the application: where its Migrate(..., version_table=) keeps the revisions.",
        shown="alembic_version",
        metavar="[SCHEMA.]NAME",
    )
    database_url: str | None = declare(
        "Connect here instead of where the application does, for example past a pooler.",
        shown="the app's own",
        secret=True,
        metavar="URL",
    )
    bind_url: tuple[str, ...] = declare(
        "The same for a bind; repeatable, and a variable for each.",
        default=(),
        shown="the app's own",
        variable=f"{BIND_PREFIX}NAME",
        multiple=True,
        secret=True,
        metavar="NAME=URL",
    )
    wait_timeout: float = declare(
        "Wall clock for the databases to accept a login; 0 tries once.",
        parse_duration,
        default=60.0,
        shown="60s",
        metavar="DURATION",
    )
    connect_timeout: float = declare(
        "The longest that one attempt to connect may take.",
        parse_duration,
        default=5.0,
        shown="5s",
        metavar="DURATION",
    )
    refused_grace: float = declare(
        "How long a refusal may persist before it counts.",
        parse_duration,
        default=10.0,
        shown="10s",
        metavar="DURATION",
    )
    head_timeout: float = declare(
        "How long 'wait head' waits.",
        parse_duration,
        default=600.0,
        shown="10m",
        metavar="DURATION",
    )
    lock: str = declare(
        "Lock between migrators (auto, advisory, table, file, none); all must use the same.",
        choose("auto", "advisory", "table", "file", "none"),
        default="auto",
        shown="auto",
        metavar="KIND",
    )
    lock_timeout: float = declare(
        "How long to wait for another migrator; 0 tries once.",
        parse_duration,
        default=300.0,
        shown="5m",
        metavar="DURATION",
    )
    if_ahead: str = declare(
        "What 'upgrade' does where the database is ahead of the code (fail, ignore).",
        choose("fail", "ignore"),
        default="fail",
        shown="fail",
        metavar="ACTION",
    )
    log_format: str = declare(
        "Form of the log (auto, json, console); auto is console on a terminal, else JSON.",
        choose("auto", "json", "console"),
        default="auto",
        shown="auto",
        metavar="FORMAT",
    )
    log_level: str = declare(
        "Least severe level that is logged (debug, info, warning, error, critical); the last line "
        "always is.",
        choose("debug", "info", "warning", "error", "critical"),
        default="info",
        shown="info",
        metavar="LEVEL",
    )
    heartbeat: float = declare(
        "Period of 'migration.running' and 'lock.waiting' in the log.",
        parse_duration,
        default=30.0,
        shown="30s",
        metavar="DURATION",
    )
    termination_log: str | None = declare(
        "File for the last event, at most 4096 bytes: the container's termination message.",
        shown="/dev/termination-log if writable",
        metavar="FILE",
    )

    def describe(self) -> dict[str, Any]:
        """Give the values that differ from the defaults, secrets masked."""
        described = {}
        for setting in SETTINGS:
            value = getattr(self, setting.name)
            if value != setting.default:
                described[setting.name] = "***" if setting.secret else value
        return described

    def bind_urls(self) -> dict[str, str]:
        """Give the URLs of binds by normalised name.

        Raises:
            UsageError: an entry is not NAME=URL.
            ConfigurationError: two entries name the same bind.
        """
        urls: dict[str, str] = {}
        for entry in self.bind_url:
            name, equals, url = entry.partition("=")
            if not equals or not name or not url:
                raise UsageError("--bind-url: NAME=URL is needed")
            if normalise_bind(name) in urls:
                raise ConfigurationError(
                    f"two URLs are given for the bind {normalise_bind(name)!r}",
                    hint="names compare without case, with '-' and '.' as '_': give one",
                )
            urls[normalise_bind(name)] = url
        return urls


@dataclass(frozen=True)
class Setting:
    """What is known of one setting, derived from its declaration."""

    name: str
    help: str
    parse: Callable[[str], Any]
    default: Any
    shown: str
    own_variable: str | None
    variables: tuple[str, ...]
    multiple: bool
    secret: bool
    metavar: str

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable of our own; `_FILE` behind it names a file."""
        return self.own_variable or "MIGRATE_" + self.name.upper()


SETTINGS: Final = tuple(
    Setting(name=f.name, default=f.default, **f.metadata) for f in fields(Settings)
)


def normalise_bind(name: str) -> str:
    """Make names of binds comparable: shells allow neither `-` nor `.` in a variable."""
    return re.sub(r"[-.]", "_", name).lower()
