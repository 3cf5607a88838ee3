"""The end of the process: what waits for it, and what must not end it without a word."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from flask_migrate_sidecar.errors import ConfigurationError

from .threads import start_thread

# The real one: this module is imported before user code's is guarded.
EXIT: Final = os._exit
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
        last_word: logs the end, receives the exit code and gives the one to end with.

    Returns:
        The real `os._exit`.
    """
    process = os.getpid()

    def leave(code: int) -> NoReturn:
        # A forked child ends this way by rights.
        EXIT(last_word(code) if os.getpid() == process else code)

    os._exit = leave  # type: ignore[assignment]
    return EXIT
