"""`docker stop`: prompt, without a kill, with nothing half done and nothing held."""

from collections.abc import Callable
from pathlib import Path

import pytest

from containers import Sidecar, await_true
from racing import read_runs, write_app

pytestmark = pytest.mark.container
pytest_plugins = ["container_fixtures"]

# Kubernetes kills 30 s after SIGTERM, Docker after 10.
PROMPT = 9.0
SLEEP = {"postgresql": "SELECT pg_sleep({seconds})", "mariadb": "SELECT SLEEP({seconds})"}
# The row comes before the wait: it must go again.
BODY = """\
    import os
    op.execute("INSERT INTO ran (revision, direction) VALUES ('half', 'up')")
    op.execute("{sleep}".format(seconds=os.environ["SECONDS"]))
"""
# Stands for a package whose import takes long, before the sidecar could handle a signal.
SLOW_IMPORT = "import sys, time; sys.stderr.write('importing\\n'); time.sleep(60)"


@pytest.mark.parametrize("dialect", ["postgresql", "mariadb"])
def test_a_migration_is_stopped_in_its_midst(
    image: Sidecar,
    dialect: str,
    create_database_url: Callable[[], str],
    is_sleeping: Callable[[str], bool],
    figure: Callable[[str, str], None],
    tmp_path: Path,
) -> None:
    """It ends with 143, its statement, transaction and lock are gone, and the next run finishes."""
    url = create_database_url()
    app = write_app(tmp_path / "app", [BODY.format(sleep=SLEEP[dialect])])
    with image.start(
        *("db", "upgrade"), env={"DATABASE_URL": url, "SECONDS": "60"}, mounts={app: "/app:ro"}
    ) as container:
        await_true(lambda: is_sleeping(url))
        seconds = container.stop()
        result = container.result()
    figure(f"docker stop on {dialect}", f"{seconds:.2f} s, exit code {result.returncode}")
    assert result.returncode == 143, result.stderr
    assert result.last["event"] == "command.failed"
    assert seconds < PROMPT
    assert not is_sleeping(url)
    if dialect == "mariadb":
        # Its DDL committed the first revision, and with it the table that this reads.
        assert read_runs(url) == [("r1", "up")]
    after = image.run(
        *("--lock-timeout", "0", "db", "upgrade"),
        env={"DATABASE_URL": url, "SECONDS": "0"},
        mounts={app: "/app:ro"},
    )
    assert after.returncode == 0, after.stderr
    assert read_runs(url) == [("half", "up"), ("r1", "up"), ("r2", "up")]


@pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("INT", 130)])
def test_imports_are_stopped(image: Sidecar, open_folder: Path, signal: str, code: int) -> None:
    """A signal counts from the first moment, though process 1 has no default actions."""
    (open_folder / "structlog.py").write_text(SLOW_IMPORT)
    with image.start(
        *("db", "heads"), env={"PYTHONPATH": "/slow"}, mounts={open_folder: "/slow:ro"}
    ) as container:
        await_true(lambda: "importing" in container.logs())
        container.engine("kill", "--signal", signal, container.name)
        assert container.result().returncode == code


def test_no_memory_left_is_told(image: Sidecar, tmp_path: Path) -> None:
    """Where the kernel ends the run for its memory, process 1 says so in the last line."""
    body = """    op.execute("SELECT 1")\n    b"x" * (1 << 30)\n"""
    app = write_app(tmp_path / "app", [body])
    limits = ("--memory", "200m", "--memory-swap", "200m")
    result = image.run(
        *("db", "upgrade"),
        env={"DATABASE_URL": "sqlite://"},
        mounts={app: "/app:ro"},
        more=limits,
    )
    assert result.returncode == result.last["exit_code"] == 137, result.stderr
    assert "SIGKILL" in result.last["error"]["message"]
    assert "memory" in result.last["hint"]
