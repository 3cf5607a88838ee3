"""The databases of one run: their URLs, and how the sidecar itself connects to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, Engine, NullPool, create_engine

DEFAULT = "default"


@dataclass(frozen=True)
class Database:
    """One database: the main one, called `default`, or a bind.

    Args:
        name: bind name, `default` for the main one.
        url: where to connect, with a driver that is installed and not asynchronous.
        connect_args: arguments of the application for its driver.
    """

    name: str
    url: URL
    connect_args: Mapping[str, Any] = field(default_factory=dict)

    def engine(self, *, connect_timeout: float) -> Engine:
        """Make an engine without a pool: each connection of ours is opened and closed by us.

        Args:
            connect_timeout: the longest that one attempt may take, in seconds.
        """
        return create_engine(
            self.url,
            poolclass=NullPool,
            connect_args={**timeout_arguments(self.url, connect_timeout), **self.connect_args},
        )


def timeout_arguments(url: URL, seconds: float) -> dict[str, Any]:
    """Give the driver's own argument for a time limit on connecting."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": seconds}
    return {"connect_timeout": max(1, round(seconds))}
