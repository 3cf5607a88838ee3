"""What Alembic's command line offers beyond Flask-Migrate, as commands and as functions."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError

import flask_migrate
from library import Project, flask, make_project, query, tables_of, versions_of, write_app

HAS_CHECK_HEADS = "check_heads" in signature(command.current).parameters
HAS_SPLICE = "splice" in signature(command.merge).parameters


@pytest.fixture
def branched(tmp_path: Path) -> Project:
    """Return a project whose history has two heads, bb and cc, upon aa."""
    project = make_project(tmp_path)
    with project.app.app_context():
        flask_migrate.init()
        for name, head in (("aa", "head"), ("bb", "head"), ("cc", "aa")):
            flask_migrate.revision(rev_id=name, head=head, splice=name == "cc")
    return project


def test_ensure_version(tmp_path: Path) -> None:
    """`ensure-version` makes the version table, or prints the SQL that would."""
    write_app(tmp_path)
    _, sql = flask(tmp_path, "db init", "db ensure-version --sql")
    assert "CREATE TABLE alembic_version" in sql.stdout
    assert tables_of(tmp_path / "main.db") == set()
    flask(tmp_path, "db ensure-version")
    assert versions_of(tmp_path / "main.db") == []


def test_ensure_version_of_a_bind(tmp_path: Path) -> None:
    """`--bind` makes it in one database only."""
    project = make_project(tmp_path, "users")
    with project.app.app_context():
        flask_migrate.init(multidb=True)
        flask_migrate.ensure_version(bind="users")
    assert versions_of(tmp_path / "users.db") == []
    assert not query(tmp_path / "main.db", "SELECT * FROM sqlite_master")


@pytest.mark.skipif(not HAS_CHECK_HEADS, reason="this Alembic has no --check-heads")
def test_check_heads(tmp_path: Path) -> None:
    """`current --check-heads` fails where a database is not at every head."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db revision --rev-id aa", "db current")
    (behind,) = flask(tmp_path, "db current --check-heads", fail=True)
    assert behind.returncode == 1
    assert "ERROR [flask_migrate] Error: Database is not on all head revisions" in behind.stderr
    flask(tmp_path, "db upgrade", "db current -c")


def test_check_heads_of_old_alembic(branched: Project) -> None:
    """Where the installed Alembic lacks an option, one line says so and what to do."""
    if HAS_CHECK_HEADS:
        from alembic.util import DatabaseNotAtHead

        expected: type[CommandError] = DatabaseNotAtHead
        message = "not on all head"
    else:
        expected, message = CommandError, r"current: Alembic 1\.\d+\.\d+ has no --check-heads"
    with branched.app.app_context(), pytest.raises(expected, match=message):
        flask_migrate.current(check_heads=True)


def test_option_that_alembic_lacks(branched: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for any command and option, whichever Alembic is installed."""
    monkeypatch.setattr("alembic.command.merge", lambda _config, _revisions: None)
    monkeypatch.delattr("alembic.command.ensure_version")
    with branched.app.app_context():
        with pytest.raises(CommandError, match=r"merge: Alembic .* has no --splice; upgrade"):
            flask_migrate.merge(revisions="heads", splice=True)
        flask_migrate.merge(revisions="heads")
        with pytest.raises(CommandError, match="has no command ensure-version; upgrade Alembic"):
            flask_migrate.ensure_version()


@pytest.mark.skipif(not HAS_SPLICE, reason="this Alembic has no merge --splice")
def test_merge_splice(branched: Project) -> None:
    """`merge --splice` joins revisions of which one is no head any more."""
    with branched.app.app_context():
        flask_migrate.revision(head="bb", rev_id="dd")
        with pytest.raises(CommandError, match="not a head"):
            flask_migrate.merge(revisions=["bb", "cc"])
        merged = flask_migrate.merge(revisions=["bb", "cc"], splice=True)
    assert merged is not None
    assert merged.down_revision == ("bb", "cc")


@pytest.mark.parametrize("given", ["bb", ["bb"], ("bb",)])
def test_depends_on(branched: Project, given: str | Sequence[str]) -> None:
    """`depends_on` takes one revision or several."""
    with branched.app.app_context():
        script = flask_migrate.revision(head="cc", rev_id="dd", depends_on=given)
        assert script is not None
        assert not isinstance(script, list)
        assert script.dependencies in ("bb", ("bb",))
        flask_migrate.upgrade(revision="dd")
    assert versions_of(branched.folder / "main.db") == ["dd"]


def test_depends_on_as_options(tmp_path: Path) -> None:
    """`--depends-on` is repeatable, for `revision` and for `migrate`."""
    write_app(tmp_path)
    flask(
        tmp_path,
        "db init",
        "db revision --rev-id aa",
        "db revision --rev-id bb --head base",
        "db revision --rev-id cc --head base --depends-on aa --depends-on bb",
        "db upgrade cc",
        "db migrate --rev-id dd --head cc --depends-on bb",
    )
    (three,) = (tmp_path / "migrations/versions").glob("cc_*")
    assert "depends_on = ('aa', 'bb')" in three.read_text().replace("['", "('").replace("']", "')")
    (four,) = (tmp_path / "migrations/versions").glob("dd_*")
    assert "depends_on = 'bb'" in four.read_text().replace("['bb']", "'bb'")


def test_several_stamps(branched: Project) -> None:
    """`stamp` takes several revisions, as arguments or as a list."""
    with branched.app.app_context():
        flask_migrate.stamp(revision=["bb", "cc"])
        assert versions_of(branched.folder / "main.db") == ["bb", "cc"]
        flask_migrate.stamp(revision="aa", purge=True)
        assert versions_of(branched.folder / "main.db") == ["aa"]
    write_app(branched.folder)
    flask(branched.folder, "db stamp bb cc")
    assert versions_of(branched.folder / "main.db") == ["bb", "cc"]


def test_heads_and_branches(branched: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """`heads --resolve-dependencies` takes dependencies for parents; `branches` shows forks."""
    with branched.app.app_context():
        flask_migrate.revision(head="cc", rev_id="dd", depends_on="bb")
        capsys.readouterr()
        flask_migrate.heads()
        assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"bb", "dd"}
        flask_migrate.heads(resolve_dependencies=True)
        assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"dd"}
        flask_migrate.branches()
        assert "aa (branchpoint)" in capsys.readouterr().out
        flask_migrate.history(rev_range="aa:cc", verbose=True)
        out = capsys.readouterr().out
        assert "Rev: cc\n" in out
        assert "Rev: bb" not in out


def test_group_options(tmp_path: Path) -> None:
    """`-q` says less, `--raiseerr` shows where an error came from, `-n` names a section."""
    write_app(tmp_path)
    _, quiet, loud, raised = flask(
        tmp_path,
        "db init",
        "db -q revision --rev-id aa",
        "db revision --rev-id bb",
        "db --raiseerr upgrade nowhere",
        fail=True,
    )
    assert quiet.stdout == ""
    assert "Generating" in loud.stdout
    assert "Traceback" in raised.stderr
    ini = tmp_path / "migrations/alembic.ini"
    ini.write_text(ini.read_text() + "\n[short]\nfile_template = %%(rev)s\n")
    flask(tmp_path, "db -n short revision --rev-id cc", env={"FLASK_DB_NAME": "of the app"})
    assert (tmp_path / "migrations/versions/cc.py").is_file()
