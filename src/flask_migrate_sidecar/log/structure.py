"""What the application gives its records beside their text stays structure in our lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from flask_migrate_sidecar.errors import describe

from .events import OURS, THEIRS

_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
# Names that our lines have a meaning of their own for: what the application calls so is in `app`.
_TAKEN: Final = frozenset(
    {
        *("timestamp", "level", "event", "logger", "command", "pod", "namespace", "node"),
        *("stream", "text", "part", "parts", "cut", "exception", "exc_info", "stack", "app"),
        *("record_time", "record_level", OURS, THEIRS),
    }
)
_DEEPEST: Final = 8
# Values of one record: what refers to itself in several places has no end otherwise.
_MOST: Final = 10_000
# Python gives no text of a number with more digits (`sys.set_int_max_str_digits`).
_LARGEST: Final = 10**4000
# An object of JSON that is longer is told as what was printed, in parts.
_LONGEST: Final = 12_000


def read_record(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Give the text of a record of the standard library, and what stands beside it.

    That is its `extra`, and the event dictionary that structlog hands on as the message
    (`ProcessorFormatter.wrap_for_formatter`) or renders into it (`JSONRenderer`).
    """
    given = {describe(name): value for name, value in vars(record).items()}
    # structlog adds its own objects under such names.
    extra = {n: value for n, value in given.items() if n not in _STANDARD and n[:1] != "_"}
    if isinstance(record.msg, dict) and not record.args:
        told = {describe(name): value for name, value in record.msg.items()}
    else:
        text = _get_message(record)
        told = parse_object(text) or {}
        if not isinstance(told.get("event"), str):
            return text, extra
    told = {name: value for name, value in told.items() if not name.startswith("_")}
    return describe(told.pop("event", "")), {**extra, **told}


def parse_object(text: str) -> dict[str, Any] | None:
    """Read a line that is an object of JSON; None where it is none."""
    if len(text) > _LONGEST or not (text.startswith("{") and text.rstrip().endswith("}")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def place(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Give the application's fields for a line of ours, those that clash with its own in `app`."""
    left = [_MOST]
    plain = {name: _simplify(value, left) for name, value in theirs.items()}
    clashing = {name: value for name, value in plain.items() if name in _TAKEN}
    fields = {name: value for name, value in plain.items() if name not in _TAKEN}
    return {**fields, **({"app": clashing} if clashing else {})}


def _simplify(value: Any, left: list[int], depth: int = 0) -> Any:
    """Give what JSON has a form for, and the text of all else, and of what is too deep or much.

    Args:
        value: anything of the application's.
        left: how many values may still be told.
        depth: in how many others it stands.
    """
    left[0] -= 1
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGEST else f"an integer of {value.bit_length()} bits"
    if left[0] < 0:
        return "..."
    told: Any = None
    # Code of the application's must not cost the record.
    with suppress(Exception):
        if depth < _DEEPEST and isinstance(value, Mapping):
            items = list(value.items())
            told = {describe(n): _simplify(item, left, depth + 1) for n, item in items}
        elif depth < _DEEPEST and isinstance(value, (list, tuple, set, frozenset)):
            told = [_simplify(item, left, depth + 1) for item in value]
    return describe(value)[:_LONGEST] if told is None else told


def _get_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string must not cost the line
        arguments = record.args.values() if isinstance(record.args, dict) else record.args or ()
        return " ".join([describe(record.msg), *map(describe, arguments)])
