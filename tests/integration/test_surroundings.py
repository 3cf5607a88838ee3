"""Odd surroundings: what is wrong with the process's own place is one line, and code 3."""

import ctypes
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from conftest import APPS, RunCommand, clean_environment
from following import FollowedRun
from servers import MariaDB, Postgres
from sidecar_runs import (
    DEADLINE,
    Launcher,
    append,
    count_waiting,
    environment_of,
    prepend,
    read_log,
    revision_file,
)
from zygote import zygote_of

HEAD = "6b92f4ec08d1"

# What is imported late is imported first, for another user may not read where Python lies.
AS_NOBODY = """
import os, sys
import flask_migrate_sidecar.__main__ as entrypoint
import flask_migrate_sidecar.application.dotenv, flask_migrate_sidecar.commands.dispatch
import flask_migrate_sidecar.log.stdlib, flask_migrate_sidecar.process.os_exit, dotenv
import flask_migrate.runner
from flask_migrate_sidecar.application.versions import format_versions

format_versions()  # imports parts of importlib.metadata, which are late in Python 3.13
os.setresuid(65534, 65534, 65534)
entrypoint.main()
"""

# The application's own commands: how they end, and options that are called like ours.
OWN = """

import sys

import click


def end(context, how):
    if how == "raise":
        error = ValueError("boom")
        error.exit_code, error.fields = 0, None
        raise error
    context.exit(int(how)) if how.isdigit() else sys.exit([how])


def add_commands(group):
    @group.command("ends")
    @click.argument("code", type=int)
    def ends(code):
        sys.exit(code)

    @group.command("leaves")
    @click.pass_context
    def leaves(context):
        context.exit(0)

    @group.command("ends-in-option")
    @click.option("--code", callback=lambda context, parameter, value: end(context, value))
    def ends_in_option(code):
        raise AssertionError("not reached")

    @group.group("data")
    def data():
        pass

    @data.command("load")
    @click.option("--fast/--lock", default=True)
    @click.option("--wait-timeout")
    def load(fast, wait_timeout):
        print(f"fast={fast} wait_timeout={wait_timeout}")

    @group.command("hand-on", context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def hand_on(words):
        print(*words)

    @group.command("first-word", context_settings={"allow_interspersed_args": False})
    @click.argument("words", nargs=-1)
    def first_word(words):
        print(*words)

    class Lazy(click.Group):
        def list_commands(self, context):
            return ["good", "broken"]

        def get_command(self, context, name):
            if name == "broken":
                raise RuntimeError(name)
            good = click.Command("good", callback=lambda: None)
            return good if name == "good" else None

    group.add_command(Lazy("lazy", callback=lambda: None))

    @group.command("ends-in-env")
    def ends_in_env():
        from flask_migrate import upgrade
        upgrade()

    @group.command("fill")
    @click.option("-d", "--directory")
    def fill(directory):
        print(f"directory={directory}")

    @group.group("chain", chain=True)
    def chain():
        pass

    @chain.command("first")
    def first():
        pass

    @chain.command("second")
    @click.option("--heartbeat")
    def second(heartbeat):
        print(f"heartbeat={heartbeat}")

    @group.command("forks")
    @click.option("--how")
    def forks(how):
        import os, pathlib
        child = os.fork()
        if not child and how == "raise":
            raise ValueError("of the child")
        if not child and how == "return":
            return
        if not child:
            sys.exit(7 if how == "exit" else None)
        _, status = os.waitpid(child, 0)
        (lock,) = pathlib.Path().glob("**/*.lock")
        print(f"child={os.waitstatus_to_exitcode(status)} holder={bool(lock.read_bytes())}")

    @group.command("closes")
    def closes():
        import os
        os.closerange(3, 256)

    @group.command("interrupts")
    def interrupts():
        raise KeyboardInterrupt

    @group.command("login")
    @click.option("--admin-password")
    def login(admin_password):
        print(f"as {admin_password}")

    @group.command("seed")
    @click.option("--lock")
    @click.option("--app-dir")
    @click.option("--wait-timeout")
    def seed(lock, app_dir, wait_timeout):
        print(f"lock={lock} app_dir={app_dir} wait_timeout={wait_timeout}")


make = create_app


def create_app():
    app = make()
    group = app.cli.commands["db"]
    if "seed" not in group.commands:
        add_commands(group)
    return app
"""


@pytest.fixture
def shop(copy_app: Callable[[str], Path]) -> Path:
    """Return a copy of the shop, which has no database yet."""
    return copy_app("shop")


@pytest.fixture
def own(shop: Path) -> Path:
    """Return a shop whose group has commands of the application's own."""
    append(shop / "app.py", OWN)
    return shop


def run_odd(
    command: Sequence[str], *, cwd: Path, before: Callable[[], None] | None = None
) -> tuple[int, dict[str, Any]]:
    """Run `flask-migrate` in odd surroundings; give its exit code and the only line it left.

    Args:
        command: the arguments.
        cwd: the working directory.
        before: changes the process before the program starts.
    """
    done = subprocess.run(
        [sys.executable, "-m", "flask_migrate_sidecar", *command],
        cwd=cwd,
        env=clean_environment(),
        preexec_fn=before,
        check=False,
        capture_output=True,
        text=True,
    )
    lines = (done.stderr + done.stdout).splitlines()
    last: dict[str, Any] = json.loads(lines[-1])
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert last["event"] == "command.failed"
    assert last["exit_code"] == done.returncode
    assert last["hint"]
    return done.returncode, last


