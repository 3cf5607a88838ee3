"""Turns the signals that end a process into an exception, also while a driver sits in C code."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from types import FrameType
from typing import Any, NoReturn

from flask_migrate_sidecar.errors import ConfigurationError, Interrupted

from .descendants import Descendant, end_processes, list_descendants
from .early_signals import SIGNALS
from .os_exit import EXIT
from .threads import Event, start_thread

# What ends a process as well, unless somebody handles it: a profiler, or a limit of the
# application's own.
_OTHERS = tuple(
    getattr(signal, name)
    for name in ("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
# Kubernetes kills 30 s after SIGTERM by default (terminationGracePeriodSeconds). From the signal
# on: a server gets this long to cancel what runs, the run to end by itself, its end to be told.
_CANCEL_SECONDS = 2.0
_LAST_RESORT_SECONDS = 8.0
_END_SECONDS = 10.0


class Interruption:
    """What is known of a signal that came, and how to stop what runs.

    Args:
        force: ends the process where nothing else does; receives the interruption.
    """

    def __init__(self, force: Callable[[Interrupted], NoReturn]) -> None:
        self.received: Interrupted | None = None
        self.cancel: Callable[[], None] = lambda: None
        # What the last line can say of a run that does not come to its end.
        self.tell: Callable[[], dict[str, Any]] = dict
        self.force = force
        self._wakeup: socket.socket | None = None
        # What ran when the signal came: the run's own end leaves orphans, which are found no more.
        self._descendants: set[Descendant] = set()
        self._cancelled = Event()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Raise in the main thread, once: rollback and unlocking must not be interrupted."""
        if self.received is None:
            self.received = Interrupted(signal.Signals(number))
            # A driver in Python would leave at once, and its statement run on in the server.
            self._cancelled.wait(_CANCEL_SECONDS)
            raise self.received

    def judge(self, error: BaseException) -> BaseException:
        """Give the error that counts: after a signal, whatever came of it is the interruption."""
        if self.received is None:
            return error
        self.received.fields = {**getattr(error, "fields", {}), **self.received.fields}
        return self.received

    def end_descendants(self) -> None:
        """End what the run has started, where a signal ends the run itself."""
        if self.received is not None:
            end_processes(self._descendants | list_descendants(os.getpid()))

    def watch(self, wakeup: socket.socket) -> None:
        """Cancel the running statement, and end the process if even that does not help.

        Python runs its signal handlers between bytecodes; psycopg2, mysqlclient and SQLite stay in
        C until the statement ends, so this thread reads the signal's number from a socket.
        """
        while number := wakeup.recv(1):
            if number[0] in SIGNALS or self._handles(number[0]):
                self._end(signal.Signals(number[0]))
                return

    def _handles(self, number: int) -> bool:
        return number in _OTHERS and signal.getsignal(number) == self.handle

    def _end(self, number: signal.Signals) -> NoReturn:
        """End the process, in time whatever hangs: a dead link, or a log that nobody reads."""
        came = monotonic()
        self._descendants = list_descendants(os.getpid())
        _beside(self.cancel, "flask-migrate-cancel").wait(_CANCEL_SECONDS)
        self._cancelled.set()
        sleep(max(0, came + _LAST_RESORT_SECONDS - monotonic()))
        forced = Interrupted(number, is_forced=True)
        with suppress(Exception):
            forced.fields = self.tell()
        _beside(lambda: self.force(forced), "flask-migrate-end")
        sleep(max(0, came + _END_SECONDS - monotonic()))
        EXIT(Interrupted(number).exit_code)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside of the block."""
        # Until the block can catch what the handlers raise; a process that started itself again
        # blocked them already.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        reading, writing = socket.socketpair()
        writing.settimeout(0)
        self._wakeup = writing
        self.reinstall()
        for number in _OTHERS:
            # One that is ignored stays so, as does what is handled already.
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self.handle)
        os.register_at_fork(after_in_child=self._leave_to_parent)
        start_thread(self.watch, reading, name="flask-migrate-signals")
        try:
            yield
        finally:
            for number in (*SIGNALS, *filter(self._handles, _OTHERS)):
                signal.signal(number, signal.SIG_IGN)

    def _leave_to_parent(self) -> None:
        """Let a forked child end by its own signals: what ours tell reaches the parent."""
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, *_OTHERS):
            if signal.getsignal(number) == self.handle:
                signal.signal(number, signal.SIG_DFL)

    def listen(self) -> None:
        """Let signals come, also those that waited: the caller catches what they raise."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def reinstall(self) -> None:
        """Take the signals back from an application that installed handlers of its own.

        So that it learns of a signal, asyncio exchanges the descriptor as well, and leaves none
        when its loop is closed (`loop.add_signal_handler`).
        """
        for number in SIGNALS:
            signal.signal(number, self.handle)
        if self._wakeup is not None:
            signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)


def _beside(step: Callable[[], object], name: str) -> Event:
    """Take a step in a thread of its own, and give what is set at its end, which may never come."""
    over = Event()

    def take() -> None:
        with suppress(Exception):
            step()
        over.set()

    try:
        start_thread(take, name=name)
    except ConfigurationError:
        take()
    return over
