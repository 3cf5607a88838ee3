"""Taking the locks of a run, and giving them back on every way out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final
from uuid import uuid4

from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.database.backoff import next_pause
from flask_migrate_sidecar.errors import UnavailableError
from flask_migrate_sidecar.log.logger import get_logger

from .base import Holder, Lock, LockTarget
from .choose import WATCH_SECONDS, Choice, LockOptions, choose_kind, make_lock
from .lease import LEASE_SECONDS
from .wait import Wait, explain_lock_error
from .watch import Guard, Watch

logger: Final = get_logger(__name__)


@contextmanager
def hold_locks(
    targets: Sequence[LockTarget],
    *,
    kind: str,
    timeout: float,
    connect_timeout: float,
    heartbeat: float,
    lease: float = LEASE_SECONDS,
    watch: float = WATCH_SECONDS,
) -> Iterator[Guard]:
    """Hold the locks of all targets while the body runs.

    Each lock is taken once, however many targets name it, in an order that is the same in every
    process, so that no two wait for each other.

    Args:
        targets: what to lock.
        kind: `auto`, `advisory`, `table`, `file` or `none`.
        timeout: seconds to wait for all of them together; 0 tries each exactly once.
        connect_timeout: seconds that one attempt to connect may take.
        heartbeat: seconds between two `lock.waiting` events without news.
        lease: seconds until an abandoned lease may be taken over.
        watch: seconds between two looks at an advisory or file lock.

    Raises:
        ConfigurationError: the kind does not fit a database.
        LockedError: another one held a lock until the time was over.
        RefusedError: the right to take a lock is missing.
        UnavailableError: a server could not be reached in time, or a lock was lost before the
            body ended.
    """
    deadline = time.monotonic() + timeout
    guard = Guard()
    # Shared, so that leases of one run do not wait for each other.
    token = uuid4().hex
    choices = []
    for target in targets:
        chosen, why = choose_kind(kind, target.database, connect_timeout)
        names = [target.database.name]
        if chosen == "none":
            logger.info("lock.skipped", database=names[0], kind=chosen, why=why)
            continue
        options = LockOptions(connect_timeout, lease, watch, token)
        choices.append(Choice(make_lock(chosen, target, options), why, names))
    process = os.getpid()
    with ExitStack() as stack:
        for choice in _distinct(choices, deadline):
            stack.enter_context(_hold(choice, guard, deadline, heartbeat))
        yield guard
        if os.getpid() == process:
            guard.verify()


def read_holder(
    target: LockTarget, *, kind: str, connect_timeout: float
) -> tuple[str, Holder | None]:
    """Look who holds a lock, without taking it.

    Args:
        target: what would be locked.
        kind: `auto`, or the kind that the migrators use.
        connect_timeout: seconds that one attempt to connect may take.

    Returns:
        The kind of the lock, and who holds it; None where nobody does.

    Raises:
        ConfigurationError: the kind does not fit the database.
        RefusedError: the right to look is missing.
        UnavailableError: the server could not be asked.
    """
    chosen, _why = choose_kind(kind, target.database, connect_timeout)
    if chosen == "none":
        return chosen, None
    lock = make_lock(chosen, target, LockOptions(connect_timeout))
    try:
        holder = lock.holder()
    except DBAPIError as error:
        raise explain_lock_error(error, lock) from error
    finally:
        lock.release()
    return chosen, holder


def _distinct(choices: list[Choice], deadline: float) -> list[Choice]:
    """Sort the locks by identity and keep one of each; a single one need not be asked for it."""
    if len(choices) < 2:  # noqa: PLR2004 (two are the fewest that can be the same)
        return choices
    kept: dict[tuple[str, ...], Choice] = {}
    for choice in choices:
        identity = _identify(choice.lock, deadline)
        if identity in kept:
            kept[identity].databases.extend(choice.databases)
        else:
            kept[identity] = choice
    return [kept[identity] for identity in sorted(kept)]


def _identify(lock: Lock, deadline: float) -> tuple[str, ...]:
    """Ask until the deadline: a server may restart just now."""
    started = time.monotonic()
    while True:
        try:
            return lock.identity()
        except DBAPIError as error:
            problem = explain_lock_error(error, lock)
            if not isinstance(problem, UnavailableError) or time.monotonic() >= deadline:
                raise problem from error
        finally:
            lock.release()
        time.sleep(next_pause(time.monotonic() - started))


@contextmanager
def _hold(choice: Choice, guard: Guard, deadline: float, heartbeat: float) -> Iterator[None]:
    """Hold one lock; what is to be given back is so from before the first try."""
    watch, process = Watch(choice, guard.lost), os.getpid()
    acquired = None
    try:
        Wait(choice, deadline, heartbeat).run()
        acquired = time.monotonic()
        watch.start()
        guard.watches.append(watch)
        yield
    finally:
        # A child that was forked meanwhile has a copy of it all, but the lock is not its to give.
        released = os.getpid() == process and watch.stop() and _release(choice)
        if acquired is not None and released and not watch.is_lost:
            held = round(time.monotonic() - acquired, 3)
            logger.info("lock.released", held=held, **choice.fields())


def _release(choice: Choice) -> bool:
    """Give the lock back; where that fails, its end of the connection or its lease expires."""
    try:
        choice.lock.release()
    except Exception as error:  # noqa: BLE001 - a listener of the application's may raise anything
        logger.warning("lock.release_failed", reason=str(error), **choice.fields())
        return False
    return True