# <linux/prctl.h>, <linux/capability.h>: what lets root pass over the rights of files.
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def bind_to_rights() -> None:
    """Let the program that starts next be bound to the rights of files, root's too."""
    if os.geteuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def test_variables_that_may_not_be_read(shop: Path) -> None:
    """An `.env` of somebody else's is named: what stands in it may decide which database it is."""
    (shop / ".env").write_text("DATABASE_URL=sqlite:///other.db\n")
    (shop / ".env").chmod(0)
    code, last = run_odd(["db", "upgrade"], cwd=shop, before=bind_to_rights)
    assert code == 3
    assert str(shop / ".env") in last["error"]["message"]
    assert "FLASK_SKIP_DOTENV" in last["hint"]
    assert not list(shop.glob("**/other.db"))


def test_working_directory_that_may_not_be_entered_again(shop: Path, tmp_path: Path) -> None:
    """A process that has to start itself again does so where it cannot go back to."""
    query = "import psycopg\npsycopg.connect('host=127.0.0.1 port=1 user=u dbname=d')\n"
    prepend(shop / "app.py", query)
    (tmp_path / "closed").mkdir()

    def close() -> None:
        (tmp_path / "closed").chmod(0)
        bind_to_rights()

    command = ["--app-dir", str(shop), "--wait-timeout", "5", "db", "upgrade"]
    code, last = run_odd(command, cwd=tmp_path / "closed", before=close)
    assert code == 5
    assert last["attempts"] > 1


def test_working_directory_that_was_deleted(tmp_path: Path) -> None:
    """A folder that is gone is told, and no traceback printed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code, last = run_odd(["db", "upgrade"], cwd=gone, before=gone.rmdir)
    assert code == 3
    assert "working directory" in last["error"]["message"]


@pytest.mark.parametrize(("descriptor", "name"), [(1, "output"), (2, "error")])
def test_closed_stream(descriptor: int, name: str, shop: Path) -> None:
    """What would lose its result or its log does not begin; the line goes where one can see it."""
    code, last = run_odd(["db", "upgrade"], cwd=shop, before=lambda: os.close(descriptor))
    assert code == 3
    assert last["error"]["message"] == f"standard {name} is closed"
    assert not (shop / "instance").exists()


def test_closed_stdin_is_nothing_to_us(shop: Path) -> None:
    """A run reads nothing; and no file takes the place of stdin."""
    append(
        shop / "app.py",
        "\nprint('stdin is', os.fstat(0).st_rdev == os.stat('/dev/null').st_rdev)\n",
    )
    done = subprocess.run(
        [sys.executable, "-m", "flask_migrate_sidecar", "db", "current"],
        cwd=shop,
        env=clean_environment(),
        preexec_fn=lambda: os.close(0),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "stdin is True" in {line.get("text") for line in read_log(done.stderr)}


def test_no_thread_to_be_had(shop: Path) -> None:
    """Where the system gives no thread, the limit is named, and the run does not begin."""

    def limit() -> None:
        # A thread's stack is as large as this; an address space has no room for it.
        _, most = resource.getrlimit(resource.RLIMIT_STACK)
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 47, most))

    code, last = run_odd(["db", "upgrade"], cwd=shop, before=limit)
    assert code == 3
    assert "no thread can be started" in last["error"]["message"]
    assert not (shop / "instance").exists()


@pytest.mark.parametrize("most", [7, 8, 9, 10, 11])
def test_no_file_to_be_had(most: int, shop: Path) -> None:
    """A limit on open files may be met anywhere on the way: it is told as what it is, in 3."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    code, last = run_odd(["db", "upgrade"], cwd=shop, before=limit)
    assert code == 3
    assert "Too many open files" in last["error"]["message"]
    assert "limits" in last["hint"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_limit_that_is_reached_later(
    number: int, shop: Path, tmp_path: Path, sidecar: RunCommand
) -> None:
    """The first, the second or a later thread may be the one too many: the answer is the same."""
    (tmp_path / "sitecustomize.py").write_text(
        "import _thread\n"
        "real, left = _thread.start_new_thread, [None] * NUMBER\n"
        "def start(*arguments):\n"
        "    left.pop()\n"
        "    if not left:\n"
        "        left.append(None)\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    return real(*arguments)\n"
        "_thread.start_new_thread = start\n".replace("NUMBER", str(number))
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = sidecar(shop, "db", "upgrade", env={"PYTHONPATH": path})
    assert result.returncode == 3
    last = read_log(result.stderr)[-1]
    assert last["exit_code"] == 3
    assert "no thread can be started" in last["error"]["message"]


@pytest.mark.parametrize("name", [".env", ".flaskenv"])
@pytest.mark.parametrize(
    ("text", "reason"), [(b"\xff\xfeA=1\n", "it is not UTF-8"), (b"A=1\0\n", "null byte")]
)
def test_dotenv_that_is_no_text(
    text: bytes, reason: str, name: str, shop: Path, launch: Launcher
) -> None:
    """The file is named, and nothing runs with half an environment."""
    (shop / name).write_bytes(text)
    result = launch(shop, "db", "upgrade")
    assert (result.returncode, result.last["exit_code"]) == (3, 3)
    assert ".env or .flaskenv" in result.last["error"]["message"]
    assert reason in result.last["error"]["message"]
    assert not (shop / "instance").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--app-dir", "app.py"),
        ("--app-dir", "a" * 5000),
        ("--site-packages", "app.py"),
        ("--site-packages", "a" * 5000),
    ],
    ids=["app-dir is a file", "overlong app-dir", "packages are a file", "overlong packages"],
)
def test_folder_that_is_none(arguments: tuple[str, str], shop: Path, launch: Launcher) -> None:
    """A folder that cannot be one is told with its option."""
    result = launch(shop, *arguments, "db", "upgrade")
    assert result.returncode == 3
    assert result.last["error"]["message"].startswith(arguments[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("closed", "arguments", "said"),
    [
        ("app", ("--app-dir", "app"), "--app-dir app: Permission denied"),
        ("app/.venv", ("--app-dir", "app"), "environment .*: Permission denied"),
        ("packages", ("--site-packages", "packages"), "--site-packages packages.*: Permission"),
        ("app/.env", ("--app-dir", "app"), "/app/.env cannot be read: Permission denied"),
    ],
)
def test_folder_that_this_user_may_not_enter(
    closed: str, arguments: tuple[str, str], said: str
) -> None:
    """A folder of another user's is told with its option, whatever this user may see of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "app").mkdir()
        if closed.endswith(".env"):
            (folder / closed).write_text("A=1\n")
        else:
            (folder / closed).mkdir(exist_ok=True)
        (folder / closed).chmod(0o700)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *arguments, "db", "upgrade"],
            cwd=folder,
            env=clean_environment(),
            check=False,
            capture_output=True,
            text=True,
        )
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, last["exit_code"]) == (3, 3)
    assert re.search(said, last["error"]["message"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_working_directory_that_this_user_may_not_enter(shop: Path) -> None:
    """Where the application lies elsewhere, the folder of the process does not matter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "start").mkdir(mode=0o700)
        shutil.copytree(shop, Path(name) / "app")
        env = {"DATABASE_URL": "sqlite://", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, "--app-dir", f"{name}/app", "db", "heads"],
            cwd=Path(name) / "start",
            env={**clean_environment(), **env},
            check=False,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(HEAD)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_anything_was_begun(number: signal.Signals, shop: Path) -> None:
    """A signal that comes while packages are looked for ends the process with a line."""
    packages = shop / "packages"
    packages.mkdir()
    (packages / "slow.pth").write_text(f"import os; os.kill(os.getpid(), {number:d})\n")
    code, last = run_odd(["--site-packages", "packages", "db", "upgrade"], cwd=shop)
    assert code == 128 + number
    assert last["error"]["message"] == f"interrupted by {number.name}"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_signal_of_a_terminal(number: signal.Signals, shop: Path) -> None:
    """A terminal that is closed, or its key that quits, ends a run as SIGTERM does."""
    body = f"\n\ndef upgrade():\n    import os\n    os.kill(os.getpid(), {number:d})\n"
    append(revision_file(shop, HEAD), f"{body}    raise AssertionError('it goes on')\n")
    with FollowedRun(shop, "db", "upgrade") as run:
        result = run.result()
    assert result.returncode == 128 + number
    assert result.last["error"]["message"] == f"interrupted by {number.name}"
    assert "lock.released" in {line["event"] for line in result.log}


