"""Puts one fault at a time into a copy of the tree, and sees that the test named for it fails.

    python tests/mutants/run.py --count 10 --seed 2026-01-31     ten, others on each day
    python tests/mutants/run.py --all
    python tests/mutants/run.py lock-order gate-outage

A fault is `killed` if its test passes on the tree as it is and fails with the fault in. It has
`survived` if the test passes all the same, and is `broken` if the row tells nothing: the line is
not there, or the test is skipped, errs outside of itself, hangs, or fails without any fault.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutants.table import FAULTS, Fault

ROOT = Path(__file__).parents[2]
PACKAGES = ("flask_migrate", "flask_migrate_sidecar")
# Seconds; pytest ends every test sooner (pyproject.toml), so what takes longer hangs.
LONGEST = 400.0
# What a copy of ours must not inherit from a test run around it.
PYTEST = ("-q", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib")


class Copy:
    """A copy of the tree, in which one fault at a time stands.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clock = 0
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)

    def check_imports(self) -> None:
        """Make sure that the copy's packages are those that run, wherever others are installed.

        Raises:
            RuntimeError: they are not.
        """
        program = "".join(f"import {name}; print({name}.__file__)\n" for name in PACKAGES)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.folder,
            env=self._environment(),
            check=True,
            capture_output=True,
            text=True,
        )
        for found in done.stdout.split():
            if not Path(found).is_relative_to(self.folder / "src"):
                raise RuntimeError(f"{found} would run instead of the copy")

    @contextmanager
    def broken_by(self, fault: Fault) -> Iterator[None]:
        """Put a fault in, and take it out again."""
        path = self.folder / fault.file
        before = path.read_text(encoding="utf-8")
        self._write(path, fault.put_into(before))
        try:
            yield
        finally:
            self._write(path, before)

    def run_tests(self, tests: Sequence[str]) -> dict[str, str]:
        """Run tests; give `passed`, `failed`, or what else became of it, for each of them."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", *PYTEST, f"--junitxml={report}", *tests]
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                process.wait(LONGEST * len(tests))
            except subprocess.TimeoutExpired:
                return dict.fromkeys(tests, "hangs")
            finally:
                # With the servers that a test was about to stop.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        found = read_report(report) if report.exists() else {}
        return {test: judge(test, found) for test in tests}

    def _write(self, path: Path, text: str) -> None:
        """Write a source file, with a time of its own: by that Python knows its bytecode."""
        path.write_text(text, encoding="utf-8")
        self._clock += 1
        os.utime(path, (self._clock, self._clock))

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COVERAGE_"))}
        # A run that a fault keeps from ending need not be waited for as long as a slow machine's.
        return {**kept, "PYTHONPATH": str(self.folder / "src"), "SIDECAR_TEST_DEADLINE": "25"}


def read_report(path: Path) -> dict[str, list[str]]:
    """Give what became of each test, as often as it ran with other parameters."""
    found: dict[str, list[str]] = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 - pytest's own report
        module = case.get("classname", "").replace(".", "/") + ".py"
        name = case.get("name", "")
        kinds = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}]
        for key in {f"{module}::{name}", f"{module}::{name.partition('[')[0]}"}:
            found.setdefault(key, []).append(kinds[0] if kinds else "passed")
    return found


def judge(test: str, found: dict[str, list[str]]) -> str:
    """Say in a word what became of a test with all its parameters."""
    outcomes = {*found.get(test, ["not run"])}
    if "failure" in outcomes:
        return "failed"
    return "passed" if outcomes == {"passed"} else ", ".join(sorted(outcomes - {"passed"}))


def choose(count: int, seed: date) -> list[Fault]:
    """Choose so many faults from all over the table; on the following days it is others' turn."""
    step = math.ceil(len(FAULTS) / count)
    return list(FAULTS[seed.toordinal() % step :: step])[:count]


def try_faults(faults: Sequence[Fault]) -> list[tuple[Fault, str, float]]:
    """Try each fault; give what became of it, and the seconds it took."""
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        # Servers run as users of their own, and read what lies below.
        Path(folder).chmod(0o755)
        copy = Copy(Path(folder))
        copy.check_imports()
        healthy = copy.run_tests(sorted({fault.test for fault in faults}))
        for fault in faults:
            started = time.monotonic()
            verdict = try_fault(copy, fault, healthy[fault.test])
            results.append((fault, verdict, time.monotonic() - started))
            print(f"{results[-1][2]:6.1f} s  {fault.name:30} {verdict}", flush=True)  # noqa: T201
    return results


def try_fault(copy: Copy, fault: Fault, healthy: str) -> str:
    """Say whether a fault is killed, has survived, or is broken, and why."""
    if healthy != "passed":
        return f"broken: without the fault its test is '{healthy}'"
    try:
        with copy.broken_by(fault):
            outcome = copy.run_tests([fault.test])[fault.test]
    except (ValueError, SyntaxError) as error:
        return f"broken: {error}"
    return {"failed": "killed", "passed": "survived"}.get(outcome, f"broken: its test is {outcome}")


def main() -> int:
    """Try the chosen faults, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to try")
    parser.add_argument("--all", action="store_true", help="try every fault")
    parser.add_argument("--count", type=int, default=10, help="how many to choose (10)")
    parser.add_argument(
        "--seed",
        type=date.fromisoformat,
        default=datetime.now(UTC).date(),
        metavar="DATE",
        help="the day to choose for (today)",
    )
    given = parser.parse_args()
    known = {fault.name: fault for fault in FAULTS}
    unknown = [name for name in given.names if name not in known]
    if unknown or given.count < 1:
        parser.error(f"no fault is called {', '.join(unknown)}" if unknown else "--count is 1 up")
    named = [known[name] for name in given.names]
    faults = list(FAULTS) if given.all else named or choose(given.count, given.seed)
    started = time.monotonic()
    results = try_faults(faults)
    bad = [fault.name for fault, verdict, _ in results if verdict != "killed"]
    said = f"not killed: {', '.join(bad)}" if bad else "all killed"
    print(f"{len(faults)} faults in {time.monotonic() - started:.0f} s, {said}")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
