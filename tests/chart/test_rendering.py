"""What the chart renders: valid for each Kubernetes, and true to the sidecar's own contract."""

import json
import re
from collections import Counter
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from charts import (
    CHART,
    DATABASE,
    EXAMPLES,
    FIRST_WITH_IMAGES,
    MODES,
    NEWEST,
    OLDEST,
    SOURCES,
    Manifest,
    build_consumer,
    containers_of,
    find,
    pod_of,
    render,
    run_helm,
    values_of,
    workloads,
)
from flask_migrate_sidecar import errors
from flask_migrate_sidecar.errors import SidecarError
from flask_migrate_sidecar.settings.options import SETTINGS

pytestmark = pytest.mark.chart

VALUES: Manifest = yaml.safe_load((CHART / "values.yaml").read_text())
README = (CHART / "README.md").read_text()
CLASSES: list[type[SidecarError]] = [SidecarError, *SidecarError.__subclasses__()]
# The one default that differs from the code's, by its variable.
NAMED_DIFFERENCE = {"MIGRATE_LOCK_TIMEOUT": "2m"}
KUBERNETES = {"MIGRATE_APP", "MIGRATE_APP_DIR", "MIGRATE_DIRECTORY", "MIGRATE_SITE_PACKAGES"}

every_mode = pytest.mark.parametrize("mode", MODES)
every_source = pytest.mark.parametrize("source", SOURCES)


def job_of(**values: Any) -> Manifest:
    """Render the Job."""
    return find(render(values_of("job", "copy", **values)), "Job")


def env_of(container: Manifest) -> dict[str, Manifest]:
    """Give the variables of a container by name."""
    return {variable["name"]: variable for variable in container["env"]}


def sidecars_of(manifests: list[Manifest]) -> list[Manifest]:
    """Give the containers that run the sidecar."""
    names = {"migrate", "wait-for-migrations", "wait-head"}
    found = [c for workload in workloads(manifests) for c in containers_of(workload)]
    return [container for container in found if container["name"] in names]


@every_mode
def test_lint_finds_nothing(mode: str) -> None:
    """`helm lint --strict` passes for every mode, and for the values as they are shipped."""
    assert "0 chart(s) failed" in run_helm("lint", "--strict", CHART)
    assert "0 chart(s) failed" in run_helm(
        "lint", "--strict", CHART, values=values_of(mode, "copy")
    )


@every_mode
@every_source
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_what_is_rendered_is_valid(mode: str, source: str, version: str) -> None:
    """Every mode with every source is valid for the oldest and the newest Kubernetes."""
    if source == "image" and version == OLDEST:
        version = FIRST_WITH_IMAGES
    more = {"networkPolicy": {"enabled": mode != "init"}}
    manifests = render(values_of(mode, source, **more), version=version)
    assert bool(manifests) == (mode != "library")
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version.rpartition(".")[0], strict=True)
    for workload in workloads(manifests):
        check_pod(workload)


