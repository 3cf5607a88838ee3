"""An application may do what it likes at import: the run ends, with its code, in JSON."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app_code import HEAD, REVISION, find_events, read_last, read_log, write_app
from following import FollowedRun

if TYPE_CHECKING:
    from conftest import RunCommand

# What runs at import, and the exit code of `db upgrade`.
HOSTILE = {
    "prints": (
        """
import ctypes, subprocess
print('print'); ctypes.CDLL(None).puts(b'puts')
os.write(1, b'raw\\n'); os.write(2, b'unfinished')
subprocess.run('echo child; echo child >&2', shell=True)
""",
        0,
    ),
    "basicConfig": (
        """
import logging
logging.basicConfig(level=10, force=True, format='PLAIN %(message)s')
logging.info('said')
""",
        0,
    ),
    "dictConfig": (
        """
import logging.config
handlers = {'console': {'class': 'logging.StreamHandler'}}
root = {'level': 'DEBUG', 'handlers': ['console']}
logging.config.dictConfig({'version': 1, 'root': root, 'handlers': handlers})
logging.warning('said')
""",
        0,
    ),
    "disabled logging": (
        """
import logging
logging.disable(logging.CRITICAL)
""",
        0,
    ),
    "structlog": (
        """
import structlog
structlog.configure(processors=[lambda *_: 1 / 0])
""",
        0,
    ),
    "sys.exit": (
        """
import sys
sys.exit()
""",
        4,
    ),
    "sys.exit with text": (
        """
import sys
sys.exit('no')
""",
        4,
    ),
    "os._exit": ("os._exit(0)", 4),
    "os._exit in a child": (
        """
if os.fork() == 0:
    os._exit(3)
os.wait()
""",
        0,
    ),
    "threads": (
        """
import threading, time

def work():
    while True:
        time.sleep(0.01)

threading.Thread(target=work).start()
""",
        0,
    ),
    "pool": (
        """
import time
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor()
pool.submit(time.sleep, 600)
""",
        0,
    ),
    "failing thread": (
        """
import threading
threading.Thread(target=lambda: 1 / 0).start()
""",
        0,
    ),
    "hanging atexit": (
        """
import atexit, time
atexit.register(time.sleep, 600)
""",
        0,
    ),
    "printing atexit": (
        """
import atexit
atexit.register(print, 'bye')
""",
        0,
    ),
    "failing atexit": (
        """
import atexit
atexit.register(lambda: 1 / 0)
""",
        0,
    ),
    "replaced stdout": (
        """
import io, sys
sys.stdout = sys.stderr = io.StringIO()
""",
        0,
    ),
    "no stdout": (
        """
import sys
sys.stdout = sys.stderr = None
""",
        0,
    ),
    "closed stdout": (
        """
import sys
sys.stdout.close(); sys.stderr.close()
""",
        0,
    ),
    "closed descriptors": ("os.close(1); os.close(2)", 0),
    "replaced descriptors": (
        """
null = os.open(os.devnull, os.O_WRONLY)
os.dup2(null, 1); os.dup2(null, 2)
""",
        0,
    ),
    "warnings as errors": (
        """
import warnings
warnings.simplefilter('error')
""",
        0,
    ),
    "warnings": (
        """
import warnings
warnings.simplefilter('always')
warnings.warn('said')
""",
        0,
    ),
    "chdir": ("os.chdir('/')", 0),
    "empty environment": ("os.environ.clear()", 0),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", 4),
    "BaseException": ("raise GeneratorExit", 4),
    "exception without a text": (
        """
class Odd(Exception):
    def __str__(self):
        return 1 / 0

raise Odd
""",
        4,
    ),
    "recursion": (
        """
def recurse():
    recurse()

recurse()
""",
        4,
    ),
    "reading stdin": ("input()", 4),
    "syntax error": ("def", 4),
    "endless": (
        """
import time
while True:
    time.sleep(0.1)
""",
        4,
    ),
    "endless lock": (
        """
import threading
lock = threading.Lock()
lock.acquire()
lock.acquire()
""",
        4,
    ),
    "endless, deaf": (
        """
import time
while True:
    try:
        time.sleep(0.1)
    except BaseException:
        pass
""",
        4,
    ),
    "create_all": (
        """
with app.app_context():
    db.create_all()
