"""What applications and tests put in place of Alembic's own, and what they use beside us."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import alembic.command
import pytest
from alembic.config import Config as AlembicConfig
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

import flask_migrate
from conftest import clean_environment
from library import SINGLE, Project, flask, make_project, versions_of, write_app


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project of two databases with a revision, aa."""
    project = make_project(tmp_path, "users")
    with project.app.app_context():
        flask_migrate.init(multidb=True)
        flask_migrate.migrate(rev_id="aa")
    return project


def test_command_replaced_by_a_mock(project: Project) -> None:
    """A test may patch a command, and sees the arguments that Flask-Migrate gives."""
    config = mock.ANY
    with (
        project.app.app_context(),
        mock.patch("alembic.command.upgrade") as upgrade,
        mock.patch("flask_migrate.command.merge") as merge,
        mock.patch("alembic.command.current") as current,
        mock.patch("alembic.command.revision") as revision,
    ):
        flask_migrate.upgrade(tag="t", sql=True)
        upgrade.assert_called_once_with(config, "head", sql=True, tag="t")
        flask_migrate.merge(revisions="heads")
        names = {"message": None, "branch_label": None, "rev_id": None}
        merge.assert_called_once_with(config, "heads", **names)
        flask_migrate.current()
        current.assert_called_once_with(config, verbose=False)
        flask_migrate.revision()
        options = {"autogenerate": False, "sql": False, "head": "head", "splice": False}
        more = {"branch_label": None, "version_path": None, "rev_id": None}
        revision.assert_called_once_with(config, None, **options, **more)
    assert project.tables() == set()


def test_command_wrapped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What wraps a command is called, and the command inside it is still ours: `--bind` counts."""
    called, original = [], alembic.command.upgrade
    before = {**vars(alembic.command)}

    def upgrade(config: AlembicConfig, *args: Any, **options: Any) -> None:
        called.append(args)
        original(config, *args, **options)

    monkeypatch.setattr("alembic.command.upgrade", upgrade)
    with (project.directory / "env.py").open("a") as environment:
        environment.write(
            "\nfrom alembic.context import _proxy\nassert 'Seen' in repr(vars(_proxy))"
        )
    with project.app.app_context():
        flask_migrate.upgrade(bind="users")
    assert called == [("head",)]
    assert (project.tables(), project.tables("users")) == (set(), {"users_thing"})
    assert {**vars(alembic.command), "upgrade": original} == before


def test_other_threads_are_not_lent_ours(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a wrapped command runs, Alembic in another thread makes its own objects."""
    other = AlembicConfig()
    other.set_main_option("script_location", str(project.directory))
    kinds: list[type] = []

    def look() -> None:
        scripts = alembic.command.ScriptDirectory.from_config(other)  # type: ignore[attr-defined]
        environment = alembic.command.EnvironmentContext  # type: ignore[attr-defined]
        kinds.extend((type(scripts), type(environment(other, scripts))))

    def heads(_config: AlembicConfig, **_options: Any) -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    monkeypatch.setattr("alembic.command.heads", heads)
    with project.app.app_context():
        flask_migrate.heads()
    assert kinds == [ScriptDirectory, EnvironmentContext]


class Elsewhere(ScriptDirectory):
    """Revisions that lie where an application says, as plug-ins of Indico have them."""

    folder = Path()

    @classmethod
    def from_config(cls, config: AlembicConfig) -> "Elsewhere":
        """Open the repository, with the revisions of another folder."""
        scripts = super().from_config(config)
        scripts.__dict__["_version_locations"] = [cls.folder]
        return scripts  # type: ignore[return-value]

    def get_revisions(self, id_: Any) -> Any:
        """Be there where a method is called."""
        self.folder.joinpath("asked").touch()
        return super().get_revisions(id_)


class Noticing(EnvironmentContext):
    """An environment that notes that it was configured."""

    configured = 0

    def configure(self, *args: Any, **options: Any) -> None:
        """Count."""
        type(self).configured += 1
        Noticing.configured += 1
        super().configure(*args, **options)


