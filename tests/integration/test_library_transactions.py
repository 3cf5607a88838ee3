"""On SQLite a run is one transaction, or one a revision, and loses no row by foreign keys."""

import re
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

import old_environments as old
from library import flask
from sqlite_history import (
    ALTER,
    HISTORY,
    ROWS,
    TABLES,
    add_revision,
    count,
    dump,
    revisions_of,
    write_app,
)

TEMPLATES = Path(__file__).parents[2] / "templates"
CASCADING = TABLES.format(action="CASCADE")
FAILS = '    raise ValueError("behind it")\n'
# Those of hand that begin no transaction: on SQLite each revision had one of its own all the same.
WITHOUT_BEGIN = old.VERSION_4.replace("with context.begin_transaction():", "if True:")
ENVIRONMENTS = {
    "ours": (TEMPLATES / "flask/env.py").read_text(encoding="utf-8"),
    "first releases": old.EXTENSION_METADATA,
    "2": old.VERSION_2,
    "3": old.VERSION_3,
    "4": old.VERSION_4,
    "several, ours": (TEMPLATES / "flask-multidb/env.py").read_text(encoding="utf-8"),
    "several, 2": old.MULTIDB_2,
    "several, 4": old.MULTIDB_4,
    "without begin": WITHOUT_BEGIN,
}
# SQLAlchemy manual, "SQLite", Transactions: how an application gets real ones by itself.
RECIPE = """
@event.listens_for(Engine, "connect")
def begin_nothing(connection, _record):
    connection.isolation_level = None


@event.listens_for(Engine, "begin")
def begin(connection):
    connection.exec_driver_sql("BEGIN")
"""
POOLS = {
    "own BEGIN": RECIPE,
    "autocommit": 'app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"isolation_level": "AUTOCOMMIT"}',
    **{
        pool: f"""
from sqlalchemy import pool

app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {{"poolclass": pool.{pool}}}
"""
        for pool in ("NullPool", "QueuePool", "StaticPool", "SingletonThreadPool")
    },
    "file URL": """
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///file:{HERE}/main.db?mode=rwc&uri=true"
""",
    "WAL": """
@event.listens_for(Engine, "connect")
def write_ahead(connection, _record):
    connection.execute("PRAGMA journal_mode = WAL")
""",
}


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    """Return the source of an `env.py`, of each shape in turn."""
    return ENVIRONMENTS[request.param]


def upgrade(folder: Path, *arguments: str, fail: bool = False) -> str:
    """Upgrade, and return what it said."""
    (result,) = flask(folder, ["db", "upgrade", *arguments], fail=fail, warnings="default")
    return result.stderr


@pytest.mark.parametrize("action", ["CASCADE", "RESTRICT", "SET NULL"])
def test_batch_loses_no_row_that_refers_to_the_table(action: str, tmp_path: Path) -> None:
    """What refers to a table that is copied stays as it is, whatever its foreign key says."""
    folder = write_app(tmp_path, [TABLES.format(action=action), ROWS, ALTER])
    upgrade(folder)
    assert count(folder / "main.db", "book") == 3


def test_batch_loses_no_row_with_any_environment(environment: str, tmp_path: Path) -> None:
    """The rule holds for whichever `env.py` a repository has."""
    folder = write_app(tmp_path, [CASCADING, ROWS, ALTER], environment=environment)
    upgrade(folder)
    assert count(folder / "main.db", "book") == 3
    assert revisions_of(folder / "main.db") == ["r3"]


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("shape", ["4", "several, 4"])
def test_batch_loses_no_row_with_any_engine(name: str, shape: str, tmp_path: Path) -> None:
    """The rule holds, and a failure leaves nothing, whatever engine the application has."""
    folder = write_app(
        tmp_path, [CASCADING, ROWS, ALTER], more=POOLS[name], environment=ENVIRONMENTS[shape]
    )
    upgrade(folder)
    assert count(folder / "main.db", "book") == 3
    before = dump(folder / "main.db")
    add_revision(folder, 4, HISTORY[4] + FAILS)
    assert "behind it" in upgrade(folder, fail=True)
    assert dump(folder / "main.db") == before


