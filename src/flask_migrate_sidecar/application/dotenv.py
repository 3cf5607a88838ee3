"""Variables from `.env` and `.flaskenv`, as `flask` reads them."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from flask_migrate_sidecar.errors import ConfigurationError

from .broken_packages import broken_packages_explained

# By then the packages were searched: one of them reads the file.
_TOO_LATE: Final = ("MIGRATE_SITE_PACKAGES", "MIGRATE_SITE_PACKAGES_FILE")


def load_dotenv(folder: Path) -> None:
    """Read `.env` and `.flaskenv` of the application, where python-dotenv is installed.

    Args:
        folder: of the application; one that is not there has no such files.

    Raises:
        ConfigurationError: a file cannot be read, its text is none, or it sets what counts before.
    """
    if os.environ.get("FLASK_SKIP_DOTENV", "0") not in {"", "0"}:
        return
    with broken_packages_explained():
        from flask.cli import load_dotenv as load

        if find_spec("dotenv") is not None:
            import dotenv  # noqa: F401 - as Flask will

    before = Path.cwd()
    try:
        os.chdir(folder)
    except OSError:
        return
    known = [os.environ.get(name) for name in _TOO_LATE]
    try:
        load()
    except (OSError, ValueError) as error:
        raise _explain(error, folder) from error
    finally:
        # One that may not be entered again is not needed either: nothing can be relative to it.
        with suppress(PermissionError):
            os.chdir(before)
    if known != [os.environ.get(name) for name in _TOO_LATE]:
        raise ConfigurationError(
            f"{_TOO_LATE[0]} stands in .env or .flaskenv, which one of those packages reads",
            hint="set it in the environment, or give --site-packages",
        )


def _explain(error: OSError | ValueError, folder: Path) -> ConfigurationError:
    file, reason = f"the .env or .flaskenv of {folder}, or of a folder above it,", str(error)
    if isinstance(error, OSError):
        file, reason = str(error.filename or file), str(error.strerror)
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    return ConfigurationError(
        f"{file} cannot be read: {reason}",
        hint="write it as UTF-8 text that this user may read, or set FLASK_SKIP_DOTENV=1",
    )
