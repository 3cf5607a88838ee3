"""Variables from `.env` and `.flaskenv`, as `flask` reads them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from flask_migrate_sidecar.errors import ConfigurationError

from .broken_packages import broken_packages_explained


def load_dotenv(folder: Path) -> None:
    """Read `.env` and `.flaskenv` of the application, where python-dotenv is installed.

    Args:
        folder: of the application; one that is not there has no such files.

    Raises:
        ConfigurationError: a file cannot be read, or its text is none.
    """
    if os.environ.get("FLASK_SKIP_DOTENV", "0") not in {"", "0"}:
        return
    with broken_packages_explained():
        from flask.cli import load_dotenv as load

    before = Path.cwd()
    try:
        os.chdir(folder)
    except OSError:
        return
    try:
        load()
    except (OSError, ValueError) as error:
        raise _explain(error, folder) from error
    finally:
        # One that may not be entered again is not needed either: nothing can be relative to it.
        with suppress(PermissionError):
            os.chdir(before)


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
