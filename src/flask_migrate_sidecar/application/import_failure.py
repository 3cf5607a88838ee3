"""Says which of our errors an import that failed is."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from flask_migrate_sidecar.database.causes import LACKING, Verdict
from flask_migrate_sidecar.database.errors import (
    Moment,
    diagnose,
    find_driver_error,
    is_limit_of_process,
)
from flask_migrate_sidecar.errors import (
    AppError,
    ConfigurationError,
    RefusedError,
    SidecarError,
    UnavailableError,
    describe,
    passed_through,
)
from flask_migrate_sidecar.log.last_resort import explain as explain_surroundings

DRIVERS: Final = frozenset(
    {
        *("psycopg", "psycopg2", "psycopg_binary", "pymysql", "MySQLdb", "mysql", "mariadb"),
        *("asyncpg", "aiosqlite", "aiomysql", "asyncmy", "pg8000", "pyodbc", "oracledb"),
    }
)
_WAYS: Final = (
    "mount the application and name its folder with --app-dir, bring its packages with "
    "--site-packages, or derive an image that has them"
)


def explain_import_error(  # noqa: PLR0911 - a table of cases, read from top to bottom
    error: BaseException, name: str | None = None, *, importer: str | None = None
) -> SidecarError:
    """Turn what an import raised into an error with the right exit code.

    Args:
        error: what was raised.
        name: the application, as it was named.
        importer: the file of the migrations that imports, None for the application itself.
    """
    if isinstance(error, (ArgumentError, NoSuchModuleError)) or _is_of_url(error):
        return ConfigurationError(
            "the application's database URL is malformed or names an unknown dialect: "
            + describe(error).splitlines()[0],
            hint="check SQLALCHEMY_DATABASE_URI and SQLALCHEMY_BINDS",
        )
    if isinstance(error, ImportError) and _is_driver(error):
        return _explain_driver(error)
    if isinstance(error, ImportError) and importer:
        return _explain_importer(error, importer)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _explain_missing(error.name, name)
    database = find_driver_error(error)
    if database is not None:
        return explain_database_error(database)
    if is_limit_of_process(error):
        return cast("SidecarError", explain_surroundings(error))
    if isinstance(error, OSError) and passed_through(error, "flask_sqlalchemy"):
        return explain_folder(error)
    if isinstance(error, SystemExit):
        code = describe(error.code)
        return AppError(
            f"the application ended the process while it was imported (exit code {code})",
            hint="it must not call sys.exit() at import; FLASK_MIGRATE_SIDECAR=1 tells it apart",
        )
    subject = f"the application {name}" if name else "the application"
    hint = (
        "the traceback in this line shows where; 'flask routes' fails in the same way, and "
        "--app none runs the migrations without the application"
    )
    if isinstance(error, ImportError) and error.name and error.path:
        hint = (
            f"{_describe_installed(error.name)} at {error.path} has no such name, so the "
            "application was written for another version: bring that one with --site-packages"
        )
    return AppError(
        f"{subject} could not be loaded: {type(error).__name__}: {describe(error)}", hint=hint
    )


def _is_of_url(error: BaseException) -> bool:
    """Tell whether SQLAlchemy stumbled over a URL, whose port is no number."""
    return isinstance(error, ValueError) and passed_through(
        error, "sqlalchemy.engine", "_parse_url"
    )


def _describe_installed(module: str) -> str:
    """Give the distribution that a module is of, and its version."""
    from importlib.metadata import packages_distributions, version

    top = module.partition(".")[0]
    names = packages_distributions().get(top, [])
    return f"{names[0]} {version(names[0])}" if names else f"the module {top}"


def explain_folder(error: OSError) -> RefusedError:
    """Turn Flask-SQLAlchemy's failure to make the folder of a SQLite file into our error."""
    return RefusedError(
        f"the folder of the SQLite file cannot be made: {error.strerror}: {error.filename}",
        hint="mount a volume there that this user may write, or give an absolute path",
    )


def _is_driver(error: ImportError) -> bool:
    by_sqlalchemy = passed_through(error, "sqlalchemy", "import_dbapi")
    return by_sqlalchemy or (error.name or "").partition(".")[0] in DRIVERS


def _explain_driver(error: ImportError) -> ConfigurationError:
    module = str(error.name).partition(".")[0]
    missing = isinstance(error, ModuleNotFoundError)
    return ConfigurationError(
        f"the database driver {module!r} "
        + ("is not installed" if missing else f"does not load: {describe(error)}"),
        hint=f"install {module}, or add the application's packages with --site-packages",
        driver=module,
    )


def _explain_missing(module: str, name: str | None) -> SidecarError:
    if name is not None and name.partition(":")[0] == module:
        return AppError(
            f"there is no application {name!r} in {Path.cwd()}",
            hint="check --app, and what is mounted at --app-dir",
        )
    return AppError(
        f"the application imports {module!r}, which is not installed",
        hint=f"bring the module {module!r}: --site-packages with the application's own packages, "
        "an image derived from this one, or --app none with only the migrations",
        module=module,
    )


def _explain_importer(error: ImportError, importer: str) -> AppError:
    """Name module, file and ways out where the migrations import the application's code."""
    module = error.name or describe(error)
    if isinstance(error, ModuleNotFoundError):
        what = f"{importer} imports {module!r}, which is not here"
    else:
        what = f"{importer} imports from {module!r}, which failed: {describe(error)}"
    return AppError(
        what,
        hint=f"imported by {importer}; bring the module {module!r}: {_WAYS}; or write into the "
        "revision what it needs of the application",
        module=module,
        file=importer,
    )


def explain_database_error(error: BaseException) -> SidecarError:
    """Turn an error of a query at import into one that says what to do about the query."""
    found = diagnose(error, moment=Moment.IMPORT)
    hint = (
        "move the query out of the factory, or leave it out where FLASK_MIGRATE_SIDECAR is set; "
        "until then the database must be up before the import"
    )
    if found.cause in LACKING:
        hint = (
            "the table or column is made by the migrations, and they cannot run before the import: "
            "move the query out of the factory, leave it out where FLASK_MIGRATE_SIDECAR is set, "
            "or run the migrations with --app none"
        )
    kinds = {Verdict.REFUSED: RefusedError, Verdict.MISFIT: ConfigurationError}
    return kinds.get(found.verdict, UnavailableError)(
        "the application queries its database while it is imported, and that failed: "
        + found.reason,
        hint=hint,
        reason=found.reason,
    )
