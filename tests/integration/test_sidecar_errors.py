"""Bad input: each is one clear error, on its exit code, as the last line of the log."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flask_migrate import alembic_version
from sidecar_runs import Launcher, Result, append, prepend, revision_file

BEFORE = [
    *("3f1c9a27e4b0", "8d02b6f5a913", "c47e1d90b3a8", "5be8820f7c16", "94bc0e5d7f21"),
    *("2d7fa1869c0e", "1e6b4f8ad207", "a90d37c25e1f", "f2c85d0e9b74", "70a3e9d1c46b"),
    "b8d51f2e063c",
]
FIRST, MIDDLE, HEAD = BEFORE[0], "e03f7c6a94d2", "6b92f4ec08d1"
UPGRADE = ("db", "upgrade")

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One bad input and its answer.

    Args:
        name: what is bad.
        exit_code: how the run ends.
        message: pattern that the last line's message contains.
        hint: pattern that its hint contains.
        arguments: the command line.
        change: makes the shop bad.
        env: variables to add.
        fields: further fields of the last line.
    """

    name: str
    exit_code: int
    message: str
    hint: str
    arguments: tuple[str, ...] = UPGRADE
    change: Change = lambda _app: None
    env: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


def write(name: str, text: str | bytes) -> Change:
    """Write a file into the app."""
    data = text if isinstance(text, bytes) else text.encode()
    return lambda app: (app / name).write_bytes(data)


def remove(name: str) -> Change:
    """Remove a file or a folder."""

    def change(app: Path) -> None:
        path = app / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def at(revision: str) -> Change:
    """Give the shop a database that is at a revision, or says so."""

    def change(app: Path) -> None:
        (app / "instance").mkdir()
        with closing(sqlite3.connect(app / "instance/shop.db")) as connection, connection:
            connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            connection.execute("INSERT INTO alembic_version VALUES (?)", [revision])

    return change


def named(module: str) -> tuple[str, ...]:
    """Upgrade the app of a module."""
    return ("--app", module, *UPGRADE)


def remove_file_of(revision: str) -> Change:
    """Remove a revision file."""
    return lambda app: revision_file(app, revision).unlink()


def body(statement: str) -> Change:
    """Let a revision in the middle do something else."""
    text = f"\n\ndef upgrade():\n    {statement}\n"
    return lambda app: append(revision_file(app, MIDDLE), text)


def copy_head(app: Path) -> None:
    """Add a second head."""
    text = revision_file(app, HEAD).read_text(encoding="utf-8")
    other = app / "migrations/versions/aaaaaaaaaaaa_other.py"
    other.write_text(text.replace(HEAD, "a" * 12), encoding="utf-8")


def copy_first(app: Path) -> None:
    """Add a second file with the same identifier."""
    shutil.copy(revision_file(app, FIRST), app / "migrations/versions/copy.py")


def leave_first_statement(app: Path) -> None:
    """Leave the table of the first revision, without its mark in `alembic_version`."""
    at(FIRST)(app)
    with closing(sqlite3.connect(app / "instance/shop.db")) as connection, connection:
        connection.execute("DELETE FROM alembic_version")
        connection.execute("CREATE TABLE customer (id INTEGER)")


SQLITE = "sqlite:///"
KEPT = {"kept": BEFORE, "rolled_back": [], "unfinished": [MIDDLE], "revision": MIDDLE}
NO_MORE_FILES = """
import resource
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

app = Flask("bad")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///x.db"
resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
SQLAlchemy(app)
"""

USAGE = [
    Case("no command", 2, "command is needed.*db, wait, status", "--help", ()),
    Case("unknown command", 2, "unknown command 'frob'", "--help", ("frob",)),
    Case("unknown option", 2, "--frob", "--help", ("--frob",)),
    Case("option without value", 2, "--wait-timeout.*expected", "--help", ("--wait-timeout",)),
    Case(
        "malformed duration",
        2,
        "--wait-timeout: 'soon'.*30s",
        "--help",
        ("--wait-timeout", "soon", *UPGRADE),
    ),
    Case("malformed choice", 2, "--lock: 'x'.*advisory", "--help", ("--lock", "x", *UPGRADE)),
    Case(
        "malformed choice in a variable",
        2,
        "--log-level: 'x'",
        "--help",
        env={"MIGRATE_LOG_LEVEL": "x"},
    ),
    Case("malformed bind", 2, "--bind-url: NAME=URL", "--help", ("--bind-url", "x", *UPGRADE)),
    Case("no subcommand", 2, "subcommand is needed", "db --help", ("db",)),
    Case("unknown subcommand", 2, "'frob'", "db --help", ("db", "frob")),
    Case("unknown option of a subcommand", 2, "--frob", "db upgrade --help", (*UPGRADE, "--frob")),
    Case(
        "too many arguments", 2, "unexpected extra argument", "upgrade --help", (*UPGRADE, "a", "b")
    ),
    Case("unknown wait", 2, "wait head", "--help", ("wait", "forever")),
    Case(
        "unknown form of status",
        2,
        "--format json, --format table",
        "--help",
        ("status", "--format", "xml"),
    ),
]

