"""Writes to a descriptor that others share, and that may be full for a while."""

from __future__ import annotations

import os
import select
from typing import Final

# Seconds; who does not read for so long reads no more.
_PATIENCE: Final = 10.0


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, also where the descriptor does not block: a line that is cut tells nothing.

    Raises:
        OSError: it cannot be written, or nobody makes room for it.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            if not select.select([], [descriptor], [], _PATIENCE)[1]:
                raise
