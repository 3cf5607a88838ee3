"""Show 4: how soon do waiters notice that their server is up?

Waiters start, each in a process of its own; some seconds later their PostgreSQL starts. An ordinary
client knocks every 2 ms; the time from its first login to each waiter's `database.ready` is what
waiting costs beyond the server's own start.

    python tests/benchmarks/wait_latency.py --waiters 10 --rounds 5 --delay 5 --driver psycopg
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
from sqlalchemy import make_url

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import Postgres, postgres15_programs

# The monotonic clock counts from the machine's start, for all processes alike.
WAITER = """
import sys, time
import structlog
from sqlalchemy import make_url
from flask_migrate_sidecar.database.connect import Database
from flask_migrate_sidecar.database.wait import wait_for_databases

def note(logger, method, event):
    if event["event"] == "database.ready":
        print(time.monotonic(), event["elapsed"], file=sys.stderr, flush=True)
    return str(event)

structlog.configure(processors=[note], logger_factory=structlog.PrintLoggerFactory(sys.stdout))
databases = [Database("default", make_url(sys.argv[1]))]
wait_for_databases(databases, timeout=60, connect_timeout=5, refused_grace=10, writes=True)
"""


def main() -> None:
    """Run the rounds and print median and worst."""
    options = _read_options()
    latencies: list[float] = []
    with Postgres(postgres15_programs()) as server:
        for number in range(1, options.rounds + 1):
            found = _run_round(server, options.waiters, options.delay, options.driver)
            latencies += found
            sys.stdout.write(f"round {number}: {_summary(found)}\n")
    sys.stdout.write(f"all: {_summary(latencies)}\n")


def _run_round(server: Postgres, waiters: int, delay: float, driver: str) -> list[float]:
    server.stop()
    place = make_url(server.admin_url).set(drivername=f"postgresql+{driver}")
    command = [sys.executable, "-c", WAITER, place.render_as_string(hide_password=False)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(waiters)
    ]
    time.sleep(delay)
    logins: list[float] = []
    knocker = threading.Thread(target=lambda: logins.append(_await_first_login(server)))
    knocker.start()
    server.start()
    knocker.join()
    ends = [process.communicate(timeout=60)[1].split() for process in processes]
    return [float(ready) - logins[0] for ready, _ in ends]


def _await_first_login(server: Postgres) -> float:
    place = server.admin_url.replace("+psycopg", "")
    while True:
        with suppress(psycopg.OperationalError), psycopg.connect(place):
            return time.monotonic()
        time.sleep(0.002)


def _summary(latencies: list[float]) -> str:
    return (
        f"{len(latencies)} waiters, from first login to database.ready:"
        f" median {statistics.median(latencies):.3f} s, worst {max(latencies):.3f} s"
    )


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay", type=float, default=5.0, help="seconds until the server starts")
    parser.add_argument("--driver", choices=["psycopg", "psycopg2"], default="psycopg")
    return parser.parse_args()


if __name__ == "__main__":
    main()
