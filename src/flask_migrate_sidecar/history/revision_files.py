"""Says what is wrong with the files of the revisions, where they do not load or do not fit."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Final

import alembic.script

from flask_migrate_sidecar.application.import_failure import explain_import_error
from flask_migrate_sidecar.errors import (
    ConfigurationError,
    HistoryError,
    SidecarError,
    describe,
)
from flask_migrate_sidecar.log.origin import find_frame, shorten_path

# What Alembic says of a file that is not there, or that a link leads to nowhere from.
_NO_FILE: Final = re.compile(r"Can't find Python file (?P<file>.*)")


def is_missing_file(error: BaseException) -> bool:
    """Tell whether Alembic itself, and no code that it ran, says that there is no file."""
    frames = list_frames(error)
    return (
        isinstance(error, ImportError)
        and bool(_NO_FILE.match(describe(error)))
        and bool(frames)
        and frames[-1].filename.startswith(str(Path(alembic.script.__file__).parents[1]))
    )


def explain_no_file(error: BaseException) -> SidecarError:
    """Judge a file of the repository's that Alembic has not found."""
    found = _NO_FILE.match(describe(error))
    file = found["file"] if found else ""
    kind = HistoryError if was_loading(error) else ConfigurationError
    return kind(
        f"there is no file {file}",
        hint="check that the image or the volume holds the whole repository, and where links lead",
    )


def was_loading(error: BaseException) -> bool:
    """Tell whether Alembic was loading revision files, and not running one."""
    alembics = str(Path(alembic.script.__file__).parent)
    names = {frame.name for frame in list_frames(error) if frame.filename.startswith(alembics)}
    return bool(names & {"_load_revisions", "_initialize"})


def _find_clash(message: str, repository: Path | None) -> str:
    """Name the files that have one revision's id, or that follow one that is not there."""
    named = re.match(r"Revision (\S+)", message)
    if named is None or repository is None:
        return "the files in the folder of revisions show the clash"
    name = "revision" if "more than once" in message else "(?:down_revision|depends_on)"
    line = re.compile(rf"""^{name}\b[^=\n]*=.*["']{re.escape(named[1])}["']""", re.MULTILINE)
    files = [
        shorten_path(str(file))
        for file in sorted(repository.rglob("*.py"))
        if line.search(file.read_text(encoding="utf-8", errors="replace"))
    ]
    return f"it stands in {', '.join(files)}: rename one, remove one, or bring what is missing"


def explain_loading(error: BaseException, repository: Path | None) -> SidecarError:
    """Judge an error of a revision file, or of how the files fit together."""
    if isinstance(error, ImportError):
        return explain_import(error, None)
    where = find_file(error)
    text = f"{type(error).__name__}: {describe(error)}"
    if isinstance(error, UserWarning):
        return HistoryError(str(error), hint=_find_clash(str(error), repository))
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    return HistoryError(
        f"the revisions cannot be loaded: {text}",
        hint=f"mend the revision file {where}" if where else "mend or remove the revision file",
    )


def find_file(error: BaseException) -> str | None:
    """Find the revision file that an error is about."""
    if isinstance(error, SyntaxError) and error.filename:
        return str(error.filename)
    files = [frame.filename for frame in list_frames(error)]
    return next((file for file in reversed(files) if _is_revision(Path(file))), None)


def _is_revision(file: Path) -> bool:
    """Tell whether a file lies where revisions do: all of an application may be in `versions`."""
    if file.parent.name == "versions":
        return True
    folders = [folder for folder in file.parents if folder.name == "versions"]
    return any((folder.parent / "env.py").is_file() for folder in folders)


def explain_import(error: ImportError, repository: Path | None) -> SidecarError:
    """Judge an import that the migrations have tried."""
    where = find_file(error) or locate(error, repository)
    return explain_import_error(error, importer=where)


def was_of_alembic(error: BaseException) -> bool:
    """Tell whether Alembic itself raised it, while it joined the revisions."""
    frames = list_frames(error)
    return bool(frames) and frames[-1].filename.startswith(
        str(Path(alembic.script.__file__).parent)
    )


def list_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Give the lines that an error passed, the outermost first."""
    return list(traceback.extract_tb(error.__traceback__))


def locate(error: BaseException, repository: Path | None) -> str | None:
    """Name the last line of the migrations, or else of any code, that an error passed."""
    frame = find_frame(error, repository)
    if frame is None:
        return None
    return f"{frame.filename}:{frame.lineno}"
