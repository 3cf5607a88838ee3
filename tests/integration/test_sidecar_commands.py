"""Commands of the sidecar: what each prints where, what stays of a bad run, what stays secret."""

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from conftest import APPS
from following import FollowedRun
from servers import render_url
from sidecar_runs import (
    Launcher,
    Result,
    append,
    events,
    outputs,
    prepend,
    read_log,
    revision_file,
)

if TYPE_CHECKING:
    from conftest import RunCommand
    from servers import MariaDB, Postgres

FIRST, BEFORE, MIDDLE, HEAD = "3f1c9a27e4b0", "b8d51f2e063c", "e03f7c6a94d2", "6b92f4ec08d1"
STEPS_BEFORE = 11

GROUP = """
import os

import click
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask("named")
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///named.db")
db = SQLAlchemy(app)
migrate = Migrate(app, db, command="database")


@app.cli.commands["database"].command("count")
@click.option("--lock", is_flag=True)
def count(lock):
    click.echo("one")
    os.write(1, b"two\\n")
    click.echo(f"lock={lock}", err=True)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, launch: Launcher) -> Path:
    """Return an upgraded shop that prints at import; tests only look at it."""
    app = Path(shutil.copytree(APPS / "shop", tmp_path_factory.mktemp("app") / "shop"))
    shutil.rmtree(app / "instance", ignore_errors=True)
    prepend(app / "app.py", "print('printed at import')\n")
    result = launch(app, "db", "upgrade")
    assert result.returncode == 0, result.last
    return app


def succeed(result: Result) -> Result:
    """Hold a result to a good end."""
    assert (result.returncode, result.last["event"]) == (0, "command.finished"), result.last
    return result


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ("db history", "c18d65f0e37a -> 6b92f4ec08d1 (reporting) (head), create discount table"),
        ("db history -i", "c18d65f0e37a -> 6b92f4ec08d1 (reporting) (head) (current), create dis"),
        ("db current", "6b92f4ec08d1 (head)"),
        ("db heads", "6b92f4ec08d1 (reporting) (head)"),
        ("db show 3f1c9a27e4b0", "Rev: 3f1c9a27e4b0"),
        ("db branches", "5be8820f7c16 (branchpoint)"),
        ("db list-templates", "Available templates:"),
        ("status --format table", "DATABASE  STATE    CURRENT       HEADS         PENDING  LOCK"),
    ],
)
def test_results_alone_are_on_stdout(
    shop: Path, launch: Launcher, arguments: str, first: str
) -> None:
    """Stdout has the result that the subcommand exists to print; what the app prints is log."""
    result = succeed(launch(shop, *arguments.split()))
    assert result.stdout.startswith(first), result.stdout
    assert "printed at import" not in result.stdout
    assert "printed at import" in outputs(result.log)


@pytest.mark.parametrize(
    "arguments", ["db upgrade", "db check --help", "wait database", "db stamp head"]
)
def test_commands_without_result_leave_stdout(shop: Path, launch: Launcher, arguments: str) -> None:
    """What only acts prints nothing on stdout, help aside."""
    result = launch(shop, *arguments.split())
    assert result.returncode == 0
    assert result.stdout.startswith("Usage") if "--help" in arguments else result.stdout == ""


def test_status_is_json(shop: Path, launch: Launcher) -> None:
    """`status` prints one JSON object in the form of the contract."""
    status = json.loads(succeed(launch(shop, "status")).stdout)
    lock = status["databases"]["default"].pop("lock")
    assert set(lock) == {"kind", "held", "holder"}
    assert status == {
        "version": 1,
        "databases": {
            "default": {
                "state": "at_head",
                "current": [HEAD],
                "heads": [HEAD],
                "pending": [],
                "unknown": [],
            }
        },
    }


def test_editor_has_stdout(shop: Path, launch: Launcher) -> None:
    """`edit` gives its editor the real stdout."""
    result = succeed(launch(shop, "db", "edit", FIRST, env={"EDITOR": "cat"}))
    assert result.stdout == revision_file(shop, FIRST).read_text(encoding="utf-8")


@pytest.mark.parametrize("editor", ["false", "/no/editor"])
def test_editor_that_fails(editor: str, shop: Path, launch: Launcher) -> None:
    """An editor that cannot do its work is a setting to mend, and no word of the history."""
    environment = {"EDITOR": editor, "VISUAL": editor}
    result = launch(shop, "db", "edit", FIRST, env=environment)
    assert result.returncode == 3
    assert "editor" in result.last["error"]["message"].lower()
    assert "EDITOR" in result.last["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(("revision", "-m"), ("revision", "-m", "x", "--rev-id"), ("migrate", "--branch-label")),
        *(("merge", "heads", "-m"), ("merge", "heads", "--rev-id")),
    ],
    ids=" ".join,
)
def test_text_that_no_file_can_hold(
    arguments: tuple[str, ...], copy_app: Callable[[str], Path], launch: Launcher
) -> None:
    """A message or a name in another encoding is refused, and no file is made."""
    folder = copy_app("shop")
    before = sorted((folder / "migrations" / "versions").iterdir())
    result = launch(folder, "db", *arguments, "caf\udce9", env={})
    assert result.returncode == 2
    option = "--message" if arguments[-1] == "-m" else arguments[-1]
    assert result.last["error"]["message"] == f"{option} is not UTF-8 text"
    assert sorted((folder / "migrations" / "versions").iterdir()) == before


def test_template_that_cannot_be_rendered(
    copy_app: Callable[[str], Path], launch: Launcher
) -> None:
    """A fault in script.py.mako is one of the repository's files, which the hint names."""
    folder = copy_app("shop")
    (folder / "migrations" / "script.py.mako").write_text("${nothing.there}")
    result = launch(folder, "db", "revision", "-m", "x", env={})
    assert result.returncode == 3
    assert "script.py.mako" in result.last["hint"]


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        ("--help", "--refused-grace"),
        ("db --help", "list-templates"),
        ("db upgrade --help", "--sql"),
        ("status --help", "--refused-grace"),
        ("wait --help", "--refused-grace"),
    ],
)
def test_help_is_a_good_end(shop: Path, launch: Launcher, arguments: str, shows: str) -> None:
    """`--help` prints to stdout and ends with 0, wherever it stands."""
    result = launch(shop, *arguments.split())
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: flask-migrate")
    assert shows in result.stdout
    assert not [line for line in result.log if line["level"] == "error"]


