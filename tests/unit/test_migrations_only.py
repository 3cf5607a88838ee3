"""What migrations-only mode reads from settings, environment and revisions."""

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from flask_migrate_sidecar.application.import_failure import explain_import_error
from flask_migrate_sidecar.application.migrations_only import (
    MissingKeyError,
    describe_drivers,
    find_repository,
    make_application,
    wants_migrations_only,
)
from flask_migrate_sidecar.database.errors import find_driver_error
from flask_migrate_sidecar.errors import (
    AppError,
    ConfigurationError,
    RefusedError,
    UnavailableError,
)
from flask_migrate_sidecar.settings.options import Settings

SEVERAL = """
def upgrade(engine_name):
    globals()[f"upgrade_{engine_name}"]()

def upgrade_():
    pass

def upgrade_Audit_Log():
    pass
"""
# One database, and a helper that only looks like it.
HELPER = """
def upgrade():
    upgrade_users()

def upgrade_users():
    pass
"""
URL = "sqlite:////tmp/x.db"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, without the machine's settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "SQLALCHEMY_DATABASE_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        (Settings(database_url="sqlite:////a"), {"DATABASE_URL": "sqlite:////c"}, "sqlite:////a"),
        (
            Settings(),
            {"DATABASE_URL": "sqlite:////c", "SQLALCHEMY_DATABASE_URI": "sqlite:////b"},
            "sqlite:////b",
        ),
        (Settings(), {"DATABASE_URL": "sqlite:////c"}, "sqlite:////c"),
    ],
)
def test_order_of_urls(settings: Settings, environ: dict[str, str], expected: str) -> None:
    """The setting goes before SQLALCHEMY_DATABASE_URI, that before DATABASE_URL."""
    app = make_application(settings, environ)
    assert app.config["SQLALCHEMY_DATABASE_URI"] == expected


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("postgresql+asyncpg://u@h/d", "postgresql+psycopg"),
        ("mysql+aiomysql://u@h/d", "mysql+pymysql"),
        ("sqlite+aiosqlite:////x.db", "sqlite+pysqlite"),
        ("mariadb+pymysql://u@h/d", "mariadb+pymysql"),
    ],
)
def test_drivers_are_synchronous_and_installed(url: str, driver: str) -> None:
    """`env.py` runs on synchronous engines, whatever driver the application's URL names."""
    assert describe_drivers(make_application(Settings(database_url=url), {}))["default"] in {
        driver,
        driver.replace("psycopg", "psycopg2"),
    }


@pytest.mark.parametrize("entry", ["Audit_Log", "audit-log", "AUDIT.LOG"])
def test_bind_is_called_as_the_revisions_call_it(entry: str, folder: Path) -> None:
    """A variable's name has no case and no hyphen; the revisions' functions know the name."""
    (folder / "migrations" / "versions" / "a.py").write_text(SEVERAL)
    app = make_application(Settings(database_url=URL, bind_url=(f"{entry}={URL}2",)), {})
    assert [*app.config["SQLALCHEMY_BINDS"]] == ["Audit_Log"]


def test_each_database_needs_a_url(folder: Path) -> None:
    """A repository for several databases is not run on one of them alone."""
    (folder / "migrations" / "versions" / "a.py").write_text(SEVERAL)
    with pytest.raises(ConfigurationError, match="Audit_Log"):
        make_application(Settings(database_url=URL), {})


def test_helpers_are_no_databases(folder: Path) -> None:
    """Only revisions whose `upgrade` takes the database's name are for several."""
    (folder / "migrations" / "versions" / "a.py").write_text(HELPER)
    assert make_application(Settings(database_url=URL), {}).config["SQLALCHEMY_BINDS"] == {}


@pytest.mark.parametrize(
    ("settings", "files", "expected"),
    [
        (Settings(app="none"), ["app.py"], True),
        (Settings(app="None", database_url=URL), [], True),
        (Settings(database_url=URL), ["app.py"], False),
        (Settings(app="shop", database_url=URL), [], False),
        (Settings(database_url=URL), [], True),
        (Settings(database_url=URL), ["src/wsgi.py"], False),
    ],
)
def test_when(settings: Settings, files: list[str], expected: bool, folder: Path) -> None:
    """Only `none`, or nothing to discover, means to do without the application."""
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    assert wants_migrations_only(settings, ["upgrade"]) is expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["upgrade", "-d", "here"], "here"),
        (["upgrade", "--directory=here"], "here"),
        (["-d", "here", "upgrade"], "here"),
        (["upgrade"], "there"),
    ],
)
def test_repository(arguments: list[str], expected: str, folder: Path) -> None:
    """`-d` of the subcommand goes before the setting."""
    assert find_repository(Settings(directory="there"), arguments) == folder / expected


def test_configuration_names_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLASK_* variables are the configuration; a missing key says how to give it."""
    monkeypatch.setenv("FLASK_TENANT", "blue")
    config = make_application(Settings(database_url=URL), {}).config
    assert config["TENANT"] == "blue"
    assert config.get("NIX") is None
    with pytest.raises(MissingKeyError) as caught:
        config["NIX"]
    assert "FLASK_NIX" in caught.value.hint


def failing(outer: BaseException, inner: BaseException) -> BaseException:
    """Give an error that was raised while another one was handled."""
    outer.__context__ = inner
    return outer


def test_database_error_is_found_under_others() -> None:
    """An application may wrap the failure of its query, or leave with sys.exit()."""
    inner = OperationalError("SELECT 1", {}, Exception("Connection refused"))
    for outer in (RuntimeError("no"), SystemExit(1)):
        assert find_driver_error(failing(outer, inner)) is inner.orig
        assert isinstance(explain_import_error(failing(outer, inner)), UnavailableError)
    assert isinstance(explain_import_error(RuntimeError("no")), AppError)
    refusal = OperationalError("", {}, Exception('FATAL: password authentication failed for "u"'))
    assert isinstance(explain_import_error(refusal), RefusedError)
