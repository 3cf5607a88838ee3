"""Plays rendered pods with podman, whose `kube play` is near to what a kubelet does.

Not emulated by podman 4.3: restarts, podFailurePolicy, hooks, fsGroup, image volumes, projected
volumes, subPath, and of the downward API all but the name.
"""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from charts import Manifest
from containers import Engine
from servers import HOST, MissingServerError

# cgroups and journald are not every machine's to have; limits above the machine's are refused.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
DOWNWARD = {"metadata.namespace": "shop-namespace", "spec.nodeName": "node-7"}
PLAY_TIMEOUT = 120.0


@dataclass(frozen=True)
class Ended:
    """What a container left behind.

    Args:
        exit_code: its exit code.
        message: its termination message.
        log: what it wrote.
    """

    exit_code: int
    message: str
    log: str

    @property
    def event(self) -> dict[str, Any]:
        """The termination message as the event that it is."""
        return dict(json.loads(self.message))


class Podman:
    """A podman whose images and containers are a folder of this test run."""

    def __init__(self) -> None:
        for program in ("podman", "runc", "conmon", "catatonit"):
            path = "/usr/sbin:/usr/bin:/usr/libexec/podman"
            if not shutil.which(program, path=path):
                raise MissingServerError(f"no {program}: install its Debian package")
        self.folder = Path(tempfile.mkdtemp(prefix="sidecar-podman-"))
        self.folder.chmod(0o755)
        (self.folder / "containers.conf").write_text(CONFIGURATION)
        self._roots = [f"--root={self.folder}/root", f"--runroot={self.folder}/run"]

    def __enter__(self) -> Self:
        """Return itself; podman has no daemon to start."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove every pod and image."""
        self("pod", "rm", "--all", "--force", check=False)
        self("system", "reset", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start `podman`."""
        return subprocess.Popen(
            ["podman", *self._roots, *arguments],
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *arguments: str | Path, stdin: str = "", check: bool = True) -> str:
        """Run `podman` to its end and give its output.

        Args:
            *arguments: its command line.
            stdin: what it reads.
            check: whether a failure is the test's end.
        """
        process = self.start(*arguments)
        output, _ = process.communicate(stdin, timeout=PLAY_TIMEOUT)
        if check and process.returncode:
            raise RuntimeError(f"podman {arguments[0]} failed:\n{output}")
        return output

    def take_image(self, engine: Engine, name: str) -> str:
        """Take an image over from a Docker engine; give its name here."""
        file = self.folder / "image.tar"
        engine("save", "--output", file, name)
        self("load", "--quiet", "--input", file)
        file.unlink()
        self("tag", name, f"localhost/{name}")
        return f"localhost/{name}"

    def create_secret(self, name: str, **data: str) -> None:
        """Make a Secret as `kubectl create secret generic` does."""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self("secret", "create", name, "-", stdin=json.dumps(encoded))


class Pod:
    """One pod of a Deployment or Job.

    Args:
        podman: plays it.
        workload: the rendered Pod, Deployment or Job.
        name: name of the pod.
        folder: for its volumes and termination messages.
        replace: texts to replace in the arguments of its containers, such as a port.
    """

    def __init__(
        self,
        podman: Podman,
        workload: Manifest,
        name: str,
        folder: Path,
        replace: Mapping[str, str] | None = None,
    ) -> None:
        self.podman = podman
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self._replace = replace or {}
        spec = workload["spec"]
        self._file = self.folder / "pod.json"
        self._file.write_text(json.dumps(self._make_manifest(spec.get("template", {"spec": spec}))))

    def __enter__(self) -> Self:
        """Return itself, not yet playing."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove the pod, whatever it does."""
        self.podman("pod", "rm", "--force", "--time=0", self.name, check=False)

    def play(self) -> str:
        """Play until the init containers have ended and the others have started."""
        return self.podman("kube", "play", self._file, check=False)

    @contextmanager
    def playing(self) -> Iterator[subprocess.Popen[str]]:
        """Play beside what the block does, and wait for the end of the init containers."""
        process = self.podman.start("kube", "play", self._file)
        try:
            yield process
            process.communicate(timeout=PLAY_TIMEOUT)
        finally:
            process.kill()
            process.communicate()

    def ended(self, container: str) -> Ended:
        """Wait for the end of a container."""
        code = self.podman("wait", f"{self.name}-{container}")
        message = self.folder / f"{container}.message"
        return Ended(int(code), message.read_text(), self.log(container))

    def log(self, container: str) -> str:
        """Give what a container wrote so far."""
        return self.podman("logs", f"{self.name}-{container}", check=False)

    def has_started(self, container: str) -> bool:
        """Tell whether a container ever ran."""
        form = "{{.State.StartedAt.Unix}}"
        output = self.podman("inspect", "-f", form, f"{self.name}-{container}", check=False)
        return output.strip().isdigit()

    def _make_manifest(self, template: dict[str, Any]) -> dict[str, Any]:
        spec = json.loads(json.dumps(template["spec"]))
        spec |= {"hostNetwork": True, "restartPolicy": "Never"}
        spec["volumes"] = [self._make_volume(volume) for volume in spec.get("volumes", [])]
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            self._adapt(container, spec["volumes"])
        always = {"io.podman.annotations.init.container.type": "always"}
        metadata = {"name": self.name, "annotations": always, "labels": {"played": "yes"}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def _make_volume(self, volume: dict[str, Any]) -> dict[str, Any]:
        """Give an emptyDir a folder that any user may write into, as a kubelet's is."""
        if "emptyDir" not in volume:
            return volume
        folder = self.folder / volume["name"]
        folder.mkdir()
        folder.chmod(0o777)
        return {"name": volume["name"], "hostPath": {"path": str(folder), "type": "Directory"}}

    def _adapt(self, container: dict[str, Any], volumes: list[dict[str, Any]]) -> None:
        container["imagePullPolicy"] = "Never"
        # On the machine's network there is nothing to map.
        container.pop("ports", None)
        for old, new in self._replace.items():
            container["args"] = [text.replace(old, new) for text in container.get("args", [])]
        for variable in container.get("env", []):
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            if field in DOWNWARD:
                variable["value"] = DOWNWARD[field]
                del variable["valueFrom"]
        message = self.folder / f"{container['name']}.message"
        message.touch()
        message.chmod(0o666)
        name = f"message-{container['name']}"
        volumes.append({"name": name, "hostPath": {"path": str(message), "type": "File"}})
        path = container.get("terminationMessagePath", "/dev/termination-log")
        container.setdefault("volumeMounts", []).append({"name": name, "mountPath": path})


def fetch(port: int, timeout: float = 30.0) -> str:
    """Give what an application answers, once it does."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/") as answer:
            return str(answer.read().decode())
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port} within {timeout} s")