def test_version_names_all_parts(shop: Path, launch: Launcher) -> None:
    """`--version` names the sidecar and what it would run with."""
    result = launch(shop, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(name in result.stdout for name in ("sidecar", "Alembic", "SQLAlchemy", "Flask"))


@pytest.fixture
def named(tmp_path: Path, launch: Launcher) -> Path:
    """Return an app whose group is called `database`, with a command of its own in it."""
    (tmp_path / "app.py").write_text(GROUP, encoding="utf-8")
    succeed(launch(tmp_path, "db", "init"))
    return tmp_path


def test_any_name_of_the_group(named: Path, launch: Launcher) -> None:
    """`db` means the application's group, whatever its name is, also in its variables."""
    succeed(launch(named, "db", "revision", "-m", "first"))
    result = succeed(launch(named, "db", "upgrade", env={"FLASK_DATABASE_UPGRADE_SQL": "1"}))
    assert "INSERT INTO alembic_version" in result.stdout
    assert succeed(launch(named, "db", "upgrade")).last["applied"]


def test_own_command_keeps_stdout(named: Path, launch: Launcher) -> None:
    """A command of the app's own waits, is locked, and prints to the real stdout."""
    result = succeed(launch(named, "db", "count"))
    assert result.stdout == "one\ntwo\n"
    assert outputs(result.log) == ["lock=False"]
    names = [line["event"] for line in result.log]
    assert names.index("database.ready") < names.index("lock.acquired") < names.index("output")


def test_options_of_a_subcommand_are_its_own(named: Path, launch: Launcher) -> None:
    """An option that the subcommand has itself is not the sidecar's behind it."""
    result = succeed(launch(named, "db", "count", "--lock"))
    assert outputs(result.log) == ["lock=True"]


def test_options_behind_the_subcommand(shop: Path, launch: Launcher) -> None:
    """The sidecar's options are understood behind the subcommand too."""
    result = succeed(launch(shop, "db", "current", "--wait-timeout", "7s"))
    assert result.log[0]["settings"]["wait_timeout"] == 7


def test_directory_of_the_subcommand_wins(shop: Path, launch: Launcher) -> None:
    """`-d` of the subcommand goes before `--directory` and its variables."""
    where = ("--directory", "nowhere", "db", "heads")
    assert launch(shop, *where).returncode == 3
    assert HEAD in succeed(launch(shop, *where, "-d", "migrations")).stdout
    assert launch(shop, "db", "heads", env={"FLASK_DB_DIRECTORY": "nowhere"}).returncode == 3


def test_unknown_variables_are_told(shop: Path, launch: Launcher) -> None:
    """A mistyped variable is warned of with a suggestion; Kubernetes service links are not."""
    env = {
        "MIGRATE_LOCK_TIMOUT": "5",
        "MIGRATE_SERVICE_HOST": "10.0.0.1",
        "MIGRATE_SERVICE_PORT_HTTP": "80",
        "MIGRATE_PORT": "tcp://10.0.0.1:5432",
        "MIGRATE_PORT_5432_TCP_ADDR": "10.0.0.1",
    }
    log = succeed(launch(shop, "db", "heads", env=env)).log
    found = [(line["variable"], line["meant"]) for line in events(log, "settings.unknown")]
    assert found == [("MIGRATE_LOCK_TIMOUT", "MIGRATE_LOCK_TIMEOUT")]


def test_settings_from_files(shop: Path, launch: Launcher, tmp_path: Path) -> None:
    """A URL in a mounted file is where the run goes, and is not told."""
    secret = tmp_path / "url"
    secret.write_text(f"sqlite:///{tmp_path}/other.db\n", encoding="utf-8")
    result = succeed(launch(shop, "db", "upgrade", env={"MIGRATE_DATABASE_URL_FILE": str(secret)}))
    assert len(result.last["applied"]) == 17
    assert result.log[0]["settings"] == {"database_url": "***"}
    assert "customer" in tables_of(f"sqlite:///{tmp_path}/other.db")


# What a bad run leaves


@pytest.mark.parametrize("per_migration", [False, True])
def test_failure_tells_what_was_kept(
    dialect: str,
    database_url: str,
    per_migration: bool,
    copy_app: Callable[[str], Path],
    launch: Launcher,
) -> None:
    """The last line tells what the database kept, and `committed` told the truth before."""
    app = copy_app("shop")
    append(revision_file(app, MIDDLE), "\n\ndef upgrade():\n    raise RuntimeError('bang')\n")
    if per_migration:
        source = (app / "app.py").read_text(encoding="utf-8")
        changed = source.replace("(app, db)", "(app, db, transaction_per_migration=True)")
        assert source != changed
        (app / "app.py").write_text(changed, encoding="utf-8")

    result = launch(app, "db", "upgrade", env={"DATABASE_URL": database_url})

    applied = events(result.log, "migration.applied")
    done = [line["revision"] for line in applied]
    keeps = per_migration or dialect != "postgresql"
    assert (result.returncode, len(done)) == (8, STEPS_BEFORE)
    assert {line["committed"] for line in applied} == {keeps}
    assert result.last["revision"] == MIDDLE
    assert result.last["kept"] == (done if keeps else [])
    failed = "rolled_back" if dialect == "postgresql" else "unfinished"
    gone = [] if keeps else done
    assert result.last[failed] == [*gone, MIDDLE]
    assert ("customer" in tables_of(database_url)) is keeps


SLEEP = """

def upgrade():
    op.execute("CREATE TABLE begun (id INTEGER)")
    {prepare}
    op.execute("{statement}")
"""
# Says that it began once the main thread is back in SQLite's own code, for a signal that comes
# before is no news to Python.
TELL_OF_SQLITE = """
    import sys, threading

    entered, main = threading.Event(), threading.get_ident()

    def begin():
        entered.set()
        return 1

    def tell():
        entered.wait()
        while sys._current_frames()[main].f_code is begin.__code__:
            pass
        print("begun")

    threading.Thread(target=tell, daemon=True).start()
    op.get_bind().connection.dbapi_connection.create_function("begin_now", 0, begin)
"""
ENDLESS = (
    "WITH RECURSIVE c(x) AS (SELECT begin_now() UNION ALL SELECT x + 1 FROM c "
    "WHERE x < 100000000000) SELECT count(*) FROM c"
)
SLEEPING = {
    "postgres": "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = :name",
    "mariadb": "SELECT 1 FROM information_schema.processlist WHERE state = 'User sleep' "
    "AND db = :name",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize(
    ("server", "driver", "statement"),
    [
        (None, "sqlite", ENDLESS),
        ("postgres", "psycopg", "SELECT pg_sleep(600)"),
        ("postgres", "psycopg2", "SELECT pg_sleep(600)"),
        ("mariadb", "pymysql", "SELECT sleep(600)"),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_signal_ends_a_statement(
    number: signal.Signals,
    server: str | None,
    driver: str,
    statement: str,
    request: pytest.FixtureRequest,
    copy_app: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """A signal during a long statement cancels it, rolls back, gives the lock back, and is told."""
    app = copy_app("shop")
    prepare = 'print("begun")' if server else TELL_OF_SQLITE
    append(revision_file(app, MIDDLE), SLEEP.format(statement=statement, prepare=prepare))
    url = f"sqlite:///{tmp_path}/signal.db"
    if server:
        running: Postgres | MariaDB = request.getfixturevalue(server)
        url = running.create_database().url(driver)

    process = FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url})
    process.await_event("output", text="begun")
    if server:
        await_sleep(url, SLEEPING[server])
    process.process.send_signal(number)
    result = process.result()

    log = result.log
    assert result.returncode == 128 + number
    assert (log[-1]["event"], log[-1]["exit_code"]) == ("command.failed", 128 + number)
    assert number.name in log[-1]["error"]["message"]
    assert "lock.released" in [line["event"] for line in log]
    if server == "postgres":
        assert (log[-1]["kept"], len(log[-1]["rolled_back"])) == ([], STEPS_BEFORE + 1)
        assert tables_of(url) == set()
    else:
        assert (len(log[-1]["kept"]), log[-1]["unfinished"]) == (STEPS_BEFORE, [MIDDLE])


def await_sleep(url: str, query: str) -> None:
    """Look at the server until the statement runs there."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = {"name": engine.url.database}
        while not connection.execute(text(query), name).scalar():
            sleep(0.01)


def tables_of(url: str) -> set[str]:
    """Return the names of a database's tables."""
    return set(inspect(create_engine(url, poolclass=NullPool)).get_table_names())


# Secrets

TELLING = """

import os
from urllib.parse import quote, quote_plus


def upgrade():
    from flask import current_app
    import warnings, logging, sys, subprocess

    secret = os.environ["TEST_SECRET"]
    libpq = secret.replace("\\\\", "\\\\\\\\").replace("'", "\\\\'")
    texts = [
        secret, repr(secret), quote(secret), quote(secret, safe=""), quote_plus(secret),
        f"host=x password={secret} dbname=y", f"host=x password='{libpq}' dbname=y",
        current_app.config["SQLALCHEMY_DATABASE_URI"], repr(current_app.config),
        op.get_bind().render_url(engine.url),
        f"a@b://{secret}@{secret}:{secret}", f"first\\n{secret}\\nlast",
        repr(f"first\\n{secret}\\nlast"),
    ]
    for text in texts:
        print(text)
        logging.getLogger("shop").error("%s", text)
        warnings.warn(text)
        subprocess.run(["echo", text], check=True)
    try:
        raise KeyError(texts)
    except KeyError as error:
        raise RuntimeError(*texts) from error
"""
PASSWORDS = ["s3cret%pw", "p@ss w/o:rd'\"\\", "caf\u00e9#1&x=y", "%41%42", "S3cr%7etLong+word"]


@pytest.mark.parametrize("password", PASSWORDS)
def test_no_spelling_of_a_password_is_seen(
    password: str, postgres: "Postgres", copy_app: Callable[[str], Path], sidecar: "RunCommand"
) -> None:
    """A password is in no line, however user code spells it and wherever it prints it."""
    app = copy_app("shop")
    append(revision_file(app, FIRST), TELLING)
    prepend(
        app / "app.py", "import os\nprint(dict(os.environ))\nprint(os.environ['DB_PASSWORD'])\n"
    )
    database = postgres.create_database()
    role = create_role(postgres, database.name, password)
    url = make_url(database.url()).set(username=role, password=password)
    env = {
        "DATABASE_URL": render_url(url),
        "TEST_SECRET": password,
        "DB_PASSWORD": password,
    }

    result = sidecar(app, "db", "upgrade", env=env)

    read_log(result.stderr)
    assert result.returncode == 8, result.stderr.splitlines()[-1]
    assert "TEST_SECRET" in result.stderr
    # As JSON shows it, and after reading the JSON.
    decoded = "\n".join(map(repr, read_log(result.stderr))) + texts_of(read_log(result.stderr))
    for spelling in {password, quote(password), quote(password, safe=""), quote_plus(password)}:
        assert spelling not in result.stdout + result.stderr + decoded


def texts_of(value: object) -> str:
    """Join all texts that a value holds."""
    if isinstance(value, Mapping):
        return "\n".join(map(texts_of, value.values()))
    if isinstance(value, list):
        return "\n".join(map(texts_of, value))
    return str(value)


def create_role(postgres: "Postgres", database: str, password: str) -> str:
    """Create a role with a password that may use a database."""
    role = f"{database}_role"
    literal = password.replace("'", "''")
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{literal}'")
    postgres.execute(f"GRANT ALL ON SCHEMA public TO {role}", database=database)
    return role


def test_plain_password_garbles_nothing(copy_app: Callable[[str], Path], launch: Launcher) -> None:
    """A password that is a plain word, such as `shop`, is hidden as a word and nowhere else."""
    app = copy_app("shop")
    prepend(app / "app.py", "print('shop shopping postgresql://shop:shop@shop/shop')\n")
    result = succeed(launch(app, "db", "heads", env={"DB_PASSWORD": "shop"}))
    assert outputs(result.log) == ["*** shopping postgresql://***:***@***/***"]
    result = succeed(launch(app, "db", "upgrade", env={"DB_PASSWORD": "info"}))
    assert {line["level"] for line in result.log} == {"info"}
    assert [line["revision"] for line in events(result.log, "migration.applied")][-1] == HEAD
