"""A link to a server that can be made to stall, where nothing passes and nothing ends, or cut."""

import selectors
import socket
import struct
import threading
from contextlib import suppress
from typing import Self

from servers import HOST


class Link:
    """Passes on what comes, until it stalls; then it still accepts, and stays silent.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server((HOST, 0))
        self._server = HOST, port
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._sockets = [self._listener]
        self._stalls = threading.Event()
        self._cuts = threading.Event()
        self._cut = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def stall(self) -> None:
        """Let nothing pass any more."""
        self._stalls.set()

    def cut(self) -> None:
        """Break what is connected, on both sides; who comes later is let in."""
        self._cut.clear()
        self._cuts.set()
        self._cut.wait()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._cuts.is_set():
                self._break()
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                elif self._stalls.is_set():
                    self._selector.unregister(key.fileobj)
                else:
                    self._pass_on(key)

    def _accept(self) -> None:
        client = self._listener.accept()[0]
        self._sockets.append(client)
        if self._stalls.is_set():
            return
        server = socket.create_connection(self._server)
        self._sockets.append(server)
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _break(self) -> None:
        """Reset all connections: a close without lingering does (socket(7), SO_LINGER)."""
        self._cuts.clear()
        for one in self._sockets[1:]:
            with suppress(KeyError):
                self._selector.unregister(one)
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
        del self._sockets[1:]
        self._cut.set()

    def _pass_on(self, key: selectors.SelectorKey) -> None:
        assert isinstance(key.fileobj, socket.socket)
        try:
            data = key.fileobj.recv(1 << 16)
            key.data.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(key.fileobj)
            with suppress(OSError):
                key.data.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        """Return the link."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close all that it holds."""
        self._over.set()
        self._thread.join()
        self._selector.close()
        for one in self._sockets:
            one.close()
