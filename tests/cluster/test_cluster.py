"""The chart on a real cluster: opt-in, by KUBECONFIG.

Needs KUBECONFIG, SIDECAR_IMAGE and SHOP_IMAGE (references that the cluster can pull, the second one
an application with its code in /app), and CLUSTER_DATABASE_URL (an empty PostgreSQL database that
the cluster and this machine reach). Each test has a namespace of its own.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, create_engine, text

from charts import CHART, RenderError, run_helm, tool
from flask_migrate_sidecar import errors

NEEDED = ("KUBECONFIG", "SIDECAR_IMAGE", "SHOP_IMAGE", "CLUSTER_DATABASE_URL")
MISSING = [name for name in NEEDED if not os.environ.get(name)]

pytestmark = [
    pytest.mark.chart,
    # Also with CI set: this project's CI has no cluster, and nobody should think it had.
    pytest.mark.skipif(bool(MISSING), reason=f"no cluster: set {', '.join(MISSING)}"),
]

NAMESPACE_OPTIONS = ("--wait", "--wait-for-jobs", "--timeout", "5m")
Kubectl = Callable[..., Any]


@pytest.fixture
def namespace() -> Iterator[str]:
    """Return a namespace that enforces the "restricted" standard, removed at the end."""
    name = f"sidecar-{uuid4().hex[:8]}"
    run_kubectl("create", "namespace", name)
    run_kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    run_kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(namespace: str) -> Kubectl:
    """Return a function that runs `kubectl` in the namespace, which has the database's Secret."""
    empty_database()
    url = os.environ["CLUSTER_DATABASE_URL"]
    options = ("create", "secret", "generic", "shop-database", "--namespace", namespace)
    run_kubectl(*options, "--from-file=url=/dev/stdin", stdin=url)

    def get(*arguments: str) -> Any:
        return json.loads(run_kubectl("get", *arguments, "-n", namespace, "-o", "json"))

    return get


def run_kubectl(*arguments: str, stdin: str = "") -> str:
    """Run `kubectl` and give its output."""
    return subprocess.run(
        [tool("kubectl"), *arguments], input=stdin, capture_output=True, text=True, check=True
    ).stdout


def empty_database() -> None:
    """Remove what an earlier test left."""
    engine = create_engine(os.environ["CLUSTER_DATABASE_URL"], poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))


def values(**more: Any) -> dict[str, Any]:
    """Give the values for the application, gated by a Job."""
    repository, _, tag = os.environ["SIDECAR_IMAGE"].rpartition(":")
    reference = {"secretKeyRef": {"name": "shop-database", "key": "url"}}
    return {
        "mode": "app",
        "image": {"repository": repository, "tag": tag},
        "app": {"image": os.environ["SHOP_IMAGE"], "strategy": "job"},
        "env": [{"name": "DATABASE_URL", "valueFrom": reference}],
        **more,
    }


def install(namespace: str, given: dict[str, Any], *options: str) -> str:
    """Install or upgrade the release."""
    command = ("upgrade", "--install", "shop", CHART, "--namespace", namespace)
    return run_helm(*command, *NAMESPACE_OPTIONS, *options, values=given)


def count_jobs(get: Kubectl) -> int:
    """Count the Jobs."""
    return len(get("jobs")["items"])


@pytest.mark.parametrize("mode", ["job", "hook", "initContainer", "gate"])
def test_install_and_upgrade_do_not_deadlock(mode: str, namespace: str, kubectl: Kubectl) -> None:
    """`helm install --wait` ends in every mode, and so does an upgrade to other work."""
    strategy = {"initContainer": "initContainer", "gate": "job"}.get(mode)
    app = {"image": os.environ["SHOP_IMAGE"], "strategy": strategy or "job"}
    chosen: dict[str, Any] = {"mode": "app" if strategy else mode, "app": app}
    if not strategy:
        chosen["source"] = {"image": os.environ["SHOP_IMAGE"]}
    install(namespace, values(**chosen))
    install(namespace, values(**chosen))
    install(namespace, values(**chosen, settings={"heartbeat": "29s"}))
    run_helm("test", "shop", "--namespace", namespace)
    assert count_jobs(kubectl) == (0 if mode == "initContainer" else 1)


def test_a_failed_migration_is_not_tried_again(namespace: str, kubectl: Kubectl) -> None:
    """The failure policy sees the exit code: one pod, a failed Job, and a message that says why."""
    with pytest.raises(RenderError):
        install(namespace, values(args=["db", "upgrade", "0123456789ab"]), "--timeout", "2m")
    [job] = kubectl("jobs")["items"]
    reasons = {c["reason"] for c in job["status"]["conditions"] if c["status"] == "True"}
    assert "PodFailurePolicy" in reasons
    [pod] = kubectl("pods", "-l", "app.kubernetes.io/component=migrate")["items"]
    [status] = pod["status"]["containerStatuses"]
    terminated = status["state"]["terminated"]
    assert terminated["exitCode"] == errors.HistoryError.exit_code
    assert json.loads(terminated["message"])["exit_code"] == errors.HistoryError.exit_code


def test_an_unavailable_database_is_tried_again(namespace: str, kubectl: Kubectl) -> None:
    """Exit code 5 counts against the backoff limit instead of failing the Job at once."""
    run_kubectl("delete", "secret", "shop-database", "-n", namespace)
    options = ("create", "secret", "generic", "shop-database", "--namespace", namespace)
    run_kubectl(*options, "--from-literal=url=postgresql://u:p@127.0.0.1:1/d")
    given = values(settings={"waitTimeout": "1s"}, job={"backoffLimit": 2})
    with pytest.raises(RenderError):
        install(namespace, given, "--timeout", "3m")
    await_pods(kubectl, count=3)


def test_a_rollback_starts(namespace: str, kubectl: Kubectl) -> None:
    """`helm rollback` brings the earlier Job back by its name, and nothing is in its way."""
    install(namespace, values())
    [before] = kubectl("jobs")["items"]
    install(namespace, values(settings={"heartbeat": "29s"}))
    run_helm("rollback", "shop", "1", "--namespace", namespace, *NAMESPACE_OPTIONS)
    [after] = kubectl("jobs")["items"]
    assert after["metadata"]["name"] == before["metadata"]["name"]


def await_pods(get: Kubectl, count: int, timeout: float = 180.0) -> None:
    """Return once so many pods of the Job have failed."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pods = get("pods", "-l", "app.kubernetes.io/component=migrate")["items"]
        if sum(pod["status"]["phase"] == "Failed" for pod in pods) >= count:
            return
        time.sleep(1)
    pytest.fail(f"not {count} failed pods within {timeout} s")
