"""Does in a child process what would stop every thread of this one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Final

from .os_exit import EXIT

_PAUSE: Final = 0.01


def run_in_child(step: Callable[[], object], seconds: float) -> None:
    """Take a step in a fork of this process, which is killed at the limit.

    Args:
        step: what to do; what it gives or raises is lost.
        seconds: the limit.
    """
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            step()
        EXIT(0)
    deadline = monotonic() + seconds
    # The application may have had it reaped already.
    with suppress(ChildProcessError):
        while monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            sleep(_PAUSE)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
