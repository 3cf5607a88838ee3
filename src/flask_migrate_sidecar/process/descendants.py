"""Ends what the run has started and left: programs of a revision, and what those have started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, NamedTuple

_PROCESSES: Final = Path("/proc")
# For an end of their own; a client of a database cancels its statement at SIGINT.
_SECONDS_EACH: Final = 0.5
_POLL_SECONDS: Final = 0.02


class Descendant(NamedTuple):
    """A process: its number alone may be another one's by now.

    Args:
        pid: its number.
        started: when it was started, in the kernel's ticks (proc(5), `stat`, field 22).
    """

    pid: int
    started: str


def list_descendants(pid: int) -> set[Descendant]:
    """List the processes that one has started, and those that they have; none without /proc."""
    parents: dict[int, list[Descendant]] = {}
    with suppress(OSError):
        for folder in _PROCESSES.iterdir():
            if folder.name.isdecimal() and (found := _read(int(folder.name))):
                parents.setdefault(found[0], []).append(found[1])
    descendants: set[Descendant] = set()
    waiting = [pid]
    while waiting:
        below = {*parents.get(waiting.pop(), ())} - descendants
        descendants |= below
        waiting += [child.pid for child in below]
    return descendants


def end_processes(processes: set[Descendant]) -> None:
    """End processes, those that do not end by themselves by SIGKILL at last."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        alive = {process for process in processes if _is_alive(process)}
        for process in alive:
            with suppress(OSError):
                os.kill(process.pid, number)
        deadline = monotonic() + _SECONDS_EACH
        while any(map(_is_alive, alive)) and monotonic() < deadline:
            sleep(_POLL_SECONDS)


def _read(pid: int) -> tuple[int, Descendant] | None:
    """Give the parent of a process, and the process; None for one that has ended."""
    try:
        # The name before it, in brackets, may hold anything.
        fields = (_PROCESSES / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2]
    except OSError:
        return None
    state, parent, *rest = fields.split()
    return None if state in "ZX" else (int(parent), Descendant(pid, rest[17]))


def _is_alive(process: Descendant) -> bool:
    found = _read(process.pid)
    return found is not None and found[1] == process
