"""A run on SQLite that is killed leaves the database as before or after, and the next one ends it.

Upstream's leaves tables half made and `_alembic_tmp_*`, on which each later run fails.
"""

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

from conftest import clean_environment
from sidecar_runs import environment_of
from sqlite_history import HISTORY, count, dump, write_app
from zygote import Forked, zygote_of

KILLS = int(os.environ.get("SIDECAR_TEST_KILLS", "500"))

# SQLite calls back after so many of its virtual machine's instructions, of which a run has some
# thousands; without a number to die at, the run writes how many there were.
COUNTING = """
import atexit
import signal

seen = 0


@event.listens_for(Engine, "connect")
def count_instructions(connection, _record):
    def count():
        global seen
        seen += 1
        if seen == int(os.environ.get("DIE_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)

    connection.set_progress_handler(count, 1)
    (HERE / "begun").touch()


if "DIE_AT" not in os.environ:
    atexit.register(lambda: (HERE / "instructions").write_text(str(seen)))
"""
MODES = {"all": "", "each": ", transaction_per_migration=True"}
JOURNALS = {
    "rollback": "",
    "WAL": """
@event.listens_for(Engine, "connect")
def write_ahead(connection, _record):
    connection.execute("PRAGMA journal_mode = WAL")
""",
}


@dataclass(frozen=True)
class Lab:
    """An application, and what its database holds where no run is disturbed.

    Args:
        folder: of the application.
        module: what migrates, `flask` or the sidecar's.
        states: the contents of the database before the first revision, and behind those that are
            committed with others.
        instructions: how many SQLite runs for a whole upgrade.
    """

    folder: Path
    module: str
    states: list[list[str]]
    instructions: int

    @property
    def database(self) -> Path:
        """The file."""
        return self.folder / "main.db"

    @contextmanager
    def upgrade(self, *target: str, **env: str) -> Iterator[Forked]:
        """Begin an upgrade, and end it with the block."""
        with (self.folder / "log").open("wb") as log, Path(os.devnull).open("rb") as nothing:
            run = zygote_of().start(
                self.folder,
                self.module,
                *("db", "upgrade", *target),
                env=environment_of(env),
                streams=[nothing.fileno(), log.fileno(), log.fileno()],
            )
        try:
            yield run
        finally:
            run.close()

    def finish(self, *target: str, **env: str) -> None:
        """Upgrade undisturbed."""
        with self.upgrade(*target, **env) as run:
            assert run.wait() == 0, (self.folder / "log").read_text()

    def clear(self) -> None:
        """Begin anew without a database."""
        for path in self.folder.glob("main.db*"):
            path.unlink()

    def look(self) -> list[str]:
        """Read what the file holds, if it is there, once SQLite has restored it."""
        found = dump(self.database) if self.database.exists() else self.states[0]
        return found if count_tables(found) else self.states[0]

    def endure(self, disturb: Callable[[], None]) -> None:
        """Disturb a run, and hold what it left, and what the next one makes of it."""
        self.clear()
        disturb()
        assert self.look() in self.states
        self.finish()
        assert self.look() == self.states[-1]


def count_tables(statements: list[str]) -> int:
    """Count what is there but the version table, which may be there and empty."""
    return sum("alembic_version" not in s for s in statements[1:-1])


def make_lab(folder: Path, mode: str, journal: str, module: str = "flask") -> Lab:
    """Write the application, and see which states an undisturbed history has."""
    more = COUNTING + JOURNALS[journal]
    app = write_app(folder, HISTORY, more=more, options=MODES[mode])
    lab = Lab(app, module, [["BEGIN TRANSACTION;", "COMMIT;"]], 0)
    for number in range(1, len(HISTORY) + 1) if mode == "each" else (len(HISTORY),):
        lab.finish(f"r{number}", DIE_AT="0")
        lab.states.append(dump(lab.database))
    assert count(lab.database, "book") == 346
    lab.clear()
    lab.finish()
    return Lab(app, module, lab.states, int((folder / "instructions").read_text()))


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("module", ["flask", "flask_migrate_sidecar"])
def test_killed_at_an_instruction(module: str, mode: str, journal: str, tmp_path: Path) -> None:
    """Killed at whichever instruction of SQLite's, a run leaves a whole state behind."""
    lab = make_lab(tmp_path / "app", mode, journal, module)
    chance = random.Random(f"{module} {mode} {journal}")  # noqa: S311
    for _ in range(3):
        lab.endure(lambda: die_at(lab, chance.randrange(1, lab.instructions)))