@pytest.mark.parametrize("mode", ["", ", transaction_per_migration=True"], ids=["all", "each"])
def test_failed_revision_leaves_nothing(mode: str, environment: str, tmp_path: Path) -> None:
    """A revision that fails leaves nothing, and once it is mended, a run ends as undisturbed."""
    folder = write_app(tmp_path / "a", HISTORY[:4], options=mode, environment=environment)
    upgrade(folder, "r2")
    before = dump(folder / "main.db")
    add_revision(folder, 4, HISTORY[3] + HISTORY[4] + FAILS)
    assert "behind it" in upgrade(folder, fail=True)
    kept = revisions_of(folder / "main.db")
    assert kept in (["r2"], ["r3"])
    assert (dump(folder / "main.db") == before) == (kept == ["r2"])
    assert "_alembic_tmp" not in "".join(dump(folder / "main.db"))
    add_revision(folder, 4, HISTORY[3])
    upgrade(folder)
    undisturbed = write_app(tmp_path / "b", HISTORY[:4], environment=environment)
    upgrade(undisturbed)
    assert dump(folder / "main.db") == dump(undisturbed / "main.db")


@pytest.mark.parametrize(
    ("mode", "kept"), [("", []), (", transaction_per_migration=True", ["r3"])], ids=["all", "each"]
)
def test_transaction_per_migration(mode: str, kept: Sequence[str], tmp_path: Path) -> None:
    """`transaction_per_migration` says whether the revisions before the failed one stay."""
    folder = write_app(tmp_path, [*HISTORY[:3], FAILS], options=mode)
    upgrade(folder, fail=True)
    assert revisions_of(folder / "main.db") == kept


@pytest.mark.parametrize("shape", [name for name in ENVIRONMENTS if "several" not in name])
def test_switch_gives_the_old_way(shape: str, tmp_path: Path) -> None:
    """With `transactional_ddl=False` each statement is final, and foreign keys do what they do."""
    folder = write_app(
        tmp_path,
        [CASCADING, ROWS, ALTER, '    op.execute("CREATE TABLE half (id integer)")\n' + FAILS],
        options=", transactional_ddl=False",
        environment=ENVIRONMENTS[shape],
    )
    upgrade(folder, fail=True)
    assert count(folder / "main.db", "book") == 0
    assert count(folder / "main.db", "half") == 0


def test_version_table_without_a_revision(tmp_path: Path) -> None:
    """`ensure-version` makes the version table where each revision has its own transaction too."""
    folder = write_app(tmp_path, [CASCADING], options=", transaction_per_migration=True")
    flask(folder, "db ensure-version", warnings="default")
    assert "alembic_version" in "".join(dump(folder / "main.db"))


# Foreign keys


DELETES = "    op.execute(\"DELETE FROM author WHERE name = 'Bob'\")\n"


@pytest.mark.parametrize("mode", ["", ", transaction_per_migration=True"], ids=["all", "each"])
def test_violation_is_told_before_the_commit(mode: str, environment: str, tmp_path: Path) -> None:
    """A row that would refer to nothing is named, and nothing of its transaction is committed."""
    folder = write_app(tmp_path, [CASCADING, ROWS], options=mode, environment=environment)
    upgrade(folder)
    before = dump(folder / "main.db")
    add_revision(folder, 3, ALTER + DELETES)
    said = upgrade(folder, fail=True)
    assert "Nothing was committed: a row refers to what is not there: book to author (2)." in said
    assert dump(folder / "main.db") == before


def test_violation_in_one_of_several_databases(tmp_path: Path) -> None:
    """A violation in the last database keeps the first one from being committed."""
    more = 'app.config["SQLALCHEMY_BINDS"] = {"users": f"sqlite:///{HERE}/users.db"}'
    environment = ENVIRONMENTS["several, ours"]
    folder = write_app(tmp_path, [CASCADING + ROWS], more=more, environment=environment)
    upgrade(folder)
    delete = '    if engine_name == "users":\n        op.execute("DELETE FROM author")\n'
    add_revision(folder, 2, ALTER + delete)
    assert "3 rows refer" in upgrade(folder, fail=True)
    for name in ("main", "users"):
        assert revisions_of(folder / f"{name}.db") == ["r1"]
        assert count(folder / f"{name}.db", "author") == 2


