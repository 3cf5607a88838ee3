"""Runs Alembic's commands in an environment of our own.

Alembic's commands name two collaborators: `EnvironmentContext`, which `env.py` talks to, and
`ScriptDirectory`, which loads the revisions. A private copy of the module `alembic.command`
holds ours in their place, so nothing of Alembic's is changed for others.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, cast

import alembic.context
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionMap
from alembic.util import CommandError

from .comparison import leave_out_lease, warn_without_models
from .config import version_text
from .databases import MAIN_DATABASE, check_binds, list_databases, selected_binds
from .errors import Seen, explain_errors
from .isolation import keep_process
from .state import find_state
from .transaction import Transactions, is_sqlite

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic's proxies `alembic.context` and `alembic.op` exist once in a process.
_lock = threading.RLock()

_seen: ContextVar[Seen] = ContextVar("_seen")


class Environment(EnvironmentContext):
    """What `env.py` talks to: knows our defaults, the selected binds and the revisions found."""

    def __init__(self, config: Config, script: ScriptDirectory, **options: Any) -> None:
        super().__init__(config, script, **options)
        _seen.get().comparison = self.context_opts.get("revision_context")
        self._transactions = Transactions()
        function = self.context_opts.get("fn")
        if function is not None:
            self.context_opts["fn"] = self._follow(_note_revisions(function))

    def __enter__(self) -> Self:
        """Install the functions of `alembic.context`, and remember whose they were."""
        self._outer = vars(alembic.context).get("_proxy")
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove them; where `env.py` itself ran this command, its own come back."""
        super().__exit__(*error)
        self._transactions.close()
        if self._outer is not None:
            self._outer._install_proxy()  # noqa: SLF001

    def configure(self, *args: Any, **options: Any) -> None:
        """Configure Alembic's context, with our defaults where `env.py` gives no value."""
        arguments = find_state().configure_args
        for name, value in getattr(arguments, "defaults", {}).items():
            options.setdefault(name, value)
        options["include_name"] = leave_out_lease(options.get("include_name"))
        given = {"connection": args[0], **options} if args else options
        options["transactional_ddl"] = self._choose_ddl(given, arguments.get("transactional_ddl"))
        super().configure(*args, **options)
        if self._is_comparing():
            warn_without_models(self.get_context(), options.get("target_metadata"))

    def _choose_ddl(self, given: Mapping[str, Any], wanted: bool | None) -> bool | None:
        """Say that SQLite's DDL is transactional, and make it so, unless that is declined.

        Args:
            given: arguments of `context.configure()`.
            wanted: what `Migrate` was given, for an `env.py` that does not hand it on.
        """
        chosen: bool | None = given.get("transactional_ddl")
        chosen = wanted if chosen is None else chosen
        if chosen is False or not self._is_writing() or not is_sqlite(given):
            return chosen
        is_real = self.is_offline_mode() or self._transactions.take(given.get("connection"))
        return is_real or chosen

    def _is_writing(self) -> bool:
        """Tell whether the command changes a database, and does not only look at it."""
        options = self.context_opts
        is_looking = options.get("dont_mutate") or options.get("revision_context") is not None
        return "fn" in options and not is_looking

    def _is_comparing(self) -> bool:
        """Tell whether models and databases are to be compared."""
        revision_context = self.context_opts.get("revision_context")
        return revision_context is not None and revision_context.command_args["autogenerate"]

    def run_migrations(self, **arguments: Any) -> None:
        """Run the migrations of one database, if it is among the selected ones."""
        selected = selected_binds(self.config)
        if selected and "engine_name" not in arguments:
            raise CommandError("--bind needs a repository for several databases.")
        if not selected or (arguments["engine_name"] or MAIN_DATABASE) in selected:
            with self._transactions.around(self):
                super().run_migrations(**arguments)

    def _follow(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Look at a SQLite database before its first revision runs."""

        @functools.wraps(function)
        def run(rev: Any, context: Any) -> Any:
            steps, transaction = function(rev, context), self._transactions.find(context.connection)
            return steps if transaction is None else transaction.before_steps(steps)

        return run


# Lets the functions of the module `alembic.context` find an instance of ours.
Environment.create_module_class_proxy(vars(alembic.context), {})


def _note_revisions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember which revisions the databases hold, for errors that can then name them."""

    @functools.wraps(function)
    def run(rev: Any, context: Any) -> Any:
        _seen.get().revisions.update(rev or ())
        _seen.get().current = tuple(rev or ())
        return function(rev, context)

    return run


class Scripts(ScriptDirectory):
    """The revisions of a repository, each with a function for every database of today."""

    database_names: Sequence[str] = ()
    selected: Sequence[str] = ()

    @classmethod
    def from_config(cls, config: Config) -> Scripts:
        """Open the repository that the configuration names."""
        scripts = ScriptDirectory.from_config(config)
        # Alembic's from_config makes its own class, whatever it is called on.
        scripts.__class__ = cls
        scripts = cast("Scripts", scripts)
        scripts.revision_map = RevisionMap(scripts._load_revisions)  # noqa: SLF001
        scripts.database_names = list_databases()
        scripts.selected = selected_binds(config)
        return scripts

    def _load_revisions(self) -> Iterator[Script]:
        found: set[str] = set()
        for script in super()._load_revisions():
            found |= {name for name in vars(script.module) if name.startswith("upgrade_")}
            self._supply_functions(script.module)
            yield script
        self._check_functions(found)

    def _check_functions(self, found: set[str]) -> None:
        """Refuse to pass over a database that was renamed, and two that share their functions.

        Args:
            found: names of the functions that any of the revisions has.

        Raises:
            CommandError: a database would be called up to date without any of its tables.
        """
        names: dict[str, str] = {}
        for name in self.database_names:
            other = names.setdefault(_function_of(name), name)
            if other != name and found & {*names}:
                raise CommandError(
                    f"The databases {other} and {name} share the function {_function_of(name)}: "
                    "each would get the other's tables. Rename one of the binds."
                )
        if _seen.get().command != "upgrade" or not found & {*names}:
            return
        missing = sorted(
            function
            for function, name in names.items()
            if function not in found
            and (not self.selected or (name or MAIN_DATABASE) in self.selected)
        )
        gone = sorted(found - {*names})
        if missing and gone:
            raise CommandError(
                f"No revision has a function {', '.join(missing)}, but there are "
                f"{', '.join(gone)}, for which the application has no database: if it was renamed, "
                "rename them too; if it is another one, make a revision first."
            )

    def _supply_functions(self, module: ModuleType) -> None:
        """Give a revision that is older than a bind the function that it lacks for it.

        Revisions for several databases call `globals()["upgrade_<bind>"]`.
        """
        functions = vars(module)
        if not any(f"upgrade_{name}" in functions for name in self.database_names):
            return
        for name in self.database_names:
            for direction in ("upgrade", "downgrade"):
                functions.setdefault(f"{direction}_{name}", lambda: None)


def _function_of(database: str) -> str:
    """Name the function of a database as the template does."""
    return "upgrade_" + re.sub(r"\W", "_", database)


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
    command = _find_command(name, options)
    from_cli = config.attributes.get("configure_logger", False)
    with _lock, keep_process(from_cli=from_cli, selected=check_binds(config)):
        token = _seen.set(Seen(command=name))
        try:
            with explain_errors(config, _seen.get()):
                return command(config, *args, **options)
        finally:
            _seen.reset(token)


def _find_command(name: str, options: dict[str, Any]) -> Callable[..., Any]:
    """Find a command, and drop options that it lacks and that are not used."""
    command: Callable[..., Any] | None = getattr(load_commands(), name, None)
    if command is None:
        flag = name.replace("_", "-")
        raise CommandError(f"Alembic {version_text()} has no command {flag}; upgrade Alembic.")
    known = inspect.signature(command).parameters
    for option in [option for option in options if option not in known]:
        if options.pop(option):
            flag = "--" + option.replace("_", "-")
            raise CommandError(f"{name}: Alembic {version_text()} has no {flag}; upgrade Alembic.")
    return command
