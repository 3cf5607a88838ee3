"""Where an error was raised, told in the application's terms: file and line, and the statement."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import StatementError

from flask_migrate_sidecar.errors import chain

from .frames import is_own

# Characters of a statement that are looked at; fewer are told, when what is secret is hidden.
_LONGEST: Final = 100_000


def describe_origin(error: BaseException, folder: Path | None = None) -> dict[str, Any]:
    """Give the fields of the last line that say where an error was raised.

    Args:
        error: what was raised.
        folder: of the migrations, whose last line counts before any other.

    Returns:
        `where`, a file and a line; `source`, the text of that line; `statement`, what the database
        was asked. What is not known is left out.
    """
    found: dict[str, Any] = {}
    frame = find_frame(error, folder)
    if isinstance(error, SyntaxError) and error.filename:
        found["where"] = f"{shorten_path(error.filename)}:{error.lineno}"
    elif frame is not None:
        found["where"] = f"{shorten_path(frame.filename)}:{frame.lineno}"
        found |= {"source": frame.line} if frame.line else {}
    statement = next(filter(None, map(_find_statement, chain(error))), None)
    if statement is not None:
        found["statement"] = statement[:_LONGEST]
    return found


def _find_statement(error: BaseException) -> str | None:
    """Give what the database was asked, if it is SQLAlchemy's error of that."""
    if not isinstance(error, StatementError):
        return None
    return error.statement if isinstance(error.statement, str) else None


def find_frame(error: BaseException, folder: Path | None = None) -> traceback.FrameSummary | None:
    """Find the last line of the migrations, or else of the application, that an error passed."""
    frames = list(traceback.extract_tb(error.__traceback__))
    root = f"{folder.absolute()}/" if folder is not None else None
    inside = [frame for frame in frames if root and frame.filename.startswith(root)]
    own = inside or [frame for frame in frames if is_own(frame.filename)]
    return own[-1] if own else None


def shorten_path(file: str) -> str:
    """Give a path as the application's folder sees it, where it lies below."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
