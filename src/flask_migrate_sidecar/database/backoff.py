"""How long to pause before the next try."""

from __future__ import annotations

import random
from typing import Final

SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
# A pause is at most this part of the time waited so far: the wait gets that much longer by it.
_PART: Final = 0.1


def next_pause(
    elapsed: float, *, least: float = SHORTEST_PAUSE, longest: float = LONGEST_PAUSE
) -> float:
    """Choose a pause: short at first, longer as the wait grows, jittered.

    Jitter keeps replicas that started together from knocking together.

    Args:
        elapsed: seconds waited so far.
        least: the shortest pause before the jitter, in seconds.
        longest: the longest pause, in seconds.
    """
    pause = min(max(elapsed * _PART, least), longest)
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
