"""How this process is called where others see it: at a server, and in a lock."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

PROGRAM: Final = "flask-migrate-sidecar"
# PostgreSQL cuts an application name at NAMEDATALEN - 1 bytes (manual, section 20.8).
APPLICATION_BYTES: Final = 63


def application_name(environment: Mapping[str, str] = os.environ) -> str:
    """Name this process for others: program, pod or host, process id.

    The place is what gets cut if it is too long, never the process id.
    """
    pid = f":{os.getpid()}"
    place = environment.get("POD_NAME") or socket.gethostname()
    room = APPLICATION_BYTES - len(PROGRAM) - len(pid) - 1
    return f"{PROGRAM}:{place.encode()[:room].decode(errors='ignore')}{pid}"


def process_place(environment: Mapping[str, str] = os.environ) -> str:
    """Tell where this process runs: `namespace/pod@node`, as far as Kubernetes told us."""
    pod = environment.get("POD_NAME") or socket.gethostname()
    namespace, node = environment.get("POD_NAMESPACE"), environment.get("NODE_NAME")
    return f"{namespace + '/' if namespace else ''}{pod}{'@' + node if node else ''}"
