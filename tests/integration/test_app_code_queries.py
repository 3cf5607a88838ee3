"""An application that queries its database while it is imported: 5 or 6, never 4."""

import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from app_code import find_events, read_last, read_log, write_app
from following import FollowedRun
from servers import PASSWORD, Postgres, render_url
from sidecar_runs import patiently

if TYPE_CHECKING:
    from conftest import RunCommand

Result = subprocess.CompletedProcess[str]

QUERY = """
with app.app_context():
    db.session.execute(db.text(os.environ.get("QUERY", "SELECT 1"))).all()
"""
# How applications pass the failure of a query on.
FORMS = {
    "raised": QUERY,
    "wrapped": f"""
try:
    {QUERY.strip().replace(chr(10), chr(10) + "    ")}
except Exception as error:
    raise RuntimeError("no database") from error
""",
    "sys.exit": f"""
import sys
try:
    {QUERY.strip().replace(chr(10), chr(10) + "    ")}
except Exception:
    sys.exit(1)
""",
    "driver": """
import psycopg
psycopg.connect(os.environ["DATABASE_URL"].replace("+psycopg", "")).close()
""",
}
NOBODY = "postgresql+psycopg://nobody:secret@127.0.0.1:1/nothing"


# Long enough for two attempts, each of which is a start of Python; longer where that is not.
LEAST = 2
# What is said of a wait again, without news, after so long.
REPORT_SECONDS = 5
LONG = {"MIGRATE_WAIT_TIMEOUT": "10m", "MIGRATE_HEAD_TIMEOUT": "10m"}


def fail_twice(run: Callable[[float], Result]) -> Result:
    """Run with a deadline that leaves time for a second attempt."""
    return patiently(run, lambda result: read_last(result)["attempts"] > 1, LEAST)


@pytest.mark.parametrize("form", FORMS)
def test_waits_until_the_server_is_up(form: str, tmp_path: Path, postgres15: Postgres) -> None:
    """The process starts itself again until the import succeeds, and says so as one run."""
    url = postgres15.create_database().url()
    app = write_app(tmp_path / "app", FORMS[form])
    postgres15.stop()
    try:
        process = FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url, **LONG})
        process.await_event("database.waiting")
    finally:
        postgres15.start()
    result = process.result()

    assert read_last(result)["applied"] == ["a1"]
    assert [event["event"] for event in read_log(result)].count("sidecar.started") == 1
    (waiting, *_) = find_events(result, "database.waiting")
    assert waiting["attempt"] == 1
    assert "refused" in waiting["reason"]


@pytest.mark.parametrize("form", FORMS)
def test_unavailable_at_the_deadline(form: str, tmp_path: Path, launch: "RunCommand") -> None:
    """A database that never comes up is 5, with the whole wait in `elapsed`, told once in 5 s."""
    app = write_app(tmp_path / "app", FORMS[form])

    def run(limit: float) -> Result:
        env = {"DATABASE_URL": NOBODY, "MIGRATE_WAIT_TIMEOUT": f"{limit}s"}
        return launch(app, "db", "upgrade", env=env)

    result = fail_twice(run)
    last = read_last(result)
    assert result.returncode == 5
    assert last["elapsed"] >= read_log(result)[0]["settings"]["wait_timeout"]
    assert last["attempts"] > 1
    assert len(find_events(result, "database.waiting")) <= 1 + last["elapsed"] // REPORT_SECONDS
    assert "secret" not in result.stderr


def test_wait_timeout_zero_tries_once(tmp_path: Path, launch: "RunCommand") -> None:
    """Zero is one import, as it is one login elsewhere."""
    app = write_app(tmp_path / "app", QUERY)
    last = read_last(launch(app, "--wait-timeout=0", "db", "current", env={"DATABASE_URL": NOBODY}))
    assert (last["exit_code"], last["attempts"]) == (5, 1)


def test_refusal_counts_after_the_grace(
    tmp_path: Path, postgres15: Postgres, launch: "RunCommand"
) -> None:
    """A wrong password is 6, over all the processes that saw it, long before the deadline."""
    url = make_url(postgres15.create_database().url()).set(password="wrong%pw")
    app = write_app(tmp_path / "app", QUERY)
    env = {
        "DATABASE_URL": render_url(url),
        "MIGRATE_REFUSED_GRACE": "1s",
        "MIGRATE_WAIT_TIMEOUT": "10m",
    }
    result = launch(app, "db", "upgrade", env=env)
    assert result.returncode == 6
    assert 1 <= read_last(result)["elapsed"] < 200
    assert "wrong%pw" not in result.stderr
    assert PASSWORD not in result.stderr


