"""Runs Alembic's commands in an environment of our own.

What `env.py` talks to is ours, and so are the revisions (`scripts`); `stand_ins` says how Alembic's
commands come to them.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import alembic.context
from alembic.runtime.environment import EnvironmentContext
from alembic.util import CommandError

from .arguments import CONTEXT_DEFAULTS
from .commits import Commits
from .comparison import leave_out_own, warn_without_models
from .config import version_text
from .coverage import note_database, warn_of_left_out
from .databases import MAIN_DATABASE, check_binds, check_functions, list_databases, selected_binds
from .errors import explain_errors
from .isolation import keep_process
from .seen import Seen, current_command, logger, seen
from .stand_ins import find_command
from .state import _MigrateConfig, find_state, use_state
from .transaction import Transactions, is_sqlite

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

# Alembic's proxies `alembic.context` and `alembic.op` exist once in a process.
_lock = threading.RLock()


class Environment(EnvironmentContext):
    """What `env.py` talks to: knows our defaults, the selected binds and the revisions found."""

    def __init__(self, config: Config, script: ScriptDirectory, **options: Any) -> None:
        super().__init__(config, script, **options)
        self._seen = seen.get() or Seen()
        self._seen.comparison = self.context_opts.get("revision_context")
        self._transactions = Transactions()
        self._commits = Commits()
        function = self.context_opts.get("fn")
        if function is not None:
            self.context_opts["fn"] = self._follow(_note_revisions(function, self._seen))

    def __init_subclass__(cls) -> None:
        """Let the functions of the module `alembic.context` find an instance of a derived class."""
        super().__init_subclass__()
        cls.create_module_class_proxy(vars(alembic.context), {})

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
        if error[0] is None:
            self._commits.require()

    def configure(self, *args: Any, **options: Any) -> None:
        """Configure Alembic's context, with our defaults where `env.py` gives no value."""
        arguments = find_state().configure_args
        for name in CONTEXT_DEFAULTS:
            if name in arguments:
                options.setdefault(name, arguments[name])
        options["include_name"] = leave_out_own(options.get("include_name"))
        given = {"connection": args[0], **options} if args else options
        options["transactional_ddl"] = self._choose_ddl(given, arguments.get("transactional_ddl"))
        super().configure(*args, **options)
        if self._is_comparing():
            warn_without_models(self.get_context(), options.get("target_metadata"))

    def _choose_ddl(self, given: Mapping[str, Any], wanted: bool | None) -> bool | None:
        """Say that SQLite's DDL is transactional, and make it so, where that is asked for.

        Args:
            given: arguments of `context.configure()`.
            wanted: what `Migrate` was given, for an `env.py` that does not hand it on.
        """
        chosen: bool | None = given.get("transactional_ddl")
        chosen = wanted if chosen is None else chosen
        if chosen is not True or not self._is_writing() or not is_sqlite(given):
            return chosen
        return self.is_offline_mode() or self._transactions.take(given.get("connection"))

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
            if "engine_name" in arguments:
                check_functions(list_databases())
            note_database(self._seen, self.get_context(), arguments.get("engine_name"))
            with self._transactions.around(self):
                super().run_migrations(**arguments)
            makes_table = current_command() == "ensure_version"
            if makes_table and self.get_context().impl.transactional_ddl:
                self._expect_commit()

    def _expect_commit(self) -> None:
        """Want to see committed what was done in a transaction that Alembic leaves to others."""
        context = self.get_context()
        if context._in_external_transaction and not context.as_sql:  # noqa: SLF001
            self._commits.expect(context.connection)

    def _follow(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Look at a SQLite database before its first revision runs."""

        @functools.wraps(function)
        def run(rev: Any, context: Any) -> Any:
            steps, transaction = function(rev, context), self._transactions.find(context.connection)
            if not context.as_sql:
                context.on_version_apply_callbacks += (lambda **_step: self._expect_commit(),)
            return steps if transaction is None else transaction.before_steps(steps)

        return run


# The same for an instance of ours.
Environment.create_module_class_proxy(vars(alembic.context), {})


def _note_revisions(function: Callable[..., Any], now: Seen) -> Callable[..., Any]:
    """Remember which revisions the databases hold, for errors that can then name them."""

    @functools.wraps(function)
    def run(rev: Any, context: Any) -> Any:
        now.revisions.update(rev or ())
        now.current = tuple(rev or ())
        return function(rev, context)

    return run


def run_command(name: str, config: Config, *args: Any, **options: Any) -> Any:
    """Run one of Alembic's commands and give what it returns.

    One command runs at a time in a process: threads wait for each other.

    Raises:
        CommandError: Alembic refuses, or the installed Alembic lacks the command or an option.
    """
    from_cli = config.attributes.get("configure_logger", False)
    state = config.attributes.get("flask_migrate_state") or find_state()
    with _lock, use_state(state):
        selected, command = check_binds(config), _find_command(name, options)
        with keep_process(from_cli=from_cli, selected=selected):
            _warn_of_replaced(state)
            return _run_and_explain(command, name, config, *args, **options)


def _run_and_explain(
    command: Callable[..., Any], name: str, config: Config, *args: Any, **options: Any
) -> Any:
    """Run a command, with a word about what it met and what it passed over."""
    token = seen.set(now := Seen(command=name))
    try:
        with explain_errors(config, now):
            result = command(config, *args, **options)
        warn_of_left_out(now, selected_binds(config))
        return result
    finally:
        seen.reset(token)


def _warn_of_replaced(state: _MigrateConfig) -> None:
    """Say that a group of commands took another one's name, and so its repository away."""
    if state.replaced is not None:
        logger.warning(
            "Two Migrate objects have the group of commands %r: this one is for %s, that for %s "
            "cannot be reached. Give one of them another name, Migrate(..., command=...).",
            state.migrate.command,
            state.directory,
            state.replaced,
        )


def _find_command(name: str, options: dict[str, Any]) -> Callable[..., Any]:
    """Find a command, and drop options that it lacks and that are not used."""
    command = find_command(name, Environment)
    if command is None:
        flag = name.replace("_", "-")
        raise CommandError(f"Alembic {version_text()} has no command {flag}; upgrade Alembic.")
    parameters = inspect.signature(command).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for option in [] if takes_all else options.keys() - parameters.keys():
        if options.pop(option):
            flag = "--" + option.replace("_", "-")
            raise CommandError(f"{name}: Alembic {version_text()} has no {flag}; upgrade Alembic.")
    return command
