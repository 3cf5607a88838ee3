"""Says which of our errors an import that failed is."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from .errors import AppError, ConfigurationError, RefusedError, SidecarError, UnavailableError
from .wait import Verdict, classify

DRIVERS = frozenset(
    {
        *("psycopg", "psycopg2", "psycopg_binary", "pymysql", "MySQLdb", "mysql", "mariadb"),
        *("asyncpg", "aiosqlite", "aiomysql", "asyncmy", "pg8000", "pyodbc", "oracledb"),
    }
)
_BACKENDS = {"psycopg": "postgresql", "psycopg2": "postgresql", "sqlite3": "sqlite"}
# A table or column that is missing: migrations make it, so this run must come first.
_SCHEMA_STATES = frozenset({"42P01", "42703", "3F000"})
_SCHEMA_NUMBERS = frozenset({1146, 1054})
_SCHEMA_TEXT = re.compile(r"no such (table|column)|has no column named")
# The families of PEP 249 whose errors no waiting mends.
_LASTING = frozenset({"ProgrammingError", "IntegrityError", "DataError", "NotSupportedError"})
_WAYS = (
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
    if isinstance(error, (ArgumentError, NoSuchModuleError)):
        return ConfigurationError(
            "the application's database URL is malformed or names an unknown dialect: "
            + say(error).splitlines()[0],
            hint="check SQLALCHEMY_DATABASE_URI and SQLALCHEMY_BINDS",
        )
    if isinstance(error, ImportError) and _is_driver(error):
        return _explain_driver(error)
    if isinstance(error, ImportError) and importer:
        return _explain_importer(error, importer)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _explain_missing(error.name, name)
    database = find_database_error(error)
    if database is not None:
        return explain_database_error(database)
    if isinstance(error, OSError) and _passed(error, "flask_sqlalchemy"):
        return explain_folder(error)
    if isinstance(error, SystemExit):
        return AppError(
            f"the application ended the process while it was imported (exit code {error.code})",
            hint="it must not call sys.exit() at import; FLASK_MIGRATE_SIDECAR=1 tells it apart",
        )
    subject = f"the application {name}" if name else "the application"
    return AppError(
        f"{subject} could not be loaded: {type(error).__name__}: {say(error)}",
        hint="the traceback in this line shows where; 'flask routes' fails in the same way, and "
        "--app none runs the migrations without the application",
    )


def explain_folder(error: OSError) -> RefusedError:
    """Turn Flask-SQLAlchemy's failure to make the folder of a SQLite file into our error."""
    return RefusedError(
        f"the folder of the SQLite file cannot be made: {error.strerror}: {error.filename}",
        hint="mount a volume there that this user may write, or give an absolute path",
    )


def _passed(error: BaseException, package: str) -> bool:
    """Tell whether an error came through a package."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(package in Path(frame.filename).parts for frame in frames)


def say(error: BaseException) -> str:
    """Give an exception's text; some have a `__str__` that raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - user code
        return "(its text cannot be had)"


def _is_driver(error: ImportError) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    by_sqlalchemy = any(frame.name == "import_dbapi" for frame in frames)
    return by_sqlalchemy or (error.name or "").partition(".")[0] in DRIVERS


def _explain_driver(error: ImportError) -> ConfigurationError:
    module = str(error.name).partition(".")[0]
    missing = isinstance(error, ModuleNotFoundError)
    return ConfigurationError(
        f"the database driver {module!r} "
        + ("is not installed" if missing else f"does not load: {say(error)}"),
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
    module = error.name or say(error)
    if isinstance(error, ModuleNotFoundError):
        what = f"{importer} imports {module!r}, which is not here"
    else:
        what = f"{importer} imports from {module!r}, which failed: {say(error)}"
    return AppError(
        what,
        hint=f"imported by {importer}; bring the module {module!r}: {_WAYS}; or write into the "
        "revision what it needs of the application",
        module=module,
        file=importer,
    )


def find_database_error(error: BaseException) -> BaseException | None:
    """Find the error of a database that an import ended with, also where it was wrapped.

    Applications raise errors of their own from it, or leave with sys.exit().
    """
    for link in _chain(error):
        if isinstance(link, DBAPIError) and link.orig is not None:
            return link
        families = {kind.__name__ for kind in type(link).__mro__}
        if families & {"OperationalError", "InterfaceError", "DatabaseError"}:
            return link
    return None


def explain_database_error(error: BaseException) -> SidecarError:
    """Turn an error of a query at import into one that says whether to try again."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    verdict, reason = classify(error, URL.create(_guess_backend(original)))
    if _lacks_schema(original):
        return UnavailableError(
            f"the application queries its database while it is imported, and that failed: {reason}",
            hint="the table or column is made by the migrations, and they cannot run before the "
            "import: move the query out of the factory, leave it out where FLASK_MIGRATE_SIDECAR "
            "is set, or run the migrations with --app none",
            reason=reason,
            waits=False,
            schema=True,
        )
    families = {kind.__name__ for kind in type(original).__mro__}
    kind = RefusedError if verdict is Verdict.REFUSED else UnavailableError
    return kind(
        f"the application queries its database while it is imported, and that failed: {reason}",
        hint="move the query out of the factory, or leave it out where FLASK_MIGRATE_SIDECAR is "
        "set; until then the database must be up before the import",
        reason=reason,
        waits=not families & _LASTING,
    )


def _lacks_schema(error: BaseException) -> bool:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    number = error.args[0] if error.args else None
    return (
        state in _SCHEMA_STATES
        or (isinstance(number, int) and number in _SCHEMA_NUMBERS)
        or bool(_SCHEMA_TEXT.search(say(error)))
    )


def _guess_backend(error: BaseException) -> str:
    return _BACKENDS.get(type(error).__module__.partition(".")[0], "mysql")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Follow an exception to those that it was raised from or during."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
