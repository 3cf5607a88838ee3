"""Revision files: none overwritten, none unreadable, none passed over without a word."""

from pathlib import Path

import pytest
from alembic.util import CommandError

import flask_migrate
import old_environments as old
from library import Project, flask, make_project, versions_of, write_app, write_repository
from servers import Postgres


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with a repository and no revision."""
    project = make_project(tmp_path)
    with project.app.app_context():
        flask_migrate.init()
    return project


def set_option(project: Project, line: str) -> None:
    """Write a line into the section [alembic] of alembic.ini."""
    ini = project.directory / "alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]\n", f"[alembic]\n{line}\n", 1))


@pytest.mark.parametrize("message", ["x", "y"])
@pytest.mark.parametrize("command", ["revision", "migrate", "merge"])
def test_identifier_that_is_taken(project: Project, command: str, message: str) -> None:
    """A second revision of one identifier is refused, and the first one stays as it is."""
    with project.app.app_context():
        flask_migrate.revision(rev_id="0001", message="x")
        flask_migrate.revision(rev_id="0002", head="base")
        first, _ = project.revisions
        first.write_text(first.read_text() + "# by hand\n")
        options = {"revisions": "heads"} if command == "merge" else {"head": "0001"}
        flask_migrate.upgrade(revision="heads")
        with pytest.raises(CommandError, match=r"There is a revision 0001 already: .*0001_x\.py"):
            getattr(flask_migrate, command)(rev_id="0001", message=message, **options)
    assert first.read_text().endswith("# by hand\n")
    assert len(project.revisions) == 2


def test_file_that_is_there(project: Project) -> None:
    """Nor is a file overwritten because `file_template` leaves the identifier out."""
    set_option(project, "file_template = %%(slug)s")
    with project.app.app_context():
        flask_migrate.revision(message="people", rev_id="aa")
        with pytest.raises(CommandError, match=r"people\.py is there already, and would be"):
            flask_migrate.revision(message="people", rev_id="bb")
        flask_migrate.revision(message="more people", rev_id="bb")
        flask_migrate.upgrade()
    assert versions_of(project.folder / "main.db") == ["bb"]


@pytest.mark.parametrize(
    "name", ["head", "heads", "base", "current", "shop", "a/b", "a\\users", 'a"b', "a\nb"]
)
def test_identifier_that_cannot_be_one(project: Project, name: str) -> None:
    """A word that Alembic reads otherwise, a label, or a path is no identifier."""
    with project.app.app_context():
        flask_migrate.revision(rev_id="aa", branch_label="shop")
        with pytest.raises(CommandError, match="cannot be a revision"):
            flask_migrate.revision(rev_id=name)
        flask_migrate.upgrade()
    assert [*project.directory.rglob("*.py")] == [project.directory / "env.py", *project.revisions]


LONG = "2026_01_31_" + "a" * 30


def test_identifier_that_is_too_long(
    project: Project, postgres15: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """An identifier that a server has no room for is warned of when it is made, once."""
    with project.app.app_context():
        flask_migrate.revision(rev_id="a" * 32)
        assert caplog.text == ""
        flask_migrate.revision(rev_id=LONG)
        assert f"{LONG} is longer than 32 characters" in caplog.text
        caplog.clear()
        flask_migrate.revision(rev_id=f"b{LONG}")
        assert "longer" not in caplog.text
        flask_migrate.upgrade()
    assert versions_of(project.folder / "main.db") == [f"b{LONG}"]
    database = postgres15.create_database()
    app = write_app(project.folder / "server", SERVER.replace("URL", database.url()))
    (failed,) = flask(app, ["db", "-d", str(project.directory), "upgrade"], fail=True)
    assert "value too long for type character varying(32)" in failed.stderr
    postgres15.drop_database(database.name)


SERVER = """
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "URL"
Migrate(app, SQLAlchemy(app))
"""

MESSAGES = [
    "C:\\users",
    'a """ b',
    "C:\\new \\d",
    "ends\\",
    'q"""""',
    "it's ''' too",
    'say "hi"',
    "${1 + 1} <% x %> %d",
    "naïve 日本",
]


@pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("template", ["flask", "flask-multidb", "old"])
def test_message_of_any_kind(
    tmp_path: Path, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message stands in the file as it was given, in repositories of old templates too."""
    if template == "old":
        write_repository(tmp_path, old.VERSION_4)
    project = make_project(tmp_path)
    with project.app.app_context():
        if template != "old":
            flask_migrate.init(template=template)
        for message in MESSAGES:
            flask_migrate.revision(message=message)
        flask_migrate.upgrade()
        capsys.readouterr()
        flask_migrate.history()
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(", ")[2] for line in reversed(shown)] == MESSAGES


def test_template_that_quotes_the_message_itself(project: Project) -> None:
    """Where a template does not put the message into a docstring, it gets the plain one."""
    template = project.directory / "script.py.mako"
    text = template.read_text().replace('"""${message}', '"""${repr(message)}')
    template.write_text(text)
    with project.app.app_context():
        flask_migrate.revision(message="a\\b", rev_id="aa")
    (revision,) = project.revisions
    assert revision.read_text().startswith('"""\'a\\\\b\'\n')


def test_version_location_that_is_missing(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder of revisions that is not there is named by each command."""
    folder = project.directory / "versions"
    set_option(project, f"version_locations = {folder}:{folder}/gone")
    with project.app.app_context():
        flask_migrate.revision(rev_id="aa", version_path=str(folder))
        for command in (flask_migrate.heads, flask_migrate.upgrade):
            caplog.clear()
            command()
            assert f"version_locations names {folder}/gone, which is not there" in caplog.text
        (folder / "gone").mkdir()
        caplog.clear()
        flask_migrate.heads()
    assert "version_locations" not in caplog.text


@pytest.mark.parametrize("separator", [" ", "  ", ", ", ","])
def test_version_locations_with_spaces(project: Project, separator: str) -> None:
    """A list as Flask-Migrate's alembic.ini has it, with spaces or commas, is a list in ours."""
    set_option(project, f"version_locations = %(here)s/one{separator}%(here)s/two")
    set_option(project, f"prepend_sys_path = .{separator}%(here)s/extra")
    (project.directory / "extra").mkdir()
    (project.directory / "extra/only_there.py").touch()
    environment = project.directory / "env.py"
    environment.write_text("import only_there\n" + environment.read_text())
    with project.app.app_context():
        for name, head in (("one", "head"), ("two", "base")):
            folder = str(project.directory / name)
            flask_migrate.revision(rev_id=f"of_{name}", version_path=folder, head=head)
        flask_migrate.upgrade(revision="heads")
    assert versions_of(project.folder / "main.db") == ["of_one", "of_two"]


def test_version_location_below_a_space(tmp_path: Path) -> None:
    """Nor does a space in the path of the repository divide what does not exist yet."""
    (tmp_path / "my project").mkdir()
    project = make_project(tmp_path / "my project")
    with project.app.app_context():
        flask_migrate.init()
        set_option(project, "version_locations = %(here)s/later")
        flask_migrate.revision(rev_id="aa")
    assert [*(project.directory / "later").glob("aa_*.py")]


def test_version_location_with_a_space_in_it(project: Project) -> None:
    """A path with a space that is there is one path."""
    folder = project.folder / "my revisions"
    folder.mkdir()
    set_option(project, f"version_locations = {folder}")
    with project.app.app_context():
        flask_migrate.revision(rev_id="aa")
    assert [*folder.glob("aa_*.py")]


def test_no_revision_at_all(tmp_path: Path) -> None:
    """`upgrade` and `stamp` of a repository without revisions say that there is nothing."""
    write_app(tmp_path)
    *results, quiet = flask(
        tmp_path,
        "db init",
        "db upgrade",
        "db stamp",
        "db upgrade --sql",
        "db revision --rev-id aa",
        "db upgrade",
    )
    for result, word in zip(results[1:4], ("upgrade", "stamp", "upgrade"), strict=True):
        assert f"There is no revision in {tmp_path}/migrations/versions" in result.stderr
        assert f"nothing to {word} to" in result.stderr
    assert "There is no revision" not in quiet.stderr


def test_two_files_of_one_identifier(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Both files are named where one would be run or built upon; looking is allowed."""
    with project.app.app_context():
        flask_migrate.revision(rev_id="aa")
        (first,) = project.revisions
        copy = first.with_name("copy.py")
        copy.write_text(first.read_text())
        for command in ("upgrade", "revision", "migrate", "stamp", "check"):
            with pytest.raises(CommandError, match="Two files have the revision aa: ") as caught:
                getattr(flask_migrate, command)()
            assert {str(first), str(copy)} <= {*str(caught.value).replace(".py.", ".py").split()}
        with pytest.warns(UserWarning, match="more than once"):
            flask_migrate.heads()
    assert "aa (head)" in capsys.readouterr().out