CONFIGURATION = [
    Case(
        "variable and file",
        3,
        "MIGRATE_LOCK and MIGRATE_LOCK_FILE",
        "one of the two",
        env={"MIGRATE_LOCK": "none", "MIGRATE_LOCK_FILE": "x"},
    ),
    Case(
        "missing secret file",
        3,
        "MIGRATE_LOCK_FILE: /no/file.*No such file",
        "mounted",
        env={"MIGRATE_LOCK_FILE": "/no/file"},
    ),
    Case(
        "two URLs for a bind",
        3,
        "two URLs.*'a_b'",
        "without case",
        ("--bind-url", "a-b=x", "--bind-url", "A.b=y", *UPGRADE),
    ),
    Case(
        "URL for no bind",
        3,
        "URL is given for a_b",
        "databases are default",
        ("--bind-url", "a-b=sqlite:///x", *UPGRADE),
    ),
    Case(
        "malformed URL",
        3,
        "URL of database 'default' is malformed",
        "dialect",
        ("--database-url", "postgres//x", *UPGRADE),
    ),
    Case(
        "other dialect",
        3,
        "of sqlite, but.*postgresql",
        "revisions are written",
        ("--database-url", "sqlite:///x.db", *UPGRADE),
        env={"DATABASE_URL": "postgresql://127.0.0.1:1/x"},
    ),
    Case(
        "missing app folder",
        3,
        "--app-dir /no/app: No such",
        "mounted",
        ("--app-dir", "/no/app", *UPGRADE),
    ),
    Case(
        "missing site-packages",
        3,
        "--site-packages /no/lib",
        "mounted",
        ("--site-packages", "/no/lib", *UPGRADE),
    ),
    Case(
        "no app",
        3,
        "no application in .*wsgi.py nor app.py",
        "--app or --app-dir",
        change=remove("app.py"),
    ),
    Case(
        "no repository",
        3,
        "no migration repository at .*/migrations",
        "--directory.*init",
        change=remove("migrations"),
    ),
    Case(
        "no alembic.ini",
        3,
        "alembic.ini, which is missing",
        "mounted",
        change=remove("migrations/alembic.ini"),
    ),
    Case(
        "junk in alembic.ini",
        3,
        "alembic.ini cannot be read.*section",
        "alembic.ini",
        change=write("migrations/alembic.ini", "junk"),
    ),
    Case(
        "binary alembic.ini",
        3,
        "alembic.ini cannot be read.*(UTF|utf)-8",
        "alembic.ini",
        change=write("migrations/alembic.ini", b"\xff\xfe"),
    ),
]

APP = [
    Case("named app missing", 4, "no application 'nothere' in", "--app.*mounted", named("nothere")),
    Case("factory missing", 4, "'nope' in 'app'", "--app MODULE:NAME", named("app:nope")),
    Case(
        "import error",
        4,
        "imports 'frobnicate'",
        "'frobnicate'.*--app none",
        named("bad"),
        write("bad.py", "import frobnicate"),
    ),
    Case(
        "import error inside a module",
        4,
        "imports 'frobnicate.parts'|imports 'frobnicate'",
        "frobnicate",
        change=lambda app: prepend(app / "models.py", "import frobnicate.parts\n"),
    ),
    Case(
        "factory raises",
        4,
        "bad could not be loaded: ValueError: boom",
        "traceback",
        named("bad"),
        write("bad.py", "def create_app(): raise ValueError('boom')"),
    ),
    Case(
        "app raises at import",
        4,
        "bad could not be loaded: KeyError: 'X'",
        "traceback",
        named("bad"),
        write("bad.py", "import os; os.environ['X']"),
    ),
    Case(
        "no Migrate",
        4,
        "'plain' has no Migrate",
        "Migrate\\(app, db\\)",
        named("bad"),
        write("bad.py", "from flask import Flask\napp = Flask('plain')"),
    ),
    Case(
        "syntax error",
        4,
        "bad could not be loaded: SyntaxError.*bad.py, line 1",
        "traceback",
        named("bad"),
        write("bad.py", "def ("),
    ),
    Case(
        "app exits",
        4,
        "ended the process.*exit code 3",
        "sys.exit",
        named("bad"),
        write("bad.py", "import sys; sys.exit(3)"),
    ),
    Case(
        "app exits hard",
        4,
        r"os._exit\(0\)",
        "FLASK_MIGRATE_SIDECAR=1",
        named("bad"),
        write("bad.py", "import os; os._exit(0)"),
    ),
    Case(
        "application may open no more files",
        3,
        "Too many open files",
        "limits of the process",
        named("bad"),
        write("bad.py", NO_MORE_FILES),
    ),
    Case(
        "application lacks memory",
        3,
        "no memory left",
        "limit of memory",
        named("bad"),
        write("bad.py", "raise MemoryError"),
    ),
    Case(
        "import takes too long",
        4,
        "longer than 0.3 s",
        "--app-timeout",
        ("--app-timeout", "300ms", *named("bad")),
        write("bad.py", "import signal; signal.pause()"),
    ),
    Case(
        "revision imports what is missing",
        4,
        "imports 'frobnicate'",
        f"{MIDDLE}.*'frobnicate'",
        change=lambda app: prepend(revision_file(app, MIDDLE), "import frobnicate\n"),
    ),
]

