"""Which function each command is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .session import Result, Session
from .status import run_status
from .subcommand import run_subcommand
from .wait_database import run_wait_database
from .wait_head import run_wait_head

RUNS: Final[dict[str, Callable[[Session], Result]]] = {
    "db": run_subcommand,
    "wait database": run_wait_database,
    "wait head": run_wait_head,
    "status": run_status,
}
