"""A history with points at which a fault is caused, and an oracle for what the last line says."""

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple, Self, TypeVar

from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.lock.acquire import hold_locks
from flask_migrate_sidecar.lock.base import LockTarget
from following import FollowedRun
from racing import write_app
from schema import describe_schema
from servers import DRIVERS, USER, Server, render_url
from sidecar_runs import DEADLINE, Line, revision_file
from stalling import Link

T = TypeVar("T")

REVISIONS = ("r1", "r2", "r3", "r4")
# The table that each revision makes; its last statement leaves a row in that of the first one.
TABLES = {"r1": "ran", "r2": "t2", "r3": "t3", "r4": "t4"}
# env.py runs four times: it reads before the lock and behind it, migrates, and reads back.
_POINTS_OF = {
    "reading": "1",
    "behind the lock": "2",
    "migrating": "3",
    "commit": "midway",
    "end": "end 3",
    "reading back": "4",
}

_POINTS = """\
import time
from pathlib import Path

FOLDER = Path(__file__).parent / "points"
passes = 0


def count():
    global passes
    passes += 1
    return passes


def stop(name, connection):
    \"\"\"Wait where the test says so, and tell it in which session.\"\"\"
    point = FOLDER / str(name)
    if not point.exists():
        return
    driver = connection.connection.dbapi_connection
    info = getattr(driver, "info", None)
    session = getattr(info, "backend_pid", 0) or getattr(driver, "thread_id", int)()
    print(f"at {name} {session}")
    while point.exists():
        time.sleep(0.01)
    if (FOLDER / "raises").exists():
        raise RuntimeError("behind all revisions")
"""
_MAKE = """\
    op.execute("CREATE TABLE {table} (id integer PRIMARY KEY)")
    op.execute("INSERT INTO {table} VALUES (1)")
"""
_STOPPING = """\
    import points

    points.stop("between", op.get_bind())
    op.execute("CREATE TABLE t3 (id integer PRIMARY KEY)")
    points.stop("midway", op.get_bind())
{body}
    op.execute("INSERT INTO t3 VALUES (1)")
"""
_RUN = """\
        with context.begin_transaction():
            context.run_migrations()
"""
_RUN_STOPPING = """\
        import points

        number = points.count()
        points.stop(number, connection)
        with context.begin_transaction():
            context.run_migrations()
        points.stop(f"end {number}", connection)
"""
# A statement that the test lets end, and a COMMIT that is one: its deferred trigger waits.
_STATEMENTS = {
    "postgresql": '    op.execute("SELECT pg_advisory_xact_lock(41)")',
    "mysql": "    op.execute(\"SELECT GET_LOCK('point', 600)\")",
    "sqlite": '    print("at statement 0")\n    op.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION'
    ' ALL SELECT x + 1 FROM n LIMIT 9000000000) SELECT max(x) FROM n")',
}
_WAITING_COMMIT = """\
    op.execute(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock(41); RETURN NULL; END $$"
    )
    op.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t3 DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()"
    )
"""
_HOLD = {"postgresql": "SELECT pg_advisory_lock(41)", "mysql": "SELECT GET_LOCK('point', 9)"}
_WAITERS = {
    "postgresql": "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = '{name}') AND objid = 41",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = '{name}'"
    f" AND user = '{USER}' AND (state = 'User lock' OR state LIKE '%backup lock%')",
}
_SESSIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = '{name}'"
    f" AND usename = '{USER}'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = '{name}'"
    f" AND user = '{USER}'",
}


class State(NamedTuple):
    """What a database holds.

    Args:
        held: the revisions of its version table.
        whole: those of which all is there, once.
        traces: those of which anything is there.
    """

    held: tuple[str, ...]
    whole: frozenset[str]
    traces: frozenset[str]

    @property
    def covered(self) -> set[str]:
        """The revisions that the version table says ran."""
        return {name for held in self.held for name in REVISIONS if name <= held}