FORKING = """

def upgrade():
    import os, signal, time
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        {handle}
        # What is written there ends the parent, a few seconds later.
        print("descriptor", signal.set_wakeup_fd(-1), flush=True)
        os.write(begun, b"x")
        while True:
            time.sleep(0.05)  # pause(2) would miss one that comes just before it
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    print("child ended by", os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize(
    ("handle", "code"),
    [("pass", -15), ("signal.signal(signal.SIGTERM, lambda *_: os._exit(5))", 5)],
    ids=["default", "own handler"],
)
def test_signal_to_a_child_of_the_application(
    handle: str, code: int, shop: Path, launch: Launcher
) -> None:
    """A forked child has none of our handlers: its signals end it, and not the run."""
    append(revision_file(shop, HEAD), FORKING.format(handle=handle))
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0
    texts = {line.get("text") for line in result.log}
    assert "descriptor -1" in texts
    assert f"child ended by {code}" in texts
    assert [line["event"] for line in result.log].count("command.finished") == 1


def test_signal_that_nohup_ignores(shop: Path) -> None:
    """Started by `nohup`, a run outlives the terminal."""
    body = "\n\ndef upgrade():\n    import os\n    os.kill(os.getpid(), 1)\n"
    append(revision_file(shop, HEAD), body)
    done = subprocess.run(
        [sys.executable, "-m", "flask_migrate_sidecar", "db", "upgrade"],
        cwd=shop,
        env=clean_environment(),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_signal_while_a_setting_is_read(shop: Path) -> None:
    """A file of a setting may be a pipe that nobody writes to: a signal ends that too."""
    os.mkfifo(shop / "secret")
    env = {"MIGRATE_DATABASE_URL_FILE": str(shop / "secret")}
    with FollowedRun(shop, "db", "upgrade", env=env) as run, (shop / "secret").open("w"):
        # It has been opened for reading by now, and does not end before it is closed here.
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(DEADLINE) == 143
        run.finish()
    assert run.last["error"]["message"] == "interrupted by SIGTERM"


def test_termination_message_that_nobody_reads(shop: Path, launch: Launcher) -> None:
    """A pipe without a reader is told as a file that cannot be written, and waited for never."""
    os.mkfifo(shop / "message")
    result = launch(shop, "--termination-log", str(shop / "message"), "db", "heads")
    assert result.returncode == 0
    assert "message cannot be written" in result.last["termination_log"]


@pytest.mark.parametrize(
    "statement",
    [
        *("import os; os._exit(0)", "import posix; posix._exit(0)"),
        *("raise KeyboardInterrupt", "raise GeneratorExit"),
    ],
)
@pytest.mark.parametrize("place", ["x.pth", "structlog.py", "alembic.py"])
def test_package_that_ends_the_process(place: str, statement: str, shop: Path) -> None:
    """Whatever is looked for at the start may end the process: never without the last line."""
    folder = shop / "packages"
    folder.mkdir()
    (folder / "bad.py").write_text(statement)
    (folder / place).write_text("import bad\n")
    code, _last = run_odd(["--site-packages", str(folder), "db", "upgrade"], cwd=shop)
    assert code in {3, 4}
    assert not (shop / "instance").exists()


def test_limit_on_the_size_of_files(shop: Path) -> None:
    """A limit that leaves room for what a run writes does not keep it from running."""
    done = subprocess.run(
        [sys.executable, "-m", "flask_migrate_sidecar", "db", "upgrade"],
        cwd=shop,
        env=clean_environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50 << 20, 50 << 20)),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("db history", "db current", "db heads", "db stamp --sql head", "db show head"),
        *("db list-templates", "status"),
    ],
)
def test_result_that_is_lost(command: str, shop: Path, launch: Launcher) -> None:
    """Where a result cannot be written, no command says that all is well, and all say the same."""
    assert launch(shop, "db", "upgrade").returncode == 0
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flask_migrate_sidecar", *command.split()],
            cwd=shop,
            env=clean_environment(),
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    last = read_log(done.stderr)[-1]
    assert done.returncode == last["exit_code"] == 3
    assert "No space left on device" in last["error"]["message"]


@pytest.mark.parametrize("command", ["db history", "db stamp --sql head", "status"])
def test_reader_that_has_gone(command: str, shop: Path, launch: Launcher) -> None:
    """Behind `| head` a run ends as other programs do, whatever it was about to print."""
    assert launch(shop, "db", "upgrade").returncode == 0
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "flask_migrate_sidecar", *command.split()],
        cwd=shop,
        env=clean_environment(),
        check=False,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    last = read_log(done.stderr)[-1]
    assert done.returncode == last["exit_code"] == 128 + signal.SIGPIPE
    assert "wanted no more" in last["hint"]


def test_packages_that_are_named_too_late(shop: Path, launch: Launcher) -> None:
    """A setting that counts before `.env` is read is refused there, not passed over."""
    (shop / ".env").write_text("MIGRATE_SITE_PACKAGES=/nowhere\n")
    result = launch(shop, "db", "heads")
    assert result.returncode == 3
    assert "MIGRATE_SITE_PACKAGES stands in .env" in result.last["error"]["message"]


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 8)])
def test_own_command_that_exits(code: int, expected: int, own: Path, launch: Launcher) -> None:
    """`sys.exit(0)` of a command of the application's own is success, as in click."""
    result = launch(own, "db", "ends", str(code))
    assert result.returncode == expected
    assert result.last["event"] == ("command.failed" if expected else "command.finished")


