"""What a lock is called and when it is tried, as far as no server is needed."""

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.dialect import find_dialect, to_milliseconds
from flask_migrate_sidecar.errors import ConfigurationError, UnavailableError
from flask_migrate_sidecar.lock.base import (
    Holder,
    Lock,
    LockLostError,
    LockTarget,
    lock_name,
    lock_number,
)
from flask_migrate_sidecar.lock.choose import Choice, choose_kind
from flask_migrate_sidecar.lock.connection import driver_arguments
from flask_migrate_sidecar.lock.watch import Watch
from flask_migrate_sidecar.process.identity import application_name, process_place
from flask_migrate_sidecar.process.threads import Event


def test_keys_are_the_same_in_every_release() -> None:
    """Replicas of two releases exclude each other, so a key never changes."""
    assert lock_number(None, "alembic_version") == 2258153868459764962
    assert (
        lock_name("shop", None, "alembic_version")
        == "flask-migrate-sidecar:df4f1cb36fef424aee17f271fe5ef9960cd87087f4"
    )


def test_keys_tell_targets_apart() -> None:
    """Unrelated services do not wait for each other; parts do not run into one another."""
    parts = [("a", "b"), ("ab", ""), ("", "ab"), ("a", "c"), ("a", "b", "")]
    assert len({lock_number(*part) for part in parts}) == len(parts)
    assert len({lock_name(*part) for part in parts}) == len(parts)


def test_no_schema_is_the_empty_one() -> None:
    """An application that names no schema has the same key wherever it says so."""
    assert lock_number(None, "v") == lock_number("", "v")


def test_names_fit_get_lock() -> None:
    """MySQL refuses names of more than 64 characters, whatever the identifiers' length."""
    assert len(lock_name("d" * 64, "s" * 64, "v" * 64)) <= 64
    assert -(2**63) <= lock_number("s" * 64, "v" * 64) < 2**63


@pytest.mark.parametrize("pod", ["web-0", "w" * 300, "ü" * 100])
def test_application_name_keeps_the_process_id(pod: str) -> None:
    """PostgreSQL cuts at 63 bytes: what is cut is the place, not what tells processes apart."""
    name = application_name({"POD_NAME": pod})
    assert name.startswith(f"flask-migrate-sidecar:{pod[:5]}")
    assert name.endswith(f":{os.getpid()}")
    assert len(name.encode()) <= 63


def test_place_says_what_kubernetes_told() -> None:
    """Pod, namespace and node lead an operator to the holder; each may be missing."""
    pod = {"POD_NAME": "web-0"}
    assert process_place(pod) == "web-0"
    assert process_place({**pod, "POD_NAMESPACE": "shop"}) == "shop/web-0"
    assert process_place({**pod, "POD_NAMESPACE": "shop", "NODE_NAME": "n1"}) == "shop/web-0@n1"
    assert process_place({})


def test_holder_says_only_what_is_known() -> None:
    """A log line has no empty fields."""
    assert Holder(pid=7, client="10.0.0.1").describe() == {"pid": 7, "client": "10.0.0.1"}
    assert Holder().describe() == {}


def test_lost_lock_may_be_run_again() -> None:
    """A lost lock ends with the code of a lost connection."""
    assert issubclass(LockLostError, UnavailableError)


def test_statements_are_not_prepared_behind_a_pooler() -> None:
    """Psycopg 3 prepares at the fifth use, which a pooler in transaction mode does not survive."""
    assert driver_arguments("psycopg")["prepare_threshold"] is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql+psycopg://h/d", "advisory"),
        ("sqlite:///app.db", "file"),
        ("sqlite://", "none"),
        ("sqlite:///:memory:", "none"),
        ("mssql+pyodbc://h/d", "table"),
        ("oracle+oracledb://h/d", "table"),
    ],
)
def test_auto_picks_what_the_database_has(url: str, kind: str) -> None:
    """Each kind of database has its lock, and the reason is told."""
    chosen, why = choose_kind("auto", Database("default", make_url(url)), 1)
    assert chosen == kind
    assert why


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("advisory", "sqlite:///app.db"),
        ("advisory", "mssql+pyodbc://h/d"),
        ("file", "postgresql+psycopg://h/d"),
        ("file", "mysql+pymysql://h/d"),
    ],
)
def test_unfit_kind_is_refused_with_its_reason(kind: str, url: str) -> None:
    """A kind that the database cannot have is never silently replaced."""
    with pytest.raises(ConfigurationError, match=f"{kind} does not fit database shop"):
        choose_kind(kind, Database("shop", make_url(url)), 1)


def test_times_without_a_zone_are_utc() -> None:
    """Clocks that answer with a date mean UTC; a zone is honoured."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    milliseconds = 1767323045678
    assert to_milliseconds(moment) == milliseconds
    assert to_milliseconds(moment.replace(tzinfo=None)) == milliseconds
    assert to_milliseconds(moment.astimezone(timezone(timedelta(hours=5)))) == milliseconds
    assert to_milliseconds(milliseconds) == milliseconds


def test_unknown_databases_have_a_clock_too() -> None:
    """A database of which nothing is known is asked for the standard's clock."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        own = find_dialect("sqlite").read_clock(connection)
        assert abs(find_dialect("unheard-of").read_clock(connection) - own) <= 60_000
    engine.dispose()


class Uncheckable(Lock):
    """A lock of which nobody can tell whether it is still held."""

    kind = "advisory"

    def identity(self) -> tuple[str, ...]:
        """Name it."""
        return ("lock",)

    def try_acquire(self) -> bool:
        """Take it."""
        return True

    def holder(self) -> None:
        """Name nobody."""

    def check(self) -> None:
        """Fail in a way that nobody thought of."""
        raise ZeroDivisionError

    def release(self) -> None:
        """Give nothing back."""


def test_lock_that_cannot_be_checked_is_lost() -> None:
    """Whatever keeps a lock from being checked, the run does not go on as if it were held."""
    lost = Event()
    target = LockTarget(Database("shop", make_url("sqlite:///x.db")), None, "alembic_version")
    watch = Watch(Choice(Uncheckable(target, interval=60), "", ["shop"]), lost)
    with pytest.raises(LockLostError, match="ZeroDivisionError"):
        watch.verify()
    assert lost.is_set()


def test_forked_child_does_not_speak_on_the_lock(tmp_path: Path) -> None:
    """What a revision forks has a copy of the lock's connection, which is its parent's to use."""
    spoken = tmp_path / "spoken"

    class Noted(Uncheckable):
        def check(self) -> None:
            with spoken.open("a") as file:
                file.write(f"{os.getpid()}\n")

    target = LockTarget(Database("shop", make_url("sqlite:///x.db")), None, "alembic_version")
    watch = Watch(Choice(Noted(target, interval=60), "", ["shop"]), Event())
    watch.verify()
    child = os.fork()
    if not child:
        watch.verify()
        os._exit(0)
    os.waitpid(child, 0)
    assert spoken.read_text().split() == [str(os.getpid())]