ORPHAN = "INSERT INTO book (id, author_id) VALUES ({}, {})"
NO_BLAME = {
    "nothing": "    pass\n",
    "copied": '    with op.batch_alter_table("book") as batch:\n'
    '        batch.add_column(sa.Column("x", sa.Integer, server_default=sa.text("1")))\n',
    "numbered anew": '    op.execute("UPDATE book SET id = id + 1000")\n',
    "column renamed": '    op.execute("ALTER TABLE book RENAME COLUMN author_id TO writer")\n',
    "table renamed": '    op.rename_table("book", "volume")\n',
    "parent renamed": '    op.rename_table("author", "writer")\n',
    "mended": '    op.execute("DELETE FROM book WHERE author_id = 77")\n',
}


@pytest.mark.parametrize("name", NO_BLAME)
def test_older_violation_is_not_blamed_on_the_run(name: str, tmp_path: Path) -> None:
    """What referred to nothing before the run is none of its faults, whatever it is called now."""
    folder = write_app(tmp_path, [CASCADING, ROWS])
    upgrade(folder)
    with closing(sqlite3.connect(folder / "main.db")) as connection, connection:
        connection.execute(ORPHAN.format(8, 77))
        connection.execute(ORPHAN.format(9, 77))
    add_revision(folder, 3, NO_BLAME[name])
    upgrade(folder)
    assert revisions_of(folder / "main.db") == ["r3"]


def test_violation_in_place_of_an_older_one(tmp_path: Path) -> None:
    """That as many rows refer to nothing as before hides none that is new."""
    folder = write_app(tmp_path, [CASCADING, ROWS])
    upgrade(folder)
    with closing(sqlite3.connect(folder / "main.db")) as connection, connection:
        connection.execute(ORPHAN.format(9, 77))
    add_revision(folder, 3, '    op.execute("DELETE FROM book WHERE id = 9")\n' + DELETES)
    assert "book to author (2)" in upgrade(folder, fail=True)
    assert revisions_of(folder / "main.db") == ["r2"]


MISMATCH = """\
    op.execute("CREATE TABLE odd (id integer REFERENCES author (name))")
    op.execute("INSERT INTO odd VALUES ({})")
"""


def test_key_that_fits_none_of_the_parent(tmp_path: Path) -> None:
    """A foreign key to a column that is no key is told where it is new, and else left alone."""
    folder = write_app(tmp_path, [CASCADING, ROWS, MISMATCH.format(1)])
    assert "odd to author (no such key)" in upgrade(folder, fail=True)
    upgrade(folder, "r2")
    with closing(sqlite3.connect(folder / "main.db")) as connection, connection:
        connection.execute("CREATE TABLE old (id integer REFERENCES author (name))")
        connection.execute("INSERT INTO old VALUES (1)")
    add_revision(folder, 3, ALTER)
    upgrade(folder)
    assert count(folder / "main.db", "old") == 1


def test_foreign_keys_that_are_not_enforced_are_not_checked(tmp_path: Path) -> None:
    """Where the application does not enforce foreign keys, no revision has to keep them."""
    folder = write_app(tmp_path, [CASCADING, ROWS, DELETES], enforced=False)
    upgrade(folder)
    assert count(folder / "main.db", "book") == 3


# What a revision does with transactions itself


