"""Our stand-ins for the two collaborators of Alembic's commands.

A command of Alembic's names `EnvironmentContext`, which `env.py` talks to, and `ScriptDirectory`,
which loads the revisions, as globals of the module `alembic.command`. It runs here with globals
of its own that hold ours in their place, so nothing of Alembic's is changed for others. What an
application or a test has put into that module counts all the same: a function is called as it is,
a class is derived from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from alembic import command
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from .databases import list_databases, selected_binds
from .scripts import Scripts
from .seen import seen

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")


def find_command(name: str, environment: type[EnvironmentContext]) -> Callable[..., Any] | None:
    """Find one of Alembic's commands, or what stands in its place; None where there is none.

    Args:
        name: of the command.
        environment: our class of what `env.py` talks to.
    """
    function = getattr(command, name, None)
    stand_ins = {
        "EnvironmentContext": _Environments(vars(command)["EnvironmentContext"], environment),
        "ScriptDirectory": _Repositories(vars(command)["ScriptDirectory"]),
    }
    if _is_of_alembic(function):
        return _rebind(function, {**vars(command), **stand_ins})
    return None if function is None else _call_with_stand_ins(function, stand_ins)


def _is_of_alembic(function: object) -> bool:
    """Tell whether a function is the one that Alembic's module defines."""
    return isinstance(function, FunctionType) and function.__globals__ is vars(command)


def _rebind(function: Any, names: dict[str, Any]) -> Callable[..., Any]:
    """Make a twin of a function that has other globals."""
    twin = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _call_with_stand_ins(
    function: Callable[..., Any], stand_ins: dict[str, Any]
) -> Callable[..., Any]:
    """Run what another one has put in place of a command: it may end in Alembic's own."""

    @functools.wraps(function, updated=())
    def run(*args: Any, **options: Any) -> Any:
        with _lend(stand_ins):
            return function(*args, **options)

    return run


@contextmanager
def _lend(stand_ins: dict[str, Any]) -> Iterator[None]:
    """Put the stand-ins into Alembic's module; to other threads they are what was there."""
    before = {name: getattr(command, name) for name in stand_ins}
    vars(command).update(stand_ins)
    try:
        yield
    finally:
        vars(command).update(before)


class _Environments:
    """What a command calls to make an `EnvironmentContext`.

    Args:
        theirs: the class that it would have made one of.
        ours: what stands in for it.
    """

    def __init__(self, theirs: Any, ours: type[EnvironmentContext]) -> None:
        self.theirs = theirs
        self.ours = ours

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make one of ours, for commands of ours."""
        if seen.get() is None:
            return self.theirs(*args, **options)
        return derive(self.ours, self.theirs, EnvironmentContext)(*args, **options)


class _Repositories:
    """What a command opens a `ScriptDirectory` with; `theirs` is as above."""

    def __init__(self, theirs: Any) -> None:
        self.theirs = theirs

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make one for `init`, which has no revisions."""
        return self.theirs(*args, **options)

    def from_config(self, config: Config) -> Any:
        """Open the repository that the configuration names."""
        scripts = self.theirs.from_config(config)
        if seen.get() is None or not isinstance(scripts, ScriptDirectory):
            return scripts
        # Alembic's from_config makes its own class, whatever it is called on.
        theirs = self.theirs if isinstance(self.theirs, type) else type(scripts)
        scripts.__class__ = derive(Scripts, theirs, ScriptDirectory)
        return _complete(scripts, config)


def _complete(scripts: Any, config: Config) -> Any:
    """Let the map of the revisions read them in our way, and say whose functions they need."""
    scripts.revision_map = type(scripts.revision_map)(scripts._load_revisions)  # noqa: SLF001
    scripts.database_names = list_databases()
    scripts.selected = selected_binds(config)
    return scripts


@functools.cache
def derive(ours: type[T], theirs: Any, stock: type[Any]) -> type[T]:
    """Derive our class from one that is in place of Alembic's; what is no such class gives way."""
    if theirs is stock or not (isinstance(theirs, type) and issubclass(theirs, stock)):
        return ours
    return type(ours.__name__, (ours, theirs), {})
