"""Alembic's configuration, with the project's templates and from either file form."""

from __future__ import annotations

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError

if TYPE_CHECKING:
    from sqlalchemy import URL

_PACKAGE = Path(__file__).resolve().parent


def parse_version(text: str) -> tuple[int, int, int]:
    """Read the first three numbers of a version; `1.21.0b1` is (1, 21, 0)."""
    release = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major, minor, patch


alembic_version = parse_version(alembic.__version__)
HAS_TOML = alembic_version >= (1, 16, 0)


def version_text() -> str:
    """Give Alembic's version, for messages."""
    return ".".join(map(str, alembic_version))


def find_templates() -> Path:
    """Find our repository templates: in the installed package, else in the checkout."""
    packaged = _PACKAGE / "templates"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "templates"


def escape(text: str) -> str:
    """Escape `%` for ConfigParser, which would interpolate it."""
    return text.replace("%", "%%")


class _Substitutions(dict[str, Any]):
    """Values for `%(name)s`; Alembic sets `here` unescaped, and a `%` in a path would raise."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, escape(str(value)))


class Config(AlembicConfig):
    """Alembic's `Config`, whose templates are ours.

    Args:
        template_directory: folder that holds other templates.
        *args: as for Alembic's `Config`.
        **kwargs: as for Alembic's `Config`.
    """

    def __init__(self, *args: Any, template_directory: str | None = None, **kwargs: Any) -> None:
        self.template_directory = template_directory
        # Alembic binds sys.stdout when it is imported, which here is late: take today's.
        if len(args) <= 1:
            kwargs.setdefault("stdout", sys.stdout)
        super().__init__(*args, **kwargs)
        self.config_args = _Substitutions(self.config_args)
        # The application's databases, where there is one.
        self.list_urls: Callable[[], list[URL]] = list

    def set_section_option(self, section: str, name: str, value: str) -> None:
        """Set an option, and mend the URLs that old files `env.py` make of the application's.

        Up to Flask-Migrate 2.4 they do not escape `%`; those of 2.5.3 to 2.6.0 take `str(url)`,
        which since SQLAlchemy 1.4 has `***` where the password was.
        """
        if name == "sqlalchemy.url" and ":***@" in value:
            value = self._find_whole_url(value)
        try:
            super().set_section_option(section, name, value)
        except ValueError:
            super().set_section_option(section, name, escape(value))

    def _find_whole_url(self, text: str) -> str:
        """Give the application's URL that the text is without its password."""
        for url in self.list_urls():
            if str(url) == text.replace("%%", "%"):
                return escape(url.render_as_string(hide_password=False))
        return text

    def get_template_directory(self) -> str:
        """Give the folder of the templates."""
        return self.template_directory or str(find_templates())


def find_pyproject(directory: Path) -> Path | None:
    """Find the nearest pyproject.toml at or above a repository, if it has `[tool.alembic]`."""
    for folder in (directory, *directory.parents):
        path = folder / "pyproject.toml"
        if os.path.isfile(path):  # noqa: PTH113 - Path's own raises where a folder is closed
            return path if read_section(path) is not None else None
    return None


def read_section(pyproject: Path) -> dict[str, Any] | None:
    """Read `[tool.alembic]` of a pyproject.toml; None where it has no such section.

    Raises:
        CommandError: the file is malformed or unreadable.
    """
    try:
        document = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{pyproject} cannot be read: {error}") from error
    tool = document.get("tool")
    section = tool.get("alembic") if isinstance(tool, dict) else None
    return section if isinstance(section, dict) else None


def load_config(directory: str, section: str = "alembic") -> Config:
    """Load the configuration of a migration repository.

    It is read from `alembic.ini` in the repository, from `[tool.alembic]` of the nearest
    pyproject.toml (Alembic 1.16 and later), or from both, the first winning.

    Args:
        directory: the repository.
        section: name of the section of alembic.ini.

    Raises:
        CommandError: a file is malformed.
    """
    ini = Path(directory, "alembic.ini")
    pyproject = _find_section_for(Path(directory)) if HAS_TOML else None
    if pyproject is None:
        config = Config(str(ini), ini_section=section)
    else:
        file = str(ini) if ini.exists() else None
        config = Config(file, toml_file=pyproject, ini_section=section)
    try:
        config.set_main_option("script_location", escape(directory))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise CommandError(f"{ini} cannot be read: {error}") from error
    _divide_paths(config)
    if not HAS_TOML:
        _translate_separator(config)
    return config


def _find_section_for(directory: Path) -> Path | None:
    """Find the pyproject.toml that a repository has its configuration in, or a part of it.

    A section that names another repository is not for this one, if this one has an alembic.ini;
    and what is wrong with a pyproject.toml is no business of it then.
    """
    has_ini = (directory / "alembic.ini").exists()
    try:
        pyproject = find_pyproject(directory.absolute())
    except CommandError:
        if has_ini:
            return None
        raise
    if pyproject is None or not has_ini:
        return pyproject
    named = (read_section(pyproject) or {}).get("script_location", directory)
    named = str(named).replace("%(here)s", str(pyproject.parent)).replace("%%", "%")
    return pyproject if Path(named).resolve() == directory.resolve() else None


def _divide_paths(config: Config) -> None:
    """Take a list with spaces or commas for one, as Alembic does without a `path_separator`.

    Ours is `os`, in alembic.ini; what is written for Flask-Migrate's own, which has none, would be
    one path that is not there.
    """
    if config.get_main_option("path_separator") != "os":
        return
    for option in ("version_locations", "prepend_sys_path"):
        whole = config.get_main_option(option)
        if not whole or os.pathsep in whole or Path(whole).exists():
            continue
        # As it is written: a space in what `%(here)s` stands for divides nothing.
        text = config.file_config.get(config.config_ini_section, option, raw=True)
        parts = [part for part in re.split(r"[,\s]+", text) if part]
        config.set_main_option(option, os.pathsep.join(parts))


def _translate_separator(config: Config) -> None:
    """Give Alembic before 1.16 the `path_separator` of our alembic.ini under its old name."""
    separator = config.get_main_option("path_separator")
    if separator and not config.get_main_option("version_path_separator"):
        config.set_main_option("version_path_separator", separator)
