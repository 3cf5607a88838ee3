"""Lets a compiled driver of the application's that does not load give way to ours."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder

from flask_migrate_sidecar.errors import describe

# Drivers that need a C library, each with the packages that make it up.
_COMPILED = {
    "psycopg": ("psycopg", "psycopg_binary", "psycopg_c"),
    "psycopg2": ("psycopg2",),
    "MySQLdb": ("MySQLdb",),
}


def replace_broken_drivers(added: Iterable[str]) -> dict[str, str]:
    """Try each driver that both the application and we bring, and take ours if only that loads.

    Args:
        added: the folders of the application's own packages.

    Returns:
        For each driver that was replaced, why.
    """
    theirs = list(added)
    ours = [path for path in sys.path if path not in theirs]
    replaced = {}
    for driver, packages in _COMPILED.items():
        if not _has(driver, theirs) or not _has(driver, ours):
            continue
        reason = _try(driver, packages)
        if reason is not None and _load_ours(driver, packages, ours):
            replaced[driver] = reason
    return replaced


def _has(name: str, path: list[str]) -> bool:
    spec = PathFinder.find_spec(name, path)
    return spec is not None and spec.origin is not None


def _try(name: str, packages: Iterable[str]) -> str | None:
    """Import a driver; give the reason where it fails, and leave nothing half imported."""
    try:
        import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever it raises, it cannot be used
        _forget(packages)
        return f"{type(error).__name__}: {describe(error)}"
    return None


def _load_ours(name: str, packages: Iterable[str], path: list[str]) -> bool:
    with _only(path):
        return _try(name, packages) is None


def _forget(packages: Iterable[str]) -> None:
    tops = set(packages)
    for module in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[module]


@contextmanager
def _only(path: list[str]) -> Iterator[None]:
    before = sys.path[:]
    sys.path[:] = path
    invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