def test_classes_of_the_application(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class in place of Alembic's is used, and what we add stays."""
    Elsewhere.folder = project.folder / "plugin"
    Elsewhere.folder.mkdir()
    (revision,) = project.revisions
    text = revision.read_text().replace("upgrade_users", "no").replace("'aa'", "'bb'")
    (Elsewhere.folder / "bb.py").write_text(text)
    monkeypatch.setattr("alembic.command.ScriptDirectory", Elsewhere)
    monkeypatch.setattr("alembic.command.EnvironmentContext", Noticing)
    Noticing.configured = 0
    with project.app.app_context():
        flask_migrate.upgrade()
        flask_migrate.show(revision="bb")
    assert versions_of(project.folder / "main.db") == ["bb"]
    assert (project.tables(), project.tables("users")) == ({"person"}, set())
    assert Noticing.configured == 2


PLAIN = """
import sys, app, alembic.command, alembic.config
with app.app.app_context():
    if sys.argv[1] == "function":
        alembic.command.revision(app.migrate.get_config(), autogenerate=True, rev_id="bb")
    else:
        options = ["-c", "migrations/alembic.ini", "revision", "--autogenerate", "--rev-id", "bb"]
        alembic.config.main(options)
"""


@pytest.mark.parametrize("way", ["function", "command line"])
def test_alembic_itself_knows_the_defaults(tmp_path: Path, way: str) -> None:
    """Alembic's own command, with our env.py, writes batch operations and compares types too."""
    write_app(tmp_path)
    flask(tmp_path, "db init", "db migrate --rev-id aa", "db upgrade")
    ini = tmp_path / "migrations/alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]", "[alembic]\nscript_location = %(here)s"))
    write_app(tmp_path, SINGLE.replace("db.String(50)", "db.Integer"))
    subprocess.run(
        [sys.executable, "-c", PLAIN, way],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        check=True,
    )
    (revision,) = (tmp_path / "migrations/versions").glob("bb_*")
    assert "op.batch_alter_table('person'" in revision.read_text()


# What programs do with `configure_args`, as with the dictionary that it is in Flask-Migrate.
CHANGES = {
    "replaced": 'state.configure_args = {"compare_type": False}',
    "a default kept": 'assert state.configure_args.setdefault("compare_type", False) is True',
    "copied": 'assert dict(state.configure_args)["compare_type"] is True',
    "emptied": "state.configure_args.clear()",
}


@pytest.mark.parametrize("place", ["program", "env.py"])
@pytest.mark.parametrize("change", CHANGES)
def test_arguments_are_a_dictionary(project: Project, change: str, place: str) -> None:
    """`configure_args` is a plain dictionary: replaced, copied, emptied, in env.py and outside."""
    state = project.app.extensions["migrate"]
    environment = project.directory / "env.py"
    if place == "program":
        exec(CHANGES[change], {"state": state})  # noqa: S102
    else:
        text = environment.read_text()
        line = 'migrate = current_app.extensions["migrate"]\n'
        assert line in text
        environment.write_text(text.replace(line, f"{line}state = migrate\n{CHANGES[change]}\n"))
    with project.app.app_context():
        flask_migrate.upgrade()
        flask_migrate.check()
    assert project.tables("users") == {"users_thing"}


def test_options_of_the_group_end_with_it(project: Project) -> None:
    """`-d` and `-x` of a command count for it, not for what runs in the same context later."""
    with project.app.app_context():
        for _ in range(2):
            arguments = ["db", "-d", "elsewhere", "-x", "t=a", "heads"]
            result = project.app.test_cli_runner().invoke(args=arguments)
            assert "elsewhere" in result.output
        config = project.migrate.get_config()
        assert config.get_main_option("script_location") == str(project.directory)
        assert vars(config.cmd_opts)["x"] == []
        flask_migrate.upgrade()
    assert project.tables() == {"person"}
