"""How long a start takes when there is nothing to do: pods wait for it on each roll-out."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from containers import Images, Sidecar
from servers import Postgres

pytestmark = pytest.mark.container
pytest_plugins = ["container_fixtures"]

SHOP = Path(__file__).parents[1] / "apps" / "shop"
ROUNDS = 10


def test_an_up_to_date_database_costs_little(
    image: Sidecar, images: Images, postgres: Postgres, figure: Callable[[str, str], None]
) -> None:
    """Median of ten `docker run`, beside that of a Python in the base image that does nothing."""
    env = {"DATABASE_URL": postgres.create_database().url()}
    mounts: dict[Path, str] = {SHOP: "/app:ro"}
    nothing = Sidecar(image.engine, images.base)

    def upgrade() -> None:
        assert image.run("db", "upgrade", env=env, mounts=mounts).returncode == 0

    def do_nothing() -> None:
        done = nothing.run("-c", "pass", more=["--entrypoint", "python3"])
        assert done.returncode == 0

    upgrade()
    names = ("up-to-date upgrade", "python3 -c pass in the base")
    medians = [measure(upgrade), measure(do_nothing)]
    for name, median in zip(names, medians, strict=True):
        figure(f"docker run, {name}", f"{median:.2f} s, median of {ROUNDS}")


def measure(work: Callable[[], None]) -> float:
    """Give the median duration in seconds."""
    durations = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)
