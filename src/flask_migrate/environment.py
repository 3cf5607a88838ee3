"""Runs Alembic's commands in an environment of our own, and leaves the process as it was.

Alembic's commands name two collaborators: `EnvironmentContext`, which `env.py` talks to, and
`ScriptDirectory`, which loads the revisions. A private copy of the module `alembic.command`
holds ours in their place, so nothing of Alembic's is changed for others.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
import logging.config
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, cast

import alembic.context
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionMap
from alembic.util import CommandError
from flask import current_app

from .config import alembic_version
from .diagnosis import explain_errors, warn_without_models
from .extension import CONTEXT_DEFAULTS

if TYPE_CHECKING:
    from alembic.config import Config

MAIN_DATABASE = "default"

# Alembic's proxies `alembic.context` and `alembic.op` exist once in a process.
_lock = threading.RLock()


class Environment(EnvironmentContext):
    """What `env.py` talks to: knows our defaults, the selected binds and the revisions found."""

    def __init__(self, config: Config, script: ScriptDirectory, **options: Any) -> None:
        super().__init__(config, script, **options)
        self.found: set[str] = set()
        function = self.context_opts.get("fn")
        if function is not None:
            self.context_opts["fn"] = self._note_revisions(function)

    def _note_revisions(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Remember which revisions the databases hold, for errors that can then name them."""

        def run(rev: Any, context: Any) -> Any:
            self.found.update(rev or ())
            return function(rev, context)

        return run

    def configure(self, *args: Any, **options: Any) -> None:
        """Configure Alembic's context, with our defaults where `env.py` gives no value."""
        arguments = current_app.extensions["migrate"].migrate.alembic_ctx_kwargs
        for name in CONTEXT_DEFAULTS:
            options.setdefault(name, arguments[name])
        super().configure(*args, **options)
        if "revision_context" in self.context_opts:
            warn_without_models(options.get("target_metadata"))

    def run_migrations(self, **arguments: Any) -> None:
        """Run the migrations of one database, if it is among the selected ones."""
        selected = selected_binds(self.config)
        if selected and "engine_name" not in arguments:
            raise CommandError("--bind needs a repository for several databases.")
        if not selected or (arguments["engine_name"] or MAIN_DATABASE) in selected:
            super().run_migrations(**arguments)

    def __enter__(self) -> Self:
        """Install Alembic's proxies."""
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove Alembic's proxies, and say more about some errors."""
        super().__exit__(*error)
        explain_errors(error[1], self.script, self.found)


# Lets the functions of the module `alembic.context` find an instance of ours.
Environment.create_module_class_proxy(vars(alembic.context), {})


class Scripts(ScriptDirectory):
    """The revisions of a repository, each with a function for every database of today."""

    database_names: Sequence[str] = ()

    @classmethod
    def from_config(cls, config: Config) -> Scripts:
        """Open the repository that the configuration names."""
        scripts = ScriptDirectory.from_config(config)
        # Alembic's from_config makes its own class, whatever it is called on.
        scripts.__class__ = cls
        scripts = cast("Scripts", scripts)
        scripts.revision_map = RevisionMap(scripts._load_revisions)  # noqa: SLF001
        scripts.database_names = list_databases()
        return scripts

    def _load_revisions(self) -> Iterator[Script]:
        for script in super()._load_revisions():
            self._supply_functions(script.module)
            yield script

    def _supply_functions(self, module: ModuleType) -> None:
        """Give a revision that is older than a bind the function that it lacks for it.

        Revisions for several databases call `globals()["upgrade_<bind>"]`.
        """
        if not any(hasattr(module, f"upgrade_{name}") for name in self.database_names):
            return
        for name in self.database_names:
            for direction in ("upgrade", "downgrade"):
                module.__dict__.setdefault(f"{direction}_{name}", lambda: None)


