"""What every lock has in common: what is locked, who holds it, and the four things it can do."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar, Final

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.errors import UnavailableError
from flask_migrate_sidecar.process.identity import PROGRAM

# MySQL 5.7 and later refuse longer names for GET_LOCK (manual, section 14.14).
NAME_CHARACTERS: Final = 64


@dataclass(frozen=True)
class LockTarget:
    """What is locked: the migrations that one version table records.

    Args:
        database: where that table is.
        schema: its schema as the application names it, None for the default one.
        version_table: its name.
    """

    database: Database
    schema: str | None
    version_table: str


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as far as it lets itself be known.

    Args:
        pid: backend process (PostgreSQL), connection id (MariaDB, MySQL), else process id.
        application: name that the holder gives itself.
        client: address, or the place of the process for locks without a connection to look at.
        since: ISO 8601 time at which it got the lock.
    """

    pid: int | None = None
    application: str | None = None
    client: str | None = None
    since: str | None = None

    def describe(self) -> dict[str, object]:
        """Give what is known, as data for a log line."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class LockLostError(UnavailableError):
    """The lock did not hold for as long as the migration ran: another one may have run beside it.

    An UnavailableError because its causes are those of a lost connection, and so is the cure.
    """

    default_hint = "look at the database with 'flask-migrate status', then run again"


class Lock(ABC):
    """One lock on one target; used by one thread at a time.

    Each method may raise what the database driver raises, wrapped by SQLAlchemy.
    """

    kind: ClassVar[str]

    def __init__(self, target: LockTarget, *, interval: float) -> None:
        """Describe the lock; nothing is opened.

        Args:
            target: what to lock.
            interval: seconds between two calls of `check` while the lock is held.
        """
        self.target = target
        self.interval = interval

    @abstractmethod
    def identity(self) -> tuple[str, ...]:
        """Name the lock so that two spellings of one database give the same, in every process."""

    @abstractmethod
    def try_acquire(self) -> bool:
        """Try once, and leave no transaction open behind a failed try."""

    @abstractmethod
    def holder(self) -> Holder | None:
        """Look who holds the lock, without taking it; None if nobody does."""

    @abstractmethod
    def check(self) -> None:
        """Keep the lock alive.

        Raises:
            LockLostError: it is not ours any more.
        """

    @abstractmethod
    def release(self) -> None:
        """Give the lock back and close what was opened, however far `try_acquire` had come."""

    def lost(self, reason: str) -> LockLostError:
        """Make the error for a lock that is not ours any more."""
        name = self.target.database.name
        return LockLostError(
            f"the {self.kind} lock of database {name} was lost: {reason}",
            database=name,
            kind=self.kind,
        )


def lock_name(*parts: str | None) -> str:
    """Name a lock after its target; the hash keeps any identifiers within 64 characters."""
    digest = hashlib.sha256("\0".join(part or "" for part in parts).encode()).hexdigest()
    return f"{PROGRAM}:{digest}"[:NAME_CHARACTERS]


def lock_number(*parts: str | None) -> int:
    """Give the same as a signed 64-bit number."""
    digest = hashlib.sha256(lock_name(*parts).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
