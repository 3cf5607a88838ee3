"""What rendered pods do when they are run: podman plays them on a real database."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

import servers
from charts import EXAMPLES, Manifest, build_consumer, find, render
from containers import Images, await_true
from flask_migrate_sidecar import errors
from pods import Pod, Podman, fetch
from servers import MissingServerError, Postgres

pytestmark = [pytest.mark.chart, pytest.mark.container]
pytest_plugins = ["container_fixtures"]

SHOP = Path(__file__).parents[1] / "apps" / "shop"
PORT = "8000"
SERVE = ["flask", "run", "--host", "127.0.0.1", "--port", PORT]
DOCKERFILE = """
ARG BASE
FROM $BASE
COPY app /app
COPY packages /packages
ENTRYPOINT []
"""
REVISION = """
from alembic import op
revision = {revision!r}
down_revision = {down!r}
def upgrade():
    op.execute({sql!r})
def downgrade():
    pass
"""
# Name of each image by the SQL of a last revision that only it has.
LATER = {"shop:1": "", "shop:2": "CREATE TABLE later (id int)", "shop:broken": "SELECT 1/0"}

Make = Callable[..., Pod]


@pytest.fixture(scope="module")
def podman(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Run a podman that has the image under test and three versions of an application's."""
    try:
        podman = Podman()
    except MissingServerError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    with podman:
        podman.take_image(images.engine, images.sidecar)
        for number, (name, sql) in enumerate(LATER.items()):
            context = tmp_path_factory.mktemp(f"image{number}")
            write_context(context, sql)
            images.build(name, context, BASE=images.sidecar)
            podman.take_image(images.engine, name)
        yield podman


def write_context(context: Path, sql: str) -> None:
    """Write an application that needs a package of its own, and perhaps one more revision."""
    ignore = shutil.ignore_patterns("__pycache__", "instance")
    app = Path(shutil.copytree(SHOP, context / "app", ignore=ignore))
    (app / "app.py").write_text("import shop_extras\n" + (app / "app.py").read_text())
    (context / "packages").mkdir()
    (context / "packages" / "shop_extras.py").write_text("")
    (context / "Dockerfile").write_text(DOCKERFILE)
    if sql:
        head = head_of(app)
        body = REVISION.format(revision="1a2b3c4d5e6f", down=head, sql=sql)
        (app / "migrations" / "versions" / "1a2b3c4d5e6f_later.py").write_text(body)


def head_of(app: Path) -> str:
    """Tell the newest revision of an application."""
    config = Config()
    config.set_main_option("script_location", str(app / "migrations"))
    config.set_main_option("path_separator", "os")
    return str(ScriptDirectory.from_config(config).get_current_head())


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """Return the URL of an empty database."""
    database = postgres.create_database()
    yield database.url("psycopg")
    postgres.drop_database(database.name)


@pytest.fixture
def secret(podman: Podman, url: str) -> Iterator[str]:
    """Return the name of a Secret with the URL."""
    podman.create_secret("shop-database", url=url)
    yield "shop-database"
    podman("secret", "rm", "shop-database")


