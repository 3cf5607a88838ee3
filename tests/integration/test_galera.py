"""A node of a Galera cluster: GET_LOCK reaches that node only, so the lock is the lease table."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect

from flask_migrate_sidecar.lock.lease import LEASE_TABLE
from following import FollowedRun
from racing import write_app
from servers import HOST, MariaDB, MissingServerError, PortReservation

PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")
QUICK = "    pass"


def make_node(port: int, receiving_port: int) -> MariaDB:
    """Make the first node of a cluster; nothing runs yet."""
    return MariaDB(
        {
            "wsrep-on": "ON",
            "wsrep-provider": str(PROVIDER),
            "wsrep-cluster-address": "gcomm://",
            "wsrep-node-address": HOST,
            "wsrep-provider-options": (
                f"base_port={port};gmcast.listen_addr=tcp://{HOST}:{port};"
                f"ist.recv_addr={HOST}:{receiving_port}"
            ),
            "binlog-format": "ROW",
            "innodb-autoinc-lock-mode": "2",
        }
    )


@pytest.fixture(scope="module")
def galera() -> Iterator[MariaDB]:
    """Run the only node of a cluster."""
    if not PROVIDER.exists():
        pytest.skip("no Galera: install the Debian package galera-4")
    with closing(PortReservation()) as first, closing(PortReservation()) as second:
        try:
            node = make_node(first.port, second.port)
        except MissingServerError as error:
            pytest.skip(str(error))
        with node:
            yield node


@pytest.fixture
def url(galera: MariaDB) -> str:
    """Return a fresh database of the cluster."""
    return galera.create_database().url()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Write an application with two revisions."""
    return write_app(tmp_path / "app", [QUICK])


def test_cluster_has_the_lease(app: Path, url: str) -> None:
    """`auto` means the lease table on a node of a cluster, and the log says why."""
    with FollowedRun(app, "db", "upgrade", env={"DATABASE_URL": url}) as run:
        assert run.finish() == 0, run.last
    [acquired] = run.named("lock.acquired")
    assert (acquired["kind"], "Galera" in acquired["why"]) == ("table", True)
    assert inspect(create_engine(url, poolclass=NullPool)).has_table(LEASE_TABLE)


def test_cluster_takes_no_advisory_lock(app: Path, url: str) -> None:
    """A lock that would not hold is refused before anything runs: 3."""
    with FollowedRun(app, "--lock", "advisory", "db", "upgrade", env={"DATABASE_URL": url}) as run:
        assert run.finish() == 3, run.last
    assert "Galera" in run.last["error"]["message"]
    assert "table" in run.last["hint"]
    assert not run.named("migration.applied")
