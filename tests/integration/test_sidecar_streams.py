"""Streams of the sidecar: results alone on stdout, and nothing but JSON lines on stderr."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from app_code import write_app
from conftest import APPS, clean_environment
from schema import describe_schema
from servers import render_url
from sidecar_runs import Launcher, Line, append, events, outputs, prepend, read_log, revision_file

if TYPE_CHECKING:
    from conftest import RunCommand
    from servers import MariaDB, Postgres

Completed = subprocess.CompletedProcess[str]

MIDDLE, HEAD = "e03f7c6a94d2", "6b92f4ec08d1"

# Whatever an application may do to the streams and to logging, at import and in a revision.
NOISE = r'''
import ctypes
import gc
import io
import logging
import logging.config
import os
import subprocess
import sys
import threading
import warnings

libc = ctypes.CDLL(None)


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


early = logging.getLogger("early")


def at_import():
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": True,
        "formatters": {"plain": {"format": "PLAIN %(message)s"}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "plain"},
            "file": {"class": "logging.FileHandler", "formatter": "plain", "filename": "app.log"},
        },
        "root": {"handlers": ["console", "file"], "level": "INFO"},
    })
    logging.basicConfig(format="BASIC %(message)s", stream=sys.stdout, force=False)
    configure_structlog()
    logging.getLogger("shop").info("record of the app")
    early.info("disabled by dictConfig")
    print("printed at import")
    os.write(1, b"written to 1\n")
    os.write(2, b"written to 2\n")
    warnings.warn("a warning of the app")


def configure_structlog():
    import structlog

    structlog.configure(processors=[structlog.dev.ConsoleRenderer()])
    structlog.contextvars.bind_contextvars(odd=float("nan"), level="none", timestamp="never")
    structlog.get_logger("shop").info("structlog of the app")


def in_revision():
    print("printed in a revision")
    libc.puts(b"C wrote to stdout")
    libc.fflush(None)
    sys.stdout.buffer.write(b"bytes: caf\xe9 \xff\n")
    sys.stdout.flush()
    print("surrogate: \udc80")
    print("x" * 1_000_000)
    print("two", "lines\nat once", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo child wrote to 1; echo child wrote to 2 >&2"], check=True)
    print("to have all read, for what comes now truncates a file")
    subprocess.run(["sh", "-c", "echo reopened > /dev/stderr"], check=True)
    hold_interpreter()
    log()
    raise_in_thread()
    raise_unraisable()
    fork()
    replace_stdout()
    print("still captured")
    sys.stdout.write("no newline at the end")


def hold_interpreter():
    """Fill more than any pipe holds, from C that does not let another thread of Python run."""
    line = b"y" * 1999 + b"\n"
    data = line * 1000
    written = ctypes.PyDLL(None).write(1, data, ctypes.c_size_t(len(data)))
    assert written == len(data)


def log():
    early.warning("disabled by fileConfig")
    logger = logging.getLogger("shop.revision")
    try:
        raise KeyError("cause")
    except KeyError:
        logger.exception("record with a traceback")
    logger.warning("wrong arguments: %d", "text")
    logger.warning("broken argument: %s", Broken())
    logger.warning("surrogate in a record: %s", "\udc80")
    logger.log(35, "level between")
    logging.disable(logging.CRITICAL)
    logging.disable(logging.NOTSET)
    os.dup2(2, 9)
    os.write(9, b"written to a duplicate\n")


def raise_in_thread():
    def fail():
        raise ValueError("raised in a thread")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def raise_unraisable():
    class Fails:
        def __del__(self):
            raise ValueError("raised in a finaliser")

    Fails()


def fork():
    libc.puts(b"C wrote before the fork")
    libc.fflush(None)
    if os.fork() == 0:
        print("printed in a forked child", flush=True)
        os._exit(0)
    os.wait()


def replace_stdout():
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    print("printed to a wrapper", flush=True)
    sys.stdout = sys.__stdout__
    gc.collect()
    before, sys.stdout = sys.stdout, io.StringIO()
    print("lost in the app's own buffer")
    sys.stdout = before
    gc.collect()
'''


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shop that does its worst to the log, with a stock `fileConfig` env.py."""
    app = Path(shutil.copytree(APPS / "shop", tmp_path_factory.mktemp("noisy") / "shop"))
    shutil.rmtree(app / "instance", ignore_errors=True)
    (app / "noise.py").write_text(NOISE, encoding="utf-8")
    append(app / "app.py", "\n\nimport noise\n\nnoise.at_import()\n")
    environment = app / "migrations/env.py"
    source = environment.read_text(encoding="utf-8")
    stock = source.replace(", disable_existing_loggers=False", "")
    assert stock != source
    environment.write_text(stock, encoding="utf-8")
    revision = revision_file(app, MIDDLE)
    source = revision.read_text(encoding="utf-8")
    call = "def upgrade():\n    import noise\n    noise.in_revision()\n"
    revision.write_text(source.replace("def upgrade():\n", call), encoding="utf-8")
    return app