@pytest.fixture
def make_pod(podman: Podman, tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes a pod of a workload, removed at the end of the test."""
    with ExitStack() as stack:

        def make(workload: Manifest, name: str, port: int = 0) -> Pod:
            replace = {PORT: str(port)} if port else {}
            return stack.enter_context(Pod(podman, workload, name, tmp_path, replace))

        yield make


def values(image: str = "shop:1", *, strategy: str = "initContainer", **more: Any) -> Manifest:
    """Give the values for an application, with its code copied from its image."""
    reference = {"secretKeyRef": {"name": "shop-database", "key": "url"}}
    variables = [
        {"name": "DATABASE_URL", "valueFrom": reference},
        {"name": "PYTHONPATH", "value": "/packages"},
    ]
    return {
        "mode": "app",
        "image": {"repository": "localhost/flask-migrate-sidecar", "tag": "test"},
        "source": {"sitePackages": "/packages"},
        "database": reference,
        "app": {
            "image": f"localhost/{image}",
            "strategy": strategy,
            "args": SERVE,
        },
        "env": variables,
        **more,
    }


def deployment(image: str = "shop:1", **more: Any) -> Manifest:
    """Render the Deployment of an application."""
    return find(render(values(image, **more)), "Deployment")


def tables(url: str) -> set[str]:
    """List the tables of a database."""
    return set(inspect(create_engine(url, poolclass=NullPool)).get_table_names())


def revision(url: str) -> str:
    """Read the current revision."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


@pytest.mark.usefixtures("secret")
def test_the_init_container_migrates_and_the_app_starts(make_pod: Make, url: str) -> None:
    """An empty database is migrated, then the application answers; the log names the pod."""
    port = servers._free_port()  # noqa: SLF001
    pod = make_pod(deployment(), "first", port)
    output = pod.play()
    ended = pod.ended("migrate")
    assert ended.exit_code == 0, output + ended.log
    assert ended.event["event"] == "command.finished"
    assert ended.event["pod"] == "first"
    assert ended.event["namespace"] == "shop-namespace"
    assert ended.event["node"] == "node-7"
    assert "product" in tables(url)
    assert fetch(port) == "{}\n"


FAILURES: dict[type[errors.SidecarError], dict[str, Any]] = {
    errors.ConfigurationError: {"settings": {"lock": "file"}},
    errors.AppError: {"settings": {"app": "nowhere:app"}},
    errors.UnavailableError: {"settings": {"waitTimeout": "0"}},
    errors.RefusedError: {"settings": {"refusedGrace": "0"}},
    errors.MigrationError: {},
    errors.HistoryError: {"args": ["db", "upgrade", "0123456789ab"]},
}


@pytest.mark.parametrize("kind", FAILURES, ids=lambda kind: kind.name)
def test_a_failed_migration_keeps_the_app_down(
    kind: type[errors.SidecarError], podman: Podman, make_pod: Make, url: str
) -> None:
    """The application does not start, and exit code and termination message say why."""
    location = make_url(url)
    wrong = {
        errors.UnavailableError: location.set(port=servers._free_port()),  # noqa: SLF001
        errors.RefusedError: location.set(password="not-the-password"),
    }.get(kind, location)
    image = "shop:broken" if kind is errors.MigrationError else "shop:1"
    podman.create_secret("shop-database", url=wrong.render_as_string(hide_password=False))
    try:
        pod = make_pod(deployment(image, **FAILURES[kind]), "failing", 1)
        pod.play()
        ended = pod.ended("migrate")
    finally:
        podman("secret", "rm", "shop-database")
    assert ended.exit_code == kind.exit_code, ended.log
    assert ended.event["exit_code"] == kind.exit_code
    assert ended.event["error"]["message"]
    assert "not-the-password" not in ended.message + ended.log
    assert str(location.password) not in ended.message + ended.log
    assert not pod.has_started("app")


@pytest.mark.usefixtures("secret")
def test_three_pods_at_once_all_start(make_pod: Make, url: str) -> None:
    """Replicas race for one database: one migrates, the others have nothing to do, all answer."""
    ports = [servers._free_port() for _ in range(3)]  # noqa: SLF001
    pods = [make_pod(deployment(), f"replica-{port}", port) for port in ports]
    with ExitStack() as stack:
        for pod in pods:
            stack.enter_context(pod.playing())
    ended = [pod.ended("migrate") for pod in pods]
    assert [end.exit_code for end in ended] == [0, 0, 0], "".join(end.log for end in ended)
    assert sum(bool(end.event["applied"]) for end in ended) == 1
    assert [fetch(port) for port in ports] == ["{}\n"] * 3
    assert "product" in tables(url)


@pytest.mark.usefixtures("secret", "url")
def test_pods_that_wait_start_once_the_job_has_finished(make_pod: Make) -> None:
    """With app.strategy job the gate needs no rights in the cluster: the database tells."""
    rendered = render(values(strategy="job"))
    port = servers._free_port()  # noqa: SLF001
    waiting = make_pod(find(rendered, "Deployment"), "waiting", port)
    job = make_pod(find(rendered, "Job"), "job")
    with waiting.playing():
        await_true(lambda: waiting.has_started("wait-for-migrations"))
        assert not waiting.has_started("app")
        job.play()
        ended = job.ended("migrate")
        assert ended.exit_code == 0, ended.log
    gate = waiting.ended("wait-for-migrations")
    assert gate.exit_code == 0, gate.log
    assert gate.event["event"] == "command.finished"
    assert fetch(port) == "{}\n"


@pytest.mark.usefixtures("secret")
def test_an_older_image_starts_under_a_newer_database(make_pod: Make, url: str) -> None:
    """A rollback of the image must not crash-loop: `ifAhead: ignore` lets the older code start."""
    newer = make_pod(find(render(values("shop:2", strategy="job")), "Job"), "newer")
    newer.play()
    assert newer.ended("migrate").exit_code == 0
    assert revision(url) == "1a2b3c4d5e6f"

    refused = make_pod(deployment(), "refused", 1)
    refused.play()
    assert refused.ended("migrate").exit_code == errors.HistoryError.exit_code
    assert not refused.has_started("app")

    port = servers._free_port()  # noqa: SLF001
    older = make_pod(deployment(settings={"ifAhead": "ignore"}), "older", port)
    older.play()
    ended = older.ended("migrate")
    assert ended.exit_code == 0, ended.log
    assert fetch(port) == "{}\n"
    assert revision(url) == "1a2b3c4d5e6f"


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("gate", [False, True], ids=["initContainer", "waitContainer"])
def test_a_chart_that_embeds_the_templates_plays(
    make_pod: Make, url: str, consumer: Path, gate: bool
) -> None:
    """The example chart takes the named templates from its dependency, and its pods start."""
    given = values()
    own = {key: given[key] for key in ("image", "database", "env")}
    source = {"image": "localhost/shop:1", "sitePackages": "/packages"}
    mode = "job" if gate else "library"
    rendered = render(
        {
            "image": "localhost/shop:1",
            "args": SERVE,
            "env": given["env"],
            "gate": gate,
            "flask-migrate-sidecar": {**own, "source": source, "mode": mode},
        },
        chart=consumer,
    )
    port = servers._free_port()  # noqa: SLF001
    pod = make_pod(find(rendered, "Deployment"), "consumer", port)
    if gate:
        job = make_pod(find(rendered, "Job"), "job")
        job.play()
        assert job.ended("migrate").exit_code == 0
    pod.play()
    ended = pod.ended("wait-for-migrations" if gate else "migrate")
    assert ended.exit_code == 0, ended.log
    assert "product" in tables(url)
    assert fetch(port) == "{}\n"


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example chart with its dependency resolved by `helm dependency build`."""
    return build_consumer(tmp_path_factory.mktemp("consumer"))


@pytest.mark.usefixtures("secret")
def test_the_podman_example_plays(make_pod: Make, url: str) -> None:
    """The example for `podman kube play` runs as it stands, its images and port aside."""
    manifest = (EXAMPLES / "podman" / "pod.yaml").read_text()
    manifest = manifest.replace("registry.example.com/shop:1.4.0", "localhost/shop:1")
    manifest = re.sub(
        r"image: flask-migrate-sidecar:\S+", "image: localhost/flask-migrate-sidecar:test", manifest
    )
    manifest = manifest.replace("/usr/local/lib/python3.13/site-packages", "/packages")
    pod = make_pod(yaml.safe_load(manifest), "example")
    pod.play()
    ended = pod.ended("migrate")
    assert ended.exit_code == 0, ended.log
    assert "product" in tables(url)