def test_own_command_that_leaves_by_click(own: Path, launch: Launcher) -> None:
    """`Context.exit(0)` is success too."""
    assert launch(own, "db", "leaves").returncode == 0


@pytest.mark.parametrize(("how", "expected"), [("0", 0), ("3", 8), ("words", 8), ("raise", 8)])
def test_own_command_that_ends_in_a_callback(
    how: str, expected: int, own: Path, launch: Launcher
) -> None:
    """What an option's callback does while the words are parsed counts like the command itself."""
    result = launch(own, "db", "ends-in-option", "--code", how)
    assert result.returncode == result.last["exit_code"] == expected


@pytest.mark.parametrize("command", ["upgrade", "ends-in-env"])
def test_exit_in_a_revision_is_no_success(command: str, own: Path, launch: Launcher) -> None:
    """A revision that ends the process has not run, whoever called it."""
    append(revision_file(own, HEAD), "\n\ndef upgrade():\n    raise SystemExit(0)\n")
    result = launch(own, "db", command)
    assert result.returncode == 8
    assert "ended the process with exit code 0" in result.last["error"]["message"]


def test_options_of_an_own_command_are_its_own(own: Path, launch: Launcher) -> None:
    """Valued options that are called like ours reach the command, and steer nothing of ours."""
    words = ["--lock", "main", "--app-dir", "out", "--wait-timeout=soon"]
    result = launch(own, "db", "seed", *words)
    assert result.returncode == 0
    assert result.stdout == "lock=main app_dir=out wait_timeout=soon\n"
    assert result.log[0]["settings"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "load", "--lock", "--wait-timeout", "soon"), "fast=False wait_timeout=soon\n"),
        (("hand-on", "--lock", "none"), "--lock none\n"),
        (("first-word", "x", "--lock", "none"), "x --lock none\n"),
    ],
    ids=["below a group", "unknown to the command", "behind its first word"],
)
def test_options_of_what_is_below_an_own_command(
    words: tuple[str, ...], said: str, own: Path, launch: Launcher
) -> None:
    """What lies below a group has options too, and some commands hand on what they do not know."""
    result = launch(own, "db", *words)
    assert result.returncode == 0
    assert result.stdout == said
    assert [line["kind"] for line in result.log if line["event"] == "lock.acquired"] == ["file"]


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("broken", 8)])
def test_command_that_is_loaded_late(name: str, code: int, own: Path, launch: Launcher) -> None:
    """Of commands that are loaded when they are called, no other one is."""
    assert launch(own, "db", "lazy", name).returncode == code


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("sys.exit(0)", 0),
        ("click.get_current_context().exit(0)", 0),
        ("sys.exit(3)", 8),
        ("raise ValueError('boom')", 8),
        ("raise click.UsageError('name a tenant')", 2),
    ],
)
def test_function_of_the_group(statement: str, code: int, shop: Path, launch: Launcher) -> None:
    """What the application put in the place of the group's function may end the command too."""
    lines = (
        "\n\nimport sys, click\nmake = create_app\n\n\ndef create_app():\n    app = make()\n"
        f"    def function(*_, **__):\n        {statement}\n"
        "    app.cli.commands['db'].callback = function\n    return app\n"
    )
    append(shop / "app.py", lines)
    result = launch(shop, "db", "heads")
    assert result.returncode == result.last["exit_code"] == code
    assert result.stdout == ""