class Stage:
    """A database, an application over it, and what keeps a run at a point.

    Args:
        folder: for the application, and for a database that is a file.
        driver: of the run.
        server: None for a file.
    """

    def __init__(self, folder: Path, driver: str, server: Server | None) -> None:
        self.driver = driver
        self._server = server
        self.backend = {"postgres": "postgresql", "mariadb": "mysql"}.get(
            DRIVERS.get(driver, ""), "sqlite"
        )
        self.holds = ExitStack()
        # What is done at the very end.
        self.after = ExitStack()
        self._links = ExitStack()
        self.folder = folder
        self.file = folder / "data/database.db"
        self.file.parent.mkdir()
        self.name = ""
        self.url = self.admin_url = f"sqlite:///{self.file}"
        if server is not None:
            database = server.create_database()
            self.name, self.url = database.name, database.url(driver)
            self.admin_url = render_url(make_url(server.admin_url).set(database=self.name))
        self.session = 0
        self.link: Link | None = None
        self.run: FollowedRun
        self.app = write_app(
            folder / "app", [_MAKE.format(table="t2"), "    pass", _MAKE.format(table="t4")]
        )
        (self.app / "points").mkdir()
        (self.app / "points.py").write_text(_POINTS)
        env = self.app / "migrations/env.py"
        assert _RUN in env.read_text()
        # What runs offline has the same lines, but less far in.
        env.write_text(_RUN_STOPPING.join(env.read_text().rsplit(_RUN, 1)))
        self.write_body("    pass")

    @property
    def server(self) -> Server:
        """The server, which a file has none of."""
        assert self._server is not None
        return self._server

    def write_body(self, body: str) -> None:
        """Write what the third revision does between its first statement and its last ones."""
        file = revision_file(self.app, "r3")
        source = file.read_text()
        head = source[: source.index("def upgrade():")]
        last = source[source.index('    op.execute("INSERT INTO ran') :]
        file.write_text(f"{head}def upgrade():\n{_STOPPING.format(body=body)}{last}")

    def use_transactions(self) -> None:
        """Let each revision have a transaction of its own."""
        app = self.app / "app.py"
        source = app.read_text()
        app.write_text(
            source.replace("Migrate(app, db)", "Migrate(app, db, transaction_per_migration=True)")
        )

    def use_link(self) -> Link:
        """Let the run reach the server through a link."""
        self.link = self._links.enter_context(Link(self.server.port))
        self.url = render_url(make_url(self.url).set(port=self.link.port))
        return self.link

    def start(self, *arguments: str) -> FollowedRun:
        """Start an upgrade."""
        command = arguments or ("db", "upgrade")
        self.run = FollowedRun(self.app, *command, env={"DATABASE_URL": self.url})
        return self.run

    def upgrade(self, *arguments: str) -> Line:
        """Upgrade to the end, or to a revision, and give the last line."""
        self.start(*arguments).finish()
        return self.run.last

    # Points

    def prepare(self, moment: str) -> None:
        """Make sure that the run stops at a moment."""
        if moment == "waiting":
            self._hold_lock()
        elif moment == "statement":
            self.write_body(_STATEMENTS[self.backend])
            self._hold_statement()
        elif moment == "commit" and self.backend == "postgresql":
            self.write_body(_WAITING_COMMIT)
            self._hold_statement()
        else:
            self._arm(_POINTS_OF.get(moment, moment))

    def reach(self, moment: str) -> None:
        """Let the run come to a moment."""
        if moment == "waiting":
            self.run.await_event("lock.waiting")
        elif moment == "commit" and self.backend != "postgresql":
            self.await_point("midway")
            self._hold_commits()
            self.let_pass()
            self._await_waiter()
        elif moment in ("statement", "commit") and self.backend in _WAITERS:
            self._await_waiter()
        else:
            self.await_point(_POINTS_OF.get(moment, moment))

    def await_point(self, name: str) -> None:
        """Read the log up to a point."""
        while not (said := self.run.await_event("output")["text"]).startswith(f"at {name} "):
            pass
        self.session = int(said.split()[-1])

    def let_pass(self) -> None:
        """Let the run go on from its points; what is held stays so."""
        for point in (self.app / "points").iterdir():
            if point.name != "raises":
                point.unlink()

    def _arm(self, name: str) -> None:
        (self.app / "points" / name).touch()

    def _hold_statement(self) -> None:
        """Keep the run's statement from its end; that of a file comes to none."""
        if self.backend in _HOLD:
            self.connect().execute(text(_HOLD[self.backend]))

    def _hold_commits(self) -> None:
        """Keep others from committing, and from nothing else."""
        if self.backend == "sqlite":
            # A cursor that is not at its end keeps a shared lock, for which a COMMIT waits.
            reader = sqlite3.connect(self.file, isolation_level=None)
            self.holds.callback(reader.close)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM ran").fetchone()
            return
        connection = self.connect()
        for stage in ("START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"):
            connection.execute(text(f"BACKUP STAGE {stage}"))

    def _hold_lock(self) -> None:
        """Let another migrator hold the lock."""
        target = LockTarget(Database("default", make_url(self.admin_url)), None, "alembic_version")
        holding = hold_locks([target], kind="auto", timeout=0, connect_timeout=30, heartbeat=30)
        self.holds.enter_context(holding)

    def _await_waiter(self) -> None:
        """Wait until the run waits in the server."""
        if self.backend not in _WAITERS:
            return
        query = text(_WAITERS[self.backend].format(name=self.name))
        with self._admin() as connection:
            found = await_result(lambda: connection.execute(query).scalars().all())
        self.session = found[0]

    # The server's side

    def connect(self) -> Connection:
        """Open a session of the superuser's, which `settle` ends."""
        engine = create_engine(self.admin_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        connection = engine.connect()
        self.holds.callback(_close, connection)
        return connection

    @contextmanager
    def _admin(self) -> Iterator[Connection]:
        """Speak to the server, or to the file, statement by statement."""
        engine = create_engine(self.admin_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection

    def execute(self, *statements: str) -> None:
        """Run SQL in the database, as somebody who may."""
        with self._admin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def ask(self, query: str) -> Sequence[object]:
        """Give the first column of what a query finds."""
        with self._admin() as connection:
            return connection.execute(text(query)).scalars().all()

    def end_session(self, session: int) -> None:
        """End a session of the server's, and wait until it is gone."""
        with self._admin() as connection:
            _end_session(connection, session, self.backend)
            await_result(lambda: session not in self._list_sessions(connection))

    def list_others(self) -> Sequence[int]:
        """List the run's sessions, without the one in which its point is."""
        with self._admin() as connection:
            return [s for s in self._list_sessions(connection) if s != self.session]

    def _list_sessions(self, connection: Connection) -> Sequence[int]:
        query = _SESSIONS[self.backend].format(name=self.name)
        return connection.execute(text(query)).scalars().all()

    # Afterwards

    def settle(self) -> None:
        """Let go of all that is held, and wait until the server has done what it was asked."""
        self.let_pass()
        if self._server is not None:
            self.go_on()
            self._restart()
        self.holds.close()
        self._links.close()
        if self.link is not None:
            self.url = render_url(make_url(self.url).set(port=self.server.port))
            self.link = None
        if self._server is not None:
            with self._admin() as connection:
                await_result(lambda: not self._list_sessions(connection))

    def _restart(self) -> None:
        # One that runs is left alone: it may take no writes just now.
        if self.server.pid is None:
            self.server.start()

    def halt(self) -> None:
        """Stop the server's processes where they are."""
        self._signal_server(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        self._signal_server(signal.SIGCONT)

    def _signal_server(self, number: int) -> None:
        pid = self.server.pid
        if pid is not None:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for process in (pid, *map(int, children)):
                with suppress(ProcessLookupError):
                    os.kill(process, number)

    def read_state(self) -> State:
        """Read what the database holds, on a connection of the test's own."""
        tables = describe_schema(self.admin_url)
        with self._admin() as connection:
            rows: list[str] = []
            held: list[str] = []
            if "ran" in tables:
                rows = [*connection.execute(text("SELECT revision FROM ran")).scalars()]
            if "alembic_version" in tables:
                query = text("SELECT version_num FROM alembic_version")
                held = [*connection.execute(query).scalars()]
        ran = Counter(rows)
        return State(
            tuple(sorted(held)),
            frozenset(r for r in REVISIONS if TABLES[r] in tables and ran[r] == 1),
            frozenset(r for r in REVISIONS if TABLES[r] in tables or ran[r]),
        )

    def undo(self, revision: str) -> None:
        """Remove what a revision left, as a person does who was told of it."""
        tables = describe_schema(self.admin_url)
        if "ran" in tables:
            self.execute(f"DELETE FROM ran WHERE revision = '{revision}'")
        if TABLES[revision] in tables:
            self.execute(f"DROP TABLE {TABLES[revision]}")

    def __enter__(self) -> Self:
        """Return the stage."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Leave the server as it was."""
        if hasattr(self, "run"):
            self.run.close()
        self.let_pass()
        if self._server is not None:
            self.go_on()
            self._restart()
        self.holds.close()
        self._links.close()
        self.drop()
        self.after.close()

    def drop(self) -> None:
        """Drop the database, if it is still there."""
        if self._server is not None:
            self._server.drop_database(self.name)


def check_line(line: Line, before: State, after: State, *, is_transactional: bool) -> None:
    """Hold what a last line says to what the database held before the run and holds now."""
    told = {name: line.get(name) for name in ("kept", "rolled_back", "unfinished", "applied")}
    if line["exit_code"] == 0:
        told["kept"] = told["applied"]
    kept, rolled_back, unfinished = (
        {*(told[name] or ())} for name in ("kept", "rolled_back", "unfinished")
    )
    seen = f"said {line}\nheld {before}\nholds {after}"
    assert kept <= after.whole & after.covered, seen
    assert not rolled_back & after.covered, seen
    # What was there before is no trace of this run.
    assert rolled_back & after.traces <= before.traces, seen
    # What could not be read may have come to its end.
    assert line.get("kept") is None or not unfinished & after.covered, seen
    if is_transactional:
        # There it is known whether a part stays.
        assert unfinished <= after.traces, seen
    if "kept" not in line or line["kept"] is not None:
        for revision in {*REVISIONS} - kept - rolled_back - unfinished:
            for part in ("whole", "traces"):
                was, now = (revision in getattr(state, part) for state in (before, after))
                assert was == now, f"{revision} is told in no list: {seen}"
    if "to" in line:
        assert tuple(line["from"]["default"]) == before.held, seen
        assert tuple(line["to"]["default"]) == after.held, seen


def await_result(look: Callable[[], T]) -> T:
    """Look until there is something."""
    deadline = monotonic() + DEADLINE
    while not (found := look()):
        assert monotonic() < deadline, "it did not come"
        sleep(0.01)
    return found


def _close(connection: Connection) -> None:
    with suppress(DBAPIError):
        connection.close()


def _end_session(connection: Connection, session: int, backend: str) -> None:
    statement = f"SELECT pg_terminate_backend({session})"
    with suppress(DBAPIError):
        connection.execute(text(statement if backend == "postgresql" else f"KILL {session}"))
