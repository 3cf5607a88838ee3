"""A node of a Galera cluster: GET_LOCK reaches that node only, so the lock is the lease table."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url

from flask_migrate_sidecar.lock.lease import LEASE_TABLE
from following import FollowedRun
from racing import GATED, finish, let_go_on, race_to_the_gate, read_runs, start, write_app
from servers import HOST, MariaDB, MissingServerError, PortReservation, render_url

PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")
QUICK = "    pass"


def make_node(port: int, receiving_port: int, state_port: int, members: str = "") -> MariaDB:
    """Make a node of a cluster; nothing runs yet.

    Args:
        port: for the cluster's own talk.
        receiving_port: for what it has missed.
        state_port: for the whole state, which one that joins is given.
        members: whom to join; the first joins nobody.
    """
    return MariaDB(
        {
            "wsrep-on": "ON",
            "wsrep-provider": str(PROVIDER),
            "wsrep-cluster-address": f"gcomm://{members}",
            "wsrep-node-address": HOST,
            "wsrep-sst-method": "rsync",
            "wsrep-sst-receive-address": f"{HOST}:{state_port}",
            "wsrep-provider-options": (
                f"base_port={port};gmcast.listen_addr=tcp://{HOST}:{port};"
                f"ist.recv_addr={HOST}:{receiving_port}"
            ),
            "binlog-format": "ROW",
            "innodb-autoinc-lock-mode": "2",
        }
    )


@contextmanager
def cluster_of(size: int) -> Iterator[list[MariaDB]]:
    """Run a cluster; its nodes join one after the other."""
    if not PROVIDER.exists():
        pytest.skip("no Galera: install the Debian package galera-4")
    nodes: list[MariaDB] = []
    with ExitStack() as stack:
        reserved = [stack.enter_context(closing(PortReservation())) for _ in range(3 * size)]
        ports = [reservation.port for reservation in reserved]
        for number in range(size):
            port, receiving_port, state_port = ports[3 * number : 3 * number + 3]
            members = f"{HOST}:{ports[0]}" if number else ""
            try:
                nodes.append(make_node(port, receiving_port, state_port, members))
            except MissingServerError as error:
                pytest.skip(str(error))
            stack.enter_context(nodes[-1])
        yield nodes


@pytest.fixture(scope="module")
def galera() -> Iterator[MariaDB]:
    """Run the only node of a cluster."""
    with cluster_of(1) as [node]:
        yield node


@pytest.fixture
def three_nodes() -> Iterator[list[MariaDB]]:
    """Run a cluster of three."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is missing, with which a node is given the state")
    with cluster_of(3) as nodes:
        yield nodes


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


def list_urls(nodes: list[MariaDB]) -> list[str]:
    """Make a database of the cluster, and give its URL at each of the nodes."""
    location = make_url(nodes[0].create_database().url())
    return [render_url(location.set(port=node.port)) for node in nodes]


@pytest.mark.endurance
def test_eight_replicas_over_three_nodes(tmp_path: Path, three_nodes: list[MariaDB]) -> None:
    """Whichever node they reach, one of eight replicas migrates and all end well."""
    app = write_app(tmp_path / "app", [GATED, QUICK])
    urls = list_urls(three_nodes)
    replicas = race_to_the_gate(app, [{"DATABASE_URL": urls[n % 3]} for n in range(8)])
    assert [replica.code for replica in replicas] == [0] * 8
    assert len([replica for replica in replicas if replica.named("migration.applied")]) == 1
    for url in urls:
        assert read_runs(url) == [("r1", "up"), ("r2", "up"), ("r3", "up")]


@pytest.mark.endurance
def test_node_that_leaves_in_the_midst(tmp_path: Path, three_nodes: list[MariaDB]) -> None:
    """With the holder's node gone, one at another node has the lease once it runs out: it ends."""
    app = write_app(tmp_path / "app", [GATED, QUICK])
    urls = list_urls(three_nodes)
    holder = start(app, ("db", "upgrade"), {"DATABASE_URL": urls[2]})
    holder.await_event("Running upgrade r1 -> r2, step 2")
    waiter = start(app, ("db", "upgrade"), {"DATABASE_URL": urls[0]})
    waiter.await_event("lock.waiting")
    three_nodes[2].kill()
    let_go_on(app, "r2")
    lost, done = finish(holder), finish(waiter)
    assert lost.code == 5, lost.events[-1]
    assert done.code == 0, done.events[-1]
    for url in urls[:2]:
        assert read_runs(url) == [("r1", "up"), ("r2", "up"), ("r3", "up")]
