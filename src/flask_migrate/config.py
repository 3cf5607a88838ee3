"""Alembic's configuration, with the project's templates and from either file form."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import alembic
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError

_PACKAGE = Path(__file__).resolve().parent


def parse_version(text: str) -> tuple[int, int, int]:
    """Read the first three numbers of a version; `1.21.0b1` is (1, 21, 0)."""
    numbers = [int(number) for number in re.findall(r"\d+", text)[:3]]
    return tuple([*numbers, 0, 0, 0][:3])  # type: ignore[return-value]


alembic_version = parse_version(alembic.__version__)
HAS_TOML = alembic_version >= (1, 16, 0)


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

    def get_template_directory(self) -> str:
        """Give the folder of the templates."""
        return self.template_directory or str(find_templates())


def find_pyproject(directory: Path) -> Path | None:
    """Find the nearest pyproject.toml at or above a repository, if it has `[tool.alembic]`."""
    for folder in (directory, *directory.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return path if "alembic" in _read_toml(path).get("tool", {}) else None
    return None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CommandError(f"{path} cannot be read: {error}") from error


def load_config(directory: str) -> Config:
    """Load the configuration of a migration repository.

    It is read from `alembic.ini` in the repository, from `[tool.alembic]` of the nearest
    pyproject.toml (Alembic 1.16 and later), or from both, the first winning.
    """
    ini = Path(directory, "alembic.ini")
    pyproject = find_pyproject(Path(directory).absolute()) if HAS_TOML else None
    if pyproject is None:
        config = Config(str(ini))
    else:
        config = Config(str(ini) if ini.exists() else None, toml_file=pyproject)
    config.set_main_option("script_location", escape(directory))
    return config
