"""What the text of a setting may be, and the value that it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

DURATIONS: Final = (
    "seconds (30, 0.5), or numbers with the units ms, s, m and h (500ms, 30s, 5m, 1m30s, 1h)"
)
_NUMBER: Final = r"\d+(?:\.\d+)?"
_PART: Final = rf"({_NUMBER})\s*(ms|s|m|h)\s*"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# What waits longer than a year waits for ever, and the system's timers take no number at all.
_LONGEST: Final = 366 * 24 * 3600.0


def parse_duration(text: str) -> float:
    """Read a duration as seconds: a number of them, or Go's form, numbers with units in a row.

    Raises:
        ValueError: the text is neither, or longer than a year.
    """
    text = text.strip()
    if re.fullmatch(_NUMBER, text, re.ASCII):
        seconds = float(text)
    elif re.fullmatch(f"({_PART})+", text, re.ASCII):
        parts = re.findall(_PART, text, re.ASCII)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        raise ValueError("a duration such as 30, 30s, 5m or 1m30s is needed")
    if seconds > _LONGEST:
        raise ValueError("a duration of at most a year is needed, such as 30s or 5m")
    return seconds


def parse_text(text: str) -> str:
    """Take the text as it is, but not an empty one."""
    if not text.strip():
        raise ValueError("it is empty")
    return text


def choose(*choices: str) -> Callable[[str], str]:
    """Make a parser that accepts one of the choices, in any case."""

    def parse(text: str) -> str:
        if text.strip().lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)} is needed")
        return text.strip().lower()

    return parse
