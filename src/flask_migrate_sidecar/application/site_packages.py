"""Puts the application's own packages first, before any package is imported.

Only the standard library is imported here.
"""

from __future__ import annotations

import io
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flask_migrate_sidecar.errors import ConfigurationError, describe

from .driver_fallback import replace_broken_drivers

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_TAG = re.compile(r"^Tag: *(?P<python>\S+?)-(?P<abi>\S+?)-(?P<platform>\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Packages:
    """Where packages are searched.

    Args:
        folders: the application's own, searched first.
        added: those, and what their `.pth` files name.
        complaints: what their `.pth` files printed or raised.
        replaced: drivers of the application's that do not load, each with the reason.
    """

    folders: tuple[Path, ...] = ()
    added: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)


def add_site_packages(folders: Iterable[str], *, beside: Path) -> Packages:
    """Put the packages of other environments before all that is installed here.

    Args:
        folders: site-packages folders, or virtual environments; if there are none, a `.venv`
            beside the application is taken.
        beside: folder of the application.

    Raises:
        ConfigurationError: there is no such folder, or it was made for another Python or platform.
    """
    given = [(Path(folder).absolute(), f"--site-packages {folder}") for folder in folders]
    if not given and _is_folder(beside / ".venv"):
        given = [(beside / ".venv", f"the application's environment {beside / '.venv'}")]
    found = tuple(_find_readable(folder, name) for folder, name in given)
    before = list(sys.path)
    complaints = tuple(line for folder in found for line in _add_folder(folder))
    own = [str(folder) for folder in found]
    added = [*dict.fromkeys([*own, *(path for path in sys.path if path not in before)])]
    sys.path[:] = [*added, *(path for path in before if path not in added)]
    return Packages(found, tuple(added), complaints, replace_broken_drivers(added))


def _is_folder(path: Path) -> bool:
    """Tell whether a folder is there; what may not be looked at is left to `--app-dir` to tell."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _find_readable(folder: Path, name: str) -> Path:
    """Find the packages of an environment that this user may read and that fits this Python."""
    try:
        # A search by pattern passes over what may not be read.
        for path in (folder, folder / "lib", *folder.glob("lib/python3*")):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path):
                pass
        found = _find_site_packages(folder, name)
        next(found.iterdir(), None)
        _check_platform(found, name)
    except OSError as error:
        raise ConfigurationError(
            f"{name} cannot be read: {error.strerror}",
            hint="let this user read it, or name another folder with --site-packages",
        ) from error
    return found


def _add_folder(folder: Path) -> list[str]:
    """Read the `.pth` files of editable installs too; give what they printed.

    They run before the log is there, and their complaints would be no lines of it.

    Raises:
        ConfigurationError: one of them would have ended the process.
    """
    for path in folder.glob("*.pth"):
        if not os.access(path, os.R_OK):  # `site` passes over it
            raise ConfigurationError(
                f"{path} cannot be read", hint="let this user read it, or remove it"
            )
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            # Appends: the caller moves what is new to the front.
            site.addsitedir(str(folder))
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        # What else they raise `site` prints and passes over.
        raise ConfigurationError(
            f"a .pth file in {folder} ended the process: {type(error).__name__}: {describe(error)}",
            hint="remove it, or name another folder with --site-packages",
        ) from error
    except UnicodeError as error:
        raise ConfigurationError(
            f"a .pth file in {folder} is not UTF-8", hint="remove it, or write it as UTF-8"
        ) from error
    return printed.getvalue().splitlines()


def _find_site_packages(folder: Path, name: str) -> Path:
    """Find the packages of a virtual environment; another folder is taken as it is."""
    if not folder.is_dir():
        raise ConfigurationError(
            f"{name}: there is no such folder", hint="check what is mounted there"
        )
    if folder.name in {"site-packages", "dist-packages"}:
        _check_version(folder.parent.name, name)
        return folder
    environments = sorted(folder.glob("lib/python3*/site-packages"))
    fitting = [path for path in environments if path.parent.name == _VERSION]
    if environments and not fitting:
        _check_version(environments[0].parent.name, name)
    if (folder / "Lib" / "site-packages").is_dir() and not environments:
        raise _foreign(name, "Windows", _platform())
    return fitting[0] if fitting else folder


def _check_version(made_for: str, name: str) -> None:
    if re.fullmatch(r"python3\.\d+", made_for) and made_for != _VERSION:
        raise _foreign(name, made_for, _VERSION)


def _check_platform(folder: Path, name: str) -> None:
    """Refuse packages whose compiled parts are for another Python, system or processor.

    Each wheel that was installed keeps its tags (PyPA, "Binary distribution format", WHEEL).
    """
    for wheel in sorted(folder.glob("*.dist-info/WHEEL")):
        text = wheel.read_text(encoding="utf-8", errors="replace")
        foreign = [_find_foreign(**match.groupdict()) for match in _TAG.finditer(text)]
        if foreign and all(foreign):
            package = wheel.parent.name.removesuffix(".dist-info")
            made_for, here = next(pair for pair in foreign if pair)
            raise _foreign(f"{name} (package {package})", made_for, here)


def _find_foreign(python: str, abi: str, platform: str) -> tuple[str, str] | None:
    """Give what a wheel's tag asks for and what is here, or None where it fits."""
    version = re.fullmatch(r"cp3(\d+)", abi)
    if version and int(version[1]) != sys.version_info.minor:
        return f"python3.{version[1]}", _VERSION
    least = re.fullmatch(r"cp3(\d+)", python)
    if abi == "abi3" and least and int(least[1]) > sys.version_info.minor:
        return f"python3.{least[1]}", _VERSION
    if platform == "any" or any(platform.startswith(prefix) for prefix in _platform_prefixes()):
        machine = _machine()
        if platform == "any" or sys.platform == "darwin" or platform.endswith(machine):
            return None
    return platform, _platform()


def _platform_prefixes() -> Iterator[str]:
    if sys.platform == "darwin":
        yield "macosx"
    elif sys.platform == "linux":
        yield "linux_"
        yield "musllinux" if _is_musl() else "manylinux"
    else:
        yield sys.platform


def _is_musl() -> bool:
    return "musl" in str(sysconfig.get_config_var("SOABI") or "")


def _machine() -> str:
    return re.split(r"[-.]", sysconfig.get_platform(), maxsplit=1)[-1]


def _platform() -> str:
    """Name this platform, with its C library: wheels for one do not run on the other."""
    libc = {True: "_musl", False: "_glibc"}[_is_musl()] if sys.platform == "linux" else ""
    return sysconfig.get_platform().replace("-", "_") + libc


def _foreign(name: str, made_for: str, here: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} was made for {made_for}, but this is {here}",
        hint=f"use the image for {made_for}, or build the application's packages for {here}; a "
        ".venv that is not meant for this image must not be mounted, or name another folder with "
        "--site-packages",
    )
