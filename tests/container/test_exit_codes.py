"""Each class of error, caused for real, ends `docker run` with its code."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import make_url

from containers import Sidecar, await_true
from racing import write_app
from servers import Postgres
from sidecar_runs import Result, read_log

pytestmark = pytest.mark.container
pytest_plugins = ["container_fixtures"]

SLOW = '    op.execute("SELECT pg_sleep(60)")'
# Python runs this module at its start, before anything of the sidecar's.
FAULT = """
import flask_migrate_sidecar.commands.dispatch
flask_migrate_sidecar.commands.dispatch.RUNS.clear()
"""


@dataclass
class Case:
    """How to bring about one class of error; `{url}` stands for a fresh database."""

    code: int
    error: str
    arguments: tuple[str, ...] = ("db", "upgrade")
    env: Mapping[str, str] = field(default_factory=dict)
    bodies: tuple[str, ...] = ("    pass",)
    files: Mapping[str, str] = field(default_factory=dict)


CASES = [
    Case(1, "KeyError", env={"PYTHONPATH": "/app"}, files={"sitecustomize.py": FAULT}),
    Case(2, "UsageError", ("db", "upgrade", "--no-such-option")),
    Case(3, "ConfigurationError", ("--directory", "nowhere", "db", "upgrade")),
    Case(4, "AppError", files={"app.py": "import no_such_module"}),
    Case(5, "UnavailableError", env={"DATABASE_URL": "{closed}", "MIGRATE_WAIT_TIMEOUT": "1s"}),
    Case(6, "RefusedError", env={"DATABASE_URL": "{wrong}", "MIGRATE_REFUSED_GRACE": "0"}),
    Case(8, "MigrationError", bodies=('    op.execute("no SQL")',)),
    Case(9, "HistoryError", ("db", "upgrade", "no_such_revision")),
    Case(10, "PendingError", ("--head-timeout", "0", "wait", "head")),
]


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Return the URL of a fresh database."""
    return postgres.create_database().url()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.error}")
def test_each_error_has_its_code(image: Sidecar, url: str, tmp_path: Path, case: Case) -> None:
    """`docker run` ends with the code of the contract, and the last line names code and error."""
    app = write_app(tmp_path / "app", case.bodies)
    for name, text in case.files.items():
        (app / name).write_text(text)
    location = make_url(url)
    urls = {
        "{closed}": location.set(port=9),
        "{wrong}": location.set(password="not this one"),
    }
    env = {"DATABASE_URL": url, **case.env}
    if env["DATABASE_URL"] in urls:
        env["DATABASE_URL"] = urls[env["DATABASE_URL"]].render_as_string(hide_password=False)
    result = image.run(*case.arguments, env=env, mounts={app: "/app:ro"})
    check_end(result, case.code)
    assert result.last["error"]["type"] == case.error


def test_lock_and_signals_have_their_codes(
    image: Sidecar, url: str, tmp_path: Path, is_sleeping: Callable[[str], bool]
) -> None:
    """A second migrator ends with 7 while the first one works, which SIGINT ends with 130."""
    app = write_app(tmp_path / "app", [SLOW])
    env, mounts = {"DATABASE_URL": url}, {app: "/app:ro"}
    with image.start("db", "upgrade", env=env, mounts=mounts) as first:
        await_true(lambda: is_sleeping(url))
        second = image.run("--lock-timeout", "0", "db", "upgrade", env=env, mounts=mounts)
        check_end(second, 7)
        first.engine("kill", "--signal", "INT", first.name)
        check_end(first.result(), 130)


def check_end(result: Result, code: int) -> None:
    """Hold a bad run to its code, in the container's status and in the log's last line."""
    assert result.returncode == code, result.stderr
    last = read_log(result.stderr)[-1]
    assert (last["event"], last["exit_code"]) == ("command.failed", code), json.dumps(last)
