"""Says which of the packages that we stand on cannot be imported, and why.

Only the standard library is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Final

from flask_migrate_sidecar.errors import ConfigurationError, Interrupted, SidecarError, describe

_OURS: Final = __name__.partition(".")[0]
_PYTHON: Final = f"Python {sys.version_info.major}.{sys.version_info.minor}"


def require_extra() -> None:
    """Want the packages that the log itself needs.

    Raises:
        ConfigurationError: the extra was not installed.
    """
    if find_spec("structlog") is None:
        raise ConfigurationError(
            "structlog is not installed", hint="pip install 'flask-migrate-sidecar[sidecar]'"
        )


@contextmanager
def broken_packages_explained() -> Iterator[None]:
    """Say what is wrong where Flask, Alembic or another package cannot be imported by the block.

    A package that is too old for this Python raises whatever it likes; some end the process, and
    nobody pressed a key for a KeyboardInterrupt that no signal sent.

    Raises:
        ConfigurationError: one of them is missing, or does not fit the others or this Python.
    """
    try:
        yield
    except (SidecarError, Interrupted, MemoryError):
        raise
    except BaseException as error:
        package = _find_package(error.__traceback__)
        subject = _describe_package(package) if package else "the installed packages"
        reason = describe(error)
        if not isinstance(error, ImportError):
            reason = f"{type(error).__name__}: {reason}"
        raise ConfigurationError(
            f"{subject} cannot be imported: {reason}",
            hint=f"install releases that fit each other and {_PYTHON}; 'pip check' in that "
            "environment, --site-packages included, shows what does not",
        ) from error


def _find_package(trace: TracebackType | None) -> str | None:
    """Find the first package on the way to an error that is neither ours nor Python's."""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if name not in {_OURS, "importlib", "__main__"} | sys.stdlib_module_names:
            return name
        trace = trace.tb_next
    return None


def _describe_package(name: str) -> str:
    """Give a package's name, release and folder, as far as they are known."""
    from importlib import metadata

    spec = find_spec(name)
    folder = f" in {spec.origin.rpartition('/')[0]}" if spec and spec.origin else ""
    with suppress(metadata.PackageNotFoundError):
        return f"{name} {metadata.version(name)}{folder}"
    return name + folder
