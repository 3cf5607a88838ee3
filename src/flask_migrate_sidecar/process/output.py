"""Keeps the three kinds of output apart: results, the log, and what user code prints.

Results go to the original stdout, the log to the original stderr. The descriptors 1 and 2, and
`sys.stdout` and `sys.stderr`, are captured: each line becomes an event of the log.

A descriptor is captured in an unlinked file, not in a pipe: C code that holds the interpreter
lock while it fills a pipe would wait forever for the thread that empties it.
"""

from __future__ import annotations

import fcntl
import io
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from flask_migrate_sidecar.errors import ConfigurationError, Interrupted, chain

from .threads import Event, start_thread
from .writing import write_all

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OnLine = Callable[[str, str], None]
OnSkip = Callable[[str, int], None]
_NAMES = {1: "stdout", 2: "stderr"}
_POLL_SECONDS = 0.05
# Bytes that are read of a file at a time: their lines are logged before the next look at it.
_PART = 1 << 16
# Bytes without an end of line that are told all the same.
_LONGEST = 1 << 20
# Bytes of its last word, which stays whole.
_LONGEST_WORD = 1 << 12
# Bytes of a file that may wait to be read: it is memory, and its writer waits for nobody.
_BACKLOG = 64 << 20
# Bytes of it that are read all the same when it is more.
_KEPT = 8 << 20
_LIMIT, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
# A captured file begins behind a hole of this size, which costs nothing: a file that is smaller
# was truncated by somebody who opened /dev/stderr anew, as `echo ... > /dev/stderr` does. Half of
# what the process may write at all is left for the output.
_HOLE = 1 << 40 if _LIMIT == resource.RLIM_INFINITY else min(1 << 40, _LIMIT // 2)


class _LineBuffer:
    """Cuts bytes into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes, *, last: bool = False) -> list[str]:
        """Add bytes and take the lines that are complete, or all if these are the last ones."""
        self._rest += data
        lines: list[bytes] = []
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        if self._rest and (last or len(self._rest) >= _LONGEST):
            lines.append(self._take_piece(last=last))
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

    def _take_piece(self, *, last: bool) -> bytes:
        """Take what has no end yet, for it would fill memory: up to the last word, if it can."""
        end = len(self._rest)
        if not last:
            end = self._rest.rfind(b" ", end - _LONGEST_WORD) + 1 or end
        piece = bytes(self._rest[:end])
        del self._rest[:end]
        return piece


class _Spool:
    """A descriptor that writes to an unlinked file, and what was not read of that file yet."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.original = os.dup(descriptor)
        self.lines = _LineBuffer()
        self.skipped = 0
        self._read = _HOLE
        self._file = _open_unlinked()
        self.capture()

    def capture(self) -> None:
        """Let the descriptor write to the file."""
        os.dup2(self._file, self.descriptor)

    def take_lines(self, *, last: bool = False) -> Iterator[str]:
        """Give the lines that were written since the last call, a part of the file at a time."""
        if os.fstat(self._file).st_size < _HOLE:
            yield from self._read_from(0)
            os.ftruncate(self._file, _HOLE)
            self._read = _HOLE
        yield from self._read_from(self._read)
        if last:
            yield from self.lines.feed(b"", last=True)

    def _read_from(self, start: int) -> Iterator[str]:
        """Read to the end of the file, and give back the memory of what was read."""
        self._read = start
        while part := self._read_part():
            if len(part) == _PART:
                _punch_hole(self._file, self._read, _PART)
            self._read += len(part)
            yield from self.lines.feed(part)

    def _read_part(self) -> bytes:
        """Read on, but where more has come than memory should hold, near its end."""
        behind = os.fstat(self._file).st_size - self._read
        if behind > _BACKLOG:
            length = behind - _KEPT
            _punch_hole(self._file, self._read, length)
            self._read += length
            self.skipped += length
        return os.pread(self._file, _PART, self._read)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let the descriptor write to where it wrote before."""
        os.dup2(self.original, self.descriptor)
        try:
            yield
        finally:
            self.capture()


def _punch_hole(file: int, start: int, length: int) -> None:
    """Free a part of a file, whose size stays (fallocate(2)); without that it stays in memory."""
    keep_size_and_punch = 1 | 2
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        numbers = map(ctypes.c_longlong, (start, length))
        ctypes.CDLL(None).fallocate(file, keep_size_and_punch, *numbers)


def _open_unlinked() -> int:
    """Open a file without a name that every writer appends to."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("flask-migrate-output")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
    os.ftruncate(file, _HOLE)
    return file


def _buffer_lines_of_c() -> Callable[[], object]:
    """Have C's stdout written line by line, and return what writes the rest of a line.

    To a file it is written 4 KiB at a time (setvbuf(3)) and at `exit()`, with which this process
    does not end: lines would come late, twice after a fork, and the last ones never.
    """
    line_buffered = 1  # _IOLBF of glibc and musl
    try:
        import ctypes

        library = ctypes.CDLL(None)
        stream = ctypes.c_void_p.in_dll(library, "stdout")
        library.setvbuf(stream, None, line_buffered, ctypes.c_size_t(0))
    except (ImportError, OSError, ValueError, AttributeError):
        return lambda: None
    return lambda: library.fflush(stream)


class _PythonStream(io.RawIOBase):
    """Stands behind `sys.stdout` or `sys.stderr`: what Python prints is an event at once."""

    def __init__(self, descriptor: int, streams: Streams) -> None:
        self._descriptor = descriptor
        self._streams = streams
        self.lines = _LineBuffer()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Stay open: an application that wraps the stream closes it when its wrapper goes."""

    def write(self, data: ReadableBuffer) -> int:
        taken = bytes(data)
        if self._descriptor in self._streams.released_descriptors:
            self._streams.write_result(taken)
        else:
            for line in self.lines.feed(taken):
                self._streams.report(self._descriptor, line)
        return len(taken)


class _Buffer(io.BufferedWriter):
    """Gives `sys.stdout.buffer`."""

    def close(self) -> None:
        """Stay open, as the stream below does."""
        self.flush()


class _Results(io.TextIOWrapper):
    """The original stdout, for results.

    Args:
        descriptor: where it writes.
        on_loss: is told where that fails: Alembic passes over errors of what it prints to.
    """

    def __init__(self, descriptor: int, on_loss: Callable[[OSError], None]) -> None:
        super().__init__(os.fdopen(descriptor, "wb"), encoding="utf-8", line_buffering=True)
        self._on_loss = on_loss

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._on_loss(error)
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._on_loss(error)
            raise


class Streams:
    """The captured streams of the process.

    Args:
        on_line: receives the stream's name and each captured line.
        on_skip: receives the stream's name, and how many bytes of it were left out.
    """

    def __init__(self, on_line: OnLine, on_skip: OnSkip = lambda _stream, _bytes: None) -> None:
        self._on_line = on_line
        self._on_skip = on_skip
        self._lock = threading.RLock()
        self._draining = False
        self.released_descriptors: set[int] = set()
        self._texts: list[TextIO] = []
        self._lost: list[OSError] = []
        self._flush_c = _buffer_lines_of_c()
        self._flush()
        self._spools: list[_Spool] = []
        try:
            self._capture()
        except BaseException:
            self.give_back()
            raise

    def _capture(self) -> None:
        """Take the descriptors and what Python writes to."""
        self._spools += [_Spool(1)]
        self._spools += [_Spool(2)]
        start_thread(self._pump, name="flask-migrate-output")
        self.results: TextIO = _Results(os.dup(self._spools[0].original), self._note_loss)
        self._log = self._spools[1].original
        self._python = [_PythonStream(1, self), _PythonStream(2, self)]
        self._texts = [self._open_text(stream) for stream in self._python]
        sys.stdout, sys.stderr = self._texts
        # Some code writes to the originals on purpose.
        vars(sys).update(__stdout__=sys.stdout, __stderr__=sys.stderr)
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def _leave_to_parent(self) -> None:
        """Let a forked child log what it prints, but not what lies in the files: the parent does.

        Another thread may have held the lock, and is not there to give it back.
        """
        self._lock = threading.RLock()
        self._draining = True

    @staticmethod
    def _open_text(raw: _PythonStream) -> TextIO:
        return io.TextIOWrapper(
            _Buffer(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )

    def _flush(self) -> None:
        """Flush C's stdout, what stands in `sys` now, and what stood there before."""
        self._flush_c()
        for stream in (sys.stdout, sys.stderr, *self._texts):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()

    def is_terminal(self) -> bool:
        """Tell whether the log goes to a terminal."""
        return os.isatty(self._log)

    def write_log(self, line: str) -> None:
        """Write one line of the log, behind everything that was captured before it."""
        with self._lock:
            self.drain()
            data = (line + "\n").encode("utf-8", "backslashreplace")
            with suppress(OSError):  # nobody reads the log any more: the run matters more
                write_all(self._log, data)

    def write_result(self, data: bytes) -> None:
        """Write what a command prints that has the real stdout."""
        try:
            os.write(1, data)
        except OSError as error:
            self._note_loss(error)
            raise

    def _note_loss(self, error: OSError) -> None:
        self._lost.append(error)

    def report(self, descriptor: int, line: str) -> None:
        """Hand one captured line on."""
        self._on_line(_NAMES[descriptor], line)

    def drain(self, *, last: bool = False) -> None:
        """Hand on what was written to the descriptors since the last call."""
        with self._lock:
            if self._draining:
                return
            self._draining = True
            try:
                for spool in self._spools:
                    for line in spool.take_lines(last=last):
                        self.report(spool.descriptor, line)
                    if spool.skipped:
                        self._on_skip(_NAMES[spool.descriptor], spool.skipped)
                        spool.skipped = 0
            finally:
                self._draining = False

    def finish(self) -> None:
        """Hand on all that is left, unfinished lines too."""
        self._flush()
        for stream in self._python:
            for line in stream.lines.feed(b"", last=True):
                self.report(stream.fileno(), line)
        self.drain(last=True)
        with suppress(OSError):
            self.results.flush()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Give a command the real stdout: an editor, or the application's own commands."""
        self._flush()
        self.drain()
        with self._spools[0].released():
            self.released_descriptors.add(1)
            try:
                yield
            finally:
                self._flush()
                self.released_descriptors.discard(1)

    def judge(self, error: BaseException | None) -> BaseException | None:
        """Give the error that counts at the end: that a result was lost, where nothing else is.

        Args:
            error: what the run ended with; one that came of the loss is no other.
        """
        with suppress(OSError):
            self.results.flush()
        known = {id(link) for link in chain(error)}
        if not self._lost or (known and known.isdisjoint(map(id, self._lost))):
            return error
        if isinstance(self._lost[0], BrokenPipeError):
            # The reader wanted no more: that ends other programs too (signal(7)).
            return Interrupted(signal.SIGPIPE)
        return ConfigurationError(
            f"the result could not be written to standard output: {self._lost[0].strerror}",
            hint="what it is written to is full, or not to be written to",
        )

    def restore(self) -> None:
        """Give both descriptors back, before the process starts itself again."""
        self.finish()
        self.give_back()

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Give both descriptors to the program that takes the place of this one, if it does."""
        self.restore()
        try:
            yield
        finally:
            for spool in self._spools:
                spool.capture()

    def give_back(self) -> None:
        """Let the descriptors write to where they wrote before."""
        for spool in self._spools:
            os.dup2(spool.original, spool.descriptor)

    def _pump(self) -> None:
        """Keep output flowing while the main thread is busy in C code or a query."""
        wait = Event()
        while not wait.wait(_POLL_SECONDS):
            self.drain()
