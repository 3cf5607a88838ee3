"""`flask-migrate wait database`: returns once every database answers."""

from __future__ import annotations

from .session import Result, Session


def run_wait_database(session: Session) -> Result:
    """Wait until every database accepts a login and answers a query.

    Raises:
        UnavailableError, RefusedError: one did not in time.
    """
    session.wait(session.lasting, writes=False)
    return Result()