DATABASE = [
    Case(
        "missing SQLite folder",
        6,
        "/no/folder does not exist",
        "mount",
        ("--refused-grace", "0", *UPGRADE),
        env={"DATABASE_URL": f"{SQLITE}//no/folder/x.db"},
    ),
    Case(
        "SQLite folder that takes no files",
        6,
        "unable to open database file|refuses",
        "writ",
        env={"DATABASE_URL": f"{SQLITE}//proc/x.db"},
    ),
]

FAILED = [
    Case(
        "revision raises",
        8,
        "RuntimeError: bang",
        f"raised at .*{MIDDLE}",
        change=body("raise RuntimeError('bang')"),
        fields=KEPT,
    ),
    Case(
        "revision's SQL fails",
        8,
        "no such table: nothere",
        "revision",
        change=body("op.execute('select * from nothere')"),
        fields=KEPT,
    ),
    Case(
        "revision exits",
        8,
        "exit code 3",
        r"raised at .*/versions/e03f7c6a94d2",
        change=body("raise SystemExit(3)"),
        fields=KEPT,
    ),
    Case(
        "revision exits hard",
        8,
        r"os._exit\(0\)",
        "FLASK_MIGRATE_SIDECAR",
        change=body("import os; os._exit(0)"),
    ),
    Case(
        "revision lacks memory",
        3,
        "no memory left",
        "limit of memory",
        change=body("raise MemoryError"),
        fields=KEPT,
    ),
    Case(
        "table exists",
        8,
        "customer already exists",
        "earlier attempt.*'stamp'",
        change=leave_first_statement,
    ),
    Case(
        "env.py raises",
        8,
        "ValueError: wrong",
        "raised at .*env.py:1",
        change=write("migrations/env.py", "raise ValueError('wrong')"),
    ),
]

HISTORY = [
    Case(
        "revision with a syntax error",
        9,
        "SyntaxError.*line 1",
        "bad.py",
        change=write("migrations/versions/bad.py", "def ("),
    ),
    Case(
        "syntax error, history",
        9,
        "SyntaxError.*line 1",
        "bad.py",
        ("db", "history"),
        write("migrations/versions/bad.py", "def ("),
    ),
    Case(
        "duplicate identifier", 9, f"{FIRST} is present more than once", "copy", change=copy_first
    ),
    Case(
        "duplicate identifier, heads",
        9,
        f"{FIRST} is present more than once",
        "copy",
        ("db", "heads"),
        copy_first,
    ),
    Case(
        "missing revision file",
        9,
        "8d02b6f5a913.*not present",
        "c47e1d90b3a8",
        change=remove_file_of("8d02b6f5a913"),
    ),
    Case("two heads", 9, f"several heads: {HEAD}, aaaaaaaaaaaa", "merge heads", change=copy_head),
    Case("unknown target", 9, "'abcdef'", "history", (*UPGRADE, "abcdef")),
    Case(
        "unknown revision in the database",
        9,
        "feedbeef0000.*migrations",
        "ahead.*--if-ahead ignore",
        change=at("feedbeef0000"),
        fields={"database": "default", "unknown": ["feedbeef0000"]},
    ),
    *(
        Case(
            f"unknown revision in the database, {command}",
            9,
            "feedbeef0000",
            "right image",
            ("db", command, *rest),
            at("feedbeef0000"),
        )
        for command, *rest in (["downgrade"], ["current"], ["check"], ["stamp", "head"])
    ),
    Case(
        "check of a database that is behind",
        9,
        f"it is at {FIRST}.*head is {HEAD}",
        "'upgrade' first",
        ("db", "check"),
        at(FIRST),
    ),
    Case(
        "migrate of a database that is behind",
        9,
        f"it is at {FIRST}.*head is {HEAD}",
        "'upgrade' first",
        ("db", "migrate"),
        at(FIRST),
    ),
]