def list_databases() -> list[str]:
    """Name the databases of the application as `env.py` does: '' and each bind."""
    db = current_app.extensions["migrate"].db
    names = [name for name in getattr(db, "engines", None) or () if name]
    names += current_app.config.get("SQLALCHEMY_BINDS") or {}
    return ["", *dict.fromkeys(names)]


def selected_binds(config: Config) -> tuple[str, ...]:
    """Give the names that were given as `--bind`; none means all databases."""
    return tuple(getattr(config.cmd_opts, "bind", None) or ())


def check_binds(config: Config) -> tuple[str, ...]:
    """Give the selected binds.

    Raises:
        CommandError: the application has no database of such a name.
    """
    selected, known = selected_binds(config), [n or MAIN_DATABASE for n in list_databases()]
    unknown = sorted({*selected} - {*known})
    if unknown:
        raise CommandError(
            f"No database is called {', '.join(unknown)}; there are {', '.join(known)}."
        )
    return selected


@functools.cache
def load_commands() -> ModuleType:
    """Execute `alembic.command` once more as a module of our own, with our collaborators."""
    spec = importlib.util.find_spec("alembic.command")
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(EnvironmentContext=Environment, ScriptDirectory=Scripts)
    return module


def run_command(name: str, config: Config, *args: Any, **options: Any) -> Any:
    """Run one of Alembic's commands and give what it returns.

    One command runs at a time in a process: threads wait for each other.

    Raises:
        CommandError: Alembic refuses, or the installed Alembic lacks the command or an option.
    """
    command = getattr(load_commands(), name, None)
    if command is None:
        raise CommandError(f"Alembic {_version()} has no command {name!r}; upgrade Alembic.")
    known = inspect.signature(command).parameters
    for option in [option for option in options if option not in known]:
        if options.pop(option):
            flag = "--" + option.replace("_", "-")
            raise CommandError(f"{name}: Alembic {_version()} has no {flag}; upgrade Alembic.")
    with _lock, ExitStack() as stack:
        stack.enter_context(
            _keep_logging(from_cli=config.attributes.get("configure_logger", False))
        )
        stack.enter_context(_keep_dictionaries(check_binds(config)))
        stack.enter_context(_keep_path())
        return command(config, *args, **options)


def _version() -> str:
    return ".".join(map(str, alembic_version))


@contextmanager
def _keep_logging(*, from_cli: bool) -> Iterator[None]:
    """Keep `fileConfig` in `env.py` from switching off the application's loggers.

    From the command line it sets up logging, less the disabling of what exists; in a program
    that calls our functions, logging is the program's affair.
    """
    original = logging.config.fileConfig
    thread = threading.get_ident()

    @functools.wraps(original)
    def file_config(
        fname: Any,
        defaults: Any = None,
        disable_existing_loggers: bool = True,
        encoding: str | None = None,
    ) -> None:
        if threading.get_ident() != thread:
            original(fname, defaults, disable_existing_loggers, encoding)
        elif from_cli and fname is not None:
            original(fname, defaults, disable_existing_loggers=False, encoding=encoding)

    logging.config.fileConfig = file_config
    try:
        yield
    finally:
        logging.config.fileConfig = original


def _copy(value: Any) -> Any:
    """Copy dictionaries and lists all the way down, and nothing else."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


@contextmanager
def _keep_dictionaries(selected: Collection[str]) -> Iterator[None]:
    """Let `env.py` work on copies: some add to, pop from or empty what they find."""
    state, settings = current_app.extensions["migrate"], current_app.config
    arguments, binds = state.configure_args, settings.get("SQLALCHEMY_BINDS")
    state.configure_args = _copy(arguments)
    if binds is not None:
        settings["SQLALCHEMY_BINDS"] = {
            name: _copy(value) for name, value in binds.items() if not selected or name in selected
        }
    try:
        yield
    finally:
        state.configure_args = arguments
        if binds is not None:
            settings["SQLALCHEMY_BINDS"] = binds


@contextmanager
def _keep_path() -> Iterator[None]:
    """Keep `prepend_sys_path` and `env.py` from lengthening `sys.path` with each command."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
