"""The end of the process: what waits for it, and what must not end it without a word."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, Final, NoReturn

from flask_migrate_sidecar.errors import ConfigurationError

from .threads import start_thread

# The real ones: this module is imported before user code's are guarded.
EXIT: Final = os._exit
EXECV: Final = os.execv
EXECVE: Final = os.execve
# Time for what an application registered with atexit; some of it hangs.
_ATEXIT_SECONDS: Final = 3.0


def run_atexit() -> None:
    """Run what the application left for the end, but do not wait for it forever."""
    with suppress(ConfigurationError):
        thread = start_thread(atexit._run_exitfuncs, name="flask-migrate-atexit")  # noqa: SLF001
        thread.join(_ATEXIT_SECONDS)


def guard_exit(last_word: Callable[[int], int]) -> Callable[[int], NoReturn]:
    """Let `os._exit` in user code not end the process without a word.

    Args:
        last_word: logs the end, receives the exit code and gives the one to end with. It counts
            for whoever has kept an `os._exit` that was guarded before, too.

    Returns:
        The real `os._exit`.
    """
    _last_words[:] = [(os.getpid(), last_word)]
    # The module that `os` has it from keeps it too.
    for module in (os, sys.modules[os.name]):
        module._exit = _leave  # type: ignore[attr-defined]  # noqa: SLF001
    return EXIT


def guard_exec(hand_over: Callable[[str], AbstractContextManager[None]]) -> None:
    """Let user code not put another program in the place of this one without a word.

    Args:
        hand_over: is told the program, and raises where this process is still needed; the block
            ends where the program cannot be had.
    """
    process = os.getpid()

    def replace(run: Callable[..., NoReturn], /, *arguments: Any, **named: Any) -> NoReturn:
        # A forked child becomes another program by rights.
        if os.getpid() != process:
            run(*arguments, **named)
        program: Any = arguments[0] if arguments else named.get("path")
        # A descriptor is one, too.
        is_path = isinstance(program, (str, bytes, os.PathLike))
        with hand_over(os.fsdecode(program) if is_path else str(program)):
            run(*arguments, **named)

    # The other forms call these two by the names that they have in `os`.
    for module in (os, sys.modules[os.name]):
        vars(module).update(execv=partial(replace, EXECV), execve=partial(replace, EXECVE))


@contextmanager
def forked_children_ended() -> Iterator[None]:
    """End a child that the application forked where it comes out of the block.

    What is around it is the parent's: its lock, its connections, its last line.
    """
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != process:
            if not isinstance(error, SystemExit):
                traceback.print_exception(error)
            _end_child(error.code if isinstance(error, SystemExit) else 1)
        raise
    if os.getpid() != process:
        _end_child(None)


def _end_child(code: object) -> NoReturn:
    """End as Python does: any object is a code, and those that are no number are 1."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    EXIT(code & 0xFF if isinstance(code, int) else int(code is not None))


_last_words: Final[list[tuple[int, Callable[[int], int]]]] = []


def _leave(code: int) -> NoReturn:
    process, last_word = _last_words[-1]
    # A forked child ends this way by rights.
    EXIT(last_word(code) if os.getpid() == process else code)
