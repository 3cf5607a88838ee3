"""Threads of our own, all of them daemons: none keeps the process from ending.

They are the system's, whatever the application puts in their place, and unknown to `threading`:
gevent and eventlet exchange that module's parts while the application is imported, and gevent sets
the locks right that are held then only where the process has one thread.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast
from weakref import WeakSet

from flask_migrate_sidecar.errors import ConfigurationError

# What Python says of a fork beside threads, from 3.12 on; as an entry of `warnings.filters`.
_MULTI_THREADED: Final = re.compile(r"This process \(pid=\d+\) is multi-threaded")
_PASSED_OVER: Final = ("ignore", _MULTI_THREADED, DeprecationWarning, None, 0)


class Event:
    """What `threading.Event` is, of the system's own locks."""

    def __init__(self) -> None:
        self._mutex = allocate_lock()
        self._waiting: list[Any] = []
        self._is_set = False

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and let go on who waits."""
        with self._mutex:
            self._is_set = True
            waiting, self._waiting = self._waiting, []
        for lock in waiting:
            lock.release()

    def clear(self) -> None:
        """Take it back."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and tell whether it is.

        Args:
            timeout: seconds to wait at most.
        """
        lock = allocate_lock()
        lock.acquire()
        with self._mutex:
            if self._is_set:
                return True
            self._waiting.append(lock)
        lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        with self._mutex, suppress(ValueError):
            self._waiting.remove(lock)
        return self._is_set


class Thread:
    """A thread that was started.

    Args:
        name: for people.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.number: int | None = None
        self._over = Event()

    def is_alive(self) -> bool:
        """Tell whether it still runs."""
        return not self._over.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end.

        Args:
            timeout: seconds to wait at most.
        """
        self._over.wait(timeout)

    def run(self, target: Callable[..., object], args: tuple[object, ...]) -> None:
        """Run what it was started for; called in the thread."""
        self.number = get_ident()
        try:
            target(*args)
        except BaseException:  # noqa: BLE001 - as `threading` does, whose hook knows the log
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), None)))
        finally:
            # What asks for the current thread makes a stand-in for ours there.
            threading._active.pop(get_ident(), None)  # type: ignore[attr-defined] # noqa: SLF001
            self._over.set()


_ours: Final[WeakSet[Thread]] = WeakSet()


def start_thread(target: Callable[..., object], *args: object, name: str) -> Thread:
    """Start a thread.

    Raises:
        ConfigurationError: a limit of the system or of the container forbids it.
    """
    thread = Thread(name)
    if not _ours:
        os.register_at_fork(before=_pass_over_warning)
    try:
        start_new_thread(thread.run, (target, args))
    except RuntimeError as error:
        raise ConfigurationError(
            f"no thread can be started ({name}): {error}",
            hint="raise the limit on processes and threads: the container's pids limit, ulimit -u, "
            "or that on memory",
        ) from error
    _ours.add(thread)
    return thread


def is_ours() -> bool:
    """Tell whether the thread that asks is one of ours."""
    return get_ident() in {thread.number for thread in _ours if thread.is_alive()}


def list_running() -> set[str]:
    """Name the threads of ours that run."""
    return {thread.name for thread in _ours if thread.is_alive()}


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