@pytest.fixture(scope="module")
def upgraded(noisy: Path, sidecar: "RunCommand") -> Completed:
    """Upgrade the noisy shop, once for many tests."""
    return sidecar(noisy, "db", "upgrade")


@pytest.fixture(scope="module")
def log(upgraded: Completed) -> list[Line]:
    """Return the log of that upgrade, each line of it well formed."""
    return read_log(upgraded.stderr)


def test_every_line_is_json(upgraded: Completed, log: list[Line]) -> None:
    """Whatever an app prints, logs or configures: JSON lines from first to last, stdout empty."""
    assert (upgraded.returncode, upgraded.stdout) == (0, "")
    assert (log[0]["event"], log[-1]["event"]) == ("sidecar.started", "command.finished")


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("printed at import", "stdout"),
        ("written to 1", "stdout"),
        ("written to 2", "stderr"),
        ("printed in a revision", "stdout"),
        ("C wrote to stdout", "stdout"),
        ("bytes: caf\ufffd \ufffd", "stdout"),
        ("surrogate: \\udc80", "stdout"),
        ("x" * 1_000_000, "stdout"),
        ("two lines", "stderr"),
        ("at once", "stderr"),
        ("child wrote to 1", "stdout"),
        ("child wrote to 2", "stderr"),
        ("reopened", "stderr"),
        ("written to a duplicate", "stderr"),
        ("C wrote before the fork", "stdout"),
        ("printed in a forked child", "stdout"),
        ("printed to a wrapper", "stdout"),
        ("still captured", "stdout"),
        ("no newline at the end", "stdout"),
    ],
    ids=lambda value: value[:25],
)
def test_each_printed_line_is_one_event(log: list[Line], text: str, stream: str) -> None:
    """A line that Python, C, a child or a thread prints is told once, with its stream.

    It is one event, or several that count their parts, where one would be too long a line.
    """
    printed = [line for line in events(log, "output") if line["stream"] == stream]
    told = "".join(
        line["text"] + "\n" * (line.get("part") == line.get("parts")) for line in printed
    )
    assert told.splitlines().count(text) == 1


def test_what_the_app_keeps_stays_its_own(log: list[Line]) -> None:
    """Text that an application catches in a stream of its own is not shown."""
    assert "lost in the app's own buffer" not in outputs(log)


def test_native_code_cannot_deadlock(log: list[Line]) -> None:
    """2 MB that C code writes while it holds the interpreter lock arrive in full."""
    assert outputs(log).count("y" * 1999) == 1000


@pytest.mark.parametrize(
    ("event", "level", "logger"),
    [
        ("record of the app", "info", "shop"),
        ("disabled by dictConfig", "info", "early"),
        ("disabled by fileConfig", "warning", "early"),
        ("a warning of the app", "warning", "py.warnings"),
        ("record with a traceback", "error", "shop.revision"),
        ("wrong arguments: %d text", "warning", "shop.revision"),
        ("broken argument: %s <Broken without a text>", "warning", "shop.revision"),
        ("surrogate in a record: \udc80", "warning", "shop.revision"),
        ("level between", "warning", "shop.revision"),
        ("exception in a thread", "error", "threading"),
        ("exception ignored", "error", "threading"),
    ],
)
def test_each_record_is_one_event(log: list[Line], event: str, level: str, logger: str) -> None:
    """A record, a warning or an exception of a thread is one event, once, with its logger."""
    found = [(line["level"], line["logger"]) for line in events(log, event)]
    assert found == [(level, logger)]


def test_configured_console_handlers_are_passed_over(noisy: Path, log: list[Line]) -> None:
    """Console handlers of the app write nothing a second time; its file handlers still work."""
    assert not [text for text in outputs(log) if text.startswith(("PLAIN", "BASIC"))]
    assert "PLAIN record of the app\n" in (noisy / "app.log").read_text(encoding="utf-8")


