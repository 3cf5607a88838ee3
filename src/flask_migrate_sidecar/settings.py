"""Every setting, declared once: flag, variables, type, default and help derive from here.

Only the standard library is imported: some settings decide where packages are found, so they
are read before any package is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
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

    return parse


def declare(
    help: str,  # noqa: A002 - the standard library's word for it
    parse: Callable[[str], Any] = parse_text,
    *,
    default: Any = None,
    shown: str,
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
        variables: further variables, read after `MIGRATE_*`.
        multiple: repeatable flag; the variable is split at `os.pathsep`.
        secret: never shown in a log.
        metavar: what stands behind the flag in the help.
    """
    metadata = {
        "help": help,
        "parse": parse,
        "shown": shown,
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
    database_url: str | None = declare(
        "Connect here instead of where the application does, for example past a pooler.",
        shown="the app's own",
        secret=True,
        metavar="URL",
    )
    bind_url: tuple[str, ...] = declare(
        "The same for a bind; repeatable. Variable: MIGRATE_DATABASE_URL__NAME.",
        default=(),
        shown="the app's own",
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
        "Least severe level that is logged (debug, info, warning, error, critical).",
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
        return "MIGRATE_" + self.name.upper()


SETTINGS: Final = tuple(
    Setting(name=f.name, default=f.default, **f.metadata) for f in fields(Settings)
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
_BIND_PREFIX: Final = "MIGRATE_DATABASE_URL__"
# Kubernetes adds variables for each Service; one called `migrate` would look like settings.
_SERVICE_LINK: Final = re.compile(r"MIGRATE_(.*_)?(SERVICE_(HOST|PORT).*|PORT(_.*)?)")


def normalise_bind(name: str) -> str:
    """Make names of binds comparable: shells allow neither `-` nor `.` in a variable."""
    return re.sub(r"[-.]", "_", name).lower()


def load_settings(flags: Mapping[str, list[str]], environ: Mapping[str, str]) -> Settings:
    """Read every setting: flag, then `MIGRATE_*`, then `MIGRATE_*_FILE`, then default.

    Args:
        flags: values given on the command line, by name of the setting.
        environ: the environment.

    Raises:
        UsageError: a value is malformed.
        ConfigurationError: a variable and its file are both set, or a file cannot be read.
    """
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        given = read_setting(setting, flags, environ)
        if setting.name == "bind_url":
            given = [*_read_bind_variables(flags.get("bind_url", []), environ)]
        if given:
            values[setting.name] = (
                tuple(_parse(setting, text) for text in given)
                if setting.multiple
                else _parse(setting, given[-1])
            )
    return Settings(**values)


def read_setting(
    setting: Setting | str, flags: Mapping[str, list[str]], environ: Mapping[str, str]
) -> list[str]:
    """Give the texts of one setting from the first source that has it."""
    if isinstance(setting, str):
        setting = _BY_NAME[setting]
    if flags.get(setting.name):
        return flags[setting.name]
    for variable in (setting.variable, *setting.variables):
        text = _read_variable(variable, environ)
        if text:
            return [part for part in text.split(os.pathsep) if part] if setting.multiple else [text]
    return []


def find_unknown(environ: Iterable[str]) -> dict[str, str | None]:
    """Find `MIGRATE_*` variables that mean nothing, each with the name it may have meant."""
    known = {name for s in SETTINGS for name in (s.variable, s.variable + "_FILE")}
    unknown: dict[str, str | None] = {}
    for name in sorted(environ):
        if not name.startswith("MIGRATE_") or name.startswith(_BIND_PREFIX) or name in known:
            continue
        if not _SERVICE_LINK.fullmatch(name):
            unknown[name] = _find_similar(name, known)
    return unknown


def _find_similar(name: str, known: Iterable[str]) -> str | None:
    """Find the variable that was meant; the prefix, which all share, must not count."""
    rests = [other.removeprefix("MIGRATE_") for other in known]
    similar = difflib.get_close_matches(name.removeprefix("MIGRATE_"), rests, 1)
    return "MIGRATE_" + similar[0] if similar else None


def _read_variable(name: str, environ: Mapping[str, str]) -> str:
    """Read a variable, or the file that `NAME_FILE` names; an empty variable is none."""
    text, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if not name.startswith("MIGRATE_") or not path:
        return text
    if text:
        raise ConfigurationError(f"{name} and {name}_FILE are both set", hint="set one of the two")
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"{name}_FILE: {path} cannot be read: {reason}",
            hint="check that the secret is mounted there and that this user may read it",
        ) from error


def _read_bind_variables(flags: list[str], environ: Mapping[str, str]) -> Iterable[str]:
    """Give the URLs of binds as NAME=URL; a flag goes before a variable for the same bind."""
    yield from flags
    given = {normalise_bind(flag.partition("=")[0]) for flag in flags}
    names = {name.removesuffix("_FILE") for name in environ if name.startswith(_BIND_PREFIX)}
    for name in sorted(names):
        bind = name.removeprefix(_BIND_PREFIX)
        url = _read_variable(name, environ)
        if url and normalise_bind(bind) not in given:
            yield f"{bind}={url}"


def _parse(setting: Setting, text: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "" if setting.secret else f" {text!r}:"
        raise UsageError(f"{setting.flag}:{shown} {error}") from error
