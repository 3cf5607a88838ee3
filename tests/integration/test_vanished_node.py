"""A node that vanishes sends no word: neither end of a connection waits for the other for hours.

By hand, as root, with `pytest -m endurance --log-cli-level info`, which tells how long each took.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import make_url

from conftest import clean_environment
from racing import GATED, finish, let_go_on, read_runs, start, write_app
from servers import Postgres, postgres15_programs, render_url
from sidecar_runs import Line

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root, and iproute2"
    ),
]

logger = logging.getLogger(__name__)

SERVER, NODE = "10.213.77.1", "10.213.77.2"
LONG = "    op.execute('SELECT pg_sleep(3600)')"


@dataclass
class Link:
    """The link between this machine and a node of its own.

    Args:
        name: of its end here; the node's namespace has it too.
    """

    name: str

    def cut(self) -> None:
        """Let nothing through any more, and nobody know of it."""
        ip("link", "set", self.name, "down")

    @contextmanager
    def upgrading(self, folder: Path, url: str) -> Iterator["subprocess.Popen[str]"]:
        """Run an upgrade on the node, until the end of the block at the latest."""
        run = subprocess.Popen(
            [
                *("ip", "netns", "exec", self.name),
                *(sys.executable, "-m", "flask_migrate_sidecar", "db", "upgrade"),
            ],
            cwd=folder,
            env={**clean_environment(), "DATABASE_URL": url},
            stderr=subprocess.PIPE,
            text=True,
        )
        with run:
            try:
                yield run
            finally:
                run.kill()


def ip(*words: str) -> None:
    """Change the network."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def await_event(run: "subprocess.Popen[str]", event: str) -> Line:
    """Read the log of a run on the node up to an event; an empty name means the last one."""
    assert run.stderr is not None
    line: Line = {}
    for text in run.stderr:
        line = json.loads(text)
        if line["event"].startswith(event) and event:
            break
    return line


@pytest.fixture
def link() -> Iterator[Link]:
    """Make a node: a network namespace with an address of its own."""
    name = f"test{os.getpid()}"[:15]
    with ExitStack() as stack:
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "there", "netns", name)
        # It goes with the namespace, but not at once.
        stack.callback(ip, "link", "del", name)
        ip("addr", "add", f"{SERVER}/24", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "addr", "add", f"{NODE}/24", "dev", "there")
        ip("-n", name, "link", "set", "there", "up")
        yield Link(name)


@pytest.fixture
def server() -> Iterator[Postgres]:
    """Run a PostgreSQL that others reach."""
    with Postgres(postgres15_programs(), {"listen_addresses": "*"}) as postgres:
        with (postgres.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NODE}/32 scram-sha-256\n")
        postgres.execute("SELECT pg_reload_conf()")
        yield postgres


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_lock_of_a_node_that_vanishes(
    driver: str, server: Postgres, link: Link, tmp_path: Path
) -> None:
    """The next one holds the lock once the server has noticed, and does the work."""
    app = write_app(tmp_path / "app", [GATED])
    here = make_url(server.create_database().url(driver))
    with link.upgrading(app, render_url(here.set(host=SERVER))) as holder:
        await_event(holder, "Running upgrade r1 -> r2")
        waiter = start(app, ("db", "upgrade"), {"DATABASE_URL": render_url(here)})
        waiter.await_event("lock.waiting")
        link.cut()
        began = monotonic()
        waiter.await_event("lock.acquired")
        logger.info("%s: the lock was free after %.0f s", driver, monotonic() - began)
        let_go_on(app, "r2")
        assert finish(waiter).code == 0
        last = await_event(holder, "")
        logger.info("%s: who was cut off ended after %.0f s", driver, monotonic() - began)
        assert holder.wait() == last["exit_code"] == 5, last
    assert read_runs(render_url(here)) == [("r1", "up"), ("r2", "up")]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_statement_whose_server_vanishes(
    driver: str, server: Postgres, link: Link, tmp_path: Path
) -> None:
    """A statement of hours ends the run once nobody answers any more: 5."""
    app = write_app(tmp_path / "app", [LONG])
    here = make_url(server.create_database().url(driver))
    with link.upgrading(app, render_url(here.set(host=SERVER))) as run:
        await_event(run, "Running upgrade r1 -> r2")
        link.cut()
        began = monotonic()
        last = await_event(run, "")
        logger.info("%s: the statement ended after %.0f s", driver, monotonic() - began)
        assert run.wait() == last["exit_code"] == 5, last
