"""Which versions run, where they come from, and what the Flask-Migrate among them lacks."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .log import get_logger

if TYPE_CHECKING:
    from .command_line import CommandLine
    from .packages import Packages
    from .settings import Settings

logger = get_logger(__name__)

_OURS = "flask-migrate-sidecar"
# Import package, and the distributions that may have brought it.
_PACKAGES = {
    "flask": ("flask",),
    "flask_sqlalchemy": ("flask-sqlalchemy",),
    "sqlalchemy": ("sqlalchemy",),
    "alembic": ("alembic",),
    "flask_migrate": (_OURS, "flask-migrate"),
}
# What our library has and a user may look for in vain in upstream's, by subcommand.
_COMFORTS = {
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
    versions = describe_packages()
    logger.info(
        "sidecar.started",
        version=__version__,
        arguments=[line.command, *line.arguments],
        settings=settings.describe(),
        site_packages=[str(folder) for folder in packages.folders],
        versions=versions,
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


def describe_packages() -> dict[str, dict[str, str]]:
    """Give version and folder of Python and of each package that a run stands on."""
    python = {"version": sys.version.split()[0], "from": sys.prefix}
    return {
        "python": python,
        **{module: describe_package(module, names) for module, names in _PACKAGES.items()},
    }


def describe_package(module: str, names: Sequence[str]) -> dict[str, str]:
    """Give the version of the very file that would be imported, and where it lies.

    The same distribution may lie in several folders of the path, and several distributions may
    have written the same file in one folder, so the name alone does not tell.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return {"version": "?", "from": "not installed"}
    origin = Path(spec.origin)
    folder = origin.parent.parent
    owner = find_owner(origin, names)
    if owner is not None:
        return {"distribution": owner[0], "version": owner[1], "from": str(folder)}
    if folder == Path(__file__).parent.parent:
        return {"distribution": _OURS, "version": __version__, "from": str(folder)}
    for name in names:  # an editable install keeps its metadata elsewhere
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
            return {"distribution": name, "version": version, "from": str(folder)}
    return {"version": "?", "from": str(folder)}


def find_owner(file: Path, names: Sequence[str]) -> tuple[str, str] | None:
    """Find the distribution that wrote a file: by its RECORD where several claim it."""
    candidates = list(_installed_beside(file, names))
    if len(candidates) > 1:
        written = [found for found in candidates if _wrote(found, file)]
        candidates = written or candidates
    if not candidates:
        return None
    return _normalise(candidates[0].metadata["Name"]), candidates[0].version


def _installed_beside(file: Path, names: Sequence[str]) -> Iterator[metadata.Distribution]:
    folder = file.parent.parent
    for found in metadata.distributions(path=[str(folder)]):
        if _normalise(found.metadata["Name"] or "") in names:
            listed = found.files
            # Metadata of an editable install may lie beside the file of another distribution.
            if listed is None or any(Path(str(found.locate_file(f))) == file for f in listed):
                yield found


def _wrote(found: metadata.Distribution, file: Path) -> bool:
    """Tell whether a distribution's RECORD has the hash of the file as it is now (PEP 376)."""
    for listed in found.files or ():
        if Path(str(found.locate_file(listed))) == file and listed.hash is not None:
            digest = hashlib.new(listed.hash.mode, file.read_bytes()).digest()
            return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == listed.hash.value
    return False


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def warn_of_upstream(group: click.Group) -> None:
    """Say once what an upstream Flask-Migrate lacks, and whether it has overwritten ours.

    Args:
        group: the application's commands.
    """
    found = describe_package("flask_migrate", _PACKAGES["flask_migrate"])
    if found.get("distribution") == _OURS or "ensure-version" in group.commands:
        return
    lacks = list(find_missing(group))
    fields: dict[str, Any] = {"flask_migrate": found, "lacks": lacks}
    if was_overwritten(found):
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


def was_overwritten(found: dict[str, str]) -> bool:
    """Tell whether the folder that upstream's files came from is the one that ours is in."""
    return found["from"] == str(Path(__file__).parent.parent)


def find_missing(group: click.Group) -> Iterator[str]:
    """List commands and options of our library that a group lacks."""
    for name, options in _COMFORTS.items():
        command = group.commands.get(name)
        if command is None:
            yield name
            continue
        flags = {flag for parameter in command.params for flag in parameter.opts}
        yield from (f"{name} {option}" for option in options if option not in flags)