def test_tracebacks_of_records_are_structured(log: list[Line]) -> None:
    """`exc_info` becomes a list of exceptions with their frames."""
    [line] = events(log, "record with a traceback")
    assert [stack["exc_type"] for stack in line["exception"]] == ["KeyError"]
    assert line["exception"][0]["frames"][-1]["name"] == "log"


def test_lines_are_in_the_order_of_events(log: list[Line]) -> None:
    """What was printed stands where it was printed, between the sidecar's own events."""
    marks = [
        "sidecar.started",
        "printed at import",
        "app.loaded",
        "database.ready",
        "lock.acquired",
        "migration.plan",
        "printed in a revision",
        "child wrote to 1",
        "record with a traceback",
        "printed to a wrapper",
        "still captured",
        "lock.released",
        "command.finished",
    ]
    names = [line.get("text") or line["event"] for line in log]
    assert [name for name in names if name in marks] == marks
    own = [line["timestamp"] for line in log if line["logger"].startswith(("out", "flask_mig"))]
    assert own == sorted(own)


def test_command_is_on_every_line_behind_the_import(log: list[Line]) -> None:
    """Each line names the command once it is parsed, those of threads and of user code too."""
    names = [line["event"] for line in log]
    behind = log[names.index("migration.plan") :]
    assert {line.get("command") for line in behind} == {"upgrade"}


def test_each_revision_is_one_event(log: list[Line]) -> None:
    """`migration.applied` counts the steps, takes their time, and follows `migration.plan`."""
    [plan] = events(log, "migration.plan")
    applied = events(log, "migration.applied")
    assert [line["step"] for line in applied] == [*range(1, 18)]
    assert {(line["steps"], line["database"]) for line in applied} == {(17, "default")}
    assert all(isinstance(line["duration_ms"], int) for line in applied)
    revisions = [line["revision"] for line in applied]
    assert revisions == [entry["revision"] for entry in plan["revisions"]]
    assert log[-1]["applied"] == revisions
    assert (log[-1]["from"], log[-1]["to"]) == ({"default": []}, {"default": [HEAD]})
    assert all(line["committed"] for line in applied)


def test_nothing_to_do_is_said(upgraded: Completed, noisy: Path, sidecar: "RunCommand") -> None:
    """A second upgrade takes no lock and says that nothing was to do."""
    assert upgraded.returncode == 0
    log = read_log(sidecar(noisy, "db", "upgrade").stderr)
    assert [line["count"] for line in events(log, "migration.plan")] == [0]
    assert not events(log, "lock.acquired")
    assert log[-1]["applied"] == []


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_offline_sql_makes_the_same_schema(
    server: str,
    request: pytest.FixtureRequest,
    copy_app: Callable[[str], Path],
    sidecar: "RunCommand",
    tmp_path: Path,
) -> None:
    """`--sql` prints SQL alone, which makes in an empty database what an online upgrade makes."""
    running: Postgres | MariaDB = request.getfixturevalue(server)
    app = copy_app("shop")
    prepend(app / "app.py", "print('printed at import')\n")
    online, offline = running.create_database().url(), running.create_database().url()

    result = sidecar(app, "db", "upgrade", "--sql", env={"DATABASE_URL": offline})
    assert result.returncode == 0, result.stderr
    assert "printed at import" in outputs(read_log(result.stderr))
    script = tmp_path / "upgrade.sql"
    script.write_text(result.stdout, encoding="utf-8")
    execute_script(offline, script)

    upgraded = sidecar(app, "db", "upgrade", env={"DATABASE_URL": online})
    assert upgraded.returncode == 0, upgraded.stderr
    assert describe_schema(offline) == describe_schema(online)
    assert read_versions(offline) == read_versions(online)


def test_offline_sql_connects_to_nothing(
    copy_app: Callable[[str], Path], sidecar: "RunCommand"
) -> None:
    """`--sql`, or the variable that means it, needs no database: it neither waits nor locks."""
    env = {"DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/x", "FLASK_DB_UPGRADE_SQL": "1"}
    result = sidecar(copy_app("shop"), "db", "upgrade", env=env)
    log = read_log(result.stderr)
    assert result.returncode == 0, log[-1]
    assert result.stdout.startswith("BEGIN;")
    assert not {line["event"] for line in log} & {"database.waiting", "lock.acquired"}


