"""Which frames of a long traceback are told: those of the application before those of packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

_MOST: Final = 30
# Of those of one kind that are too many, as in a recursion, so many from the outside.
_OUTERMOST: Final = 8
_PACKAGES: Final = ("site-packages", "dist-packages")
# Whoever brings packages in a folder of any name has these among them.
_KNOWN_PACKAGES: Final = ("alembic", "sqlalchemy", "flask", "click")
_LIBRARY: Final = str(Path(os.__file__).parent)
# Our own two packages.
_OURS: Final = str(Path(__file__).parents[1]).removesuffix("_sidecar")

# Folders of the application's, which may be installed among packages.
_own: Final[set[str]] = set()


def know_folder(folder: Path) -> None:
    """Tell the frames of a folder's files from those of packages from now on."""
    _own.add(f"{folder.absolute()}/")


def choose(frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what is too much: frames of packages first, the outer ones before the inner ones.

    Args:
        frames: as structlog gives them, the outermost first.

    Returns:
        The frames, and for those that are left out between two an entry with their number,
        `skipped`.
    """
    if len(frames) <= _MOST:
        return [*frames]
    own = [number for number, frame in enumerate(frames) if is_own(frame["filename"])]
    others = [number for number, frame in enumerate(frames) if not is_own(frame["filename"])]
    chosen = {*_thin_out(own, _MOST)}
    chosen |= {*_thin_out(others, _MOST - len(chosen), outermost=0)}
    return list(_with_gaps(frames, sorted(chosen)))


def is_own(file: str) -> bool:
    """Tell whether a file is the application's, and not one of a package or of Python's own."""
    inside = [file.removeprefix(folder) for folder in _own if file.startswith(folder)]
    # The packages may lie beside the application in a folder of its own.
    if any(not _is_installed(f"/{rest}") for rest in inside):
        return True
    # What is no file, as `<frozen importlib>`, was made by Python or a package.
    return not file.startswith(("<", _LIBRARY, _OURS)) and not _is_installed(file)


def _is_installed(file: str) -> bool:
    beside = (getattr(sys.modules.get(name), "__file__", None) for name in _KNOWN_PACKAGES)
    folders = tuple(f"{Path(known).parents[1]}/" for known in beside if known)
    return file.startswith(folders) or any(f"/{name}/" in file for name in _PACKAGES)


def _thin_out(numbers: Sequence[int], most: int, outermost: int = _OUTERMOST) -> list[int]:
    if len(numbers) <= most:
        return [*numbers]
    inner = most - min(outermost, most)
    return [*numbers[: most - inner], *numbers[len(numbers) - inner :]]


def _with_gaps(frames: Sequence[dict[str, Any]], chosen: Sequence[int]) -> Iterator[dict[str, Any]]:
    following = 0
    for number in [*chosen, len(frames)]:
        if number > following:
            yield {"skipped": number - following}
        if number < len(frames):
            yield frames[number]
        following = number + 1
