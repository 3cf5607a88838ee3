"""What every event goes through on its way to a line: level, time, traceback, masking, order."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from . import frames, redaction

Event = MutableMapping[str, Any]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_LAST: Final = frozenset({"command.finished", "command.failed"})
_FIRST: Final = ("timestamp", "level", "event", "logger")
# A password can be a word like `info` or `database`: what no user wrote stays readable.
_NO_SECRET: Final = frozenset({"timestamp", "level"})
# What one of our own loggers adds to its events, and nobody else can.
OURS: Final = "_flask_migrate_sidecar"
# Under this the application's fields come to us: a logger's methods have parameters of their own.
THEIRS: Final = "_fields_of_the_application"
# Characters of a statement that are told, when what is secret in it is hidden.
_LONGEST_STATEMENT: Final = 2_000
# What of our own lines tells which is which; no user wrote it.
_MACHINE: Final = frozenset({"event", "logger", "command", "database", "exit_code"})

# Which of them are told is chosen below; Python's own limit of a recursion is 1,000.
_ALL: Final = 100_000
_transform_exception: Final = structlog.tracebacks.ExceptionDictTransformer(
    show_locals=False, max_frames=_ALL
)


def is_last(event: Event) -> bool:
    """Tell whether it is the event that ends a run: one of ours, whatever others call theirs."""
    return event.get("event") in _LAST and OURS in event


def add_level(_logger: object, method: str, event: Event) -> Event:
    """Add the level; a record of the standard library may have one of its own."""
    event["level"] = event.pop("record_level", None) or method.replace("exception", "error")
    return event


def add_timestamp(_logger: object, _method: str, event: Event) -> Event:
    """Add the time in UTC, as RFC 3339 writes it."""
    moment = event.pop("record_time", None) or time.time()
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    event["timestamp"] = text.replace("+00:00", "Z")
    return event


def render_exception(exc_info: Any) -> list[dict[str, Any]]:
    """Give a traceback as data, without the frames that are too many."""
    _cut_loop(exc_info[1])
    stacks: list[dict[str, Any]] = _transform_exception(exc_info)
    return [{**stack, "frames": frames.choose(stack["frames"])} for stack in stacks]


def _cut_loop(error: BaseException | None) -> None:
    """Let an exception not come of itself, as by `raise error from error`.

    structlog before 25.5 follows such a loop without end.
    """
    seen: set[int] = set()
    while error is not None:
        seen.add(id(error))
        following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if id(following) in seen:
            # This hides the context too.
            error.__cause__ = following = None
        error = following


def mask(_logger: object, _method: str, event: Event) -> Event:
    """Hide what is secret, wherever in the event it stands: in names and events of others too."""
    plain = _NO_SECRET | ({*_MACHINE, OURS} if OURS in event else set())
    hide = redaction.secrets.hide_field
    shown = {key: value if key in plain else hide(key, value) for key, value in event.items()}
    statement = shown.get("statement")
    if OURS in event and isinstance(statement, str) and len(statement) > _LONGEST_STATEMENT:
        shown["statement"] = statement[:_LONGEST_STATEMENT] + "..."
    return shown


def put_first(_logger: object, _method: str, event: Event) -> Event:
    """Put what every line has first, where the eye looks for it."""
    return {**{key: event[key] for key in _FIRST if key in event}, **event}
