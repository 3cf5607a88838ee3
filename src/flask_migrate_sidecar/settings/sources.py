"""Where the values of settings come from: flag, then variable, then its file, then default."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from flask_migrate_sidecar.errors import ConfigurationError, SidecarError, UsageError

from .options import BIND_PREFIX, SETTINGS, Setting, Settings, normalise_bind

Flags = Mapping[str, list[str]]

# Kubernetes adds variables for each Service; one called `migrate` would look like settings.
_SERVICE_LINK: Final = re.compile(r"MIGRATE_(.*_)?(SERVICE_(HOST|PORT).*|PORT(_.*)?)")


def load_settings(flags: Flags, environ: Mapping[str, str]) -> Settings:
    """Read every setting.

    Args:
        flags: values given on the command line, by name of the setting.
        environ: the environment.

    Raises:
        UsageError: a value is malformed.
        ConfigurationError: a variable and its file are both set, or a file cannot be read or is
            empty.
    """
    settings, error = read_settings(flags, environ)
    if error is not None:
        raise error
    return settings


def read_settings(
    flags: Flags, environ: Mapping[str, str], names: Iterable[str] | None = None
) -> tuple[Settings, SidecarError | None]:
    """Read settings as far as they can be read, and the first error among them.

    That one of them is malformed is told by the log, whose own settings are therefore needed.

    Args:
        flags: values given on the command line, by name of the setting.
        environ: the environment.
        names: the settings to read, all by default; the others have their defaults.
    """
    values: dict[str, Any] = {}
    errors: list[SidecarError] = []
    for setting in SETTINGS:
        if names is not None and setting.name not in names:
            continue
        try:
            values |= _read_value(setting, flags, environ)
        except SidecarError as error:
            errors.append(error)
    return Settings(**values), errors[0] if errors else None


def find_unknown(environ: Iterable[str]) -> dict[str, str | None]:
    """Find `MIGRATE_*` variables that mean nothing, each with the name it may have meant."""
    known = {name for s in SETTINGS for name in (s.variable, s.variable + "_FILE")}
    unknown: dict[str, str | None] = {}
    for name in sorted(environ):
        if not name.startswith("MIGRATE_") or name.startswith(BIND_PREFIX) or name in known:
            continue
        if not _SERVICE_LINK.fullmatch(name):
            unknown[name] = _find_similar(name, known)
    # Earlier READMEs had them, and no other is similar to what they meant.
    binds = {
        "MIGRATE_BIND_URL": f"{BIND_PREFIX}NAME",
        "MIGRATE_BIND_URL_FILE": f"{BIND_PREFIX}NAME_FILE",
    }
    return {name: binds.get(name, meant) for name, meant in unknown.items()}


def _find_similar(name: str, known: Iterable[str]) -> str | None:
    """Find the variable that was meant; the prefix, which all share, must not count."""
    rests = [other.removeprefix("MIGRATE_") for other in known]
    similar = difflib.get_close_matches(name.removeprefix("MIGRATE_"), rests, 1)
    return "MIGRATE_" + similar[0] if similar else None


def _read_value(setting: Setting, flags: Flags, environ: Mapping[str, str]) -> dict[str, Any]:
    """Give the value of one setting by its name, or nothing where no source has it."""
    given = _read_texts(setting, flags, environ)
    if not given:
        return {}
    values = tuple(_parse(setting, text) for text in given)
    return {setting.name: values if setting.multiple else values[-1]}


def _read_texts(setting: Setting, flags: Flags, environ: Mapping[str, str]) -> list[str]:
    """Give the texts of one setting from the first source that has it."""
    given = flags.get(setting.name, [])
    if setting.name == "bind_url":
        return [*given, *_read_bind_variables(given, environ)]
    if given:
        return given
    for variable in (setting.variable, *setting.variables):
        text = _read_variable(variable, environ)
        if text:
            return [part for part in text.split(os.pathsep) if part] if setting.multiple else [text]
    return []


def _read_variable(name: str, environ: Mapping[str, str]) -> str:
    """Read a variable, or the file that `NAME_FILE` names; an empty variable is none."""
    text, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if not name.startswith("MIGRATE_") or not path:
        return text
    if text:
        raise ConfigurationError(f"{name} and {name}_FILE are both set", hint="set one of the two")
    try:
        # As it is written: a line break within it belongs to it.
        text = Path(path).read_bytes().decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"{name}_FILE: {path} cannot be read: {reason}",
            hint="check that the secret is mounted there and that this user may read it",
        ) from error
    if not text.strip():
        # Not given is another thing: then the application's own database would be migrated.
        raise ConfigurationError(
            f"{name}_FILE: {path} is empty",
            hint="check that the secret has a value and is rendered before this starts",
        )
    return text


def _read_bind_variables(flags: list[str], environ: Mapping[str, str]) -> Iterable[str]:
    """Give the URLs of binds as NAME=URL; a flag goes before a variable for the same bind."""
    given = {normalise_bind(flag.partition("=")[0]) for flag in flags}
    names = {name.removesuffix("_FILE") for name in environ if name.startswith(BIND_PREFIX)}
    for name in sorted(names):
        bind = name.removeprefix(BIND_PREFIX)
        url = _read_variable(name, environ)
        if url and normalise_bind(bind) not in given:
            yield f"{bind}={url}"


def _parse(setting: Setting, text: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "" if setting.secret else f" {text!r}:"
        raise UsageError(f"{setting.flag}:{shown} {error}") from error
