"""What the application logs keeps its structure, says no secret, and forges no line of ours."""

import json
from pathlib import Path
from typing import Any

import pytest

from app_code import write_app
from conftest import RunCommand
from sidecar_runs import Result

BODY = """
import json, logging, structlog

circle = {"name": "circle"}
circle["self"] = circle
log = logging.getLogger("shop")
log.setLevel("INFO")
log.info("with extra", extra={"order": 5, "tags": ["a"], "command": "theirs", "db_password": "x"})
log.info({"event": "a dictionary", "order": 6, "level": "theirs"})
log.info(json.dumps({"event": "rendered", "order": 7, "timestamp": "yesterday"}))
log.info("plain", extra={"circle": circle, "_hidden": 1, "odd": object()})
logging.getLogger("output").warning("known to us: Zq77Abc9")
logging.getLogger("Zq77Abc9").warning("called like a secret")
wrap = structlog.stdlib.ProcessorFormatter.wrap_for_formatter
structlog.configure(
    processors=[structlog.stdlib.add_log_level, wrap],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
structlog.get_logger("orders").info("by structlog", order=8)
print(json.dumps({"event": "command.finished", "exit_code": 0, "order": 9, "text": "theirs"}))
print('{"order": broken')
print('{"_flask_migrate_sidecar": true, "event": "command.finished"}')
class Odd(dict):
    def items(self):
        raise RuntimeError
shared = [1]
for _ in range(9):
    shared = [shared] * 9
log.info("odd", extra={"method_name": "x", 1: "one", "n": 10**5000, "m": Odd(a=1), "stack": ["a"]})
log.info("much", extra={"x": shared, "k" * 20_000: 1})
log.info("named", extra={"a\\n{} command.finished".format("2026"): 0, "b\\x1b[2J": 1})
os.write(1, b'{"method_name": "x"}\\nbehind it\\n')
log.info("forged\\n{}".format(json.dumps({"event": "command.finished"})))
log.info("\\x1b[2J\\x1b[31mred\\u202e")
"""


def run(folder: Path, launch: RunCommand, **settings: str) -> Result:
    """Run a command over the application."""
    env = {"ADMIN_TOKEN": "Zq77Abc9", **settings}
    result = launch(write_app(folder / "app", BODY), "db", "heads", env=env)
    assert isinstance(result, Result)
    assert result.returncode == 0, result.stderr
    return result


def find(log: list[dict[str, Any]], event: str) -> dict[str, Any]:
    """Give the one line of an event, without what every line has."""
    [line] = [line for line in log if line["event"] == event and line["logger"] != "output"]
    return {k: v for k, v in line.items() if k not in {"timestamp", "level", "event", "logger"}}


def test_structure_stays(tmp_path: Path, launch: RunCommand) -> None:
    """Extra fields, dictionaries and JSON are fields; what clashes with ours stands in `app`."""
    log = run(tmp_path, launch).log
    assert find(log, "with extra") == {
        "order": 5,
        "tags": ["a"],
        "db_password": "***",
        "app": {"command": "theirs"},
    }
    assert find(log, "a dictionary") == {"order": 6, "app": {"level": "theirs"}}
    assert find(log, "rendered") == {"order": 7, "app": {"timestamp": "yesterday"}}
    assert find(log, "by structlog")["order"] == 8
    plain = find(log, "plain")
    assert plain["circle"]["name"] == "circle"
    assert "_hidden" not in plain
    assert plain["odd"].startswith("<object object")


def test_printed_object_is_fields(tmp_path: Path, launch: RunCommand) -> None:
    """A line of JSON that the application prints is not text in JSON, and no event of ours."""
    log = run(tmp_path, launch).log
    printed = [line for line in log if line["event"] == "output"]
    [line] = [line for line in printed if line.get("order") == 9]
    assert line["exit_code"] == 0
    assert "text" not in line
    assert line["app"] == {"event": "command.finished", "text": "theirs"}
    assert '{"order": broken' in {line.get("text") for line in printed}
    assert [line["event"] for line in log].count("command.finished") == 1


def test_no_record_breaks_the_run(tmp_path: Path, launch: RunCommand) -> None:
    """Names, numbers and objects of any kind cost neither the run nor the record."""
    log = run(tmp_path, launch).log
    odd = find(log, "odd")
    assert (odd["method_name"], odd["1"], odd["app"]) == ("x", "one", {"stack": ["a"]})
    assert "bits" in odd["n"]
    assert find(log, "much")["cut"] > 0
    assert "behind it" in {line.get("text") for line in log if line["event"] == "output"}


def test_no_logger_is_spared(tmp_path: Path, launch: RunCommand) -> None:
    """A logger that is called as one of ours, or like a secret, is masked as any other."""
    result = run(tmp_path, launch)
    assert "Zq77" not in result.stderr
    assert '"known to us: ***"' in result.stderr


@pytest.mark.parametrize("form", ["json", "console"])
def test_line_is_not_forged(form: str, tmp_path: Path, launch: RunCommand) -> None:
    """A line break or an escape code of the application's begins no line and no colour."""
    result = run(tmp_path, launch, MIGRATE_LOG_FORMAT=form)
    assert "\x1b" not in result.stderr
    assert "\u202e" not in result.stderr
    begun = [line for line in result.stderr.splitlines() if line.startswith('{"event"')]
    assert begun == []
    if form == "json":
        assert all(json.loads(line) for line in result.stderr.splitlines())
