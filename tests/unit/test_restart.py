"""A process that starts itself again: what goes along, and what does not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flask_migrate_sidecar.process.restart import VARIABLE, Attempts

PROGRAM = """
import json, os, signal, sys
from flask_migrate_sidecar.process.restart import VARIABLE, Attempts

attempts = Attempts.take_over(os.environ)
print(json.dumps({
    "count": attempts.count,
    "first": attempts.is_first,
    "started": attempts.started,
    "inherited": VARIABLE in os.environ,
    "folder": os.getcwd(),
    "mark": os.environ.get("MARK"),
    "arguments": sys.argv[1:],
    "blocked": signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
}), flush=True)
if attempts.count < 2:
    attempts.count += 1
    # What an application may do at its import.
    os.chdir("/")
    os.environ["MARK"] = "left"
    sys.argv[1:] = ["other"]
    attempts.start_again()
"""


@pytest.fixture
def starts(tmp_path: Path) -> list[dict[str, Any]]:
    """Return what each start of a program that starts itself again twice saw."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", "--flag", "a b"],
        cwd=tmp_path,
        env={**os.environ, "MARK": "given"},
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_deadline_is_that_of_the_first_start(starts: list[dict[str, Any]]) -> None:
    """The time is counted from the first process on, and each one knows its number."""
    assert [start["count"] for start in starts] == [0, 1, 2]
    assert [start["first"] for start in starts] == [True, False, False]
    assert len({start["started"] for start in starts}) == 1


def test_start_is_as_it_was(starts: list[dict[str, Any]], tmp_path: Path) -> None:
    """Folder, environment and arguments are the first ones, whatever the application changed."""
    for start in starts:
        assert start["folder"] == str(tmp_path)
        assert start["mark"] == "given"
        assert start["arguments"] == ["--flag", "a b"]


def test_variable_is_for_the_next_process_alone(starts: list[dict[str, Any]]) -> None:
    """Neither the application nor its children see what goes along."""
    assert not any(start["inherited"] for start in starts)


def test_signals_wait_between_two_starts(starts: list[dict[str, Any]]) -> None:
    """A signal that comes while Python starts is kept for the handlers of the new process."""
    assert [start["blocked"] for start in starts] == [False, True, True]


@pytest.mark.parametrize(
    "text",
    [
        *("[", "[]", "7", '{"count": 3}', '{"a": 1}'),
        '{"started": "x", "count": 1, "reported": 0.0, "reason": "", "refused_since": null}',
        '{"started": 1.0, "count": "x", "reported": 0.0, "reason": "", "refused_since": null}',
        '{"started": 1.0, "count": 1, "reported": 0.0, "reason": "", "refused_since": "x"}',
    ],
)
def test_variable_of_another_form(text: str) -> None:
    """What no process before this one wrote is taken for nothing, and the run begins."""
    attempts = Attempts.take_over({VARIABLE: text, "MARK": "given"})
    assert attempts.is_first
    assert attempts.environ == {"MARK": "given"}
    assert attempts.elapsed < 60
