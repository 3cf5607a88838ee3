"""Does the duties of a container's first process, so that the run itself need not.

The kernel gives every orphan of the container to process 1, and lets a signal pass it by for which
it has no handler yet (kill(2), pid_namespaces(7)). So the run is a child: a SIGTERM ends it even
while Python still imports, orphans do not pile up, and a native crash has an exit code.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from flask_migrate_sidecar.errors import Interrupted

_FORWARDED = frozenset(
    {
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGUSR1, signal.SIGUSR2),
    }
)


def _give_code(number: signal.Signals) -> int:
    return Interrupted(number).exit_code


def leave_process_one(say_killed: Callable[[signal.Signals], int] = _give_code) -> None:
    """Return in a child process if this is process 1, which stays behind to look after it.

    Args:
        say_killed: writes the last line where a signal kept the child from it, and gives the
            exit code.
    """
    if os.getpid() != 1:
        return
    # Blocked, none is lost between the fork and the first wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    child = os.fork()
    if child:
        os._exit(_look_after(child, say_killed))
    # Python's own handler would print a traceback in the midst of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look_after(child: int, say_killed: Callable[[signal.Signals], int]) -> int:
    """Pass signals on and reap whatever ends, until the child has; give its exit code."""
    while True:
        number = signal.sigwait(_FORWARDED | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        status = _reap(child)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else say_killed(signal.Signals(-code))


def _reap(child: int) -> int | None:
    """Reap all that has ended: one SIGCHLD may stand for several."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return status
        if not pid:
            return None
