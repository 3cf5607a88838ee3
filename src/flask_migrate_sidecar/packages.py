"""Puts the application's own packages first, before any package is imported.

Only the standard library is imported here.
"""

from __future__ import annotations

import re
import site
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import ConfigurationError

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


def add_site_packages(folders: Iterable[str], *, beside: Path) -> list[Path]:
    """Put the packages of other environments before all that is installed here.

    Args:
        folders: site-packages folders, or virtual environments; if there are none, a `.venv`
            beside the application is taken.
        beside: folder of the application.

    Returns:
        The folders that are searched first.

    Raises:
        ConfigurationError: there is no such folder, or it was made for another Python.
    """
    given = [Path(folder).absolute() for folder in folders]
    if not given and (beside / ".venv").is_dir():
        given = [beside / ".venv"]
    found = [_find_site_packages(folder) for folder in given]
    before = list(sys.path)
    for folder in found:
        # addsitedir appends, and reads the .pth files of editable installs.
        site.addsitedir(str(folder))
    added = [path for path in sys.path if path not in before]
    own = [str(folder) for folder in found]
    sys.path[:] = [*dict.fromkeys([*own, *added]), *(p for p in before if p not in own)]
    return found


def _find_site_packages(folder: Path) -> Path:
    """Find the packages of a virtual environment; another folder is taken as it is."""
    if not folder.is_dir():
        raise ConfigurationError(
            f"--site-packages {folder}: there is no such folder",
            hint="check what is mounted there",
        )
    if folder.name in {"site-packages", "dist-packages"}:
        _check_version(folder, folder.parent.name)
        return folder
    environments = sorted(folder.glob("lib/python3*/site-packages"))
    fitting = [path for path in environments if path.parent.name == _VERSION]
    if environments and not fitting:
        _check_version(folder, environments[0].parent.name)
    return fitting[0] if fitting else folder


def _check_version(folder: Path, name: str) -> None:
    if re.fullmatch(r"python3\.\d+", name) and name != _VERSION:
        raise ConfigurationError(
            f"--site-packages {folder} was made for {name}, but this is {_VERSION}",
            hint=f"use the image for {name}, or build the application's packages for {_VERSION}",
        )
