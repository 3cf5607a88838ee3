"""Keeps a command, and the `env.py` that it runs, from changing the process around it."""

from __future__ import annotations

import functools
import logging
import logging.config
import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from alembic.util import CommandError
from flask import current_app

from .arguments import copy_arguments
from .state import find_state


@contextmanager
def keep_process(*, from_cli: bool, selected: Collection[str]) -> Iterator[None]:
    """Run one command so that the process is as before when it ends.

    Args:
        from_cli: the command is `flask db ...`, whose `env.py` may set up logging.
        selected: names of the databases to touch; none means all.
    """
    with ExitStack() as stack:
        stack.enter_context(_keep_logging(from_cli=from_cli))
        stack.enter_context(_keep_dictionaries(selected))
        stack.enter_context(_keep_path())
        yield


@contextmanager
def _keep_logging(*, from_cli: bool) -> Iterator[None]:
    """Keep `fileConfig` in `env.py` from switching off the application's loggers.

    From the command line it sets up logging, less the disabling of what exists; in a program
    that calls our functions, logging is the program's affair.
    """
    original = logging.config.fileConfig
    thread = threading.get_ident()

    @functools.wraps(original)
    def file_config(
        fname: Any,
        defaults: Any = None,
        disable_existing_loggers: bool = True,
        encoding: str | None = None,
    ) -> None:
        if threading.get_ident() != thread:
            original(fname, defaults, disable_existing_loggers, encoding)
        elif from_cli and fname is not None:
            _check_readable(fname)
            original(fname, defaults, disable_existing_loggers=False, encoding=encoding)

    logging.config.fileConfig = file_config
    try:
        yield
    finally:
        logging.config.fileConfig = original


def _check_readable(name: Any) -> None:
    """Say that a file is missing: `fileConfig` of Python 3.11 ends in a KeyError 'formatters'."""
    if isinstance(name, (str, os.PathLike)) and not os.access(name, os.R_OK):
        raise CommandError(f"env.py sets up logging from {name}, which is missing or unreadable.")


@contextmanager
def _keep_dictionaries(selected: Collection[str]) -> Iterator[None]:
    """Let `env.py` work on copies: some add to, pop from or empty what they find."""
    state, settings = find_state(), current_app.config
    arguments, binds = state.configure_args, settings.get("SQLALCHEMY_BINDS")
    state.configure_args = copy_arguments(arguments)
    if binds is not None:
        # An old env.py finds its databases here; what is not selected is not there.
        settings["SQLALCHEMY_BINDS"] = {
            name: copy_arguments(value)
            for name, value in binds.items()
            if not selected or name in selected
        }
    try:
        yield
    finally:
        state.configure_args = arguments
        if binds is not None:
            settings["SQLALCHEMY_BINDS"] = binds


@contextmanager
def _keep_path() -> Iterator[None]:
    """Keep `prepend_sys_path` and `env.py` from lengthening `sys.path` with each command."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
