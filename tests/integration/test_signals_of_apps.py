"""SIGTERM ends a run whatever the application does with signals, and whatever the run sits in."""

import signal
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep

import pytest
from sqlalchemy import NullPool, create_engine, text

from following import FollowedRun
from racing import write_app
from servers import DRIVERS, Server
from sidecar_runs import append, prepend

TAKEN = {
    "descriptor": "import signal\nsignal.set_wakeup_fd(-1)\n",
    "handler": (
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    ),
    "asyncio": (
        "import asyncio, signal\n"
        "loop = asyncio.new_event_loop()\n"
        "for number in (signal.SIGTERM, signal.SIGINT):\n"
        "    loop.add_signal_handler(number, print, 'never')\n"
    ),
    "closed asyncio": (
        "import asyncio, signal\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.add_signal_handler(signal.SIGTERM, print, 'never')\n"
        "loop.close()\n"
    ),
}
# A statement in which the driver stays in C, and how the server shows that it runs there.
STATEMENTS = {
    "postgres": (
        "SELECT pg_sleep(600)",
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
    ),
    "mariadb": (
        "SELECT sleep(600)",
        "SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'",
    ),
}
# What no exception ends: it is swallowed, or the main thread never comes back from C.
ENDLESS = {
    "swallows": "time.sleep(1)",
    "stays in C": "ctypes.CDLL(None).pthread_join(ctypes.c_ulong(thread.ident), None)",
}
ENDLESS_BODY = """\
    import ctypes, threading
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    words = iter(["begun"])
    while True:
        try:
            for word in words:
                print(word)
            {}
        except BaseException:
            pass
"""


def count_sleepers(url: str, query: str) -> int:
    """Count the sessions of the server in which the statement runs."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


@pytest.mark.parametrize("taken", TAKEN)
@pytest.mark.parametrize(
    ("server_name", "driver"), [("postgres", "psycopg2"), ("mariadb", "mysqldb")]
)
def test_statement_is_cancelled_though_the_app_took_the_signals(
    server_name: str, driver: str, taken: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An app's own signal handling does not keep SIGTERM from a driver that sits in C."""
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    server: Server = request.getfixturevalue(server_name)
    url = server.create_database().url(driver)
    statement, query = STATEMENTS[server_name]
    app = write_app(tmp_path / "app", [f'    op.execute("{statement}")'])
    append(app / "app.py", TAKEN[taken])

    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url}) as run:
        run.await_event("Running upgrade r1 -> r2, step 2")
        while not count_sleepers(url, query):
            sleep(0.01)
        run.process.send_signal(signal.SIGTERM)
        assert run.finish() == 128 + signal.SIGTERM, run.last

    last = run.last
    assert (last["event"], last.get("revision")) == ("command.failed", "r2"), last
    assert run.named("lock.released")
    assert count_sleepers(url, query) == 0


@pytest.mark.parametrize("call", ENDLESS.values(), ids=ENDLESS.keys())
def test_last_resort_ends_what_no_exception_ends(call: str, tmp_path: Path) -> None:
    """A revision that cannot be interrupted ends in time before SIGKILL, with a last line."""
    app = write_app(tmp_path / "app", [ENDLESS_BODY.format(call)])
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x"}) as run:
        run.await_event("output", text="begun")
        sent = monotonic()
        run.process.send_signal(signal.SIGTERM)
        code = run.finish()
        # Kubernetes kills after 30 s.
        assert monotonic() - sent < 25
    assert code == 128 + signal.SIGTERM
    assert (run.last["event"], run.last["exit_code"]) == ("command.failed", code)
    assert "SIGTERM" in run.last["error"]["message"]


@pytest.mark.parametrize("name", ["SIGALRM", "SIGUSR1", "SIGXCPU"])
@pytest.mark.parametrize("is_handled", [False, True])
def test_signal_that_ends_others(name: str, is_handled: bool, tmp_path: Path) -> None:
    """A signal that would kill the process ends it with the last line; a handled one does not."""
    handle = f"signal.signal(signal.{name}, lambda *_: print('handled'))"
    body = "    import os, signal\n"
    body += f"    {handle if is_handled else 'pass'}\n    os.kill(os.getpid(), signal.{name})\n"
    app = write_app(tmp_path / "app", [body])
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x"}) as run:
        code = run.finish()
    assert code == run.last["exit_code"] == (0 if is_handled else 128 + signal.Signals[name])
    assert ("handled" in [line["text"] for line in run.named("output")]) == is_handled
    assert is_handled or run.last["error"]["message"] == f"interrupted by {name}"


# They put their own in the place of threads, locks and sockets while the application is imported.
GREEN = {
    "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
    "eventlet": "import eventlet\neventlet.monkey_patch()\n",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("library", GREEN)
def test_application_with_green_threads(
    library: str, driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What is patched at import keeps neither a run from its end nor SIGTERM from its statement."""
    # Imported here, it would have its own way with the forks of other tests.
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    server: Server = request.getfixturevalue(DRIVERS[driver])
    url = server.create_database().url(driver)
    statement, query = STATEMENTS[DRIVERS[driver]]
    app = write_app(tmp_path / "app", ["    pass", f'    op.execute("{statement}")'])
    prepend(app / "app.py", GREEN[library])
    env = {"DATABASE_URL": url}

    with FollowedRun(app, "--heartbeat", "0.2", "db", "upgrade", "r2", env=env) as run:
        assert run.finish() == 0, run.last
    with FollowedRun(app, "--heartbeat", "0.2", "db", "upgrade", env=env) as run:
        run.await_event("migration.running")
        run.process.send_signal(signal.SIGTERM)
        assert run.finish() == 128 + signal.SIGTERM, run.last

    assert (run.last["event"], run.last.get("revision")) == ("command.failed", "r3"), run.last
    assert run.named("lock.released")
    assert count_sleepers(url, query) == 0
