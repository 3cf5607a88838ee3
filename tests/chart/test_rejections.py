"""Mistakes that the chart refuses, each with a message that names the value."""

from typing import Any

import pytest

from charts import DATABASE, RenderError, render, values_of

pytestmark = pytest.mark.chart

FILE = {"secretFile": {"name": "shop-database", "key": "url"}}
SECRET_VALUE = "postgresql://u:s3cret@h/d"

# The values, by what the message must name.
MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("moed", {"moed": "job"}),
    ("/mode", {"mode": "sidecar"}),
    ("lockTimeuot", {"settings": {"lockTimeuot": "2m"}}),
    ("/settings/lockTimeout", {"settings": {"lockTimeout": "soon"}}),
    ("/settings/heartbeat", {"settings": {"heartbeat": -1}}),
    ("/settings/lock", {"settings": {"lock": "redis"}}),
    ("/settings/ifAhead", {"settings": {"ifAhead": "maybe"}}),
    ("/job/podFailurePolicy/failOn/0", {"job": {"podFailurePolicy": {"failOn": [0]}}}),
    ("/job/podFailurePolicy/failOn/1", {"job": {"podFailurePolicy": {"failOn": [2, 11]}}}),
    ("/job/podFailurePolicy/failOn", {"job": {"podFailurePolicy": {"failOn": [2, 2]}}}),
    ("/job/activeDeadlineSeconds", {"job": {"activeDeadlineSeconds": 0}}),
    ("/job/backoffLimit", {"job": {"backoffLimit": "six"}}),
    ("restartPolicy", {"job": {"restartPolicy": "OnFailure"}}),
    ("/database", {"database": {**DATABASE, **FILE}}),
    ("url", {"database": {"url": SECRET_VALUE}}),
    ("/database/secretKeyRef", {"database": {"secretKeyRef": {"name": "a"}}}),
    ("/binds/audit", {"binds": {"audit": {**DATABASE, **FILE}}}),
    ("/binds/audit", {"binds": {"audit": {}}}),
    ("binds.a-b", {"binds": {"A_B": DATABASE, "a-b": DATABASE}}),
    ("/args/0", {"args": ["--database-url=x", "db", "upgrade"]}),
    ("/args", {"args": []}),
    ("env: MIGRATE_LOCK", {"env": [{"name": "MIGRATE_LOCK", "value": "file"}]}),
    ("env: POD_NAME", {"env": [{"name": "POD_NAME", "value": "x"}]}),
    ("env: DATABASE_URL", {"env": [{"name": "DATABASE_URL", "value": SECRET_VALUE}]}),
    ("env: A", {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
    ("/env/0/value", {"env": [{"name": "A", "value": 1}]}),
    ("/image/pullPolicy", {"image": {"pullPolicy": "Sometimes"}}),
    ("/image/digest", {"image": {"digest": "sha256:abc"}}),
    ("/source/type", {"source": {"type": "git"}}),
    ("/source/mountPath", {"source": {"mountPath": "app"}}),
    ("source.image", {"source": {"type": "copy", "image": ""}}),
    ("source.image", {"source": {"type": "image", "image": ""}}),
    ("source.pvc.claimName", {"source": {"type": "pvc"}}),
    ("source.configMap.name", {"source": {"type": "configMap"}}),
    (
        "source.configMap.versions",
        {"source": {"type": "configMap", "configMap": {"name": "a"}}},
    ),
    ("source.sitePackages", {"source": {"type": "baked", "sitePackages": "/x"}}),
    ("app.image", {"mode": "app"}),
    ("/app/strategy", {"app": {"strategy": "hook"}}),
    (
        "networkPolicy.enabled",
        {"mode": "app", "app": {"image": "a:1"}, "networkPolicy": {"enabled": True}},
    ),
    ("/terminationMessagePath", {"terminationMessagePath": "log"}),
]


@pytest.mark.parametrize(("named", "values"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_refused_by_name(named: str, values: dict[str, Any]) -> None:
    """The message names the value, so that nobody has to search; no secret is repeated in it."""
    with pytest.raises(RenderError) as refused:
        render({**values_of("job", "copy"), **values})
    assert named in str(refused.value)
    assert SECRET_VALUE not in str(refused.value)


def test_a_database_is_needed_without_an_application() -> None:
    """A ConfigMap holds the migrations only: no application tells where the database is."""
    with pytest.raises(RenderError, match="database: it is needed"):
        render({**values_of("job", "configMap"), "database": {}})


def test_image_volumes_need_a_newer_kubernetes() -> None:
    """An older cluster drops the unknown field and starts pods without the code: refuse in time."""
    with pytest.raises(RenderError, match=r"source\.type: image needs Kubernetes 1\.33"):
        render(values_of("job", "image"), version="1.32.9")


def test_an_old_kubernetes_is_refused() -> None:
    """Before 1.31, podFailurePolicy may be switched off."""
    with pytest.raises(RenderError, match=r"1\.31"):
        render(values_of("job", "copy"), version="1.30.0")