def check_pod(workload: Manifest) -> None:
    """Assert what the schemas of Kubernetes do not know."""
    pod = pod_of(workload)
    containers = containers_of(workload)
    names = Counter(container["name"] for container in containers)
    assert set(names.values()) == {1}
    volumes = Counter(volume["name"] for volume in pod["volumes"])
    assert set(volumes.values()) == {1}
    assert pod.get("restartPolicy", "Always") in {"Always", "Never"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in containers:
        check_container(container, set(volumes))
    if policy := workload["spec"].get("podFailurePolicy"):
        assert pod["restartPolicy"] == "Never"
        check_failure_policy(policy["rules"], set(names))


def check_container(container: Manifest, volumes: set[str]) -> None:
    """Assert the "restricted" standard, a read-only root, and that names are no one's twice."""
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["imagePullPolicy"] in {"Always", "IfNotPresent", "Never"}
    variables = Counter(variable["name"] for variable in container.get("env", []))
    assert not variables or set(variables.values()) == {1}
    mounts = container.get("volumeMounts", [])
    assert {mount["name"] for mount in mounts} <= volumes
    paths = Counter(mount["mountPath"] for mount in mounts)
    assert not paths or set(paths.values()) == {1}
    if "terminationMessagePolicy" in container:
        assert container["terminationMessagePolicy"] in {"File", "FallbackToLogsOnError"}


def check_failure_policy(rules: list[Manifest], containers: set[str]) -> None:
    """Assert what the API server asks of the rules."""
    assert len(rules) <= 20
    assert {rule["action"] for rule in rules} <= {"Ignore", "FailJob", "Count"}
    for rule in rules:
        if on_codes := rule.get("onExitCodes"):
            assert on_codes["containerName"] in containers
            assert on_codes["operator"] == "In"
            assert on_codes["values"] == sorted(set(on_codes["values"]))
            assert 0 not in on_codes["values"]


def test_exit_codes_are_those_of_the_code() -> None:
    """The Job fails at once on what no retry helps, in order and after disruptions."""
    hopeless = sorted(kind.exit_code for kind in CLASSES if kind.retry == "no")
    assert hopeless == [2, 3, 4, 6, 8, 9]
    first, second = job_of()["spec"]["podFailurePolicy"]["rules"]
    assert first["action"] == "Ignore"
    assert first["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert second["action"] == "FailJob"
    assert second["onExitCodes"]["values"] == hopeless


def test_exit_codes_are_sorted_whatever_is_given() -> None:
    """The API server refuses them otherwise; and 10 comes after 9."""
    job = job_of(job={"podFailurePolicy": {"failOn": [10, 9, 2, 143], "ignoreDisruptions": False}})
    [rule] = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2, 9, 10, 143]


@every_mode
@every_source
def test_each_variable_is_a_setting(mode: str, source: str) -> None:
    """A variable that the sidecar does not know would be a wish that nothing grants."""
    known = {setting.variable for setting in SETTINGS}
    files = {f"{variable}_FILE" for variable in known}
    binds = {"audit": DATABASE, "old-data": {"secretFile": {"name": "old", "key": "url"}}}
    for container in sidecars_of(render(values_of(mode, source, binds=binds))):
        own = {name for name in env_of(container) if name.startswith("MIGRATE_")}
        urls = {"MIGRATE_DATABASE_URL__AUDIT", "MIGRATE_DATABASE_URL__OLD_DATA_FILE"}
        assert urls <= own
        assert own - urls <= known | files


def test_each_setting_is_a_value() -> None:
    """Whatever the sidecar can be told, the chart can tell it; URLs come from Secrets."""
    snake = {re.sub("([A-Z])", r"_\1", key).lower() for key in VALUES["settings"]}
    assert snake == {setting.name for setting in SETTINGS if not setting.secret}


def test_defaults_are_those_of_the_code() -> None:
    """Each setting means in the chart what it means elsewhere, but the one that is named."""
    [container] = sidecars_of([job_of()])
    env = env_of(container)
    for setting in SETTINGS:
        if setting.variable in KUBERNETES or setting.secret:
            continue
        value = env[setting.variable]["value"] if setting.variable in env else None
        expected = NAMED_DIFFERENCE.get(setting.variable)
        if expected is None:
            assert value is None or setting.parse(value) == setting.default, setting.name
            assert (value is None) == (setting.default is None), setting.name
        else:
            assert value == expected
            assert setting.parse(value) != setting.default


def test_a_number_is_a_duration() -> None:
    """Helm gives numbers as floats: 1200000 must not become 1.2e+06, nor 0 nothing."""
    settings = {"waitTimeout": 0, "heartbeat": 1200000}
    [container] = sidecars_of([job_of(settings=settings)])
    assert env_of(container)["MIGRATE_WAIT_TIMEOUT"]["value"] == "0"
    assert env_of(container)["MIGRATE_HEARTBEAT"]["value"] == "1200000"


def test_the_job_is_named_after_its_work() -> None:
    """The same work is the same Job, other work is another one: none is ever changed."""
    name = job_of()["metadata"]["name"]
    assert job_of()["metadata"]["name"] == name
    assert job_of(job={"annotations": {"a": "b"}})["metadata"]["name"] == name
    changes: list[dict[str, Any]] = [
        {"image": {"tag": "0.2.0"}},
        {"args": ["db", "upgrade", "abc"]},
        {"settings": {"lockTimeout": "3m"}},
        {"job": {"backoffLimit": 1}},
        {"env": [{"name": "A", "value": "b"}]},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"trigger": "2"},
        {"labels": {"team": "shop"}},
    ]
    names = {job_of(**change)["metadata"]["name"] for change in changes}
    assert len(names | {name}) == len(changes) + 1


def test_no_name_is_too_long() -> None:
    """A Job's name is a label of its pods, of 63 characters at most."""
    manifests = render(values_of("job", "copy"), release="r" * 53)
    assert len(find(manifests, "Job")["metadata"]["name"]) <= 63


def test_a_plain_job_is_no_hook() -> None:
    """Hooks are what deadlocks `--wait` and is overlooked by Argo CD; and nothing kills the Job."""
    job = job_of()
    assert "annotations" not in job["metadata"]
    assert "activeDeadlineSeconds" not in job["spec"]
    assert "ttlSecondsAfterFinished" not in job["spec"]
    limits = {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 0}
    spec = job_of(job=limits)["spec"]
    assert {key: spec[key] for key in limits} == limits


