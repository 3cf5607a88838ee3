"""Threads of our own, all of them daemons: none keeps the process from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flask_migrate_sidecar.errors import ConfigurationError


def start_thread(target: Callable[..., object], *args: object, name: str) -> threading.Thread:
    """Start a thread.

    Raises:
        ConfigurationError: a limit of the system or of the container forbids it.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise ConfigurationError(
            f"no thread can be started ({name}): {error}",
            hint="raise the limit on processes and threads: the container's pids limit, ulimit -u, "
            "or that on memory",
        ) from error
    return thread
