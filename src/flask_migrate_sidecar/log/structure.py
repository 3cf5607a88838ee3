"""What the application gives its records beside their text stays structure in our lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from flask_migrate_sidecar.errors import describe

from .events import OURS

_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
# Names that our lines have a meaning of their own for: what the application calls so is in `app`.
_TAKEN: Final = frozenset(
    {
        *("timestamp", "level", "event", "logger", "command", "pod", "namespace", "node"),
        *("stream", "text", "part", "parts", "cut", "exception", "exc_info", "app"),
        *("record_time", "record_level", "self", OURS),
    }
)
_DEEPEST: Final = 8


def read_record(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Give the text of a record of the standard library, and what stands beside it.

    That is its `extra`, and the event dictionary that structlog hands on as the message
    (`ProcessorFormatter.wrap_for_formatter`) or renders into it (`JSONRenderer`).
    """
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    # structlog adds its own objects under such names.
    extra = {name: value for name, value in extra.items() if not name.startswith("_")}
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
    if not (text.startswith("{") and text.rstrip().endswith("}")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def place(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Give the application's fields for a line of ours, those that clash with its own in `app`."""
    plain = {name: _simplify(value) for name, value in theirs.items()}
    clashing = {name: value for name, value in plain.items() if name in _TAKEN}
    fields = {name: value for name, value in plain.items() if name not in _TAKEN}
    return {**fields, **({"app": clashing} if clashing else {})}


def _simplify(value: Any, depth: int = 0) -> Any:
    """Give what JSON has a form for, and the text of all else, and of what is too deep."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {describe(name): _simplify(item, depth + 1) for name, item in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple, set, frozenset)):
        return [_simplify(item, depth + 1) for item in value]
    return describe(value)


def _get_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string must not cost the line
        arguments = record.args.values() if isinstance(record.args, dict) else record.args or ()
        return " ".join([describe(record.msg), *map(describe, arguments)])