BY_ITSELF = {
    "autocommit block": """\
    with op.get_context().autocommit_block():
        op.execute("VACUUM")
        op.execute("CREATE TABLE midway (id integer)")
""",
    "COMMIT": """\
    op.execute("CREATE TABLE midway (id integer)")
    op.execute("COMMIT")
""",
    "BEGIN": """\
    op.execute("BEGIN")
    op.execute("CREATE TABLE midway (id integer)")
    op.execute("COMMIT")
""",
    "VACUUM": """\
    op.execute("CREATE TABLE midway (id integer)")
    op.execute("VACUUM")
""",
    "journal_mode": """\
    op.execute("CREATE TABLE midway (id integer)")
    op.execute("PRAGMA journal_mode = WAL")
""",
    "script": """\
    op.get_bind().connection.executescript("CREATE TABLE midway (id integer)")
""",
}


# Of several databases `env.py` holds the transactions itself, which Alembic's block cannot end.
OF_ONE = [name for name in ENVIRONMENTS if not name.startswith("several")]


@pytest.mark.parametrize("name", OF_ONE)
def test_autocommit_block_with_any_environment(name: str, tmp_path: Path) -> None:
    """Alembic's block ends the transaction that is there: one that `env.py` has begun, or ours."""
    bodies = [CASCADING + ROWS, BY_ITSELF["autocommit block"]]
    folder = write_app(tmp_path, bodies, environment=ENVIRONMENTS[name])
    upgrade(folder)
    assert revisions_of(folder / "main.db") == ["r2"]
    assert count(folder / "main.db", "midway") == 0


@pytest.mark.parametrize("name", BY_ITSELF)
def test_revision_that_commits_by_itself(name: str, tmp_path: Path) -> None:
    """What a revision makes final itself is so, and what it does behind that is rolled back."""
    behind = '    op.execute("CREATE TABLE behind (id integer)")\n'
    folder = write_app(tmp_path, [CASCADING + ROWS, BY_ITSELF[name] + ALTER + behind + FAILS])
    assert "behind it" in upgrade(folder, fail=True)
    text = "".join(dump(folder / "main.db"))
    assert "midway" in text
    assert "behind" not in text
    assert count(folder / "main.db", "book") == 3
    assert "name VARCHAR(50) NOT NULL" not in text
    with closing(sqlite3.connect(folder / "main.db")) as connection, connection:
        connection.execute("DROP TABLE midway")
    add_revision(folder, 2, BY_ITSELF[name] + ALTER)
    upgrade(folder)
    assert count(folder / "main.db", "book") == 3
    assert revisions_of(folder / "main.db") == ["r2"]


@pytest.mark.parametrize("name", ["COMMIT", "VACUUM"])
def test_violation_is_told_before_a_commit_of_its_own(name: str, tmp_path: Path) -> None:
    """A revision that commits by itself commits no row either that refers to nothing."""
    folder = write_app(tmp_path, [CASCADING, ROWS, DELETES + BY_ITSELF[name]])
    assert "book to author (2)" in upgrade(folder, fail=True)
    assert revisions_of(folder / "main.db") == []


def test_raw_cursor_is_in_the_transaction(tmp_path: Path) -> None:
    """What a revision runs past SQLAlchemy is rolled back with the rest."""
    raw = '    op.get_bind().connection.cursor().execute("CREATE TABLE raw (id integer)")\n'
    for mode in ("", ", transaction_per_migration=True"):
        folder = write_app(tmp_path / (mode or "all"), ["    pass\n", raw + FAILS], options=mode)
        upgrade(folder, fail=True)
        assert "raw" not in "".join(dump(folder / "main.db"))


def test_script_for_sqlite_is_one_transaction(tmp_path: Path) -> None:
    """`--sql` prints what runs: a transaction, unless that is switched off."""
    for options, begins in (("", 1), (", transactional_ddl=False", 0)):
        folder = write_app(tmp_path / str(begins), [CASCADING, ROWS], options=options)
        (result,) = flask(folder, "db upgrade --sql", warnings="default")
        assert len(re.findall("^BEGIN;$", result.stdout, re.MULTILINE)) == begins
        assert len(re.findall("^COMMIT;$", result.stdout, re.MULTILINE)) == begins


