"""What the sidecar says of a run on SQLite that failed is what the file holds."""

from pathlib import Path

import pytest

import racing
from following import FollowedRun
from sidecar_runs import Launcher
from sqlite_history import ALTER, HISTORY, ROWS, TABLES, add_revision, dump, revisions_of, write_app

FAILS = '    raise ValueError("behind it")\n'
HALF = '    op.execute("CREATE TABLE half (id integer)")\n'
STATEMENT = '    op.execute("{}")\n'
# What leaves nothing, and what leaves `half`.
WHOLE = {
    "statements": HALF,
    "batch": HALF + HISTORY[4],
    "error of SQLite": HALF + '    op.execute("INSERT INTO nowhere VALUES (1)")\n',
    "savepoint": "    with op.get_bind().begin_nested():\n    " + HALF,
    "raw cursor": """\
    op.get_bind().connection.cursor().execute("CREATE TABLE half (id integer)")
""",
    "look": HALF + '    op.execute("PRAGMA foreign_keys")\n',
}
MIDWAY = {
    "COMMIT": HALF + '    op.execute("COMMIT")\n',
    "COMMIT and more": HALF + '    op.execute("COMMIT")\n    op.execute("CREATE TABLE x (y)")\n',
    "autocommit block": "    with op.get_context().autocommit_block():\n    " + HALF,
    "VACUUM": HALF + '    op.execute("VACUUM")\n',
    "script": '    op.get_bind().connection.executescript("CREATE TABLE half (id integer)")\n',
    "script and more": """\
    op.get_bind().connection.executescript("CREATE TABLE half (id integer)")
    op.execute("CREATE TABLE x (y)")
""",
}
MODES = {
    "all": "",
    "each": ", transaction_per_migration=True",
    "old way": ", transactional_ddl=False",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*WHOLE, *MIDWAY])
def test_unfinished_is_what_left_something(
    name: str, mode: str, tmp_path: Path, launch: Launcher
) -> None:
    """A revision is `unfinished` where its first statements stay, `rolled_back` where none does."""
    body = {**WHOLE, **MIDWAY}[name] + FAILS
    folder = write_app(tmp_path / "app", [*HISTORY[:2], body], options=MODES[mode])
    result = launch(folder, "db", "upgrade")
    text = "".join(dump(folder / "main.db"))
    stays = "half" in text
    assert result.returncode == 8, result.last
    assert stays == (name in MIDWAY or mode == "old way")
    assert result.last.get("unfinished", []) == (["r3"] if stays else [])
    assert ("r3" in result.last["rolled_back"]) != stays
    kept = ["r1", "r2"] if name in MIDWAY or mode != "all" else []
    assert result.last["kept"] == kept
    assert revisions_of(folder / "main.db") == kept[-1:]


def test_failure_before_the_first_statement(tmp_path: Path, launch: Launcher) -> None:
    """A revision that fails at once leaves nothing, and the one that is mended is run."""
    folder = write_app(tmp_path / "app", [*HISTORY[:2], FAILS])
    result = launch(folder, "db", "upgrade")
    assert (result.last["kept"], result.last["rolled_back"]) == ([], ["r1", "r2", "r3"])
    assert "unfinished" not in result.last
    add_revision(folder, 3, ALTER)
    again = launch(folder, "db", "upgrade")
    assert (again.returncode, again.last["applied"]) == (0, ["r1", "r2", "r3"])


def test_violation_is_a_failure_of_the_revision(tmp_path: Path, launch: Launcher) -> None:
    """A foreign key that points nowhere is 8, and nothing of the run is kept."""
    delete = '    op.execute("DELETE FROM author WHERE id = 2")\n'
    folder = write_app(tmp_path / "app", [TABLES.format(action="CASCADE"), ROWS, delete])
    result = launch(folder, "db", "upgrade")
    assert result.returncode == 8
    assert "book to author (2)" in result.last["error"]["message"]
    assert "delete or change" in result.last["hint"]
    assert result.last["rolled_back"] == ["r1", "r2", "r3"]
    assert revisions_of(folder / "main.db") == []


GATED = """\
    import pathlib
    import time

    op.execute(
        "CREATE TABLE big AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c "
        "WHERE x < {rows}) SELECT x, randomblob(1000) AS y FROM c"
    )
    print("begun")
    while not pathlib.Path(__file__).with_suffix(".go").exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize(("rows", "codes"), [(1, (0, 10)), (9000, (5, 5))], ids=["few", "many"])
def test_looking_beside_a_run(
    rows: int, codes: tuple[int, int], tmp_path: Path, launch: Launcher
) -> None:
    """Who looks reads what was there before, or, where SQLite writes already, ends in its time."""
    folder = write_app(tmp_path / "app", [*HISTORY[:2], GATED.format(rows=rows)])
    assert launch(folder, "db", "upgrade", "r2").returncode == 0
    with FollowedRun(folder, "db", "upgrade") as run:
        run.await_event("output", text="begun")
        status = launch(folder, "--wait-timeout", "0", "status")
        gate = launch(folder, "--head-timeout", "0", "wait", "head")
        (folder / "migrations/versions/r3.go").touch()
        assert run.finish() == 0, run.last
    assert (status.returncode, gate.returncode) == codes
    assert ('"behind"' in status.stdout) == (rows == 1)
    assert launch(folder, "wait", "head").returncode == 0


def test_path_that_begins_with_two_slashes(tmp_path: Path, launch: Launcher) -> None:
    """`sqlite:////` before an absolute path leads to the same file, also once it is there."""
    app = racing.write_app(tmp_path / "app", ["    pass"])
    env = {"DATABASE_URL": f"sqlite:////{tmp_path}/main.db", "MIGRATE_WAIT_TIMEOUT": "0"}
    for command in ("db upgrade", "db upgrade", "wait database", "status"):
        result = launch(app, *command.split(), env=env)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "main.db").is_file()
