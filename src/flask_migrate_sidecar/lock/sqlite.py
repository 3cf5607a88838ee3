"""A lock on a file beside a SQLite database, which the kernel frees when its holder ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import struct
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from flask_migrate_sidecar.database.errors import is_limit_of_process
from flask_migrate_sidecar.database.sqlite import LOCK_RANGE, LOCK_SUFFIX, is_lock_shown
from flask_migrate_sidecar.database.url import sqlite_path
from flask_migrate_sidecar.errors import RefusedError
from flask_migrate_sidecar.process.identity import application_name, process_place

from .base import Holder, Lock, LockTarget


class FileLock(Lock):
    """`flock` on `<database>.lock`, which is never unlinked.

    Were it unlinked, one process could hold the old file and another one the new. What is written
    in it is for others to read, and never decides who holds the lock.
    """

    kind = "file"

    def __init__(self, target: LockTarget, *, interval: float) -> None:
        """Describe the lock; nothing is opened."""
        super().__init__(target, interval=interval)
        # Links resolved: two names of one database have one lock.
        database = os.path.realpath(sqlite_path(target.database.url))
        self._path = Path(database + LOCK_SUFFIX)
        self._descriptor: int | None = None
        self._held = False

    def identity(self) -> tuple[str, ...]:
        """Name the file: one database has one, whatever version tables are in it."""
        return (self.kind, str(self._path))

    def try_acquire(self) -> bool:
        """Try once."""
        try:
            if self._descriptor is None:
                self._descriptor = _open(self._path)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._refused(error) from error
        self._held = True
        if not self._is_at_path(self._descriptor):
            self._close()
            return False
        _write(self._descriptor, _card())
        _show(self._descriptor)
        return True

    def holder(self) -> Holder | None:
        """Read who wrote into the file, if the lock that goes with it is held."""
        try:
            descriptor = _open_file(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(error) from error
        try:
            return _read(descriptor) if is_lock_shown(descriptor) else None
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """See that nobody removed or replaced the file."""
        if self._descriptor is None or not self._is_at_path(self._descriptor):
            raise self.lost(f"{self._path} was removed or replaced")

    def release(self) -> None:
        """Empty the file, then unlock it; closing alone would not reach copies in children."""
        if self._descriptor is None:
            return
        if self._held:
            _write(self._descriptor, b"")
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._close()

    def _is_at_path(self, descriptor: int) -> bool:
        """Tell whether the next migrator would open the same file."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except OSError:
            return False

    def _close(self) -> None:
        descriptor, self._descriptor, self._held = self._descriptor, None, False
        if descriptor is not None:
            os.close(descriptor)

    def _refused(self, error: OSError) -> RefusedError:
        if is_limit_of_process(error):
            raise error
        name = self.target.database.name
        return RefusedError(
            f"the lock file {self._path} of database {name} cannot be used: {error.strerror}",
            hint="the folder of a SQLite database must exist and be writable, and the lock file be "
            "a file of its own: no link, no pipe",
            database=name,
            kind=self.kind,
        )


def _open(path: Path) -> int:
    """Open or create the file; one of another user's may be readable only, which will do."""
    try:
        return _open_file(path, os.O_RDWR | os.O_CREAT)
    except PermissionError:
        if not path.exists():
            raise
        return _open_file(path, os.O_RDONLY)


def _open_file(path: Path, flags: int) -> int:
    """Open a file and nothing else: a link's target would be emptied, a pipe waited for.

    Raises:
        OSError: something else is there.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return descriptor


def _write(descriptor: int, content: bytes) -> None:
    """Write for the reader; a file that we may only read is locked all the same."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def _show(descriptor: int) -> None:
    """Take a second lock, of the kind that others can see without taking it.

    It belongs to the open file as flock's does, so it ends with it. Linux only.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            wanted = struct.pack(LOCK_RANGE, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)


def _card() -> bytes:
    card = {
        "pid": os.getpid(),
        "application": application_name(),
        "host": process_place(),
        "since": datetime.now(UTC).isoformat(),
        # Without its arguments: a URL with a password may be among them.
        "command": Path(sys.argv[0]).name,
    }
    return json.dumps(card).encode() + b"\n"


def _read(descriptor: int) -> Holder:
    """Read the card; one that is being written says nothing."""
    try:
        card = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(card["pid"], card["application"], card["host"], card["since"])
    except (ValueError, KeyError, TypeError):
        return Holder()
