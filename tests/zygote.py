"""An interpreter that has imported what is big already, and forks a process for each run."""

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

# The process that it forks is what `python -m MODULE` or `python -c CODE` would be, in a fifth of
# the time. Another one stands between: it leads the group in which the run and whatever that
# starts can be ended, and it alone may wait for the run's exit code.
SERVER = """
import contextlib, gc, importlib, json, os, runpy, signal, socket, sys

# Whatever the shell ignores, of a background job or by nohup.
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
requests = socket.socket(fileno=int(sys.argv[1]))
for name in sys.argv[2:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
# What is there already is shared with the runs, as long as no collection touches it.
gc.collect()
gc.freeze()
while True:
    text, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
    if not text:
        requests.close()
        break
    if os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        continue
    os.setsid()
    requests.close()
    *streams, answers = descriptors
    child = os.fork()
    if child:
        for descriptor in streams:
            os.close(descriptor)
        os.write(answers, f"{child} {os.getpid()}\\n".encode())
        os.write(answers, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\\n".encode())
        os._exit(0)
    os.close(answers)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    request = json.loads(text)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request["module"] is None:
        sys.argv = ["-c", *request["arguments"]]
        exec(request["code"], {"__name__": "__main__"})
        sys.exit()
    sys.path[0] = request["cwd"]
    sys.argv = [request["module"], *request["arguments"]]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    sys.exit()
"""
# What is big and belongs to others; ours is imported anew by each run.
IMPORTS = (
    *("alembic.autogenerate", "alembic.command", "flask.cli", "flask_sqlalchemy", "sqlite3"),
    *("psycopg", "psycopg2", "pymysql", "MySQLdb", "structlog"),
    *("sqlalchemy.dialects.mysql", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite"),
)


# What tests have started; conftest.py ends each when its test is over.
STARTED: list["Forked"] = []


class Forked:
    """A process that a zygote has forked."""

    def __init__(self, answers: socket.socket) -> None:
        """Learn its number."""
        self._answers = answers
        self._text = answers.makefile()
        self._code: int | None = None
        self.pid, self._group = map(int, self._text.readline().split())
        STARTED.append(self)

    def send_signal(self, number: int) -> None:
        """Send the process a signal, unless it has been waited for."""
        if self._code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, and nothing that it has started."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code; for a signal it is negative.

        Args:
            timeout: seconds, after which a TimeoutError is raised.
        """
        if self._code is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise TimeoutError
            self._code = int(self._text.readline() or -signal.SIGKILL)
        return self._code

    def close(self) -> None:
        """End the process with all that it has started, at once."""
        if self._answers.fileno() < 0:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        self.wait()
        self._text.close()
        self._answers.close()


class Zygote:
    """Starts processes by a fork.

    Args:
        python: the interpreter and its options.
    """

    def __init__(self, python: Sequence[str] = (sys.executable,)) -> None:
        self._requests, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with served:
            command = [*python, "-c", SERVER, str(served.fileno()), *IMPORTS]
            self._server = subprocess.Popen(
                command, pass_fds=[served.fileno()], start_new_session=True
            )

    def start(
        self,
        cwd: Path,
        module: str | None,
        *arguments: str,
        env: Mapping[str, str],
        streams: Sequence[int],
        code: str = "",
    ) -> Forked:
        """Start a process.

        Args:
            cwd: its folder.
            module: what it runs; without one, the code.
            *arguments: its command line.
            env: all its variables.
            streams: the descriptors of its stdin, stdout and stderr.
            code: what it runs without a module.
        """
        request = {"cwd": str(cwd), "module": module, "arguments": arguments, "code": code}
        # OpenSSL would read the machine's certificates for each connection of PyMySQL, which costs
        # 40 ms of computing: no server of the tests is trusted by them.
        env = {**env, "SSL_CERT_FILE": os.devnull}
        answers, answering = socket.socketpair()
        with answering:
            socket.send_fds(
                self._requests,
                [json.dumps({**request, "env": {**env}}).encode()],
                [*streams, answering.fileno()],
            )
        return Forked(answers)

    def close(self) -> None:
        """End the interpreter; what it has forked goes on."""
        self._requests.close()
        self._server.wait()

    def __enter__(self) -> Self:
        """Return the zygote."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the interpreter."""
        self.close()


@functools.cache
def zygote_of(python: Sequence[str] = (sys.executable,)) -> Zygote:
    """Give the one that the tests of this process share, which `close_zygotes` ends."""
    _shared.append(Zygote(python))
    return _shared[-1]


_shared: list[Zygote] = []


def close_zygotes() -> None:
    """End those that are shared."""
    zygote_of.cache_clear()
    while _shared:
        _shared.pop().close()
