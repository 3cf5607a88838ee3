"""Variables from `.env` and `.flaskenv`, as `flask` reads them."""

from __future__ import annotations

import os
from pathlib import Path

from flask_migrate_sidecar.errors import ConfigurationError


def load_dotenv(folder: Path) -> None:
    """Read `.env` and `.flaskenv` of the application, where python-dotenv is installed.

    Args:
        folder: of the application; one that is not there has no such files.

    Raises:
        ConfigurationError: a file is no text.
    """
    if os.environ.get("FLASK_SKIP_DOTENV", "0") not in {"", "0"}:
        return
    from flask.cli import load_dotenv as load

    before = Path.cwd()
    try:
        os.chdir(folder)
    except OSError:
        return
    try:
        load()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"the .env or .flaskenv of {folder} cannot be read: {reason}",
            hint="write it as UTF-8 text that this user may read, or set FLASK_SKIP_DOTENV=1",
        ) from error
    finally:
        os.chdir(before)
