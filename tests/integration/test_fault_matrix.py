"""Fault x moment x driver: the last line says what the database holds, and what helps.

Each cell causes its fault for real, reads the database on a connection of its own, and holds the
line to it (`faults.check_line`). Then it does what the line says, and the next run ends well.
"""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Final

import pytest
from sqlalchemy import text

from faults import REVISIONS, Stage, State, await_result, check_line
from servers import DRIVERS, PASSWORD, USER, Server
from sidecar_runs import Line

# How often each cell of the whole matrix runs.
RUNS: Final = 5
POSTGRESQL = ("psycopg", "psycopg2")
MYSQL = ("pymysql", "mysqldb")
SERVERS = (*POSTGRESQL, *MYSQL)
ALL = (*SERVERS, "sqlite3")
# One for each database, where the driver has nothing to say.
PRIMARY = ("psycopg", "pymysql", "sqlite3")
# When it has.
SPEAKING = ("before", "statement", "commit", "body", "second")


def nothing(_stage: Stage) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong, when, and what has to come of it.

    Args:
        code: the exit code.
        moments: when it is caused.
        cause: causes it, once the run is there.
        drivers: with which.
        body: what the third revision does, by backend where they differ.
        set_up: what is done first of all.
        damage: what is done to the database that is at its start.
        mend: takes the cause away, where that is more than to let the run's points pass.
        said: a part of the hint, by backend where they differ.
        start: the revision that the database holds before.
        arguments: options of the run.
        codes: by moment and driver where it is another.
        is_final: it ends the run, which is not let go on.
        releases: the statement in which the run waits comes to its end behind it.
        lasts: a run without mending ends in the same way.
    """

    code: int
    moments: Sequence[str]
    cause: Callable[[Stage], None] = nothing
    drivers: Sequence[str] = ALL
    body: str | Mapping[str, str] = ""
    set_up: Callable[[Stage], None] = nothing
    damage: Callable[[Stage], None] = nothing
    mend: Callable[[Stage], None] = nothing
    said: str | Mapping[str, str] = ""
    start: str = ""
    arguments: Sequence[str] = ()
    codes: Mapping[str, int] = field(default_factory=dict)
    is_final: bool = False
    releases: bool = False
    lasts: bool = False


# What ends a session, a server, a link or the process


def end_session(stage: Stage) -> None:
    """End the session that migrates."""
    stage.end_session(stage.session)


def lose_lock(stage: Stage) -> None:
    """End the session that holds the lock."""
    for session in stage.list_others():
        stage.end_session(session)


def stop_server(stage: Stage) -> None:
    """Stop the server in good order."""
    stage.server.stop()


def kill_server(stage: Stage) -> None:
    """Lose the server's node."""
    stage.server.kill()


def cut_link(stage: Stage) -> None:
    """Break the connections."""
    assert stage.link is not None
    stage.link.cut()


def use_link(stage: Stage) -> None:
    """Go through a link."""
    stage.use_link()


def send(number: int) -> Callable[[Stage], None]:
    """Send the run a signal."""
    return lambda stage: stage.run.process.send_signal(number)


def stall_and_interrupt(stage: Stage) -> None:
    """Let nothing pass any more, and send the run away."""
    assert stage.link is not None
    stage.link.stall()
    stage.run.process.send_signal(signal.SIGTERM)


def halt_and_interrupt(stage: Stage) -> None:
    """Stop the server where it is, and send the run away."""
    stage.halt()
    stage.run.process.send_signal(signal.SIGTERM)


# What the server refuses


def make_table(stage: Stage) -> None:
    """Make a table that belongs to nobody's revision."""
    stage.execute("CREATE TABLE other (id integer)", "INSERT INTO other VALUES (1)")
    if stage.backend == "postgresql":
        stage.execute(f'GRANT ALL ON other TO "{USER}"')


def drop_table(stage: Stage) -> None:
    """Take it away."""
    stage.execute("DROP TABLE other")


