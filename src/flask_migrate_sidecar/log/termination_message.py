"""Writes the last event to where Kubernetes picks it up as the container's termination message.

`kubectl describe pod` and `status.containerStatuses[].state.terminated.message` show it
(Kubernetes: "Determine the Reason for Pod Failure"; Container, `terminationMessagePath`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

from .lines import shorten

DEFAULT_PATH: Final = Path("/dev/termination-log")
# The kubelet reads no more of it, and would cut in the midst of a character.
LIMIT: Final = 4096


def find_path(given: str | None) -> Path | None:
    """Give the file to write, None for none.

    Args:
        given: the file that the settings name.
    """
    if given is not None:
        return Path(given)
    # It is never created: on a machine, /dev is no place for a file of ours.
    return DEFAULT_PATH if DEFAULT_PATH.is_file() and os.access(DEFAULT_PATH, os.W_OK) else None


def write_message(path: Path | None, event: MutableMapping[str, Any]) -> None:
    """Write the event; where that fails, say so in the event itself, for it is the last one.

    Args:
        path: the file, None for none.
        event: the last event, its secrets masked.
    """
    if path is None:
        return
    try:
        # One that would have to wait for a reader, a pipe, is none.
        with open(path, "wb", opener=_open_at_once) as file:
            file.write(make_message(event))
    except OSError as error:
        event["termination_log"] = f"{path} cannot be written: {error.strerror}"


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def make_message(event: Mapping[str, Any], limit: int = LIMIT) -> bytes:
    """Give the event as one line of JSON that fits.

    Args:
        event: the event; its traceback stays in the log.
        limit: in bytes.
    """
    told = {key: value for key, value in event.items() if key != "exception"}
    return _encode(shorten(told, limit, lambda value: len(_encode(value))))


def _encode(value: object) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")
