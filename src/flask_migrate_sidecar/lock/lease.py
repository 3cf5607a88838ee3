"""A lease in a table of the database: the lock for servers that have none of their own."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from flask_migrate_sidecar.database.causes import BUSY, DEADLOCK, Verdict
from flask_migrate_sidecar.database.dialect import find_dialect
from flask_migrate_sidecar.database.errors import Moment, diagnose
from flask_migrate_sidecar.errors import RefusedError
from flask_migrate_sidecar.process.identity import application_name, process_place

from .base import Holder, LockTarget, lock_name
from .connection import ConnectedLock, identify_server

LEASE_TABLE: Final = "flask_migrate_sidecar_lock"
# Seconds. A killed holder keeps the others out for this long; a living one renews three times in
# it, so that one renewal may fail for a reason that passes.
LEASE_SECONDS: Final = 30.0
LEASE_HEARTBEATS: Final = 3

_LEASES: Final = Table(
    LEASE_TABLE,
    MetaData(),
    Column("name", String(64), primary_key=True),
    Column("token", String(32)),
    Column("pid", Integer),
    Column("application", String(255)),
    Column("client", String(255)),
    Column("acquired_ms", BigInteger),
    Column("expires_ms", BigInteger),
)


class LeaseLock(ConnectedLock):
    """A row that says until when it is ours, by the database's clock, and that we keep renewing.

    The client's clock never counts: its monotonic one measures only how long ago we renewed.
    """

    kind = "table"

    def __init__(
        self, target: LockTarget, *, lease: float, connect_timeout: float, token: str | None = None
    ) -> None:
        """Describe the lease; nothing is opened.

        Args:
            target: what to lock.
            lease: seconds after which a lease that nobody renewed may be taken over.
            connect_timeout: seconds that one attempt to connect may take.
            token: whose lease it is; locks with the same token do not wait for each other.
        """
        super().__init__(
            target,
            interval=lease / LEASE_HEARTBEATS,
            connect_timeout=connect_timeout,
            autocommit=False,
        )
        self._lease = lease
        self._token = token or uuid4().hex
        self._name = lock_name(target.schema, target.version_table)
        self._renewed = 0.0
        self._table_seen = False

    def holder(self) -> Holder | None:
        """Read the row; an expired lease has no holder."""
        return self._with_connection(self._find_holder)

    def check(self) -> None:
        """Renew the lease.

        A renewal that fails is tried again at the next beat: until the lease has expired nobody
        can have taken it.
        """
        started = time.monotonic()
        try:
            ours = self._with_connection(self._renew)
        except SQLAlchemyError as error:
            # A migration that keeps a SQLite file locked keeps everybody else from the lease too.
            is_ours = diagnose(error).cause is BUSY
            if started - self._renewed > self._lease and not is_ours:
                raise self.lost("it could not be renewed before it expired") from error
            return
        if not ours:
            raise self.lost("it expired and was taken over, or its row was removed")
        self._renewed = started

    def release(self) -> None:
        """Clear the row, so that the next one need not wait for the expiry."""
        try:
            if self._table_seen:
                self._with_connection(self._clear)
        finally:
            self._close()

    def _identify(self, connection: Connection) -> tuple[str, ...]:
        return (*identify_server(connection), self._name)

    def _try(self, connection: Connection) -> bool:
        if not self._table_seen:
            self._make_table(connection)
            self._table_seen = True
        started = time.monotonic()
        try:
            with connection.begin():
                taken = self._take(connection)
        except IntegrityError:
            # Another one inserted the row between our reading and our writing.
            return False
        except DBAPIError as error:
            # Or changed it (MariaDB knowledge base, innodb_snapshot_isolation).
            if diagnose(error).cause is DEADLOCK and not connection.invalidated:
                return False
            raise
        self._renewed = started
        return taken

    def _take(self, connection: Connection) -> bool:
        now = _read_clock(connection)
        values = self._values(now)
        known = select(_LEASES.c.name).where(_LEASES.c.name == self._name)
        if connection.execute(known).first() is None:
            connection.execute(insert(_LEASES).values(name=self._name, **values))
            return True
        free = or_(
            _LEASES.c.token.is_(None), _LEASES.c.token == self._token, _LEASES.c.expires_ms <= now
        )
        statement = update(_LEASES).where(_LEASES.c.name == self._name, free).values(values)
        return connection.execute(statement).rowcount == 1

    def _values(self, now: int) -> dict[str, str | int]:
        return {
            "token": self._token,
            "pid": os.getpid(),
            "application": application_name(),
            "client": process_place()[:255],
            "acquired_ms": now,
            "expires_ms": self._expiry(now),
        }

    def _expiry(self, now: int) -> int:
        return now + round(self._lease * 1000)

    def _renew(self, connection: Connection) -> bool:
        with connection.begin():
            expiry = self._expiry(_read_clock(connection))
            statement = update(_LEASES).where(*self._ours()).values(expires_ms=expiry)
            return connection.execute(statement).rowcount == 1

    def _clear(self, connection: Connection) -> None:
        with connection.begin():
            connection.execute(update(_LEASES).where(*self._ours()).values(token=None))

    def _ours(self) -> tuple[Any, ...]:
        return _LEASES.c.name == self._name, _LEASES.c.token == self._token

    def _find_holder(self, connection: Connection) -> Holder | None:
        if not _has_table(connection):
            return None
        with connection.begin():
            row = connection.execute(select(_LEASES).where(_LEASES.c.name == self._name)).first()
            clock = _read_clock(connection)
        # One without a time was written by nobody of us, and ends at no time.
        has_ended = row is not None and row.expires_ms is not None and row.expires_ms <= clock
        return None if row is None or row.token is None or has_ended else _describe(row)

    def _make_table(self, connection: Connection) -> None:
        """Create the table unless it is there, which it is too if another one was faster."""
        if _has_table(connection):
            return
        try:
            with connection.begin():
                _LEASES.create(connection)
        except DBAPIError as error:
            if connection.invalidated:
                raise
            if not _has_table(connection):
                if diagnose(error, moment=Moment.LOCK).verdict is not Verdict.REFUSED:
                    raise
                raise self._no_table(error) from error

    def _no_table(self, error: DBAPIError) -> RefusedError:
        name = self.target.database.name
        return RefusedError(
            f"the lease table {LEASE_TABLE} could not be created in database {name}: {error.orig}",
            hint=f"grant the right to CREATE tables, create {LEASE_TABLE} beforehand, or choose"
            " another kind of lock",
            database=name,
            kind=self.kind,
            table=LEASE_TABLE,
        )


def _read_clock(connection: Connection) -> int:
    """Read the database's clock, by which alone a lease expires, in milliseconds since 1970."""
    return find_dialect(connection.dialect.name).read_clock(connection)


def _has_table(connection: Connection) -> bool:
    with connection.begin():
        return inspect(connection).has_table(LEASE_TABLE)


def _describe(row: Row[Any]) -> Holder:
    since: str | None
    try:
        since = datetime.fromtimestamp(row.acquired_ms / 1000, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        since = None if row.acquired_ms is None else f"{row.acquired_ms} ms"
    return Holder(row.pid, row.application, row.client, since)
