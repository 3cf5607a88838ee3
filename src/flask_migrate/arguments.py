"""What `Migrate` hands to `env.py` for Alembic's context, fitted to files from before 4.0."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Arguments of Alembic's context that always have a value; an `env.py` from before Flask-Migrate
# 4.0, which did not give them, may pass them itself.
CONTEXT_DEFAULTS = ("compare_type", "render_as_batch")


class ConfigureArguments(dict[str, Any]):
    """Arguments for an `env.py` from before Flask-Migrate 4.0 that passes some of them itself.

    Beside `**configure_args` that would end in a TypeError, so iteration leaves out what it
    passes, while look-up, `setdefault`, `pop` and `del` know it.

    Args:
        given: what `env.py` leaves to `configure_args`.
        defaults: what it passes itself.
    """

    def __init__(self, given: Mapping[str, Any], defaults: dict[str, Any]) -> None:
        super().__init__(given)
        self.defaults = defaults

    def __missing__(self, key: str) -> Any:
        """Look up a default."""
        return self.defaults[key]

    def __contains__(self, key: object) -> bool:
        """Tell whether a value, or a default, is there."""
        return super().__contains__(key) or key in self.defaults

    def __delitem__(self, key: str) -> None:
        """Take a value, or a default, out."""
        self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Give a value, that of a default included."""
        return super().get(key, self.defaults.get(key, default))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Give a value, that of a default included, and keep a new one where there is none."""
        return self.get(key) if key in self else super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """Take a value out, that of a default included."""
        fallback = (self.defaults.pop(key),) if key in self.defaults else default
        return super().pop(key, *fallback)


def fit_arguments(arguments: dict[str, Any], environment: Path) -> dict[str, Any]:
    """Hide of `**configure_args` what an `env.py` passes to Alembic's context itself.

    Args:
        arguments: a plain dictionary, or one that was fitted to another `env.py`.
        environment: path of the `env.py`.
    """
    whole = {**arguments, **getattr(arguments, "defaults", {})}
    passed = whole.keys() & {*CONTEXT_DEFAULTS} & _names_passed(environment)
    if not passed:
        return whole if isinstance(arguments, ConfigureArguments) else arguments
    given = {name: value for name, value in whole.items() if name not in passed}
    return ConfigureArguments(given, {name: whole[name] for name in passed})


def copy_arguments(value: Any) -> Any:
    """Copy dictionaries and lists all the way down, and nothing else."""
    if isinstance(value, ConfigureArguments):
        return ConfigureArguments(copy_arguments({**value}), copy_arguments(value.defaults))
    if isinstance(value, dict):
        return {key: copy_arguments(item) for key, item in value.items()}
    return [copy_arguments(item) for item in value] if isinstance(value, list) else value


def _names_passed(environment: Path) -> set[str]:
    """Find the names that an `env.py` writes as keywords of a call, or as keys of a dictionary."""
    try:
        source = environment.read_text(encoding="utf-8")
        if not any(name in source for name in CONTEXT_DEFAULTS):
            return set()
        nodes = [*ast.walk(ast.parse(source))]
    except (OSError, SyntaxError, ValueError):
        return set()  # Alembic says what is wrong with it
    keywords = {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    keys = [key for node in nodes if isinstance(node, ast.Dict) for key in node.keys]
    return keywords | {str(key.value) for key in keys if isinstance(key, ast.Constant)}
