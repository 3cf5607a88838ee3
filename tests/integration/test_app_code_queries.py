"""An application that queries its database while it is imported: 5 or 6, never 4."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from app_code import find_events, read_last, read_log, write_app
from conftest import clean_environment
from servers import PASSWORD, Postgres, render_url

if TYPE_CHECKING:
    from conftest import RunCommand

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


def start(app: Path, *arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start a run without waiting for its end."""
    command = [sys.executable, "-m", "flask_migrate_sidecar", *arguments]
    environment = {**clean_environment(), **env}
    return subprocess.Popen(command, cwd=app, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], head: str) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a run; give all of its log."""
    _, rest = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, "", head + rest)


def read_until(process: subprocess.Popen[str], event: str) -> str:
    """Read a log until an event; give what was read."""
    assert process.stderr is not None
    head = ""
    for line in process.stderr:
        head += line
        if f'"{event}"' in line:
            return head
    raise AssertionError(head)


@pytest.mark.parametrize("form", FORMS)
def test_waits_until_the_server_is_up(form: str, tmp_path: Path, postgres15: Postgres) -> None:
    """The process starts itself again until the import succeeds, and says so as one run."""
    url = postgres15.create_database().url()
    app = write_app(tmp_path / "app", FORMS[form])
    postgres15.stop()
    try:
        process = start(app, "db", "upgrade", env={"DATABASE_URL": url})
        head = read_until(process, "database.waiting")
    finally:
        postgres15.start()
    result = finish(process, head)

    assert read_last(result)["applied"] == ["a1"]
    assert [event["event"] for event in read_log(result)].count("sidecar.started") == 1
    (waiting, *_) = find_events(result, "database.waiting")
    assert waiting["attempt"] == 1
    assert "refused" in waiting["reason"]


@pytest.mark.parametrize("form", FORMS)
def test_unavailable_at_the_deadline(form: str, tmp_path: Path, sidecar: "RunCommand") -> None:
    """A database that never comes up is 5, with the whole wait in `elapsed` and one line for it."""
    app = write_app(tmp_path / "app", FORMS[form])
    env = {"DATABASE_URL": NOBODY, "MIGRATE_WAIT_TIMEOUT": "2s"}
    result = sidecar(app, "db", "upgrade", env=env)
    last = read_last(result)
    assert result.returncode == 5
    assert last["elapsed"] >= 2
    assert last["attempts"] > 1
    assert len(find_events(result, "database.waiting")) == 1
    assert "secret" not in result.stderr


def test_wait_timeout_zero_tries_once(tmp_path: Path, sidecar: "RunCommand") -> None:
    """Zero is one import, as it is one login elsewhere."""
    app = write_app(tmp_path / "app", QUERY)
    last = read_last(
        sidecar(app, "--wait-timeout=0", "db", "current", env={"DATABASE_URL": NOBODY})
    )
    assert (last["exit_code"], last["attempts"]) == (5, 1)


def test_refusal_counts_after_the_grace(
    tmp_path: Path, postgres15: Postgres, sidecar: "RunCommand"
) -> None:
    """A wrong password is 6, over all the processes that saw it, long before the deadline."""
    url = make_url(postgres15.create_database().url()).set(password="wrong%pw")
    app = write_app(tmp_path / "app", QUERY)
    env = {
        "DATABASE_URL": render_url(url),
        "MIGRATE_REFUSED_GRACE": "1s",
        "MIGRATE_WAIT_TIMEOUT": "60s",
    }
    result = sidecar(app, "db", "upgrade", env=env)
    assert result.returncode == 6
    assert 1 <= read_last(result)["elapsed"] < 30
    assert "wrong%pw" not in result.stderr
    assert PASSWORD not in result.stderr


@pytest.mark.parametrize("query", ["SELECT * FROM thing", "SELECT nix FROM alembic_version"])
def test_missing_table_is_told_at_once(
    query: str, database_url: str, tmp_path: Path, sidecar: "RunCommand"
) -> None:
    """What this very run is to create cannot be waited for; the hint names the ways out."""
    app = write_app(tmp_path / "app", QUERY)
    made = sidecar(app, "--app=none", "db", "stamp", "base", env={"DATABASE_URL": database_url})
    assert made.returncode == 0, made.stderr
    result = sidecar(app, "db", "upgrade", env={"DATABASE_URL": database_url, "QUERY": query})
    last = read_last(result)
    assert (last["exit_code"], last["attempts"]) == (5, 1)
    assert "--app none" in last["hint"]
    made = sidecar(app, "--app=none", "db", "upgrade", env={"DATABASE_URL": database_url})
    assert made.returncode == 0, made.stderr


def test_gate_waits_for_the_table(
    tmp_path: Path, postgres15: Postgres, sidecar: "RunCommand"
) -> None:
    """`wait head` of an app that queries a table passes once another run has created it."""
    url = postgres15.create_database().url()
    app = write_app(tmp_path / "app", QUERY)
    env = {"DATABASE_URL": url, "QUERY": "SELECT * FROM thing"}
    process = start(app, "wait", "head", env=env)
    head = read_until(process, "database.waiting")
    made = sidecar(app, "--app=none", "db", "upgrade", env={"DATABASE_URL": url})
    assert made.returncode == 0, made.stderr
    assert finish(process, head).returncode == 0


def test_gate_is_pending_at_its_deadline(tmp_path: Path, sidecar: "RunCommand") -> None:
    """If the table never comes, the gate is pending: the database did answer."""
    app = write_app(tmp_path / "app", QUERY)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "QUERY": "SELECT * FROM thing"}
    result = sidecar(app, "--head-timeout=1s", "wait", "head", env=env)
    assert read_last(result)["exit_code"] == 10


def test_starts_again_as_it_was_started(tmp_path: Path, sidecar: "RunCommand") -> None:
    """Folder, arguments and environment are the first ones again, whatever the app changed."""
    body = "print(os.environ.get('MARK')); os.environ['MARK'] = 'left'; os.chdir('/')\n" + QUERY
    write_app(tmp_path / "nested" / "app", body)
    env = {"DATABASE_URL": NOBODY, "MARK": "given", "MIGRATE_WAIT_TIMEOUT": "2"}
    result = sidecar(tmp_path, "--app-dir", "nested/app", "db", "upgrade", env=env)
    assert read_last(result)["exit_code"] == 5
    printed = {event["text"] for event in find_events(result, "output")}
    assert printed == {"given"}


def test_threads_and_handlers_do_not_outlive_the_start(
    tmp_path: Path, sidecar: "RunCommand"
) -> None:
    """What a failed import left behind (threads, atexit) ends with the process that it was in."""
    body = """
