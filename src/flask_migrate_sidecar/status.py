"""The result of `flask-migrate status`, and how it is printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO

from .errors import UsageError


def parse_status_format(arguments: Sequence[str]) -> str:
    """Read the arguments of `status`."""
    words = [part for argument in arguments for part in argument.split("=", 1)]
    if not words:
        return "json"
    if len(words) == 2 and words[0] == "--format" and words[1] in {"json", "table"}:  # noqa: PLR2004
        return words[1]
    raise UsageError("status: the only option is --format json or --format table")


def print_status(states: dict[str, dict[str, Any]], form: str, results: TextIO) -> None:
    """Print the status as JSON or as a table."""
    if form == "json":
        results.write(json.dumps({"version": 1, "databases": states}) + "\n")
        return
    rows = [("DATABASE", "STATE", "CURRENT", "HEADS", "PENDING", "LOCK")]
    for name, state in states.items():
        current, heads = ", ".join(state["current"]) or "-", ", ".join(state["heads"]) or "-"
        lock = {True: "held", False: "free", None: "?"}[state["lock"]["held"]]
        rows.append((name, state["state"], current, heads, str(len(state["pending"])), lock))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        results.write("  ".join(cells).rstrip() + "\n")
