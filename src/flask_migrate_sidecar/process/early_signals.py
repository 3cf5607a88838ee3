"""Hears the signals that come while the entrypoint is imported; it answers them once it can."""

from __future__ import annotations

import signal
from typing import Final

# A closed terminal sends SIGHUP, and nohup(1) lets it be ignored.
_HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, *_HANGUP)

heard: Final[list[int]] = []


def listen() -> None:
    """Note the signals from now on."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: heard.append(number))
