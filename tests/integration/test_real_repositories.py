"""Shapes of public repositories that run with plain `flask db`: they run here too."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar_runs import Launcher, append, prepend, revision_file

HEAD = "6b92f4ec08d1"
# Looked up while the file is loaded, as `op` allows wherever env.py has configured a context.
AT_IMPORT = {
    "bind": "from alembic import op\nbind = op.get_bind()\n",
    "dialect": "from alembic import op\nname = op.get_context().dialect.name\n",
    "context": "from alembic import context\nx = context.get_x_argument(as_dictionary=True)\n",
}


@pytest.fixture
def shop(copy_app: Callable[[str], Path]) -> Path:
    """Return a copy of the shop, which has no database yet."""
    return copy_app("shop")


@pytest.mark.parametrize("how", AT_IMPORT)
def test_revision_that_asks_while_it_is_loaded(how: str, shop: Path, launch: Launcher) -> None:
    """A revision may ask `op` or `context` while its file is loaded: env.py runs around it."""
    prepend(revision_file(shop, HEAD), AT_IMPORT[how])
    assert launch(shop, "--head-timeout", "0", "wait", "head").returncode == 10
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0, result.stderr
    assert result.last["to"] == {"default": [HEAD]}
    assert launch(shop, "wait", "head").returncode == 0
    assert launch(shop, "db", "upgrade").last["applied"] == []
    assert launch(shop, "db", "current").stdout.startswith(HEAD)
    assert '"at_head"' in launch(shop, "status").stdout
    assert launch(shop, "db", "downgrade", "-1").returncode == 0
    assert launch(shop, "db", "stamp", "head").last["to"] == {"default": [HEAD]}


def test_repository_without_a_configuration_file(shop: Path, launch: Launcher) -> None:
    """An env.py that reads no alembic.ini needs none."""
    (shop / "migrations" / "alembic.ini").unlink()
    env_py = shop / "migrations" / "env.py"
    env_py.write_text(env_py.read_text().replace("set_up_logging()\n", "\n"))
    assert launch(shop, "db", "upgrade").last["to"] == {"default": [HEAD]}
    assert launch(shop, "wait", "head").returncode == 0
    assert launch(shop, "db", "heads").stdout.startswith(HEAD)


def test_configuration_file_that_env_py_misses(shop: Path, launch: Launcher) -> None:
    """Where env.py does read alembic.ini, its lack is a matter of what is mounted."""
    (shop / "migrations" / "alembic.ini").unlink()
    prepend(
        shop / "migrations" / "env.py",
        "import logging.config\nfrom alembic import context\n"
        "logging.config.fileConfig(context.config.config_file_name)\n",
    )
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 3
    assert "alembic.ini" in result.last["error"]["message"]


# How applications migrate in their factory, as a recipe says.
AT_CREATION = {
    "function": "from flask_migrate import upgrade\n        upgrade()",
    "alembic": (
        "from alembic import command\n        migrate = app.extensions['migrate'].migrate\n"
        "        config = migrate.get_config()\n"
        "        command.upgrade(config, 'head')"
    ),
}


@pytest.mark.parametrize("how", AT_CREATION)
def test_application_that_migrates_while_it_is_imported(
    how: str, shop: Path, launch: Launcher
) -> None:
    """That is left to the run: a gate migrates nothing, and an upgrade has its lock and its log."""
    lines = AT_CREATION[how]
    append(
        shop / "app.py",
        "\n\nmake = create_app\n\n\ndef create_app():\n    app = make()\n"
        f"    with app.app_context():\n        {lines}\n    return app\n",
    )
    gate = launch(shop, "--head-timeout", "0", "wait", "head")
    assert gate.returncode == 10
    assert gate.last["states"] == {"default": "empty"}
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0, result.stderr
    assert len(result.last["applied"]) > 1
    left = [line for line in result.log if line["event"] == "migration.left"]
    assert [line["subcommand"] for line in left] == ["upgrade"]


def in_factory(app: Path, lines: str) -> None:
    """Run lines in the application's factory, within its context."""
    append(
        app / "app.py",
        "\n\nmake = create_app\n\n\ndef create_app():\n    app = make()\n"
        f"    with app.app_context():\n        {lines}\n    return app\n",
    )


def test_application_that_makes_its_tables_itself(shop: Path, launch: Launcher) -> None:
    """A stamp goes with `create_all()`: without it the tables would be there without a revision."""
    in_factory(shop, "from flask_migrate import stamp; db.create_all(); stamp()")
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0, result.stderr
    assert result.last["applied"] == []


def test_repository_of_somebody_else_at_import(shop: Path, launch: Launcher) -> None:
    """What a library migrates at import, in a database of its own, is none of the run's."""
    library = shop / "library"
    (library / "versions").mkdir(parents=True)
    (library / "env.py").write_text(
        "import pathlib\nfrom alembic import context\npathlib.Path('of-library').touch()\n"
    )
    in_factory(
        shop,
        "from alembic import command, config; own = config.Config(); "
        f"own.set_main_option('script_location', {str(library)!r}); command.upgrade(own, 'head')",
    )
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0, result.stderr
    assert not [line for line in result.log if line["event"] == "migration.left"]
    assert (shop / "of-library").exists()


def test_application_that_queries_what_it_would_have_migrated(shop: Path, launch: Launcher) -> None:
    """It cannot be waited for, and who reads it is told which part of the application is meant."""
    in_factory(
        shop,
        "from flask_migrate import upgrade; upgrade(); "
        "db.session.execute(db.text('SELECT 1 FROM x'))",
    )
    result = launch(shop, "--wait-timeout", "10m", "db", "upgrade")
    assert result.returncode == result.last["exit_code"] == 4
    assert "FLASK_MIGRATE_SIDECAR" in result.last["hint"]


def test_env_py_that_needs_what_it_migrates(shop: Path, launch: Launcher) -> None:
    """What fails as long as the database is empty is no reason not to migrate it."""
    append(
        shop / "migrations" / "env.py",
        "\nwith get_engine().connect() as connection:\n"
        "    connection.exec_driver_sql('SELECT count(*) FROM discount').scalar_one()\n",
    )
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0, result.stderr
    assert result.last["to"] == {"default": [HEAD]}
