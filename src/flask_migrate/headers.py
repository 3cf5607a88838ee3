"""Reads what makes the history out of revision files, which are imported only where they run.

Four names say how revisions follow from one another (Alembic manual, "Create a Migration Script").
Where they are written as every template writes them, one line each before all other code, the text
alone tells what they are; of any other file, Python does.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import alembic.util

NAMES = ("revision", "down_revision", "branch_labels", "depends_on")

# One text in quotes without a backslash, as each of the templates has it.
_TEXT = r"""'[^'"\\\n]*'|"[^'"\\\n]*\""""
_VALUE = rf"(?:None|{_TEXT}|[(\[]\s*(?:(?:{_TEXT})\s*,?\s*)*[)\]])"
_DOCSTRING = re.compile(
    r'\s*(?:"""((?:[^"\\]|"(?!""))*)"""'
    r"|'''((?:[^'\\]|'(?!''))*)''')[ \t]*\n"
)
_LINE = re.compile(
    # Nothing, a comment, or an import that makes no name of its choice.
    r"(?:[ \t]*|(?:from[ \t]+[\w.]+[ \t]+)?import[ \t]+[\w.]+(?:[ \t]+as[ \t]+\w+)?"
    r"(?:[ \t]*,[ \t]*\w+)*[ \t]*"
    rf"|(?P<name>{'|'.join(NAMES)})[ \t]*(?::[^=#\n]+)?=[ \t]*(?P<value>{_VALUE})[ \t]*)"
    r"(?:#[^\n]*)?\n"
)
_MENTION = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")
# How else a module can come to a name; and functions that are asked for by name, of which an older
# revision may lack some.
_ODD = re.compile(
    r"\b(?:globals|locals|vars|exec|eval|setattr|__dict__|__doc__|modules|__getattr__)\b"
    r"|\bimport[ \t]*\(?[ \t\n]*\*|\bdef[ \t]+(?:up|down)grade_|coding[:=]"
)


def read_header(text: str) -> dict[str, Any] | None:
    """Read the four names, and the docstring as `__doc__`, out of a revision's text.

    Returns:
        Those that it has, None where only Python can tell.
    """
    if _ODD.search(text) or "\r" in text or "\f" in text:
        return None
    found: dict[str, Any] = {"__doc__": None}
    docstring = _DOCSTRING.match(text)
    position = 0
    if docstring is not None:
        words = docstring[1] if docstring[1] is not None else docstring[2]
        # Python 3.13 and later take the indentation out.
        if re.search(r"(?:^|\n)[ \t]", words):
            return None
        found["__doc__"] = words
        position = docstring.end()
    start = position
    while (line := _LINE.match(text, position)) is not None:
        if line["name"] is not None:
            if line["name"] in found:
                return None
            found[line["name"]] = literal_eval(line["value"])
        position = line.end()
    mentions = len(_MENTION.findall(_without_comments(text[start:])))
    is_whole = {"revision", "down_revision"} <= found.keys()
    return found if is_whole and mentions == len(found) - 1 else None


def _without_comments(text: str) -> str:
    return re.sub(r"(?m)^[ \t]*#.*$", "", text)


class LazyRevision(ModuleType):
    """A revision's module that runs its file when more of it is asked for than its header says.

    Args:
        name: of the module.
        path: of its file.
        header: as `read_header` gives it.
    """

    def __init__(self, name: str, path: Path, header: dict[str, Any]) -> None:
        super().__init__(name)
        vars(self).update(header)
        loader = importlib.machinery.SourceFileLoader(name, str(path))
        self.__spec__ = importlib.util.spec_from_file_location(name, path, loader=loader)
        self.__loader__, self.__file__ = loader, str(path)
        self._is_loaded = False

    def __getattr__(self, name: str) -> Any:
        """Run the file: what was asked for is not in its header."""
        # Alembic asks for names of its own too, which no file has.
        if self._is_loaded or name in NAMES or name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.load()
        return getattr(self, name)

    def load(self) -> None:
        """Run the file, once.

        Raises:
            Exception: what it raises; the next one who asks runs it again.
        """
        if self._is_loaded:
            return
        before = dict(vars(self))
        vars(self)["_is_loaded"] = True
        try:
            self.__loader__.exec_module(self)  # type: ignore[union-attr]
        except BaseException:
            # What it has made until then is no revision.
            vars(self).clear()
            vars(self).update(before)
            raise


@contextmanager
def read_lazily() -> Iterator[None]:
    """Let Alembic take headers for modules while it reads the files of a repository."""
    load = alembic.util.load_python_file

    def load_or_read(folder: Any, name: str) -> ModuleType:
        path = Path(folder, name)
        if path.suffix == ".py" and name != "env.py":
            with suppress(OSError, UnicodeError):
                header = read_header(path.read_text(encoding="utf-8"))
                if header is not None:
                    return LazyRevision(re.sub(r"\W", "_", name), path, header)
        return load(folder, name)

    vars(alembic.util)["load_python_file"] = load_or_read
    try:
        yield
    finally:
        vars(alembic.util)["load_python_file"] = load
