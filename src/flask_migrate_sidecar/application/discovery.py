"""Finds the application where `flask` would find it, and in folders that `flask` stumbles over."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from flask import Flask
from flask.cli import NoAppException, ScriptInfo, locate_app

_FILES = ("wsgi", "app")
# What a run imports later than the application.
_OURS = frozenset({"flask_migrate", "flask_sqlalchemy", "psycopg", "psycopg2", "pymysql", "mako"})


def is_discoverable() -> bool:
    """Tell whether `flask` would find something by itself in the working directory."""
    return any(_has_module(folder, name) for folder in _folders() for name in _FILES)


def find_application(name: str | None) -> Flask:
    """Import the application, or create it.

    Args:
        name: as `flask --app` takes it; None for `wsgi.py` or `app.py`.

    Raises:
        NoAppException: it is not there, as Flask words it.
        BaseException: what its code raises.
    """
    if _is_shadowed(Path.cwd()):
        return _load_directly(name)
    try:
        return ScriptInfo(app_import_path=name).load_app()
    except NoAppException as error:
        # Flask looks beside the working directory's files only.
        in_src = name is None and not any(_has_module(Path.cwd(), file) for file in _FILES)
        if in_src and error.__cause__ is None and is_discoverable():
            return _load_directly(None)
        raise


def _folders() -> tuple[Path, ...]:
    return Path.cwd(), Path.cwd() / "src"


def _has_module(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()


def _is_shadowed(folder: Path) -> bool:
    """Tell whether a folder is a package whose name belongs to another one.

    With an `__init__.py` in it, Flask imports `FOLDER.app`, and a folder called `flask` or
    `alembic` would have to be the package of that name.
    """
    if not (folder / "__init__.py").exists():
        return False
    top = folder
    while (top.parent / "__init__.py").exists():
        top = top.parent
    taken = top.name in sys.modules or top.name in sys.stdlib_module_names | _OURS
    return taken or not top.name.isidentifier()


def _load_directly(name: str | None) -> Flask:
    """Import the application as a module of the working directory, whatever that is called."""
    if name is None:
        files = [file for file in _FILES for folder in _folders() if _has_module(folder, file)]
        for file in files:
            app = locate_app(file, None, raise_if_not_found=False)
            if app is not None:
                return app
        raise NoAppException("Could not locate a Flask application in wsgi.py or app.py.")
    path, _, wanted = re.sub(r":(?![\\/])", "\0", name, count=1).partition("\0")
    module = Path(path).name.removesuffix(".py")
    app = locate_app(module, wanted or None)
    if app is None:
        raise NoAppException(f"Could not locate a Flask application in {module}.")
    return app