STOCK_NAMES = """

import sys, click
make = create_app


def create_app():
    app = make()
    group = app.cli.commands["db"]

    @group.command("upgrade")
    @click.option("--sql")
    def up(sql):
        from flask_migrate import upgrade
        upgrade()
        print("and seeded", sql)

    @group.command("check")
    def check():
        sys.exit(0)

    return app
"""


def test_command_in_the_place_of_a_stock_one(shop: Path, launch: Launcher) -> None:
    """A command is the application's own whatever it is called: it runs, under the lock."""
    append(shop / "app.py", STOCK_NAMES)
    for _ in range(2):
        result = launch(shop, "db", "upgrade", "--sql", "twice")
        assert result.returncode == 0
        assert result.stdout == "and seeded twice\n"
        assert {line["event"] for line in result.log} >= {"lock.acquired", "database.ready"}
    assert launch(shop, "db", "check").returncode == 0


def test_options_of_ours_behind_an_own_command(own: Path, launch: Launcher) -> None:
    """What the command does not have is ours behind it too, once it is known."""
    result = launch(own, "db", "ends", "0", "--lock", "table")
    assert result.returncode == 0
    assert [line["kind"] for line in result.log if line["event"] == "lock.acquired"] == ["table"]


@pytest.mark.parametrize(
    "words",
    [
        ("db", "ends", "0", "--database-url", "sqlite://u:se cret9xyz@h/x.db"),
        ("db", "ends", "0", "--databse-url=postgresql://u:se'cret9xyz@h/db"),
        ("--databse-url", "postgresql://u:se cret9xyz@h/db", "db", "upgrade"),
    ],
)
def test_password_on_the_command_line_is_hidden(
    words: tuple[str, ...], own: Path, launch: Launcher
) -> None:
    """A URL is a secret too where it is no setting yet, or no setting at all."""
    result = launch(own, *words)
    assert "cret9xyz" not in result.stdout + result.stderr


def test_option_that_comes_too_late(own: Path, launch: Launcher) -> None:
    """An option that decides where the application is found cannot wait for the application."""
    result = launch(own, "db", "ends", "0", "--app-dir", ".")
    assert result.returncode == 2
    assert "--app-dir must stand before 'db'" in result.last["error"]["message"]


def test_mistyped_subcommand_with_an_option_behind(own: Path, launch: Launcher) -> None:
    """Where the application is not found for want of the option, the mistake is told first."""
    result = launch(own.parent, "db", "upgarde", "--app-dir", own.name)
    assert result.returncode == 2
    assert result.last["hint"] == "did you mean 'db upgrade'?"


@pytest.mark.parametrize("where", ["env.py", "revision"])
@pytest.mark.parametrize("command", [("wait", "head"), ("db", "upgrade"), ("db", "stamp", "head")])
def test_migrations_that_end_the_process(
    command: tuple[str, ...], where: str, shop: Path, launch: Launcher
) -> None:
    """`sys.exit()` in `env.py`, or where a revision file is loaded, is a fault of theirs."""
    file = shop / "migrations" / "env.py" if where == "env.py" else revision_file(shop, HEAD)
    prepend(file, "import sys\nsys.exit(0)\n")
    result = launch(shop, "--wait-timeout", "1", *command)
    assert result.returncode == (8 if where == "env.py" else 9)
    assert str(file) in result.last["hint"]


def test_error_that_has_no_text(shop: Path, launch: Launcher) -> None:
    """An exception that cannot tell itself costs neither the last line nor its exit code."""
    fault = (
        "\n\nclass Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n\n\n"
        "def upgrade():\n    raise Mute\n"
    )
    append(revision_file(shop, HEAD), fault)
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 8
    assert "Mute" in result.last["error"]["message"]


MUTE = "\n\nimport sys\n\n\nclass Mute:\n    def __str__(self):\n        raise RuntimeError\n\n\n"


@pytest.mark.parametrize(("where", "code"), [("revision", 8), ("app", 4)])
def test_exit_value_that_has_no_text(where: str, code: int, shop: Path, launch: Launcher) -> None:
    """What `sys.exit()` was given need have no text either."""
    if where == "app":
        append(shop / "app.py", f"{MUTE}sys.exit(Mute())\n")
    else:
        append(revision_file(shop, HEAD), f"{MUTE}def upgrade():\n    sys.exit(Mute())\n")
    result = launch(shop, "db", "upgrade")
    assert result.returncode == result.last["exit_code"] == code
    assert "<Mute without a text>" in result.last["error"]["message"]


def test_url_in_a_hint_is_whole(shop: Path, launch: Launcher) -> None:
    """What shows how a URL is written is not taken for one with a password."""
    result = launch(shop, "--database-url", "nonsense", "db", "upgrade")
    assert result.returncode == 3
    assert "://USER@HOST:PORT/DATABASE" in result.last["hint"]
    assert "***" not in result.last["hint"]