""",
        8,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_ends_with_its_code_in_json(name: str, tmp_path: Path, launch: "RunCommand") -> None:
    """Whatever the import does, each line of the log is JSON and the last tells the right code."""
    body, code = HOSTILE[name]
    # What ends by itself has the time that a busy machine takes for the import.
    limit = "2" if name.startswith("endless") else "4m"
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "MIGRATE_APP_TIMEOUT": limit}

    result = launch(write_app(tmp_path / "app", body), "db", "upgrade", env=env)

    assert result.returncode == code, result.stderr
    assert read_last(result)["exit_code"] == code
    assert result.stdout == ""
    assert len(find_events(result, "command.failed")) == (code != 0)


def test_created_tables_are_hinted_at(tmp_path: Path, launch: "RunCommand") -> None:
    """Where a factory creates all tables, the failing upgrade says that this may be the reason."""
    app = write_app(tmp_path / "app", "with app.app_context():\n    db.create_all()")
    last = read_last(launch(app, "db", "upgrade", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x"}))
    assert "db.create_all()" in last["hint"]


def test_prints_become_events(tmp_path: Path, launch: "RunCommand") -> None:
    """No line that user code prints is lost, from Python, C or a child process."""
    app = write_app(tmp_path / "app", HOSTILE["prints"][0])
    result = launch(app, "db", "upgrade", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    texts = {event["text"] for event in find_events(result, "output")}
    assert {"print", "puts", "raw", "unfinishedchild", "child"} <= texts


def test_fork_is_not_warned_of(tmp_path: Path, launch: "RunCommand") -> None:
    """Python's warning of a fork beside threads is passed over where the threads are all ours."""
    fork = "if os.fork() == 0:\n        os._exit(0)\n    os.wait()"
    revision = REVISION.replace("    op.create", f"    import os\n    {fork}\n    op.create", 1)
    body = "import warnings\nwarnings.simplefilter('always')\nwarnings.warn('said')\n"
    app = write_app(tmp_path / "app", body + HOSTILE["os._exit in a child"][0], revision=revision)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "MIGRATE_APP_TIMEOUT": "4m"}
    result = launch(app, "db", "upgrade", env=env)
    assert result.returncode == 0, result.stderr
    warned = [event["event"] for event in read_log(result) if event["logger"] == "py.warnings"]
    assert "said" in warned
    assert not [text for text in warned if "fork" in text]


# From SQLite's own code a handler of Python's never gets its turn: the statement must be cancelled.
ENDLESS = """
    driver = op.get_bind().connection.dbapi_connection
    driver.create_function("begun", 0, lambda: print("begun"))
    op.execute(
        "WITH RECURSIVE c(x) AS (SELECT begun() UNION ALL SELECT 1 FROM c) SELECT count(*) FROM c"
    )
"""
TAKING = {
    "ignored": """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.set_wakeup_fd(-1)
""",
    "asyncio": """
import asyncio, signal
loop = asyncio.new_event_loop()
loop.add_signal_handler(signal.SIGTERM, print)
loop.close()
""",
}


@pytest.mark.parametrize("body", TAKING.values(), ids=TAKING.keys())
def test_signals_are_taken_back(body: str, tmp_path: Path) -> None:
    """An application that takes SIGTERM does not keep a migration from being interrupted."""
    endless = REVISION.replace("\n    op.create", ENDLESS + "    op.create", 1)
    app = write_app(tmp_path / "app", body, revision=endless)
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    with FollowedRun(app, "db", "upgrade", env=env) as run:
        run.await_event("output", text="begun")
        run.process.send_signal(signal.SIGTERM)
        code = run.finish()
    assert code == 128 + signal.SIGTERM, run.last
    assert (run.last["event"], run.last["exit_code"]) == ("command.failed", code)
    # The last resort ends without a word of what it broke off.
    assert run.last.get("revision") == "a1", run.last


def test_app_knows_that_it_is_migrated(tmp_path: Path, launch: "RunCommand") -> None:
    """FLASK_MIGRATE_SIDECAR=1 lets an application leave its schedulers off."""
    body = "assert os.environ['FLASK_MIGRATE_SIDECAR'] == '1'"
    app = write_app(tmp_path / "app", body)
    assert HEAD in (app / "app.py").read_text()
    result = launch(app, "db", "heads", env={"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    assert read_last(result)["exit_code"] == os.EX_OK
    assert result.stdout == "a1 (head)\n"
    assert read_log(result)[0]["event"] == "sidecar.started"
