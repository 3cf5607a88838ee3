"""Threads of ours, of which user code that forks must not hear."""

import subprocess
import sys
from time import monotonic, sleep

import pytest
from structlog.testing import capture_logs

from flask_migrate_sidecar.history.environment import Environments, Place
from flask_migrate_sidecar.history.heartbeat import beating
from flask_migrate_sidecar.history.progress import Progress, Step
from flask_migrate_sidecar.process.threads import list_running
from sidecar_runs import DEADLINE

PROGRAM = """
import os, threading, warnings
from flask_migrate_sidecar.process.threads import start_thread

warnings.simplefilter({action!r})
hanging = threading.Event().wait
start_thread(hanging, name="ours")
for _ in range(2):
    {first}
    if os.fork() == 0:
        os._exit(0)
    assert os.wait()[1] == 0
"""
THEIRS = "threading.Thread(target=hanging, daemon=True).start()"


def run(action: str, first: str = "pass") -> str:
    """Fork twice beside a thread of ours; give what Python says to that."""
    program = PROGRAM.format(action=action, first=first)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stderr


@pytest.mark.parametrize("action", ["always", "error"])
def test_fork_beside_our_threads_is_not_warned_of(action: str) -> None:
    """A program that forks, and would have one thread without us, is not told of our threads."""
    assert run(action) == ""


def test_fork_beside_other_threads_is_warned_of() -> None:
    """Where the program has threads of its own, Python's warning stands, as it does without us."""
    assert run("always", THEIRS).count("is multi-threaded") == 2 * (sys.version_info >= (3, 12))


def test_no_heartbeat_without_a_period() -> None:
    """A period of 0 means no lines, and no thread that counts to nothing."""
    silent = beating(Progress(), Environments({}), [], period=0, connect_timeout=1)
    with silent:
        assert "flask-migrate-heartbeat" not in list_running()
    with beating(Progress(), Environments({}), [], period=60, connect_timeout=1):
        assert "flask-migrate-heartbeat" in list_running()


def test_revision_that_has_just_begun_is_not_told() -> None:
    """A heartbeat is of a revision that has run for the period, whenever the thread wakes up."""
    step = Step(Place("default"), None, "upgrade", "r1", None, "")
    progress = Progress(running=step, running_since=monotonic() + 3600)
    beats = beating(progress, Environments({}), [], period=0.01, connect_timeout=1)
    with capture_logs() as log, beats:
        sleep(0.1)
        assert log == []
        progress.running_since = 0
        deadline = monotonic() + DEADLINE
        while not log and monotonic() < deadline:
            sleep(0.01)
    assert log[0]["event"] == "migration.running"
