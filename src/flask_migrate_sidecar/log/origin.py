"""Where an error was raised, told in the application's terms: file and line, and the statement."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import StatementError

from flask_migrate_sidecar.errors import chain, describe

from .frames import is_own
from .redaction import find_bound, find_quotations, secrets

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
    failed = next((cause for cause in chain(error) if _is_of_statement(cause)), None)
    if isinstance(failed, StatementError) and failed.statement is not None:
        secrets.add(find_quotations(failed.statement, describe(failed.orig)))
        secrets.add(find_bound(failed.statement, failed.params))
        found["statement"] = failed.statement[:_LONGEST]
    return found


def _is_of_statement(error: BaseException) -> bool:
    """Tell whether it is SQLAlchemy's error of what the database was asked."""
    return isinstance(error, StatementError) and bool(error.statement)


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