def die_at(lab: Lab, number: int) -> None:
    """Let a run die at an instruction."""
    with lab.upgrade(DIE_AT=str(number)) as run:
        assert run.wait() == -9


@pytest.mark.endurance
@pytest.mark.timeout(7200)
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Killed at any moment, amid what the system does for SQLite too, it does the same.

    The moments are spread over as long as an undisturbed run needs from its first connection on.
    """
    chance, seen = random.Random("any moment"), Counter[str]()  # noqa: S311
    labs = {
        (mode, journal): make_lab(tmp_path / f"{mode} {journal}", mode, journal)
        for mode in MODES
        for journal in JOURNALS
    }
    longest = {name: max(time_run(lab) for _ in range(3)) for name, lab in labs.items()}
    for number in range(KILLS):
        name, lab = list(labs.items())[number % len(labs)]
        lab.endure(lambda: kill_at(lab, chance.uniform(0, longest[name]), seen))  # noqa: B023
    print(f"\n{KILLS} kills: {dict(seen)}")  # noqa: T201
    assert seen["killed"] > KILLS / 2


@pytest.mark.endurance
@pytest.mark.timeout(7200)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("mode", MODES)
def test_killed_at_each_call_of_the_system(mode: str, journal: str, tmp_path: Path) -> None:
    """Killed before whichever write, sync or unlink of SQLite's, it does the same."""
    lab, number, code = make_lab(tmp_path / "app", mode, journal), 0, -9

    def disturb() -> None:
        nonlocal code
        code = run_traced(lab, number)

    while code:
        number += 1
        lab.endure(disturb)
    print(f"\n{mode}, {journal}: {number - 1} calls")  # noqa: T201
    assert number > 10


def run_traced(lab: Lab, number: int) -> int:
    """Upgrade, but for a kill at a call that changes files, and give the exit code."""
    calls = "pwrite64,fdatasync,fsync,unlink,ftruncate"
    injected = f"inject={calls}:signal=KILL:when={number}"
    command = ["strace", "-f", "-o", os.devnull, "-e", f"trace={calls}", "-e", injected]
    done = subprocess.run(
        [*command, sys.executable, "-m", lab.module, "db", "upgrade"],
        cwd=lab.folder,
        env={**clean_environment(), "DIE_AT": "0"},
        capture_output=True,
        check=False,
    )
    return done.returncode


def await_beginning(lab: Lab) -> float:
    """Wait until a run has connected."""
    while not (lab.folder / "begun").exists():
        sleep(0.001)
    return monotonic()


def time_run(lab: Lab) -> float:
    """Measure how long a run needs from its first connection on."""
    lab.clear()
    (lab.folder / "begun").unlink(missing_ok=True)
    with lab.upgrade(DIE_AT="0") as run:
        begun = await_beginning(lab)
        run.wait()
    return monotonic() - begun


def kill_at(lab: Lab, moment: float, seen: Counter[str]) -> None:
    """Kill a run some seconds after it has connected, and count what it was doing."""
    (lab.folder / "begun").unlink(missing_ok=True)
    with lab.upgrade(DIE_AT="0") as run:
        await_beginning(lab)
        sleep(moment)
        with suppress(ProcessLookupError):
            run.kill()
        seen["killed" if run.wait() == -9 else "ended before"] += 1
    for suffix in ("-journal", "-wal"):
        path = lab.folder / f"main.db{suffix}"
        seen[f"left {suffix}"] += path.exists() and path.stat().st_size > 0
    seen["left as before" if lab.look() == lab.states[0] else "left further"] += 1
