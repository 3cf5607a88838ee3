"""Configuration from alembic.ini, from pyproject.toml, from both, and from callbacks."""

import tomllib
from pathlib import Path

import pytest
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError

import flask_migrate
from library import Project, flask, make_project, tables_of, write_app

HAS_TOML = flask_migrate.alembic_version >= (1, 16)
needs_toml = pytest.mark.skipif(not HAS_TOML, reason="Alembic reads pyproject.toml from 1.16 on")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with a repository."""
    project = make_project(tmp_path)
    with project.app.app_context():
        flask_migrate.init()
    return project


def set_option(project: Project, line: str) -> None:
    """Write a line into the section [alembic] of alembic.ini."""
    ini = project.directory / "alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]\n", f"[alembic]\n{line}\n", 1))


def run_round(project: Project, **options: str) -> None:
    """Compare, upgrade and downgrade."""
    with project.app.app_context():
        flask_migrate.migrate(message="people", rev_id="aa", **options)  # type: ignore[arg-type]
        flask_migrate.upgrade()
        assert project.tables() == {"person"}
        flask_migrate.check()
        flask_migrate.downgrade(revision="base")


@needs_toml
@pytest.mark.parametrize("option", ["", " --multidb"])
def test_init_in_pyproject(tmp_path: Path, option: str) -> None:
    """`init --pyproject` keeps the rest of pyproject.toml, and there is no alembic.ini."""
    toml = tmp_path / "pyproject.toml"
    toml.write_text('# Ours.\n[project]\nname = "shop"\n')
    flask(write_app(tmp_path), "db init --pyproject" + option, "db migrate", "db upgrade")
    assert toml.read_text().startswith("# Ours.\n[project]\n")
    section = tomllib.loads(toml.read_text())["tool"]["alembic"]
    assert section == {"script_location": "%(here)s/migrations"}
    assert not (tmp_path / "migrations/alembic.ini").exists()
    (result,) = flask(tmp_path, "db downgrade")
    assert "INFO" in result.stderr
    assert "Running downgrade" in result.stderr
    assert tables_of(tmp_path / "main.db") == set()


@needs_toml
def test_init_makes_pyproject(tmp_path: Path) -> None:
    """Where there is no pyproject.toml yet, one is made; a taken one is left alone."""
    write_app(tmp_path)
    _, second = flask(
        tmp_path, "db init --pyproject -d deep/er", "db init --pyproject -d two", fail=True
    )
    section = tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]["alembic"]
    assert section == {"script_location": "%(here)s/deep/er"}
    assert "already has a [tool.alembic] section" in second.stderr
    assert not (tmp_path / "two").exists()


def test_init_in_pyproject_of_old_alembic(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 1.16 Alembic cannot read it: the command says so, and nothing is written."""
    monkeypatch.setattr("flask_migrate.repository.HAS_TOML", False)
    with (
        project.app.app_context(),
        pytest.raises(CommandError, match=r"does not read pyproject\.toml; 1\.16 and later do"),
    ):
        flask_migrate.init("other", pyproject=True)
    assert not (project.folder / "other").exists()


def use_pyproject(project: Project, *lines: str, keep_ini: bool = False) -> None:
    """Configure a repository in pyproject.toml."""
    if not keep_ini:
        (project.directory / "alembic.ini").unlink()
    text = "\n".join(("[tool.alembic]", *lines))
    (project.folder / "pyproject.toml").write_text(text)


HOOK = """
[[tool.alembic.post_write_hooks]]
name = "touch"
type = "exec"
executable = "touch"
options = "%(here)s/hooked"
"""


@needs_toml
def test_options_in_pyproject(project: Project) -> None:
    """`file_template` with folders, recursive version locations and hooks are read from there."""
    use_pyproject(
        project,
        'script_location = "%(here)s/migrations"',
        'file_template = "%%(year)d/%%(rev)s_%%(slug)s"',
        "recursive_version_locations = true",
        HOOK,
    )
    run_round(project)
    assert [*project.directory.glob("versions/2*/aa_people.py")]
    assert (project.folder / "hooked").exists()


@needs_toml
def test_version_locations_in_pyproject(project: Project) -> None:
    """Revisions may lie in several folders, of which one is named for a new one."""
    use_pyproject(project, 'version_locations = ["%(here)s/one", "%(here)s/two"]')
    (project.folder / "two").mkdir()
    run_round(project, version_path=str(project.folder / "two"))
    assert [*project.folder.glob("two/aa_*.py")]


@needs_toml
def test_both_files(project: Project) -> None:
    """With both files, each option comes from where it stands, alembic.ini first."""
    set_option(project, "file_template = ini_%%(rev)s")
    use_pyproject(project, 'file_template = "toml_%%(rev)s"', HOOK, keep_ini=True)
    run_round(project)
    assert [path.name for path in project.revisions] == ["ini_aa.py"]
    assert (project.folder / "hooked").exists()


@needs_toml
def test_section_of_another_repository(project: Project) -> None:
    """A section that names another repository does not concern one with its own alembic.ini."""
    use_pyproject(
        project, 'script_location = "other"', 'version_locations = ["other"]', keep_ini=True
    )
    run_round(project)
    assert len(project.revisions) == 1