SESSION = """\
    from sqlalchemy.orm import Session

    with Session(bind=op.get_bind()) as session:
        session.execute(sa.text("INSERT INTO author (name) VALUES ('Cid')"))
        session.commit()
"""
OTHER = """\
    from flask import current_app

    db = current_app.extensions["sqlalchemy"]
    db.session.execute(sa.text("INSERT INTO author (name) VALUES ('Cid')"))
    db.session.commit()
"""
IMPATIENT = 'app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"timeout": 0.01}}'


def test_session_on_the_connection_of_the_revision(tmp_path: Path) -> None:
    """What a session on `op.get_bind()` commits belongs to the revision's transaction."""
    folder = write_app(tmp_path, [CASCADING + ROWS, SESSION + FAILS])
    upgrade(folder, fail=True)
    assert revisions_of(folder / "main.db") == []
    add_revision(folder, 2, SESSION)
    upgrade(folder)
    assert count(folder / "main.db", "author") == 3


def test_session_on_another_connection(tmp_path: Path) -> None:
    """A revision that writes beside its own transaction is told why it cannot, and what would."""
    folder = write_app(tmp_path / "a", [CASCADING + ROWS], more=IMPATIENT)
    upgrade(folder)
    add_revision(folder, 2, OTHER)
    said = upgrade(folder, fail=True)
    assert "database is locked" in said
    assert "op.get_bind()" in said
    assert "transactional_ddl=False" in said
    options = ", transactional_ddl=False"
    folder = write_app(tmp_path / "b", [CASCADING + ROWS, OTHER], more=IMPATIENT, options=options)
    upgrade(folder)
    assert count(folder / "main.db", "author") == 3


@pytest.mark.parametrize("mode", ["", ", transaction_per_migration=True"], ids=["all", "each"])
def test_asynchronous_driver(mode: str, tmp_path: Path) -> None:
    """With aiosqlite too a failed revision leaves nothing, and no row is lost."""
    reason = "Flask-SQLAlchemy-Lite needs Flask 3"
    pytest.importorskip("flask_sqlalchemy_lite", reason=reason, exc_type=ImportError)
    environment = (TEMPLATES / "aioflask/env.py").read_text(encoding="utf-8")
    folder = write_app(tmp_path, [CASCADING, ROWS, ALTER], options=mode, environment=environment)
    source = (folder / "app.py").read_text()
    source = source.replace("flask_sqlalchemy", "flask_sqlalchemy_lite")
    source = source.replace(
        '["SQLALCHEMY_DATABASE_URI"] = f"sqlite:', '["URL"] = f"sqlite+aiosqlite:'
    )
    source = source.replace(
        "db = ", 'app.config["SQLALCHEMY_ASYNC_ENGINES"] = {"default": app.config["URL"]}\ndb = '
    )
    (folder / "app.py").write_text(source)
    upgrade(folder)
    assert count(folder / "main.db", "book") == 3
    before = dump(folder / "main.db")
    add_revision(folder, 4, HISTORY[4] + FAILS)
    assert "behind it" in upgrade(folder, fail=True)
    assert dump(folder / "main.db") == before
    add_revision(folder, 4, DELETES)
    assert "book to author (2)" in upgrade(folder, fail=True)


PATIENT = 'app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"timeout": 200}}'
GATE = """\
    import pathlib
    import time

    here = pathlib.Path(__file__).parent
    (here / "running").touch()
    while not (here / "go").exists():
        time.sleep(0.01)
"""


def test_two_upgrades_at_once(tmp_path: Path) -> None:
    """Of two upgrades one waits for the other one, and then finds nothing to do."""
    folder = write_app(tmp_path, [CASCADING, ROWS, GATE + ALTER, HISTORY[3]], more=PATIENT)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(upgrade, folder)
        while not (folder / "migrations/versions/running").exists():
            assert not first.done(), first.result()
            time.sleep(0.01)
        second = pool.submit(upgrade, folder)
        (folder / "migrations/versions/go").touch()
        said = [first.result(), second.result()]
    assert [text.count("Running upgrade") for text in said] == [4, 0]
    assert count(folder / "main.db", "book") == 403
