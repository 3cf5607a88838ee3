"""Leads connections to another place than the application's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, event


def connect_elsewhere(url: URL, target: URL) -> None:
    """Let every engine that would connect to one URL connect to another.

    The parameters are exchanged where SQLAlchemy hands them to the driver, so that engines which
    `env.py` makes itself are covered, and the application's engine options stay.
    """

    @event.listens_for(Engine, "do_connect")
    def redirect(dialect: Any, _record: Any, args: list[Any], parameters: dict[str, Any]) -> None:
        if dialect.name != url.get_backend_name():
            return
        old_args, old = dialect.create_connect_args(url)
        if list(old_args) == list(args) and old.items() <= parameters.items():
            new_args, new = dialect.create_connect_args(target)
            args[:] = new_args
            for key in old:
                del parameters[key]
            parameters.update({**new, **parameters})
