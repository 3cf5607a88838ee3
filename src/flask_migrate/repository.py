"""Creates migration repositories from templates."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.util import CommandError

from .config import HAS_TOML, Config, escape, find_pyproject, version_text
from .coverage import list_binds
from .seen import logger
from .state import find_state

# `here` is the folder of pyproject.toml, so that Alembic's own command finds the repository too.
_TOOL_ALEMBIC = """\
[tool.alembic]
script_location = {location}
"""


def create_repository(directory: str, template: str, *, package: bool, pyproject: bool) -> None:
    """Fill a directory from a template.

    Args:
        directory: where to.
        template: name of one of ours, or, with a slash in it, the path of another.
        package: make the directory and its versions Python packages.
        pyproject: keep the configuration in pyproject.toml, not in alembic.ini.

    Raises:
        CommandError: the directory is not empty; no such template; pyproject.toml is taken, or
            the installed Alembic does not read it.
    """
    toml = _find_place(Path(directory)) if pyproject else None
    folder, name = os.path.split(template.rstrip("/\\"))
    config = Config(
        os.path.join(directory, "alembic.ini"),  # noqa: PTH118 - the text as the user gave it
        template_directory=folder or None,
    )
    config.set_main_option("script_location", escape(directory))
    config = find_state().migrate.call_configure_callbacks(config)
    command.init(config, directory, template=name, package=package)
    _warn_of_binds(Path(directory))
    if toml is not None:
        Path(directory, "alembic.ini").unlink(missing_ok=True)
        _append_section(toml, Path(directory))


def _warn_of_binds(directory: Path) -> None:
    """Say that the application has several databases, where the repository is for one."""
    binds: list[str] = []
    with suppress(Exception):  # no database at all yet, or none that can be asked, is fine for init
        binds = list_binds()
    if binds and "engine_name" not in (directory / "env.py").read_text(encoding="utf-8"):
        logger.warning(
            "The application has more databases than its main one (%s), and this repository is "
            "for one: for all of them, delete it and take 'init --multidb'.",
            ", ".join(binds),
        )


def _find_place(directory: Path) -> Path:
    """Choose the pyproject.toml that is to name the repository."""
    if not HAS_TOML:
        raise CommandError(
            f"Alembic {version_text()} does not read pyproject.toml; 1.16 and later do."
        )
    taken = find_pyproject(directory.absolute())
    if taken is not None:
        raise CommandError(f"{taken} already has a [tool.alembic] section.")
    folders = [*directory.absolute().parents]
    home = Path.cwd() if Path.cwd() in folders else folders[0]
    places = (folder / "pyproject.toml" for folder in folders)
    return next((place for place in places if place.is_file()), home / "pyproject.toml")


def _append_section(toml: Path, directory: Path) -> None:
    location = directory.absolute().relative_to(toml.parent).as_posix()
    text = toml.read_text(encoding="utf-8").rstrip() if toml.exists() else ""
    # JSON's strings are TOML's.
    section = _TOOL_ALEMBIC.format(location=json.dumps(f"%(here)s/{escape(location)}"))
    toml.write_text(f"{text}\n\n{section}" if text else section, encoding="utf-8")
