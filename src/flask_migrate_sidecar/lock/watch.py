"""Watching over a lock that is held, for its connection may die before the migration ends."""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from flask_migrate_sidecar.log.logger import get_logger
from flask_migrate_sidecar.process.threads import Event, Thread, start_thread

from .base import LockLostError
from .choose import Choice

logger: Final = get_logger(__name__)

# Seconds that a sign of life may take before the lock's connection counts as dead.
_CHECK_TIMEOUT: Final = 30.0
# Seconds; a run that is told to end must not wait for a dead network.
_STOP_TIMEOUT: Final = 5.0


class Watch:
    """A thread that speaks on a lock's connection from time to time, and notices its end.

    Only one thread uses the connection at a time, by the mutex.
    """

    def __init__(self, choice: Choice, lost: Event) -> None:
        """Prepare the thread; it does not run yet.

        Args:
            choice: the lock to watch over.
            lost: set when it is lost.
        """
        self._choice = choice
        self._lost = lost
        self._reason: LockLostError | None = None
        self._mutex = allocate_lock()
        self._stop = Event()
        # A child that a revision forks has the connection too, but must not speak on it.
        self._process = os.getpid()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin to watch; the lock is held from here on."""
        self._thread = start_thread(self._run, name="lock-watch")

    def verify(self) -> None:
        """Check now, on the thread of the caller; a forked child only knows what was known."""
        if os.getpid() == self._process:
            self._check()
        self.require_held()

    def require_held(self) -> None:
        """Look at what is known, and ask nobody.

        Raises:
            LockLostError: the lock is known to be lost.
        """
        if self._reason is not None:
            raise self._reason

    @property
    def databases(self) -> Sequence[str]:
        """The databases that the lock covers."""
        return self._choice.databases

    @property
    def is_lost(self) -> bool:
        """Tell whether the lock is known to be lost."""
        return self._reason is not None

    def stop(self) -> bool:
        """End the thread; False if it hangs on a dead connection, which it then keeps."""
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(_STOP_TIMEOUT)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.wait(self._choice.lock.interval) and self._reason is None:
            self._check()

    def _check(self) -> None:
        if not self._mutex.acquire(timeout=_CHECK_TIMEOUT):
            self._lose(self._choice.lock.lost("its connection does not answer"))
            return
        try:
            if self._reason is None:
                self._choice.lock.check()
        except LockLostError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 (a thread that dies would watch no longer)
            self._lose(self._choice.lock.lost(f"it could not be checked ({type(error).__name__})"))
        finally:
            self._mutex.release()

    def _lose(self, reason: LockLostError) -> None:
        self._reason = reason
        self._lost.set()
        logger.error("lock.lost", reason=str(reason), **self._choice.fields())


@dataclass(frozen=True)
class Guard:
    """The locks that are held while the body runs.

    Args:
        lost: set as soon as a lock is known to be lost; ask it between two revisions.
        watches: one for each lock.
    """

    lost: Event = field(default_factory=Event)
    watches: list[Watch] = field(default_factory=list)

    def verify(self) -> None:
        """Make sure that every lock has held until now.

        Raises:
            UnavailableError: one was lost, so another migrator may have run beside us.
        """
        for watch in self.watches:
            watch.verify()

    def require_held(self) -> None:
        """Make sure that no lock is known to be lost; that costs nothing.

        Raises:
            UnavailableError: one is.
        """
        for watch in self.watches:
            watch.require_held()
