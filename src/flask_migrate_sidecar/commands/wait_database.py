"""`flask-migrate wait database`: returns once every database answers."""

from __future__ import annotations

from flask_migrate_sidecar.database.url import is_memory

from .session import Result, Session


def run_wait_database(session: Session) -> Result:
    """Wait until every database accepts a login and answers a query.

    Raises:
        UnavailableError, RefusedError: one did not in time.
    """
    session.wait([d for d in session.databases if not is_memory(d.url)], writes=False)
    return Result()