import atexit, threading, time
atexit.register(time.sleep, 600)
threading.Thread(target=time.sleep, args=(600,)).start()
"""
    app = write_app(tmp_path / "app", body + QUERY)
    env = {"DATABASE_URL": NOBODY, "MIGRATE_WAIT_TIMEOUT": "2"}
    assert read_last(sidecar(app, "db", "upgrade", env=env, timeout=30))["exit_code"] == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_between_two_starts(number: signal.Signals, tmp_path: Path) -> None:
    """A signal is heard at any moment of the starting again, and ends the run with its code."""
    app = write_app(tmp_path / "app", QUERY)
    for delay in range(5):
        process = start(app, "db", "upgrade", env={"DATABASE_URL": NOBODY})
        head = read_until(process, "database.waiting")
        # Into the pause, the start of Python, the imports.
        with_pause = 0.15 * delay
        try:
            process.wait(with_pause)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        result = finish(process, head)
        assert result.returncode == 128 + number, result.stderr
        assert read_last(result)["exit_code"] == 128 + number


def test_variable_stays_inside(tmp_path: Path, sidecar: "RunCommand") -> None:
    """The variable that carries the deadline is not seen by the application's children."""
    body = "os.system('env | grep -c _FLASK_MIGRATE_SIDECAR >&2')\n"
    app = write_app(tmp_path / "app", body + QUERY)
    env = {"DATABASE_URL": NOBODY, "MIGRATE_WAIT_TIMEOUT": "1"}
    result = sidecar(app, "db", "upgrade", env=env)
    assert {event["text"] for event in find_events(result, "output")} == {"0"}
    assert result.returncode == 5
