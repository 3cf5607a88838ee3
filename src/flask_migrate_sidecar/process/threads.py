"""Threads of our own, all of them daemons: none keeps the process from ending."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast
from weakref import WeakSet

from flask_migrate_sidecar.errors import ConfigurationError

# What Python says of a fork beside threads, from 3.12 on; as an entry of `warnings.filters`.
_MULTI_THREADED: Final = re.compile(r"This process \(pid=\d+\) is multi-threaded")
_PASSED_OVER: Final = ("ignore", _MULTI_THREADED, DeprecationWarning, None, 0)

_ours: Final[WeakSet[threading.Thread]] = WeakSet()


def start_thread(target: Callable[..., object], *args: object, name: str) -> threading.Thread:
    """Start a thread.

    Raises:
        ConfigurationError: a limit of the system or of the container forbids it.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    if not _ours:
        os.register_at_fork(before=_pass_over_warning)
    _ours.add(thread)
    try:
        thread.start()
    except RuntimeError as error:
        raise ConfigurationError(
            f"no thread can be started ({name}): {error}",
            hint="raise the limit on processes and threads: the container's pids limit, ulimit -u, "
            "or that on memory",
        ) from error
    return thread


def _pass_over_warning() -> None:
    """Let Python warn of a fork only where it would without us.

    Without our threads most processes that fork have one. The entry goes before those of the
    application, which may turn warnings into errors; it is not removed after the fork, for some
    releases warn only then.
    """
    filters = cast("list[Any]", warnings.filters)
    with suppress(ValueError):
        filters.remove(_PASSED_OVER)
    if _count_threads() - sum(thread.is_alive() for thread in _ours) <= 1:
        filters.insert(0, _PASSED_OVER)


def _count_threads() -> int:
    """Count as Python does for its warning: those of C libraries too, where the system tells."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone are enough
    except OSError:
        return threading.active_count()