def test_log_that_cannot_be_written(shop: Path) -> None:
    """Where even the last line fails, there is one all the same, with the run's exit code."""
    append(
        shop / "app.py",
        "\n\nimport structlog\n\n\ndef fail(*_):\n    raise MemoryError\n\n\n"
        "structlog.processors.ExceptionRenderer.__call__ = fail\nimport frobnicate\n",
    )
    code, last = run_odd(["db", "upgrade"], cwd=shop)
    assert code == 4
    assert "frobnicate" in last["error"]["message"]


def test_function_that_is_called_like_alembics(shop: Path, launch: Launcher) -> None:
    """An error that passed through a function `_initialize` of the app's is no error of history."""
    body = "\n\ndef _initialize():\n    raise ValueError('boom')\n"
    append(revision_file(shop, HEAD), f"{body}\n\ndef upgrade():\n    _initialize()\n")
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 8
    assert result.last["error"]["message"] == "ValueError: boom"


LIKE_OTHERS = {
    "misfit": ("raise ValueError('Revision r3 is not present in our ledger')", 8),
    "not at head": ("raise type('DatabaseNotAtHead', (Exception,), {})('of our own')", 8),
    "no file": ('raise ImportError("Can\'t find Python file /x/y")', 4),
}


@pytest.mark.parametrize(("statement", "code"), LIKE_OTHERS.values(), ids=LIKE_OTHERS.keys())
def test_error_that_is_called_like_alembics(
    statement: str, code: int, shop: Path, launch: Launcher
) -> None:
    """A revision's own error is one whatever it is called, and whatever it says."""
    append(revision_file(shop, HEAD), f"\n\ndef upgrade():\n    {statement}\n")
    assert launch(shop, "db", "upgrade").last["exit_code"] == code


def test_function_that_is_called_like_sqlalchemys(shop: Path, launch: Launcher) -> None:
    """A module that the app's own `import_dbapi` misses is no database driver."""
    append(shop / "app.py", "\n\ndef import_dbapi():\n    import frobnicate\n\n\nimport_dbapi()\n")
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 4
    assert "the application imports 'frobnicate'" in result.last["error"]["message"]


def test_folder_that_is_called_like_a_package(tmp_path: Path, launch: Launcher) -> None:
    """An error of an app that lies in a folder `flask_sqlalchemy` is not Flask-SQLAlchemy's."""
    app = shutil.copytree(APPS / "shop", tmp_path / "flask_sqlalchemy" / "shop")
    append(app / "app.py", "\nraise PermissionError(13, 'of our own', '/nowhere')\n")
    result = launch(app, "db", "upgrade")
    assert result.returncode == 4
    assert "of our own" in result.last["error"]["message"]


@pytest.mark.parametrize(("statement", "code"), [("pass", 0), ("raise ValueError", 8)])
def test_exit_behind_the_end(statement: str, code: int, shop: Path, launch: Launcher) -> None:
    """What a revision registered with atexit changes nothing of how the run ended."""
    body = "\n\ndef upgrade():\n    import atexit, os\n    atexit.register(os._exit, 5)\n"
    append(revision_file(shop, HEAD), f"{body}    {statement}\n")
    result = launch(shop, "db", "upgrade")
    assert result.returncode == result.last["exit_code"] == code
    assert [line["event"] for line in result.log].count("command.finished") == (code == 0)


@pytest.mark.parametrize("source", ["option", "variable"])
def test_early_end_is_in_the_termination_message(source: str, shop: Path, tmp_path: Path) -> None:
    """What fails before the log is there is told to the orchestrator as well."""
    message = tmp_path / "message"
    options = ["--termination-log", str(message)] if source == "option" else []
    variables = {"MIGRATE_TERMINATION_LOG": str(message)} if source == "variable" else {}
    done = subprocess.run(
        [sys.executable, "-m", "flask_migrate_sidecar", *options, "db", "upgrade"],
        cwd=shop,
        env={**clean_environment(), **variables},
        preexec_fn=lambda: os.close(1),
        check=False,
        capture_output=True,
    )
    assert done.returncode == 3
    assert "standard output is closed" in message.read_text()


def test_path_file_that_is_not_utf_8(shop: Path, tmp_path: Path, sidecar: RunCommand) -> None:
    """A `.pth` file that cannot be read is a matter of the surroundings."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "odd.pth").write_bytes(b"\xff\xfe\n")
    result = sidecar(shop, "--site-packages", str(tmp_path / "packages"), "db", "heads")
    last = read_log(result.stderr)[-1]
    if result.returncode == 0:  # Python 3.13 reads it in the locale's encoding
        assert "odd.pth" in result.stderr
        return
    assert result.returncode == last["exit_code"] == 3
    assert f"a .pth file in {tmp_path}/packages is not UTF-8" in last["error"]["message"]


def test_log_that_does_not_block(shop: Path) -> None:
    """Of a pipe that is full for a while no line is lost or cut, though it does not block."""
    append(shop / "app.py", "\nfor number in range(3000):\n    print('line', number)\n")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # One page: it is full again and again, however fast it is read.
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reading, encoding="utf-8") as log, Path(os.devnull).open("r+b") as nothing:
        run = zygote_of().start(
            shop,
            "flask_migrate_sidecar",
            *("db", "upgrade"),
            env=environment_of({}),
            streams=[nothing.fileno(), nothing.fileno(), writing],
        )
        while count_waiting(reading) < 3_000:
            sleep(0.05)
        os.close(writing)
        lines = read_log(log.read())
        assert run.wait() == 0
        run.close()
    printed = [line["text"] for line in lines if line["event"] == "output"]
    assert printed == [f"line {number}" for number in range(3000)]
    assert lines[-1]["event"] == "command.finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_the_entrypoint_is_imported(
    number: signal.Signals, shop: Path, tmp_path: Path, sidecar: RunCommand
) -> None:
    """A signal that comes before anything else is there ends the run with its line and code."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'flask_migrate_sidecar.settings':\n"
        f"            os.kill(os.getpid(), {number:d})\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = sidecar(shop, "db", "upgrade", env={"PYTHONPATH": path})
    [last] = read_log(result.stderr)
    assert last["exit_code"] == result.returncode == 128 + number


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_heartbeat_of_zero_says_it_once(
    kind: str, request: pytest.FixtureRequest, shop: Path
) -> None:
    """`--heartbeat 0` means no period: a waiter says who is in the way once, and no more."""
    server: Postgres | MariaDB = request.getfixturevalue(kind)
    database = server.create_database()
    env = {"DATABASE_URL": database.url(), "MIGRATE_HEARTBEAT": "0"}
    blocker = revision_file(shop, HEAD)
    go = shop / "go"
    os.mkfifo(go)
    append(blocker, f"\n\ndef upgrade():\n    open({str(go)!r}).read()\n")
    holder = FollowedRun(shop, "db", "upgrade", env=env)
    # The holder opens the pipe in its last revision: then it has the lock.
    with go.open("w"):
        waiter = FollowedRun(shop, "--lock-timeout", "2s", "db", "upgrade", env=env)
        waiter.finish()
    assert (holder.finish(), waiter.finish()) == (0, 7)
    server.drop_database(database.name)
    assert len(waiter.named("lock.waiting")) == 1