def test_file_template_with_folders(project: Project) -> None:
    """In alembic.ini, `file_template` may hold folders, with recursive version locations."""
    set_option(project, "recursive_version_locations = true")
    set_option(project, "file_template = deep/er/%%(rev)s")
    if flask_migrate.alembic_version < (1, 14):  # makes no folders itself
        (project.directory / "versions/deep/er").mkdir(parents=True)
    run_round(project)
    assert (project.directory / "versions/deep/er/aa.py").is_file()


@pytest.mark.parametrize("separator", [":", " "])
def test_version_locations(project: Project, separator: str) -> None:
    """In alembic.ini, `version_locations` is divided as `path_separator` says."""
    one, two = project.folder / "one", project.folder / "two"
    two.mkdir()
    ini = project.directory / "alembic.ini"
    name = {":": "os", " ": "space"}[separator]
    ini.write_text(ini.read_text().replace("path_separator = os", f"path_separator = {name}"))
    set_option(project, f"version_locations = {one}{separator}{two}")
    run_round(project, version_path=str(two))
    assert [*two.glob("aa_*.py")]


def test_post_write_hooks(project: Project) -> None:
    """Hooks in alembic.ini run on each new file."""
    ini = project.directory / "alembic.ini"
    hook = "\n[post_write_hooks]\nhooks = touch\ntouch.type = exec\ntouch.executable = touch\n"
    ini.write_text(ini.read_text() + hook + "touch.options = %(here)s/hooked\n")
    run_round(project)
    assert (project.directory / "hooked").exists()


def test_revision_environment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With `revision_environment`, a plain revision runs env.py, and compares nothing."""
    project = make_project(tmp_path, models=lambda _db: None)
    with project.app.app_context():
        flask_migrate.init()
        set_option(project, "revision_environment = true")
        flask_migrate.revision(rev_id="aa")
        flask_migrate.revision(rev_id="bb")
    assert len(project.revisions) == 2
    assert "No models" not in caplog.text


def test_missing_ini(tmp_path: Path) -> None:
    """Without alembic.ini a command that sets up logging from it ends with one line."""
    flask(write_app(tmp_path), "db init", "db revision --rev-id aa")
    (tmp_path / "migrations/alembic.ini").unlink()
    _, result = flask(tmp_path, "db heads", "db upgrade", fail=True)
    assert "alembic.ini, which is missing or unreadable" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("content", [b"nothing = here\n", b"[alembic]\nx = \xff\n"])
def test_malformed_ini(project: Project, content: bytes) -> None:
    """A malformed alembic.ini is named."""
    (project.directory / "alembic.ini").write_bytes(content)
    with (
        project.app.app_context(),
        pytest.raises(CommandError, match=r"alembic\.ini cannot be read"),
    ):
        flask_migrate.heads()


@needs_toml
def test_malformed_pyproject(project: Project) -> None:
    """So is a malformed pyproject.toml that may have the configuration."""
    (project.directory / "alembic.ini").unlink()
    (project.folder / "pyproject.toml").write_text("[tool\n")
    with (
        project.app.app_context(),
        pytest.raises(CommandError, match=r"pyproject\.toml cannot be read"),
    ):
        flask_migrate.heads()


@needs_toml
@pytest.mark.parametrize(
    "content", [b"[tool\n", b"tool = 3\n", b"[tool]\nalembic = 3\n", b"\xff", None], ids=repr
)
def test_pyproject_of_others(project: Project, content: bytes | None) -> None:
    """What is wrong with a pyproject.toml above is no business of a repository with alembic.ini."""
    file = project.folder / "pyproject.toml"
    if content is None:
        file.symlink_to("/proc/self/mem")  # cannot be read, by the super-user neither
    else:
        file.write_bytes(content)
    run_round(project)
    (project.directory / "alembic.ini").unlink()
    with project.app.app_context():
        if content is None:
            with pytest.raises(CommandError, match=r"pyproject\.toml cannot be read"):
                flask_migrate.heads()
        elif b"3" in content:
            flask_migrate.heads()


def test_callbacks_keep_their_order(project: Project) -> None:
    """Callbacks run in the order of their registration, for each command."""
    seen = []

    @project.migrate.configure
    def first(config: AlembicConfig) -> AlembicConfig:
        seen.append("first")
        return config

    @project.migrate.configure
    def second(config: AlembicConfig) -> AlembicConfig:
        seen.append("second")
        config.set_main_option("file_template", "second_%%(rev)s")
        return config

    run_round(project)
    assert seen == ["first", "second"] * 4
    assert [path.name for path in project.revisions] == ["second_aa.py"]
    assert first is not second


def test_callback_returning_another_object(tmp_path: Path) -> None:
    """A callback may return a plain Alembic Config, and `-x` and `--bind` still count."""
    project = make_project(tmp_path, "users")
    with project.app.app_context():
        flask_migrate.init(multidb=True)

        @project.migrate.configure
        def other(_config: AlembicConfig) -> AlembicConfig:
            config = AlembicConfig(str(project.directory / "alembic.ini"))
            config.set_main_option("script_location", str(project.directory))
            return config

        flask_migrate.migrate()
        flask_migrate.upgrade(bind="users", x_arg="a=1")
    assert project.tables("users") == {"users_thing"}
    assert project.tables() == set()


def test_callback_returning_nothing(project: Project) -> None:
    """A callback that forgets its return is named."""
    project.migrate.configure_callbacks.append(lambda config: None)  # noqa: ARG005
    with project.app.app_context(), pytest.raises(TypeError, match="must return a Config"):
        flask_migrate.heads()