def execute_script(url: str, script: Path) -> None:
    """Run a file of SQL with the database's own client."""
    location = make_url(url)
    env = {"MYSQL_PWD": location.password or ""}
    if location.get_backend_name() == "postgresql":
        plain = render_url(location.set(drivername="postgresql"))
        command = ["psql", "-qv", "ON_ERROR_STOP=1", plain, "-f", str(script)]
    else:
        host, port = str(location.host), str(location.port)
        command = ["mariadb", "-h", host, "-P", port, "-u", str(location.username)]
        command += [str(location.database), "-e", f"source {script}"]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def read_versions(url: str) -> list[str]:
    """Read what the version table holds."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return [*connection.scalars(text("SELECT version_num FROM alembic_version"))]


def test_terminal_shows_progress(copy_app: Callable[[str], Path]) -> None:
    """On a terminal the log is for people: a line for each revision counts it among all."""
    reading, writing = pty.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "flask_migrate_sidecar", "db", "upgrade"],
        cwd=copy_app("shop"),
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    with process:
        shown = read_terminal(reading)
        assert process.communicate()[0] == ""
    assert process.returncode == 0
    assert "[3/17]" in shown
    assert "\x1b[" in shown
    assert not [line for line in shown.splitlines() if line.startswith("{")]


def read_terminal(descriptor: int) -> str:
    """Read what a terminal shows until its last writer is gone."""
    parts = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:  # Linux says so when the other side is closed
        pass
    os.close(descriptor)
    return b"".join(parts).decode()


def test_log_format_decides(copy_app: Callable[[str], Path], sidecar: "RunCommand") -> None:
    """`--log-format console` writes lines for people where no terminal is, without colour."""
    result = sidecar(copy_app("shop"), "--log-format", "console", "db", "heads")
    assert "command.finished" in result.stderr.splitlines()[-1]
    assert not result.stderr.startswith("{")
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("level", ["warning", "critical"])
def test_last_line_is_never_too_much(level: str, tmp_path: Path, launch: Launcher) -> None:
    """Whatever the level, the last line is there: without it nobody knows how the run ended."""
    app = shutil.copytree(APPS / "shop", tmp_path / "shop")
    good = launch(app, "--log-level", level, "db", "upgrade")
    assert [line["event"] for line in good.log] == ["command.finished"]
    bad = launch(app, "--log-level", level, "db", "upgrade", "nowhere")
    assert [line["event"] for line in bad.log] == ["command.failed"]
    assert bad.last["exit_code"] == bad.returncode == 9


def test_output_takes_no_memory(tmp_path: Path) -> None:
    """However much a program prints, it is read in parts, and not held as a whole."""
    command = "head -c 50000000 /dev/zero | tr '\\\\0' x"
    app = write_app(tmp_path / "app", f"import os; os.system({command!r})")
    used, log = measure(app, tmp_path)
    printed = [line for line in log if line["event"] == "output"]
    assert sum(len(line["text"]) for line in printed) == 50_000_000
    assert used < 130_000_000


def measure(app: Path, tmp_path: Path) -> tuple[int, list[dict[str, Any]]]:
    """Run an application; give the most memory that the process had, in bytes, and its log."""
    file, most = tmp_path / "log", 0
    with file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask_migrate_sidecar", "db", "heads"],
            cwd=app,
            env=clean_environment(),
            stderr=log,
            stdout=subprocess.DEVNULL,
        )
        # What wait4(2) says counts the memory of the process that started it, too.
        while process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            status = Path(f"/proc/{process.pid}/status")
            with suppress(OSError):
                peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
                most = max(most, int(peak[1]) * 1024) if peak else most
    assert process.returncode == 0
    assert most
    return most, read_log(file.read_text())


def test_output_that_is_too_much(tmp_path: Path) -> None:
    """What a program prints faster than it is logged does not fill memory: it is counted."""
    size = 300_000_000
    command = f"head -c {size} /dev/zero | tr '\\\\0' x"
    app = write_app(tmp_path / "app", f"import os; os.system({command!r})")
    used, log = measure(app, tmp_path)
    printed = [line for line in log if line["event"] == "output"]
    assert used < 130_000_000
    skipped = [line for line in log if line["event"] == "output.skipped"]
    assert len(skipped) >= 1
    told = sum(len(line["text"]) for line in printed)
    assert told + sum(line["bytes"] for line in skipped) == size
