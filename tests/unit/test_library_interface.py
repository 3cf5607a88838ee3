"""The names, signatures and defaults that programs written for Flask-Migrate 4.1 rely on."""

import inspect
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config as AlembicConfig
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

import flask_migrate
from flask_migrate import Config, Migrate
from flask_migrate.arguments import ConfigureArguments
from flask_migrate.cli import db as group

_REVISION = {
    "message": None,
    "sql": False,
    "head": "head",
    "splice": False,
    "branch_label": None,
    "version_path": None,
    "rev_id": None,
}
_TARGET = {"sql": False, "tag": None}

# The functions of Flask-Migrate 4.1: parameters in their order, with their defaults. Each takes
# `directory=None` first, `list_templates` aside.
FUNCTIONS: dict[str, dict[str, Any]] = {
    "list_templates": {},
    "init": {"multidb": False, "template": None, "package": False},
    "revision": {"message": None, "autogenerate": False, **_REVISION},
    "migrate": {**_REVISION, "x_arg": None},
    "edit": {"revision": "current"},
    "merge": {"revisions": "", "message": None, "branch_label": None, "rev_id": None},
    "upgrade": {"revision": "head", **_TARGET, "x_arg": None},
    "downgrade": {"revision": "-1", **_TARGET, "x_arg": None},
    "show": {"revision": "head"},
    "history": {"rev_range": None, "verbose": False, "indicate_current": False},
    "heads": {"verbose": False, "resolve_dependencies": False},
    "branches": {"verbose": False},
    "current": {"verbose": False},
    "stamp": {"revision": "head", **_TARGET, "purge": False},
    "check": {},
}

_GIVEN = {"app": None, "db": None}
METHODS: dict[str, dict[str, Any]] = {
    "__init__": {
        **_GIVEN,
        "directory": "migrations",
        "command": "db",
        "compare_type": True,
        "render_as_batch": True,
    },
    "init_app": {
        "app": inspect.Parameter.empty,
        "db": None,
        "directory": None,
        "command": None,
        "compare_type": None,
        "render_as_batch": None,
    },
    "configure": {"f": inspect.Parameter.empty},
    "call_configure_callbacks": {"config": inspect.Parameter.empty},
    "get_config": {"directory": None, "x_arg": None, "opts": None},
}

# The options of Flask-Migrate's commands; each takes -d/--directory too.
_REVISION_FLAGS = "-m --message --sql --head --splice --branch-label --version-path --rev-id"
COMMANDS = {
    "list-templates": "",
    "init": "--multidb -t --template --package",
    "revision": f"{_REVISION_FLAGS} --autogenerate",
    "migrate": f"{_REVISION_FLAGS} -x --x-arg",
    "edit": "",
    "merge": "-m --message --branch-label --rev-id",
    "upgrade": "--sql --tag -x --x-arg",
    "downgrade": "--sql --tag -x --x-arg",
    "show": "",
    "history": "-r --rev-range -v --verbose -i --indicate-current",
    "heads": "-v --verbose --resolve-dependencies",
    "branches": "-v --verbose",
    "current": "-v --verbose",
    "stamp": "--sql --tag --purge",
    "check": "",
}


def parameters(function: Any) -> list[tuple[str, Any]]:
    """Return names and defaults in their order, `self` and `**kwargs` aside."""
    every = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in every if p.name != "self" and p.kind != p.VAR_KEYWORD]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    """Each function has Flask-Migrate's parameters first; ours follow and have defaults."""
    expected = [*FUNCTIONS[name].items()]
    if name != "list_templates":
        expected.insert(0, ("directory", None))
    ours = parameters(getattr(flask_migrate, name))
    assert ours[: len(expected)] == expected
    assert inspect.Parameter.empty not in [default for _, default in ours]


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    """So have the methods of Migrate, which pass further arguments on to Alembic."""
    method = getattr(Migrate, name)
    assert parameters(method) == [*METHODS[name].items()]
    takes_more = any(p.kind == p.VAR_KEYWORD for p in inspect.signature(method).parameters.values())
    assert takes_more == (name in ("__init__", "init_app"))


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str) -> None:
    """Each command has Flask-Migrate's options."""
    flags = {flag for param in group.commands[name].params for flag in param.opts}
    directory = set() if name == "list-templates" else {"-d", "--directory"}
    assert {*COMMANDS[name].split()} | directory <= flags


def test_group_options() -> None:
    """The group has `-d` and `-x` itself."""
    flags = {flag for param in group.params for flag in param.opts}
    assert {"-d", "--directory", "-x", "--x-arg"} <= flags


def test_public_names() -> None:
    """Every public name can be imported and listed; a wrong one is an AttributeError."""
    for name in (*flask_migrate.__all__, "_MigrateConfig"):
        assert hasattr(flask_migrate, name)
        assert name in dir(flask_migrate)
    assert {*FUNCTIONS, "Migrate", "Config", "alembic_version", "catch_errors"} <= {
        *flask_migrate.__all__
    }
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = flask_migrate.nothing


def test_names_that_are_not_listed() -> None:
    """Programs import more of Flask-Migrate's module than it lists, and commands of its group."""
    import alembic.command
    from alembic.util import CommandError

    from flask_migrate import cli

    assert flask_migrate.command is alembic.command
    assert flask_migrate.CommandError is CommandError
    assert flask_migrate.AlembicConfig is AlembicConfig
    assert flask_migrate.log.name == "flask_migrate"
    for name, command in group.commands.items():
        assert getattr(cli, name.replace("-", "_")) is command