def revoke(stage: Stage) -> None:
    """Take the right to it away; of MariaDB's it is the right to all, for who connects anew."""
    if stage.backend == "postgresql":
        stage.execute(f'REVOKE ALL ON other FROM "{USER}"')
    else:
        stage.execute(f"REVOKE ALL ON `{stage.name}`.* FROM {USER}@'%'")


def grant(stage: Stage) -> None:
    """Give the right back."""
    if stage.backend == "postgresql":
        stage.execute(f'GRANT ALL ON other TO "{USER}"')
    else:
        stage.execute(f"GRANT ALL ON `{stage.name}`.* TO {USER}@'%'")


def make_read_only(stage: Stage) -> None:
    """Let the server take no writes."""
    if stage.backend == "mysql":
        stage.execute("SET GLOBAL read_only = 1")
        return
    stage.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    _await_read_only(stage, "on")


def make_writable(stage: Stage) -> None:
    """Let it take writes again."""
    if stage.backend == "mysql":
        stage.execute("SET GLOBAL read_only = 0")
        return
    stage.execute("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
    _await_read_only(stage, "off")


def _await_read_only(stage: Stage, value: str) -> None:
    await_result(lambda: stage.ask("SHOW default_transaction_read_only") == [value])


def limit_connections(stage: Stage) -> None:
    """Let the role have no further connection."""
    _limit(stage, "CONNECTION LIMIT 0", "WITH MAX_USER_CONNECTIONS 1")


def free_connections(stage: Stage) -> None:
    """Let it have as many as it likes."""
    _limit(stage, "CONNECTION LIMIT -1", "WITH MAX_USER_CONNECTIONS 0")


def change_password(stage: Stage) -> None:
    """Give the role another password."""
    _limit(stage, "PASSWORD 'another'", "IDENTIFIED BY 'another'")


def restore_password(stage: Stage) -> None:
    """Give it the one that the run knows."""
    _limit(stage, f"PASSWORD '{PASSWORD}'", f"IDENTIFIED BY '{PASSWORD}'")


def _limit(stage: Stage, postgresql: str, mysql: str) -> None:
    if stage.backend == "postgresql":
        stage.execute(f"ALTER ROLE {USER} {postgresql}")
    else:
        stage.execute(f"ALTER USER {USER}@'%' {mysql}")


# Who else is there


def hold_table(stage: Stage) -> None:
    """Hold the table of nobody's revision, or the file."""
    connection = stage.connect()
    for statement in {
        "postgresql": ("BEGIN", "LOCK TABLE other"),
        "mysql": ("LOCK TABLES other WRITE",),
        "sqlite": ("BEGIN IMMEDIATE",),
    }[stage.backend]:
        connection.execute(text(statement))


def cross(stage: Stage) -> None:
    """Hold what the revision wants next, and want what it holds."""
    connection = stage.connect()
    if stage.backend == "postgresql":
        # The one that finds the deadlock is the one that gives way.
        connection.execute(text("SET deadlock_timeout = '1h'"))
    connection.execute(text("BEGIN"))
    connection.execute(text("UPDATE other SET id = id + 1"))
    # InnoDB lets the one that has changed less give way.
    rows = ", ".join(f"({number})" for number in range(200))
    connection.execute(text(f"INSERT INTO other VALUES {rows}"))
    thread = Thread(target=connection.execute, args=[text("UPDATE ran SET direction = 'x'")])
    thread.start()
    stage.holds.callback(thread.join)
    waits = {
        "postgresql": "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'",
        "mysql": "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }
    await_result(lambda: stage.ask(waits[stage.backend]))


def move(stage: Stage) -> None:
    """Let somebody else move the database."""
    stage.execute("UPDATE alembic_version SET version_num = 'r1'")


def move_back(stage: Stage) -> None:
    """Let the version table tell the truth again."""
    stage.execute("UPDATE alembic_version SET version_num = 'r2'")


def mark_unknown(stage: Stage) -> None:
    """Let the database hold a revision that the code does not have."""
    stage.execute("UPDATE alembic_version SET version_num = 'zz'")


def mark_twice(stage: Stage) -> None:
    """Let it hold two revisions of one line."""
    stage.execute("INSERT INTO alembic_version VALUES ('r1')")


def unmark(stage: Stage) -> None:
    """Take the second one away."""
    stage.execute("DELETE FROM alembic_version WHERE version_num = 'r1'")


def lose_versions(stage: Stage) -> None:
    """Lose the version table."""
    stage.execute("DROP TABLE alembic_version")


def restore_versions(stage: Stage) -> None:
    """Mark what is there, as the hint says."""
    assert stage.upgrade("db", "stamp", "r2")["exit_code"] == 0


# What the disk, and the revision, do


def fill_disk(stage: Stage) -> None:
    """Put what grows on a file system of 2 MB."""
    folder = stage.server.folder / "small" if stage.backend == "postgresql" else stage.file.parent
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may mount no file system")
    stage.after.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
    if stage.backend == "postgresql":
        shutil.chown(folder, stage.server.account)
        stage.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        stage.execute(f'GRANT CREATE ON TABLESPACE small TO "{USER}"')
        stage.after.callback(stage.server.execute, "DROP TABLESPACE small")
        stage.after.callback(stage.drop)


def make_raise(stage: Stage) -> None:
    """Let env.py raise behind all revisions."""
    (stage.app / "points/raises").touch()


def raise_no_more(stage: Stage) -> None:
    """Let it end."""
    (stage.app / "points/raises").unlink()


def use_transactions(stage: Stage) -> None:
    """Give each revision a transaction of its own."""
    stage.use_transactions()


def limit_idling(stage: Stage) -> None:
    """Let the server end a session that does nothing in its transaction."""
    if stage.backend == "postgresql":
        stage.execute(
            f'ALTER ROLE {USER} IN DATABASE "{stage.name}" '
            "SET idle_in_transaction_session_timeout = '2s'"
        )
    else:
        stage.server.execute("SET GLOBAL idle_transaction_timeout = 2")
        stage.after.callback(stage.server.execute, "SET GLOBAL idle_transaction_timeout = 0")


def limit_no_more(stage: Stage) -> None:
    """Let it idle."""
    if stage.backend == "postgresql":
        stage.execute(
            f'ALTER ROLE {USER} IN DATABASE "{stage.name}" '
            "RESET idle_in_transaction_session_timeout"
        )
    else:
        stage.server.execute("SET GLOBAL idle_transaction_timeout = 0")


RAISE = '    raise ValueError("behind it")\n'
SLOW: Final = {
    "postgresql": "    op.execute(\"SET LOCAL statement_timeout = '100ms'\")\n"
    '    op.execute("SELECT pg_sleep(60)")',
    "mysql": '    op.execute("SET SESSION max_statement_time = 0.1")\n'
    '    op.execute("SELECT COUNT(*) FROM seq_1_to_100000 a, seq_1_to_100000 b")',
}
WAITS: Final = {
    "postgresql": "    op.execute(\"SET LOCAL lock_timeout = '100ms'\")\n"
    '    op.execute("UPDATE other SET id = 1")',
    "mysql": '    op.execute("SET SESSION lock_wait_timeout = 1")\n'
    '    op.execute("UPDATE other SET id = 1")',
    "sqlite": "    pass",
}
LATE: Final = {
    "postgresql": '    op.execute("CREATE TABLE late (id integer REFERENCES t2'
    ' DEFERRABLE INITIALLY DEFERRED)")\n    op.execute("INSERT INTO late VALUES (7)")',
    "sqlite": '    op.execute("PRAGMA foreign_keys = ON")\n'
    '    op.execute("CREATE TABLE IF NOT EXISTS late (id integer REFERENCES t2'
    ' DEFERRABLE INITIALLY DEFERRED)")\n    op.execute("INSERT INTO late VALUES (7)")',
}
FULL: Final = {
    "postgresql": '    op.execute("CREATE TABLE big TABLESPACE small AS SELECT repeat(x::text, 500)'
    ' FROM generate_series(1, 99999) AS s(x)")',
    "mysql": '    op.execute("SET SESSION max_heap_table_size = 16384")\n'
    '    op.execute("CREATE TABLE IF NOT EXISTS big (x CHAR(255)) ENGINE=MEMORY")\n'
    "    op.execute(\"INSERT INTO big SELECT 'x' FROM seq_1_to_9999\")",
    "sqlite": '    op.execute("CREATE TABLE IF NOT EXISTS big (x text)")\n'
    "    for _ in range(4000):\n"
    '        op.execute("INSERT INTO big VALUES (hex(zeroblob(1000)))")',
}
CROSSING: Final = """\
    op.execute("UPDATE ran SET direction = 'up'")
    points.stop("second", op.get_bind())
    op.execute("UPDATE other SET id = 1")
"""
IDLE: Final = """\
    op.execute("INSERT INTO t2 VALUES (2)")
    import select
    # Until the server has ended the session, which makes the socket readable.
    driver = op.get_bind().connection.dbapi_connection
    socket = getattr(driver, "_sock", None) or driver.fileno()
    select.select([socket], [], [], 60)
"""
WAIT: Final = ("--wait-timeout", "1s", "--refused-grace", "0.5s")
FAULTS: Final = {
    # From outside
    "session ended": Fault(
        5,
        ("reading", "migrating", "between", "statement", "commit", "end", "reading back"),
        end_session,
        drivers=SERVERS,
        codes={"end psycopg": 0, "end psycopg2": 0},
    ),
    "session ended, own transactions": Fault(
        5,
        ("between", "statement", "commit"),
        end_session,
        drivers=POSTGRESQL,
        set_up=use_transactions,
    ),
    "server stopped": Fault(
        5, ("between", "statement", "commit", "end"), stop_server, drivers=SERVERS
    ),
    "server killed": Fault(5, ("statement", "commit"), kill_server, drivers=SERVERS),
    "link cut": Fault(
        5, ("reading", "statement", "commit", "end"), cut_link, drivers=SERVERS, set_up=use_link
    ),
    "lock lost": Fault(
        5,
        ("between", "statement", "commit", "end"),
        lose_lock,
        drivers=SERVERS,
        releases=True,
    ),
    "link stalled, SIGTERM": Fault(
        143, ("statement",), stall_and_interrupt, drivers=SERVERS, set_up=use_link, is_final=True
    ),
    "server halted, SIGTERM": Fault(
        143, ("statement",), halt_and_interrupt, drivers=("psycopg", "pymysql"), is_final=True
    ),
    "SIGTERM": Fault(
        143,
        ("waiting", "reading", "between", "statement", "commit", "end", "reading back"),
        send(signal.SIGTERM),
        is_final=True,
    ),
    "SIGINT": Fault(130, ("statement",), send(signal.SIGINT), drivers=PRIMARY, is_final=True),
    "SIGHUP": Fault(129, ("statement",), send(signal.SIGHUP), drivers=PRIMARY, is_final=True),
    "SIGQUIT": Fault(131, ("statement",), send(signal.SIGQUIT), drivers=PRIMARY, is_final=True),
    "SIGKILL": Fault(
        -9,
        ("reading", "between", "statement", "commit", "end"),
        send(signal.SIGKILL),
        drivers=PRIMARY,
        is_final=True,
    ),
    # Before, and on, the way
    "no server": Fault(5, ("before",), stop_server, drivers=SERVERS, arguments=WAIT),
    "read-only": Fault(
        5,
        ("before", "reading"),
        make_read_only,
        drivers=POSTGRESQL,
        mend=make_writable,
        arguments=WAIT,
        start="r2",
    ),
    "read-only server": Fault(
        5,
        ("before", "between", "midway"),
        make_read_only,
        drivers=MYSQL,
        mend=make_writable,
        arguments=WAIT,
    ),
    "no connection left": Fault(
        5,
        ("before", "between"),
        limit_connections,
        drivers=SERVERS,
        mend=free_connections,
        said="free connections",
        # MariaDB counts anew where the role has no session left.
        codes={"between pymysql": 0, "between mysqldb": 0},
        arguments=(*WAIT, "--lock-timeout", "1s"),
    ),
    "password changed": Fault(
        6,
        ("before", "between"),
        change_password,
        drivers=SERVERS,
        mend=restore_password,
        said="password",
        arguments=WAIT,
    ),
    "right revoked": Fault(
        6,
        ("midway",),
        revoke,
        drivers=SERVERS,
        body='    op.execute("UPDATE other SET id = 1")',
        set_up=make_table,
        mend=grant,
        said="grant",
    ),
    "lock held": Fault(7, ("waiting",), arguments=("--lock-timeout", "1s"), is_final=True),
    "table locked": Fault(
        7, ("midway",), hold_table, body=WAITS, set_up=make_table, said="run again"
    ),
    "deadlock": Fault(
        7,
        ("second",),
        cross,
        drivers=SERVERS,
        body=CROSSING,
        set_up=make_table,
        start="r2",
        said="run again",
    ),
    "reader in the way": Fault(7, ("commit",), drivers=("sqlite3",), is_final=True),
    # The version table
    "moved": Fault(9, ("between",), move, start="r2", mend=move_back),
    "unknown revision": Fault(
        9, ("before",), damage=mark_unknown, start="r2", mend=move_back, lasts=True, drivers=PRIMARY
    ),
    "two revisions of a line": Fault(
        9, ("before",), damage=mark_twice, start="r2", mend=unmark, lasts=True, drivers=PRIMARY
    ),
    "no version table": Fault(
        8,
        ("before",),
        damage=lose_versions,
        start="r2",
        mend=restore_versions,
        said="stamp",
        lasts=True,
        drivers=PRIMARY,
    ),
    # The revision
    "table dropped": Fault(
        8,
        ("midway",),
        drop_table,
        body='    op.execute("UPDATE other SET id = 1")',
        set_up=make_table,
    ),
    "duplicate key": Fault(
        8, ("body",), body='    op.execute("INSERT INTO t2 VALUES (1)")', lasts=True
    ),
    "syntax": Fault(8, ("body",), body='    op.execute("SELEC 1")', said="mend", lasts=True),
    "exception": Fault(8, ("body",), body=RAISE, said="r3.py", lasts=True, drivers=PRIMARY),
    "exception, own transactions": Fault(
        8,
        ("body",),
        drivers=POSTGRESQL,
        body=RAISE,
        set_up=use_transactions,
        said="r3.py",
        lasts=True,
    ),
    "sys.exit": Fault(
        8, ("body",), body="    raise SystemExit(0)", said="r3.py", lasts=True, drivers=PRIMARY
    ),
    "os._exit": Fault(
        8, ("body",), body="    import os\n    os._exit(0)", lasts=True, drivers=PRIMARY
    ),
    "statement_timeout": Fault(
        8,
        ("body",),
        drivers=SERVERS,
        body=SLOW,
        said={"postgresql": "statement_timeout", "mysql": "max_statement_time"},
        lasts=True,
    ),
    "idle in a transaction": Fault(
        8,
        ("body",),
        drivers=("psycopg",),
        body=IDLE,
        set_up=limit_idling,
        mend=limit_no_more,
        said="idle_in_transaction_session_timeout",
        lasts=True,
    ),
    # MariaDB does not say why it ended the session, and psycopg2 does not hand it on.
    "idle, and not told so": Fault(
        5,
        ("body",),
        drivers=("psycopg2", *MYSQL),
        body=IDLE,
        set_up=limit_idling,
        mend=limit_no_more,
        said="timeout",
    ),
    "disk full": Fault(8, ("body",), body=FULL, set_up=fill_disk, said="make room", lasts=True),
    "deferred constraint": Fault(
        8, ("commit",), drivers=(*POSTGRESQL, "sqlite3"), body=LATE, lasts=True
    ),
    "exception behind a commit": Fault(
        8,
        ("body",),
        drivers=POSTGRESQL,
        body=f"    with op.get_context().autocommit_block():\n        pass\n{RAISE}",
        said="r3.py",
    ),
    "exception behind the driver's commit": Fault(
        8,
        ("body",),
        drivers=POSTGRESQL,
        body=f"    op.get_bind().connection.dbapi_connection.commit()\n{RAISE}",
        said="r3.py",
    ),
    "exception behind CASE": Fault(
        8,
        ("body",),
        drivers=POSTGRESQL,
        body="    op.execute(\"UPDATE ran SET direction = CASE WHEN 1 = 1 THEN 'up' END\")\n"
        + RAISE,
        said="r3.py",
    ),
    "exception behind all revisions": Fault(
        8, ("end",), drivers=PRIMARY, set_up=make_raise, mend=raise_no_more, said="env.py"
    ),
}
# What would reach other tests.
OF_THE_SERVER: Final = (make_writable, free_connections, restore_password, limit_no_more)
# The cells of every test run, a few of each kind.
QUICK: Final = frozenset(
    {
        "session ended-statement-psycopg",
        "session ended-statement-pymysql",
        "session ended-commit-psycopg2",
        "link cut-statement-mysqldb",
        "link cut-commit-psycopg",
        "lock lost-between-psycopg",
        "SIGTERM-statement-sqlite3",
        "SIGTERM-between-pymysql",
        "SIGKILL-between-sqlite3",
        "lock held-waiting-sqlite3",
        "right revoked-midway-psycopg",
        "deadlock-second-mysqldb",
        "moved-between-pymysql",
        "two revisions of a line-before-psycopg",
        "duplicate key-body-sqlite3",
        "exception, own transactions-body-psycopg",
        "exception behind CASE-body-psycopg",
        "session ended, own transactions-commit-psycopg2",
        "lock lost-commit-psycopg",
        "link stalled, SIGTERM-statement-pymysql",
    }
)


@dataclass(frozen=True)
class Cell:
    """One fault at one moment with one driver."""

    name: str
    moment: str
    driver: str

    @property
    def fault(self) -> Fault:
        """What goes wrong."""
        return FAULTS[self.name]

    @property
    def id(self) -> str:
        """Name it."""
        return f"{self.name}-{self.moment}-{self.driver}"

    @property
    def code(self) -> int:
        """The exit code that it has to come to."""
        return self.fault.codes.get(f"{self.moment} {self.driver}", self.fault.code)

    @property
    def body(self) -> str:
        """What the third revision does."""
        return _choose(self.fault.body, self.driver)

    @property
    def said(self) -> str:
        """A part of the hint."""
        return _choose(self.fault.said, self.driver)

    @property
    def is_reached(self) -> bool:
        """Whether the run is kept at the moment, and does not come to the fault by itself."""
        by_itself = self.moment == "commit" and bool(self.fault.body)
        return self.moment not in ("before", "body") and not by_itself


def _choose(texts: str | Mapping[str, str], driver: str) -> str:
    """Give the text for a driver's backend."""
    if isinstance(texts, str):
        return texts
    return texts["postgresql" if driver in POSTGRESQL else "mysql" if driver in MYSQL else "sqlite"]


CELLS: Final = [
    Cell(name, moment, driver)
    for name, fault in FAULTS.items()
    for moment in fault.moments
    for driver in fault.drivers
    if moment in SPEAKING or driver in PRIMARY or fault.cause in (end_session, cut_link)
    # A COMMIT of a file's does not wait until it is let go.
    if (driver, moment) != ("sqlite3", "commit")
    or name in ("reader in the way", "deferred constraint")
]


PARAMETERS: Final = [pytest.param(cell, id=cell.id) for cell in CELLS]


@pytest.fixture
def stage(cell: Cell, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Return a database and an application for a cell."""
    if cell.driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    server: Server | None = None
    if cell.driver in DRIVERS:
        server = request.getfixturevalue(DRIVERS[cell.driver])
    with Stage(tmp_path, cell.driver, server) as made:
        yield made
        if cell.fault.mend in OF_THE_SERVER:
            cell.fault.mend(made)


@pytest.mark.parametrize("cell", [cell for cell in PARAMETERS if cell.id in QUICK])
def test_last_line_is_true(cell: Cell, stage: Stage) -> None:
    """Whatever goes wrong, and when: the line is true, and what it says helps."""
    hold_to_truth(cell, stage)


@pytest.mark.endurance
@pytest.mark.parametrize("cell", PARAMETERS)
@pytest.mark.parametrize("number", range(1, RUNS + 1))
def test_last_line_is_true_each_time(number: int, cell: Cell, stage: Stage) -> None:
    """So it is in every cell of the matrix, and again."""
    assert number
    hold_to_truth(cell, stage)


def test_quick_cells_are_there() -> None:
    """The names of the quick cells are those of cells."""
    assert {cell.id for cell in CELLS} >= QUICK


def hold_to_truth(cell: Cell, stage: Stage) -> None:
    """Cause the fault, compare the line with the database, and do what the line says."""
    fault = cell.fault
    before = prepare(cell, stage)
    line = fail(cell, stage)
    stage.settle()
    after = stage.read_state()
    if line is None:
        # Nobody said a word; the next run has to.
        finish_after_kill(stage, after)
        return
    assert line["exit_code"] == cell.code, line
    check(line, before, after, stage)
    if line["exit_code"] == 0:
        return
    assert cell.said in line["hint"], line
    if line.get("unfinished") and "run again" in line["hint"]:
        assert "first statements" in line["hint"], line
    if fault.lasts:
        # What the first run left may be what this one fails of.
        line = stage.upgrade()
        stage.settle()
        assert line["exit_code"] == cell.code, line
        check(line, after, stage.read_state(), stage)
    fault.mend(stage)
    stage.write_body("    pass")
    finish(stage, line.get("unfinished") or [])


def prepare(cell: Cell, stage: Stage) -> State:
    """Bring database and application to where the cell begins, and give what is there."""
    fault = cell.fault
    fault.set_up(stage)
    if fault.start:
        assert stage.upgrade("db", "upgrade", fault.start)["exit_code"] == 0
    fault.damage(stage)
    if cell.is_reached:
        stage.prepare(cell.moment)
    if cell.body:
        stage.write_body(cell.body)
    return stage.read_state()


def fail(cell: Cell, stage: Stage) -> Line | None:
    """Run into the fault, and give the last line; None where the run was killed."""
    fault = cell.fault
    if cell.moment == "before":
        fault.cause(stage)
    run = stage.start(*fault.arguments, "db", "upgrade")
    if cell.is_reached:
        stage.reach(cell.moment)
        fault.cause(stage)
        if not fault.is_final:
            stage.let_pass()
        if fault.releases:
            stage.holds.close()
    code = run.finish()
    assert code == (run.last["exit_code"] if fault.code >= 0 else fault.code)
    return run.last if fault.code >= 0 else None


def check(line: Line, before: State, after: State, stage: Stage) -> None:
    """Hold a line to the database."""
    check_line(line, before, after, is_transactional=stage.backend == "postgresql")


def finish(stage: Stage, unfinished: Sequence[str]) -> None:
    """Undo what was told to be half done, and want the next run to do all the rest."""
    covered = stage.read_state().covered
    for revision in unfinished:
        if revision not in covered:
            stage.undo(revision)
    last = stage.upgrade()
    assert last["exit_code"] == 0, last
    assert stage.read_state() == State(("r4",), frozenset(REVISIONS), frozenset(REVISIONS))


def finish_after_kill(stage: Stage, after: State) -> None:
    """Want the next run to go on, or to say that an earlier one stopped midway."""
    left = after.traces - after.covered
    stage.write_body("    pass")
    if left:
        assert stage.backend != "postgresql"
        last = stage.upgrade()
        assert last["exit_code"] == 8, last
        assert "stopped midway" in last["hint"], last
    finish(stage, sorted(left))