def test_annotations_of_the_hook_can_be_replaced() -> None:
    """Argo CD wants its own; a null takes one of Helm's away."""
    annotations = find(render(values_of("hook", "copy")), "Job")["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation"
    other = {"helm.sh/hook": None, "argocd.argoproj.io/hook": "PreSync"}
    manifests = render(values_of("hook", "copy", hook={"annotations": other}))
    annotations = find(manifests, "Job")["metadata"]["annotations"]
    assert "helm.sh/hook" not in annotations
    assert annotations["argocd.argoproj.io/hook"] == "PreSync"


def test_a_url_comes_from_a_secret_only() -> None:
    """A key is a reference, a file is a mounted Secret; neither is in the specification."""
    [container] = sidecars_of([job_of()])
    reference = env_of(container)["MIGRATE_DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "shop-database", "key": "url"}

    files = {"secretFile": {"name": "shop-database", "key": "url"}}
    job = find(render({**values_of("job", "copy"), "database": files}), "Job")
    [container] = sidecars_of([job])
    path = env_of(container)["MIGRATE_DATABASE_URL_FILE"]["value"]
    [mount] = [m for m in container["volumeMounts"] if path.startswith(m["mountPath"] + "/")]
    [volume] = [v for v in pod_of(job)["volumes"] if v["name"] == mount["name"]]
    [source] = volume["projected"]["sources"]
    [item] = source["secret"]["items"]
    assert path == f"{mount['mountPath']}/{item['path']}"
    assert item["key"] == "url"


def test_packages_follow_along() -> None:
    """Where the application's packages are outside of its folder, the sidecar sees them too."""
    for source in ("image", "copy", "pvc"):
        [container] = sidecars_of([find(render(values_of("job", source)), "Job")])
        assert env_of(container)["MIGRATE_SITE_PACKAGES"]["value"] == "/site-packages"
        assert "/site-packages" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_notes_explain_each_exit_code() -> None:
    """Who installs the chart reads what the codes mean, and whether the Job tries again."""
    notes = run_helm(
        *("install", "shop", CHART, "--dry-run=client"),
        values=values_of("job", "copy"),
    ).partition("NOTES:")[2]
    assert "kubectl -n default logs -f job/shop-flask-migrate-sidecar-" in notes
    rows = re.findall(r"^  (\d+) +(\w+):.*?  +(again|no)\b", notes, re.MULTILINE)
    shown = {int(code): (name, again) for code, name, again in rows}
    for kind in CLASSES:
        if kind is not errors.PendingError:
            again = "no" if kind.retry == "no" else "again"
            assert shown[kind.exit_code] == (kind.name, again)


def leaves(values: Manifest, prefix: str = "") -> set[str]:
    """Give the dotted names of all values."""
    found: set[str] = set()
    for key, value in values.items():
        name = f"{prefix}{key}"
        is_open = name.endswith(("ontext", "nnotations"))
        nested = isinstance(value, dict) and value and not is_open
        found |= leaves(value, f"{name}.") if nested else {name}
    return found


def test_the_readme_has_each_value() -> None:
    """Each value has one row, and no row is without its value."""
    rows = re.findall(r"^\| `([\w.]+)` \|", README.partition("## Values")[2], re.MULTILINE)
    assert sorted(rows) == sorted(leaves(VALUES))


def test_the_schema_has_each_value() -> None:
    """What is shipped as a value is in the schema; the rest of the schema is there on purpose."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) == {*VALUES, "global"}
    assert set(schema["properties"]["settings"]["properties"]) == set(VALUES["settings"])


def test_the_readme_names_the_versions() -> None:
    """The versions that are tested are the ones that are promised."""
    assert f"Kubernetes {OLDEST.removesuffix('.0')} to {NEWEST.removesuffix('.0')}" in README
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}-0"


@pytest.mark.parametrize("gate", [False, True])
def test_the_consumer_example_is_valid(
    gate: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A chart of one's own embeds the templates of its dependency."""
    consumer = build_consumer(tmp_path_factory.mktemp("consumer"))
    values = {"gate": gate, "flask-migrate-sidecar": {"mode": "job" if gate else "library"}}
    for version in (OLDEST, NEWEST):
        manifests = render(values, chart=consumer, version=version)
        assert ("Job" in {m["kind"] for m in manifests}) == gate
        for manifest in manifests:
            kubernetes_validate.validate(manifest, version.rpartition(".")[0], strict=True)
        init = pod_of(find(manifests, "Deployment"))["initContainers"]
        assert init[-1]["name"] == ("wait-for-migrations" if gate else "migrate")


def test_the_plain_manifests_are_rendered() -> None:
    """What `kubectl apply` gets is what the chart makes of the values beside it."""
    folder = EXAMPLES / "plain"
    values = yaml.safe_load((folder / "values.yaml").read_text())
    written = list(yaml.safe_load_all((folder / "manifests.yaml").read_text()))
    assert written == render(values)


@pytest.mark.parametrize("file", ["argocd/application.yaml", "flux/helmrelease.yaml"])
def test_the_values_of_the_gitops_examples_are_accepted(file: str) -> None:
    """What the examples hand to the chart renders, as a plain Job and its gate."""
    documents = [d for d in yaml.safe_load_all((EXAMPLES / file).read_text()) if d]
    spec = documents[-1]["spec"]
    values = spec["values"] if "values" in spec else spec["source"]["helm"]["valuesObject"]
    assert {"Job", "Deployment"} <= {manifest["kind"] for manifest in render(values)}


def test_the_gitlab_example_waits_for_the_job() -> None:
    """The pipeline fails if the migration fails, and its values are accepted."""
    pipeline = yaml.safe_load((EXAMPLES / "gitlab" / ".gitlab-ci.yml").read_text())
    script = " ".join(pipeline["deploy"]["script"])
    assert "--wait-for-jobs" in script
    values = yaml.safe_load((EXAMPLES / "gitlab" / "values.yaml").read_text())
    assert find(render(values), "Job")
