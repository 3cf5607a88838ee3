"""Which versions run, where they come from, and what the Flask-Migrate among them lacks."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.settings.command_line import CommandLine
from flask_migrate_sidecar.settings.options import Settings

from .site_packages import Packages

logger: Final = get_logger(__name__)

_OURS: Final = "flask-migrate-sidecar"
_UPSTREAM: Final = "flask-migrate"
# Import package, and the distribution that brings it.
_PACKAGES: Final = {
    "flask": "flask",
    "flask_sqlalchemy": "flask-sqlalchemy",
    "sqlalchemy": "sqlalchemy",
    "alembic": "alembic",
    "flask_migrate": _OURS,
}
# Where our own packages lie.
_HOME: Final = Path(__file__).parents[2]
# What our library has and a user may look for in vain in upstream's, by subcommand.
_COMFORTS: Final = {
    "check": ("--bind",),
    "current": ("--bind", "--check-heads"),
    "downgrade": ("--bind",),
    "ensure-version": (),
    "stamp": ("--bind", "--purge"),
    "upgrade": ("--bind",),
}


def log_start(line: CommandLine, settings: Settings, packages: Packages) -> None:
    """Log the first line: what runs, with which settings and versions; then what is odd.

    Args:
        line: the command line.
        settings: the settings; secrets are masked.
        packages: where packages are searched.
    """
    logger.info(
        "sidecar.started",
        version=own_version(),
        arguments=[*line.command.split(), *line.arguments],
        settings=settings.describe(),
        site_packages=[str(folder) for folder in packages.folders],
        versions=describe_packages(),
    )
    for driver, reason in packages.replaced.items():
        logger.warning(
            "driver.replaced",
            driver=driver,
            reason=reason,
            hint="the application's own does not load here; the sidecar's is used in its place",
        )
    if packages.complaints:
        logger.warning("packages.complaint", lines=list(packages.complaints))


def format_versions() -> str:
    """Name our own version and those of the packages that a run would use."""
    versions = [f"Python {sys.version.split()[0]}"]
    for name in ("Alembic", "SQLAlchemy", "Flask"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    return f"{_OURS} {own_version()} ({', '.join(versions)})\n"


def own_version() -> str:
    """Give the version of the distribution that this very file belongs to."""
    return _find_version(_HOME, _OURS)


def describe_packages() -> dict[str, dict[str, str]]:
    """Give version and folder of Python and of each package that a run stands on."""
    python = {"version": sys.version.split()[0], "from": sys.prefix}
    return {"python": python, **{module: describe_package(module) for module in _PACKAGES}}


def describe_package(module: str) -> dict[str, str]:
    """Give the version of the very file that would be imported, and where it lies.

    The same distribution may lie in several folders of the path, and ours and Flask-Migrate may
    have written the same file in one folder, so the name alone does not tell.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return {"version": "?", "from": "not installed"}
    origin = Path(spec.origin)
    name = _PACKAGES[module]
    if name == _OURS and not _is_ours(origin):
        name = _UPSTREAM
    folder = origin.parent.parent
    return {"distribution": name, "version": _find_version(folder, name), "from": str(folder)}


def _is_ours(library: Path) -> bool:
    """Tell our `flask_migrate/__init__.py` from upstream's, which has no such command."""
    with suppress(OSError):
        return "ensure_version" in library.read_text(encoding="utf-8", errors="replace")
    return False


def _find_version(folder: Path, name: str) -> str:
    """Read the version out of the name of the metadata beside a package (PEP 376).

    An editable install keeps its metadata elsewhere; what has none at all is `?`.
    """
    with suppress(KeyError):
        return _list_installed(folder)[name]
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return "?"


@cache
def _list_installed(folder: Path) -> dict[str, str]:
    """List the distributions of a folder by name, without opening the metadata of each."""
    found = {}
    for entry in folder.iterdir():
        name, dash, version = entry.name.removesuffix(".dist-info").rpartition("-")
        if dash and entry.name.endswith(".dist-info"):
            found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


def warn_of_upstream(group: click.Group) -> None:
    """Say once what an upstream Flask-Migrate lacks, and whether it has overwritten ours.

    Args:
        group: the application's commands.
    """
    found = describe_package("flask_migrate")
    if found.get("distribution") == _OURS or "ensure-version" in group.commands:
        return
    fields: dict[str, Any] = {"flask_migrate": found, "lacks": list(find_missing(group))}
    if found["from"] == str(_HOME):
        logger.warning(
            "flask_migrate.overwritten",
            **fields,
            hint="Flask-Migrate was installed over flask-migrate-sidecar in the same folder, and "
            "pip overwrote its files without a word: leave Flask-Migrate out of the requirements, "
            "or install them elsewhere and name that folder with --site-packages",
        )
        return
    logger.info(
        "flask_migrate.upstream",
        **fields,
        hint="the application's own Flask-Migrate runs; waiting, locking, logs and exit codes are "
        "the sidecar's, what it lacks is not there",
    )


def find_missing(group: click.Group) -> Iterator[str]:
    """List commands and options of our library that a group lacks."""
    for name, options in _COMFORTS.items():
        command = group.commands.get(name)
        if command is None:
            yield name
            continue
        flags = {flag for parameter in command.params for flag in parameter.opts}
        yield from (f"{name} {option}" for option in options if option not in flags)
