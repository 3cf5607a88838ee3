"""A link that stalls and a log that nobody reads: the way out of a run is not blocked."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from following import FollowedRun
from racing import write_app
from servers import MariaDB, Postgres, render_url
from sidecar_runs import count_waiting, environment_of
from stalling import Link
from zygote import zygote_of

# Seconds from the signal to the end that the contract gives, and what a busy machine adds.
LIMIT, SLACK = 10, 15
# The server, the statement in which a driver waits for its answer, and how many wait so.
WAITING = {
    "psycopg": ("postgres", "SELECT pg_sleep(600)"),
    "psycopg2": ("postgres", "SELECT pg_sleep(600)"),
    "pymysql": ("mariadb", "SELECT sleep(600)"),
    "mysqldb": ("mariadb", "SELECT sleep(600)"),
}
COUNTS = {
    "postgres": "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'",
}


@pytest.fixture
def link(server: Postgres | MariaDB) -> Iterator[Link]:
    """Return a link to it."""
    with Link(server.port) as link:
        yield link


@pytest.mark.timeout(150)
@pytest.mark.parametrize("driver", WAITING)
def test_signal_while_the_link_stalls(
    driver: str, server: Postgres | MariaDB, link: Link, tmp_path: Path
) -> None:
    """A server that says nothing any more does not keep a signal from ending the run in time."""
    name, statement = WAITING[driver]
    database = server.create_database()
    app = write_app(tmp_path / "app", [f'    op.execute("{statement}")'])
    url = render_url(make_url(database.url(driver)).set(port=link.port))
    engine = create_engine(database.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url}) as run:
        run.await_event("Running upgrade r1 -> r2, step 2")
        with engine.connect() as connection:
            while not connection.execute(text(COUNTS[name])).scalar_one():
                sleep(0.01)
        link.stall()
        sent = monotonic()
        run.process.send_signal(signal.SIGTERM)
        assert run.finish() == 128 + signal.SIGTERM
        assert monotonic() - sent < LIMIT + SLACK
    assert (run.last["event"], run.last["exit_code"]) == ("command.failed", 143)
    assert "the server still runs the statement" in run.last["hint"]
    with engine.connect() as connection:
        ids = {
            "postgres": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event = 'PgSleep'",
            "mariadb": "SELECT id FROM information_schema.processlist WHERE state = 'User sleep'",
        }
        for row in connection.execute(text(ids[name])).all():
            if name == "mariadb":
                connection.execute(text(f"KILL {row[0]}"))


def test_signal_while_nobody_reads_the_log(tmp_path: Path) -> None:
    """A pipe that is full takes no last line: the run ends in time, with its code."""
    body = "    while True:\n        print('a line that fills the pipe' * 40)"
    app = write_app(tmp_path / "app", [body])
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as log, Path(os.devnull).open("r+b") as nothing:
        run = zygote_of().start(
            app,
            "flask_migrate_sidecar",
            *("db", "upgrade"),
            env=environment_of({"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}),
            streams=[nothing.fileno(), nothing.fileno(), writing],
        )
        os.close(writing)
        os.set_blocking(reading, False)
        while b"Running upgrade r1 -> r2" not in (log.read(1 << 20) or b""):
            sleep(0.05)
        # A pipe has 16 pages, and a line of a third of one is not parted.
        while count_waiting(reading) < (40 << 10):
            sleep(0.05)
        sent = monotonic()
        run.send_signal(signal.SIGTERM)
        code = run.wait(LIMIT + SLACK)
        assert monotonic() - sent < LIMIT + SLACK
        run.close()
    assert code == 128 + signal.SIGTERM