@pytest.mark.parametrize("query", ["SELECT * FROM thing", "SELECT nix FROM alembic_version"])
def test_missing_table_is_told_at_once(
    query: str, database_url: str, tmp_path: Path, launch: "RunCommand"
) -> None:
    """What this very run is to create cannot be waited for; the hint names the ways out."""
    app = write_app(tmp_path / "app", QUERY)
    made = launch(app, "--app=none", "db", "stamp", "base", env={"DATABASE_URL": database_url})
    assert made.returncode == 0, made.stderr
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database_url, "QUERY": query})
    last = read_last(result)
    assert (last["exit_code"], last["attempts"]) == (5, 1)
    assert "--app none" in last["hint"]
    made = launch(app, "--app=none", "db", "upgrade", env={"DATABASE_URL": database_url})
    assert made.returncode == 0, made.stderr


def test_gate_waits_for_the_table(
    tmp_path: Path, postgres15: Postgres, launch: "RunCommand"
) -> None:
    """`wait head` of an app that queries a table passes once another run has created it."""
    url = postgres15.create_database().url()
    app = write_app(tmp_path / "app", QUERY)
    env = {"DATABASE_URL": url, "QUERY": "SELECT * FROM thing", **LONG}
    process = FollowedRun(app, "wait", "head", env=env)
    process.await_event("database.waiting")
    made = launch(app, "--app=none", "db", "upgrade", env={"DATABASE_URL": url})
    assert made.returncode == 0, made.stderr
    assert process.result().returncode == 0


def test_gate_is_pending_at_its_deadline(tmp_path: Path, launch: "RunCommand") -> None:
    """If the table never comes, the gate is pending: the database did answer."""
    app = write_app(tmp_path / "app", QUERY)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "QUERY": "SELECT * FROM thing"}
    result = launch(app, "--head-timeout=1s", "wait", "head", env=env)
    assert read_last(result)["exit_code"] == 10


def test_starts_again_as_it_was_started(tmp_path: Path, launch: "RunCommand") -> None:
    """Folder, arguments and environment are the first ones again, whatever the app changed."""
    body = "print(os.environ.get('MARK')); os.environ['MARK'] = 'left'; os.chdir('/')\n" + QUERY
    write_app(tmp_path / "nested" / "app", body)

    def run(limit: float) -> Result:
        env = {"DATABASE_URL": NOBODY, "MARK": "given", "MIGRATE_WAIT_TIMEOUT": str(limit)}
        return launch(tmp_path, "--app-dir", "nested/app", "db", "upgrade", env=env)

    result = fail_twice(run)
    assert read_last(result)["exit_code"] == 5
    printed = [event["text"] for event in find_events(result, "output")]
    assert printed == ["given"] * read_last(result)["attempts"]


def test_threads_and_handlers_do_not_outlive_the_start(
    tmp_path: Path, launch: "RunCommand"
) -> None:
    """What a failed import left behind (threads, atexit) ends with the process that it was in."""
    body = """
import atexit, threading, time
atexit.register(time.sleep, 600)
threading.Thread(target=time.sleep, args=(600,)).start()
"""
    app = write_app(tmp_path / "app", body + QUERY)

    def run(limit: float) -> Result:
        env = {"DATABASE_URL": NOBODY, "MIGRATE_WAIT_TIMEOUT": str(limit)}
        return launch(app, "db", "upgrade", env=env)

    assert read_last(fail_twice(run))["exit_code"] == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_between_two_starts(number: signal.Signals, tmp_path: Path) -> None:
    """A signal is heard at any moment of the starting again, and ends the run with its code."""
    app = write_app(tmp_path / "app", QUERY)
    for delay in range(5):
        process = FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": NOBODY, **LONG})
        process.await_event("database.waiting")
        # Into the pause, the start of Python, the imports: wherever it is by then.
        with suppress(TimeoutError):
            process.process.wait(0.15 * delay)
        process.process.send_signal(number)
        result = process.result()
        assert result.returncode == 128 + number, result.stderr
        assert read_last(result)["exit_code"] == 128 + number


def test_variable_stays_inside(tmp_path: Path, launch: "RunCommand") -> None:
    """The variable that carries the deadline is not seen by the application's children."""
    body = "os.system('env | grep -c _FLASK_MIGRATE_SIDECAR >&2')\n"
    app = write_app(tmp_path / "app", body + QUERY)

    def run(limit: float) -> Result:
        env = {"DATABASE_URL": NOBODY, "MIGRATE_WAIT_TIMEOUT": str(limit)}
        return launch(app, "db", "upgrade", env=env)

    result = fail_twice(run)
    assert {event["text"] for event in find_events(result, "output")} == {"0"}
    assert result.returncode == 5