HAS_CHECK_HEADS = alembic_version >= (1, 17, 1)

PENDING = [
    Case(
        "current --check-heads",
        10 if HAS_CHECK_HEADS else 2,
        "not on all head revisions" if HAS_CHECK_HEADS else "has no --check-heads",
        "'upgrade'" if HAS_CHECK_HEADS else "--help",
        ("db", "current", "--check-heads"),
        at(FIRST),
    ),
    Case(
        "check finds changes", 10, "New upgrade operations", "'migrate'", ("db", "check"), at(HEAD)
    ),
    Case(
        "wait head in vain",
        10,
        "not at head after 0 s: default is behind",
        "Job",
        ("--head-timeout", "0", "wait", "head"),
        at(FIRST),
    ),
]

CASES = [*USAGE, *CONFIGURATION, *APP, *DATABASE, *FAILED, *HISTORY, *PENDING]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, copy_app: Callable[[str], Path], launch: Launcher) -> None:
    """A bad input ends on its exit code, with a message and a hint in the last line alone."""
    app = copy_app("shop")
    case.change(app)

    result = launch(app, *case.arguments, env=case.env)

    check_failure(result, case)
    assert result.stdout == ""


def check_failure(result: Result, case: Case) -> None:
    """Hold the last line to what the case says, and to the form that all failures share."""
    last = result.last
    seen = (result.returncode, last["event"], last["level"], last["exit_code"])
    assert seen == (case.exit_code, "command.failed", "error", case.exit_code), last
    assert re.search(case.message, last["error"]["message"], re.DOTALL), last
    assert re.search(case.hint, last["hint"] or "", re.DOTALL), last
    assert case.fields.items() <= last.items(), last
    assert sum(line["event"] == "command.failed" for line in result.log) == 1
    # What is only pending is no line's fault.
    assert not ("where" in last and case.exit_code == 10)


def test_locked_file_is_unavailable(copy_app: Callable[[str], Path], launch: Launcher) -> None:
    """A SQLite file that another process keeps locked past the wait timeout is code 5."""
    app = copy_app("shop")
    at(FIRST)(app)
    with closing(sqlite3.connect(app / "instance/shop.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        result = launch(app, "--wait-timeout", "500ms", *UPGRADE)

    # On a busy machine the attempt's own deadline can come first.
    message = "shop.db is not available: (database is locked|no answer)"
    case = Case("locked", 5, message, ".")
    check_failure(result, case)
    assert "database.waiting" in [line["event"] for line in result.log]


def test_ahead_may_be_ignored(copy_app: Callable[[str], Path], launch: Launcher) -> None:
    """With `--if-ahead ignore`, an upgrade passes a database that is ahead, and warns."""
    app = copy_app("shop")
    at("feedbeef0000")(app)

    result = launch(app, "--if-ahead", "ignore", *UPGRADE)

    assert (result.returncode, result.last["event"]) == (0, "command.finished")
    [warning] = [line for line in result.log if line["event"] == "database.ahead"]
    assert (warning["level"], warning["states"]) == ("warning", {"default": "ahead"})


def test_traceback_is_structured(copy_app: Callable[[str], Path], launch: Launcher) -> None:
    """The traceback of a revision stands in the last line, frame by frame."""
    app = copy_app("shop")
    body("raise RuntimeError('bang')")(app)

    last = launch(app, *UPGRADE).last

    frames = [frame for stack in last["exception"] for frame in stack["frames"]]
    assert revision_file(app, MIDDLE).name in {Path(frame["filename"]).name for frame in frames}
    assert ("RuntimeError", "bang") in {(s["exc_type"], s["exc_value"]) for s in last["exception"]}


def test_only_user_code_has_tracebacks(copy_app: Callable[[str], Path], launch: Launcher) -> None:
    """A wrong command line or history is told in one sentence, without a traceback."""
    app = copy_app("shop")

    assert "exception" not in launch(app, "frob").last
    assert "exception" not in launch(app, *UPGRADE, "abcdef").last