@pytest.mark.parametrize("variable", [False, True])
def test_directory_of_an_own_command(variable: bool, own: Path, launch: Launcher) -> None:
    """`-d` of a command of the application's own is no folder of migrations."""
    if variable:
        result = launch(own, "db", "fill", env={"FLASK_DB_FILL_DIRECTORY": "fixtures"})
    else:
        result = launch(own, "db", "fill", "-d", "fixtures")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "directory=fixtures\n"


@pytest.mark.parametrize("words", [("first", "second"), ("second",)])
def test_options_of_chained_commands(words: tuple[str, ...], own: Path, launch: Launcher) -> None:
    """An option of any command of a chain is its own, also where ours is called like it."""
    result = launch(own, "db", "chain", *words, "--heartbeat", "y")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "heartbeat=y\n"


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("end", 0), ("exit", 7), ("raise", 1)])
def test_child_that_leaves_the_command(how: str, code: int, own: Path, launch: Launcher) -> None:
    """A forked child ends where it leaves the application's code: the lock is its parent's."""
    result = launch(own, "db", "forks", "--how", how)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"child={code} holder=True"
    events = [line["event"] for line in result.log]
    assert (events.count("lock.released"), events.count("command.finished")) == (1, 1)
    assert "command.failed" not in events
    said = [line["text"] for line in result.log if line["event"] == "output"]
    assert ("ValueError: of the child" in said) is (how == "raise")


def test_child_that_leaves_a_revision(shop: Path, launch: Launcher) -> None:
    """A revision that forks is gone on with by the parent alone."""
    append(
        revision_file(shop, HEAD),
        "\n\nimport os, sys\nwhole = upgrade\n\n\ndef upgrade():\n    child = os.fork()\n"
        "    if not child:\n        sys.exit(3)\n    os.waitpid(child, 0)\n    whole()\n",
    )
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0, result.stderr
    events = [line["event"] for line in result.log]
    assert (events.count("lock.released"), events.count("command.finished")) == (1, 1)
    assert "command.failed" not in events


def test_descriptors_that_are_closed(own: Path, launch: Launcher) -> None:
    """Where nothing can be written any more, the code says at least that the run was no success."""
    assert launch(own, "db", "closes").returncode == 3


@pytest.mark.parametrize("where", ["command", "revision", "env.py"])
def test_interruption_that_no_signal_was(where: str, own: Path, launch: Launcher) -> None:
    """`raise KeyboardInterrupt` in the migrations, or a command, is a fault of theirs."""
    if where == "revision":
        append(revision_file(own, HEAD), "\n\ndef upgrade():\n    raise KeyboardInterrupt\n")
    if where == "env.py":
        prepend(own / "migrations" / "env.py", "raise KeyboardInterrupt\n")
    result = launch(own, "db", "interrupts" if where == "command" else "upgrade")
    assert result.returncode == result.last["exit_code"] == 8


def test_error_whose_parts_raise(shop: Path, launch: Launcher) -> None:
    """A property of an exception of the application's costs neither line nor code."""
    body = "\n\nclass Odd(Exception):\n    orig = property(lambda self: 1 / 0)\n\n\n"
    append(revision_file(shop, HEAD), f"{body}def upgrade():\n    raise Odd('boom')\n")
    result = launch(shop, "db", "upgrade")
    assert result.returncode == result.last["exit_code"] == 8
    assert "boom" in result.last["error"]["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("login", "--admin-password", "hunter2pw"),
        ("login", "--admin-password=hunter2pw"),
        ("fill", "--database-url", "postgresql:/u:hunter2pw@h/d"),
        ("upgrade", "-x", "dsn=password='hunter2pw x'"),
        ("upgrade", "-x", "dsn=host=h password = hunter2pw"),
    ],
)
def test_password_among_the_arguments(words: tuple[str, ...], own: Path, launch: Launcher) -> None:
    """What is called like a password on the command line is one, whoever's option it is."""
    assert "hunter2pw" not in launch(own, "db", *words).stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize(("output", "code"), [("/dev/full", 3), ("a closed pipe", 141)])
