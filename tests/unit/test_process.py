"""Signals, and the duties of a container's first process, each in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from sidecar_runs import DEADLINE

INTERRUPTION = """
import os, signal
from flask_migrate_sidecar.errors import Interrupted
from flask_migrate_sidecar.process.signals import Interruption


def force(error):
    os._exit(99)


def send(number):
    os.kill(os.getpid(), number)


interruption = Interruption(force)
"""
# Stands for a container's first process: its number is what the module asks for.
FIRST = """
import os, signal, sys, time
os.getpid = lambda: 1
from flask_migrate_sidecar.process.process_one import leave_process_one
leave_process_one()
"""

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a program, and leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        # With the child of a first process that did not pass the end on.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def say(start: Start, program: str) -> list[str]:
    """Run a program to its end, and give what it said."""
    process = start(program)
    text, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return text.split()


def test_signal_waits_until_it_can_be_told(start: Start) -> None:
    """Before the log is set up a signal is kept, and then it is not lost."""
    assert say(
        start,
        INTERRUPTION
        + """
with interruption.installed():
    send(signal.SIGTERM)
    print("set-up")
    try:
        interruption.listen()
    except Interrupted as error:
        print(error.exit_code)
""",
    ) == ["set-up", "143"]


def test_second_signal_does_not_interrupt_the_clean_up(start: Start) -> None:
    """Rollback and unlocking are left alone, whatever comes meanwhile."""
    assert say(
        start,
        INTERRUPTION
        + """
with interruption.installed():
    interruption.listen()
    try:
        send(signal.SIGINT)
    except Interrupted as error:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        print("clean", error.exit_code)
""",
    ) == ["clean", "130"]


def test_statement_is_cancelled_before_the_run_unwinds(start: Start) -> None:
    """The exception comes once the statement is cancelled, or it would run on in the server."""
    assert say(
        start,
        INTERRUPTION
        + """
interruption.cancel = lambda: print("cancelled", flush=True)
with interruption.installed():
    interruption.listen()
    try:
        send(signal.SIGTERM)
    except Interrupted:
        print("raised")
""",
    ) == ["cancelled", "raised"]


def test_run_unwinds_as_soon_as_the_statement_is_cancelled(start: Start) -> None:
    """The time that a server gets to cancel is used up only by one that takes it."""
    assert say(
        start,
        INTERRUPTION
        + """
from flask_migrate_sidecar.process import signals

signals._CANCEL_SECONDS = 3600
with interruption.installed():
    interruption.listen()
    try:
        send(signal.SIGTERM)
    except Interrupted:
        print("raised")
""",
    ) == ["raised"]


def test_cancelling_that_fails_is_no_obstacle(start: Start) -> None:
    """A driver that cannot cancel does not keep the run from ending."""
    assert say(
        start,
        INTERRUPTION
        + """
def fail():
    raise OSError

interruption.cancel = fail
with interruption.installed():
    interruption.listen()
    try:
        send(signal.SIGTERM)
    except Interrupted:
        print("raised")
""",
    ) == ["raised"]


def test_last_moments_are_not_interrupted(start: Start) -> None:
    """Behind the block the run has its result: a signal changes nothing any more."""
    assert say(
        start,
        INTERRUPTION
        + """
with interruption.installed():
    interruption.listen()
send(signal.SIGTERM)
print("still there")
""",
    ) == ["still", "there"]


def test_interruption_outweighs_what_came_of_it(start: Start) -> None:
    """After a signal the error is the interruption, with what the other error knew."""
    assert say(
        start,
        INTERRUPTION
        + """
error = ValueError("x")
assert interruption.judge(error) is error
error.fields = {"kept": 1, "revision": 2}
interruption.received = Interrupted(signal.SIGTERM)
interruption.received.fields = {"kept": 3}
judged = interruption.judge(error)
print(judged is interruption.received, judged.fields["kept"], judged.fields["revision"])
""",
    ) == ["True", "3", "2"]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os._exit(0)", 0),
        ("os._exit(7)", 7),
        ("os.kill(int(os.readlink('/proc/self')), signal.SIGKILL)", 137),
        ("os.kill(int(os.readlink('/proc/self')), signal.SIGTERM)", 143),
    ],
    ids=["well", "badly", "killed", "terminated"],
)
def test_first_process_ends_as_its_child(start: Start, end: str, code: int) -> None:
    """The exit code is the run's, and that of a signal is a shell's."""
    process = start(FIRST + end)
    assert process.wait(DEADLINE) == code


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda it: it.name
)
def test_first_process_passes_signals_on(start: Start, number: signal.Signals) -> None:
    """What the container's runtime sends reaches the run."""
    program = f"""
signal.signal({int(number)}, lambda *_: os._exit(42))
print("ready", flush=True)
while True:
    time.sleep(0.05)  # pause(2) would miss one that comes just before it
"""
    process = start(FIRST + program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(DEADLINE) == 42


def test_first_process_reaps_orphans(start: Start) -> None:
    """What the run leaves behind is waited for, and does not end the container."""
    program = """
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.read(read, 1)  # until its parent has ended, and process 1 has it
        os._exit(9)
    os._exit(0)
os.wait()
os.write(write, b"x")
orphans = f"/proc/{os.getppid()}/task/{os.getppid()}/children"
own = os.readlink("/proc/self")
while open(orphans).read().split() != [own]:
    pass
os._exit(5)
"""
    # Orphans go to the next process that asks for them (prctl(2)), as they go to process 1.
    subreaper = "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
    process = start(subreaper + FIRST + program)
    assert process.wait(DEADLINE) == 5


def test_other_processes_run_by_themselves(start: Start) -> None:
    """Outside of a container nothing is forked."""
    program = FIRST.replace("os.getpid = lambda: 1", "before = os.getpid()")
    assert say(start, program + "print(os.getpid() == before)") == ["True"]