@pytest.fixture
def app() -> Flask:
    """Return an application with a database in memory."""
    app = Flask("unit")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    return app


def test_extension_fields(app: Flask) -> None:
    """`env.py` files find what they look for in `app.extensions["migrate"]`."""
    db = SQLAlchemy(app)
    migrate = Migrate(app, db, Path("some") / "where", include_schemas=True)
    state = app.extensions["migrate"]
    assert isinstance(state, flask_migrate._MigrateConfig)  # noqa: SLF001
    assert (state.migrate, state.db, state.directory) == (migrate, db, "some/where")
    assert state.metadata is db.metadata
    assert type(state.configure_args) is dict
    assert state.configure_args == {
        "include_schemas": True,
        "compare_type": True,
        "render_as_batch": True,
    }
    assert migrate.db is db
    assert migrate.directory == "some/where"
    assert migrate.command == "db"
    assert migrate.configure_callbacks == []
    assert migrate.alembic_ctx_kwargs == {
        "include_schemas": True,
        "compare_type": True,
        "render_as_batch": True,
    }


def test_initialises_only_with_both(app: Flask) -> None:
    """`Migrate(app)` waits for `init_app`, whose arguments win where they are given."""
    migrate = Migrate(app, directory="one", command="two", compare_type=False, tag="first")
    assert "migrate" not in app.extensions
    db = SQLAlchemy(app)
    migrate.init_app(app, db, render_as_batch=False, tag="second")
    state = app.extensions["migrate"]
    assert state.directory == "one"
    assert state.configure_args == {
        "tag": "second",
        "compare_type": False,
        "render_as_batch": False,
    }
    assert migrate.alembic_ctx_kwargs == state.configure_args
    assert "two" in app.cli.commands


def test_get_config(app: Flask, tmp_path: Path) -> None:
    """`get_config` fills `cmd_opts`, names the repository and runs the callbacks in order."""
    migrate = Migrate(app, SQLAlchemy(app), str(tmp_path))
    seen = []
    migrate.configure(lambda config: seen.append(1) or config)  # type: ignore[func-returns-value]
    migrate.configure(lambda config: seen.append(2) or config)  # type: ignore[func-returns-value]
    config = migrate.get_config(x_arg="a=1", opts=["autogenerate"])
    assert isinstance(config, Config)
    assert isinstance(config, AlembicConfig)
    assert isinstance(config.cmd_opts, Namespace)
    assert (config.cmd_opts.x, config.cmd_opts.autogenerate) == (["a=1"], True)
    assert config.get_main_option("script_location") == str(tmp_path)
    assert config.config_file_name == str(tmp_path / "alembic.ini")
    assert vars(migrate.get_config(x_arg=["a", "b"]).cmd_opts)["x"] == ["a", "b"]
    elsewhere = migrate.get_config("else/where").get_main_option("script_location")
    assert elsewhere == "else/where"
    assert seen == [1, 2] * 3


def test_config_templates(tmp_path: Path) -> None:
    """`Config` takes a folder of templates; without one it has ours."""
    assert Config(template_directory=str(tmp_path)).get_template_directory() == str(tmp_path)
    assert Config().template_directory is None
    assert (Path(Config().get_template_directory()) / "flask-multidb/env.py").is_file()


def test_configure_arguments() -> None:
    """Look-up knows the defaults, expansion leaves them out, removal removes them."""
    arguments = ConfigureArguments({"a": 1}, {"compare_type": True, "render_as_batch": False})
    assert {**arguments} == dict(arguments) == {"a": 1}
    assert arguments["compare_type"] is True
    assert arguments.get("render_as_batch", 5) is False
    assert (arguments.get("a"), arguments.get("b"), arguments.get("b", 5)) == (1, None, 5)
    assert "compare_type" in arguments
    assert "b" not in arguments
    assert arguments.setdefault("compare_type", False) is True
    assert arguments.setdefault("c", 7) == arguments.pop("c") == 7
    assert arguments.pop("compare_type") is True
    assert "compare_type" not in arguments
    del arguments["render_as_batch"], arguments["a"]
    assert arguments.defaults == {}
    assert arguments.pop("b", 6) == 6
    with pytest.raises(KeyError):
        arguments.pop("b")
    with pytest.raises(KeyError):
        _ = arguments["b"]


def test_catch_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """A command of the application's own, so decorated, ends with one line and exit code 1."""
    from alembic.util import CommandError

    @flask_migrate.catch_errors
    def command(text: str) -> None:
        raise CommandError(text)

    with pytest.raises(SystemExit) as caught:
        command("it broke")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "ERROR [flask_migrate] Error: it broke\n"


def test_modules_stay_unimported() -> None:
    """`import flask_migrate` and `Migrate(app, db)` import neither Alembic nor Mako."""
    program = (
        "import sys, flask, flask_sqlalchemy, flask_migrate\n"
        "app = flask.Flask('a'); app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite://'\n"
        "flask_migrate.Migrate(app, flask_sqlalchemy.SQLAlchemy(app))\n"
        "assert not {'alembic', 'mako'} & {*sys.modules}, sys.modules\n"
        "from flask_migrate import Config, upgrade\n"
        "assert 'alembic' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