def test_answer_that_nobody_gets(option: str, output: str, code: int, shop: Path) -> None:
    """What is asked for and cannot be written is no success."""
    if output == "a closed pipe":
        reading, descriptor = os.pipe()
        os.close(reading)
    else:
        descriptor = os.open(output, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-m", "flask_migrate_sidecar", option],
        cwd=shop,
        env=clean_environment(),
        stdout=descriptor,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(descriptor)
    (line,) = done.stderr.splitlines()
    assert done.returncode == json.loads(line)["exit_code"] == code


def test_exit_that_was_kept_early(shop: Path, tmp_path: Path, sidecar: RunCommand) -> None:
    """Who has kept `os._exit` since before the application changes nothing of a good end."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "x.pth").write_text(
        "import os, atexit; atexit.register(os._exit, 5)\n"
    )
    result = sidecar(shop, "--site-packages", str(tmp_path / "packages"), "db", "upgrade")
    assert result.returncode == 0
    assert read_log(result.stderr)[-1]["event"] == "command.finished"


def test_application_that_starts_itself_anew(shop: Path, sidecar: RunCommand) -> None:
    """Another program in the place of the run, with other variables, writes the log on."""
    append(
        shop / "app.py",
        """
import os, sys
if "ANEW" not in os.environ:
    try:
        os.execv("/nowhere", ["nowhere"])
    except FileNotFoundError:
        print("still here")
    os.environ["ANEW"] = "1"
    os.execvp(sys.executable, sys.orig_argv)
""",
    )
    result = sidecar(shop, "db", "upgrade")
    log = read_log(result.stderr)
    assert result.returncode == log[-1]["exit_code"] == 0
    assert [line["event"] for line in log].count("sidecar.started") == 2
    assert [line["text"] for line in log if line["event"] == "output"] == ["still here"]


def test_revision_that_gives_its_place_away(shop: Path, launch: Launcher) -> None:
    """Another program in the place of a run that has begun would end it without a word."""
    body = "\n\ndef upgrade():\n    import os\n    os.execlp('true', 'true')\n"
    append(revision_file(shop, HEAD), body)
    result = launch(shop, "db", "upgrade")
    assert result.returncode == result.last["exit_code"] == 8
    assert "os.exec for true" in result.last["error"]["message"]
    assert result.last["unfinished"] == [HEAD]
    assert "os.execlp" in result.last["source"]


def test_child_of_a_revision_is_another_program(shop: Path, launch: Launcher) -> None:
    """What a revision forks may become what it likes."""
    named = "'/bin/sh', argv=['sh', '-c', 'exit 5'], env={}"
    fork = f"    if os.fork() == 0:\n        os.execve({named})\n"
    wait = "    print('child ended with', os.waitstatus_to_exitcode(os.wait()[1]))\n"
    append(revision_file(shop, HEAD), f"\n\ndef upgrade():\n    import os\n{fork}{wait}")
    result = launch(shop, "db", "upgrade")
    assert result.returncode == 0
    assert "child ended with 5" in [line.get("text") for line in result.log]


@pytest.mark.parametrize("closed", ["lib", "lib/python{version}", "x.pth"])
def test_packages_that_may_not_be_read(closed: str, shop: Path, tmp_path: Path) -> None:
    """What is passed over among the packages may be what the application needs."""
    version = "{}.{}".format(*sys.version_info[:2])
    packages = tmp_path / "env" / "lib" / f"python{version}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "x.pth").write_text("")
    folder = tmp_path / "env"
    path = packages / closed if closed == "x.pth" else folder / closed.format(version=version)
    path.chmod(0)
    command = ["--site-packages", str(folder), "db", "heads"]
    code, last = run_odd(command, cwd=shop, before=bind_to_rights)
    path.chmod(0o755)
    assert code == 3
    assert "cannot be read" in last["error"]["message"]


def test_folder_that_may_not_be_listed(shop: Path) -> None:
    """Python finds no module there, and would say that there is none."""
    shop.chmod(0o311)
    command = ["--app-dir", str(shop), "db", "heads"]
    code, last = run_odd(command, cwd=shop.parent, before=bind_to_rights)
    shop.chmod(0o755)
    assert code == 3
    assert last["error"]["message"] == f"--app-dir {shop}: Permission denied"


def test_password_that_is_not_utf_8(shop: Path, launch: Launcher) -> None:
    """A variable of somebody else's may hold any bytes, and is masked all the same."""
    result = launch(shop, "db", "upgrade", env={"SHOP_PASSWORD": os.fsdecode(b"caf\xe9")})
    assert result.returncode == 0, result.stderr


def test_url_that_is_not_utf_8(shop: Path, launch: Launcher) -> None:
    """It is refused at once: no server could be meant."""
    url = os.fsdecode(b"sqlite:///\xff.db")
    result = launch(shop, "--database-url", url, "db", "upgrade")
    assert result.returncode == result.last["exit_code"] == 3
    assert "not UTF-8" in result.last["error"]["message"]


@pytest.mark.parametrize("body", ["1 / 0\n", "import sys\nsys.exit(0)\n"])
def test_broken_dotenv(body: str, shop: Path, tmp_path: Path, sidecar: RunCommand) -> None:
    """A python-dotenv of the application's that cannot be imported is told as other packages."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "dotenv.py").write_text(body)
    result = sidecar(shop, "--site-packages", str(tmp_path / "packages"), "db", "heads")
    last = read_log(result.stderr)[-1]
    assert result.returncode == last["exit_code"] == 3
    assert "dotenv" in last["error"]["message"]
