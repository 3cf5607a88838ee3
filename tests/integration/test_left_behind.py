"""What a run starts does not outlive it, and what kills it is told by process 1."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app_code import write_app
from conftest import clean_environment
from following import FollowedRun
from racing import write_app as write_revisions

STARTS = {
    "shell": 'subprocess.run("sleep 600 & echo begun $!; wait", shell=True)',
    "session": 'begin("sleep 600 & echo begun $!; wait", start_new_session=True)',
    "stubborn": """begin("trap '' INT TERM; echo begun $$; while :; do sleep 1; done")""",
}
BODY = """\
    import subprocess

    def begin(script, **options):
        subprocess.Popen(["sh", "-c", script], **options)
        time.sleep(600)

    {}
"""


@pytest.mark.parametrize("name", STARTS)
def test_programs_of_a_revision_end_with_it(name: str, tmp_path: Path) -> None:
    """A signal ends what the revision has started too, with all that this has started."""
    app = write_revisions(tmp_path / "app", [BODY.format(STARTS[name])])
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    with FollowedRun(app, "db", "upgrade", env=env) as run:
        while not (said := run.await_event("output")["text"]).startswith("begun"):
            pass
        pid = int(said.split()[1])
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait() == 143
        # Before the test itself ends all that is left.
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Tell whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="a process namespace needs root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is missing")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_process_one_tells_how_the_run_was_killed(number: int, tmp_path: Path) -> None:
    """After a crash, or without memory, there is a last line and a termination message."""
    app = write_app(tmp_path / "app", f"import os; os.kill(os.getpid(), {int(number)})")
    message = tmp_path / "message"
    # With /proc as it is: nothing of it is needed.
    command = ["unshare", "--pid", "--fork", sys.executable, "-m", "flask_migrate_sidecar"]
    done = subprocess.run(
        [*command, "--termination-log", str(message), "db", "upgrade"],
        cwd=app,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == last["exit_code"] == 128 + number
    assert signal.Signals(number).name in last["error"]["message"]
    assert ("memory" in last["hint"]) == (number == signal.SIGKILL)
    assert json.loads(message.read_text())["exit_code"] == 128 + number
