"""Both ends of a connection notice that the other one is gone, or was never there."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest
from sqlalchemy import NullPool, create_engine, text

from conftest import RunCommand
from racing import GATED, finish, let_go_on, start, write_app
from servers import DRIVERS, Database, Server
from sidecar_runs import prepend, read_log

# The kernel counts a timer of a socket in hundredths of a second (proc(5), /proc/net/tcp).
HUNDREDTHS = os.sysconf("SC_CLK_TCK")
RETRANSMIT_TIMER, KEEPALIVE_TIMER = 1, 2


def read_timers(pid: int, port: int) -> list[tuple[int, float]]:
    """Give kind and seconds of the timers of a process's connections to a port."""
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        target = str(path.readlink())
        if target.startswith("socket:["):
            sockets.add(target.removeprefix("socket:[").removesuffix("]"))
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].partition(":")[2], 16) == port and fields[9] in sockets:
            kind, _, ticks = fields[5].partition(":")
            found.append((int(kind, 16), int(ticks, 16) / HUNDREDTHS))
    return found


@pytest.mark.parametrize("driver", DRIVERS)
def test_client_asks_whether_the_server_is_there(
    driver: str, server: Server, database: Database, tmp_path: Path
) -> None:
    """Every connection of a run, the migrating one too, asks for signs of life within 15 s."""
    app = write_app(tmp_path / "app", [GATED])
    run = start(app, ("db", "upgrade"), {"DATABASE_URL": database.url(driver)})
    run.await_event("migration.applied")
    # As long as an answer is on its way that is what the kernel waits for.
    while RETRANSMIT_TIMER in dict(timers := read_timers(run.process.pid, server.port)):
        sleep(0.01)
    let_go_on(app, "r2")
    assert finish(run).code == 0
    # The lock's, and the one that migrates.
    assert len(timers) == 2
    assert {kind for kind, _ in timers} == {KEEPALIVE_TIMER}
    assert max(seconds for _, seconds in timers) <= 15


ASK = """\
    rows = op.get_bind().exec_driver_sql(
        "SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_keepalives_idle'"
        " OR name LIKE 'client_connection%%'"
    )
    for row in rows:
        op.execute(f"INSERT INTO ran VALUES ('{row[1]}', '{row[0][:20]}')")
"""


@pytest.mark.parametrize("mode", ["plain", "per migration", "autocommit", "own"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_server_asks_whether_the_client_is_there(
    driver: str, mode: str, database: Database, tmp_path: Path
) -> None:
    """PostgreSQL does so on the migrating connection, unless somebody has set it otherwise."""
    app = write_app(tmp_path / "app", [ASK])
    env_py = app / "migrations" / "env.py"
    plain = "context.configure(connection=connection, "
    if mode == "per migration":
        source = env_py.read_text()
        env_py.write_text(source.replace(plain, f"{plain}transaction_per_migration=True, "))
    url = database.url(driver)
    if mode == "own":
        url += "?options=-ctcp_keepalives_idle%3D99"
    if mode == "autocommit":
        options = 'app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"isolation_level": "AUTOCOMMIT"}'
        source = (app / "app.py").read_text()
        (app / "app.py").write_text(
            source.replace("    db.init_app", f"    {options}\n    db.init_app")
        )
    assert finish(start(app, ("db", "upgrade"), {"DATABASE_URL": url})).code == 0
    engine = create_engine(database.url(), poolclass=NullPool)
    with engine.connect() as connection:
        said = connection.execute(
            text("SELECT direction, revision FROM ran WHERE direction != 'up'")
        )
        found = {row[0]: row[1] for row in said}
    assert found["tcp_keepalives_idle"] == ("99" if mode == "own" else "15")
    assert found["client_connection_ch"] == "5000"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("driver", DRIVERS)
def test_connection_of_env_py_to_nowhere(
    driver: str, copy_app: Callable[[str], Path], launch: RunCommand
) -> None:
    """`--connect-timeout` holds for what `env.py` connects to by itself, too."""
    if driver == "mysqldb":
        pytest.importorskip("MySQLdb")
    shop = copy_app("shop")
    scheme = "postgresql" if DRIVERS[driver] == "postgres" else "mysql"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"{scheme}+{driver}://u:p@127.0.0.1:{silent.getsockname()[1]}/x"
        prepend(
            shop / "migrations" / "env.py",
            f"from sqlalchemy import create_engine\ncreate_engine({place!r}).connect()\n",
        )
        result = launch(shop, "--connect-timeout", "1", "db", "upgrade")
    last = read_log(result.stderr)[-1]
    assert result.returncode == last["exit_code"] == 5


SLEEP = {"postgres": "SELECT pg_sleep(1.5)", "mariadb": "SELECT sleep(1.5)"}


@pytest.mark.parametrize("driver", DRIVERS)
def test_statement_that_takes_longer_than_connecting(
    driver: str, database: Database, tmp_path: Path, launch: RunCommand
) -> None:
    """A limit for connecting is none for what runs on the connection."""
    app = write_app(tmp_path / "app", [f'    op.execute("{SLEEP[DRIVERS[driver]]}")\n'])
    env = {"DATABASE_URL": database.url(driver)}
    result = launch(app, "--connect-timeout", "1", "db", "upgrade", env=env)
    assert result.returncode == 0, result.stderr
