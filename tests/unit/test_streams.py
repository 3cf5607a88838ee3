"""The captured streams: how bytes become lines, in a process of their own."""

import json
import subprocess
import sys
from typing import Any

import pytest

from flask_migrate_sidecar.process.output import _LineBuffer

PROGRAM = """
import json, os, sys
from flask_migrate_sidecar.process.output import Streams

lines = []
streams = Streams(lambda stream, text: lines.append([stream, text]))
{body}
streams.finish()
os.write(streams._log, json.dumps(lines).encode())
os._exit(0)
"""


def capture(body: str) -> tuple[list[list[str]], str]:
    """Run code with captured streams; give the captured lines, and the real stdout."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines: Any = json.loads(done.stderr)
    return lines, done.stdout


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b\n"], ["ab"]),
        ([b"caf\xc3", b"\xa9\n"], ["caf\u00e9"]),
        ([b"a\r\n"], ["a"]),
        ([b"\n"], [""]),
        ([b"\xff\n"], ["\ufffd"]),
        ([b"rest"], ["rest"]),
        ([], []),
    ],
)
def test_lines_are_cut(parts: list[bytes], lines: list[str]) -> None:
    """Bytes are lines once they end; a character may come in parts; the rest counts at the end."""
    buffer = _LineBuffer()
    found = [line for part in parts for line in buffer.feed(part)]
    assert [*found, *buffer.feed(b"", last=True)] == lines


def test_descriptors_and_python_are_captured() -> None:
    """Both descriptors and both streams of Python are captured, and stdout stays empty."""
    lines, stdout = capture(
        "print('a'); print('b', file=sys.stderr); os.write(1, b'c'); os.write(2, b'd\\n')"
    )
    assert sorted(lines) == [["stderr", "b"], ["stderr", "d"], ["stdout", "a"], ["stdout", "c"]]
    assert stdout == ""


def test_piece_of_a_line_ends_with_a_word() -> None:
    """What is so long that it is told in pieces is cut between words: half a secret is seen."""
    lines, _stdout = capture("os.write(1, b'x ' * ((1 << 19) - 3) + b'Zq77AbcXyz' + b' y' * 100)")
    assert [text for _stream, text in lines] == ["x " * ((1 << 19) - 3), "Zq77AbcXyz" + " y" * 100]


def test_results_reach_the_real_stdout() -> None:
    """Results go where stdout went before."""
    assert capture("streams.results.write('result\\n')") == ([], "result\n")


def test_released_stdout_is_real() -> None:
    """Inside of `released()` stdout is the original one, behind it it is captured again."""
    lines, stdout = capture(
        "print('before', end='')\n"
        "with streams.released():\n"
        "    print('inside'); os.write(1, b'native\\n')\n"
        "print(' after')"
    )
    assert stdout == "inside\nnative\n"
    assert "".join(text for _, text in lines) == "before after"


def test_restored_descriptors() -> None:
    """After `restore()` the descriptors write where they wrote at first."""
    assert capture("print('a'); streams.restore(); os.write(1, b'b\\n')") == (
        [["stdout", "a"]],
        "b\n",
    )


@pytest.mark.parametrize(
    "body",
    [
        "import codecs; sys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer); print('a')",
        "sys.stdout = open(1, 'w', closefd=False); print('a', flush=True)",
        "sys.stdout.close(); print('a')",
        "import io; io.TextIOWrapper(sys.stdout.buffer); import gc; gc.collect(); print('a')",
        "sys.stdout.write('a'); sys.stdout = None",
        "sys.stdout.reconfigure(encoding='latin-1'); print('a')",
    ],
)
def test_replaced_stdout(body: str) -> None:
    """An application that wraps, closes or replaces `sys.stdout` loses nothing."""
    assert capture(body) == ([["stdout", "a"]], "")


def test_truncated_file_is_noticed() -> None:
    """What a child writes to a newly opened /dev/stderr, which truncates the file, is read."""
    lines, _ = capture(
        "import subprocess\n"
        "for text in ('a', 'b', 'ccc', 'd'):\n"
        "    subprocess.run(['sh', '-c', f'echo {text} > /dev/stderr'])\n"
        "    streams.drain()\n"
        "    os.write(2, b'own\\n')\n"
        "    streams.drain()"
    )
    expected = [text for mark in ("a", "b", "ccc", "d") for text in (mark, "own")]
    assert [text for _, text in lines] == expected


C = "import ctypes; c = ctypes.CDLL(None)\n"


def test_line_of_c_is_told_at_once() -> None:
    """A line that C code writes through stdio, which it does not flush, keeps its place."""
    lines, _ = capture(C + "c.puts(b'first'); streams.drain(); print('second'); c.puts(b'third')")
    assert lines == [["stdout", "first"], ["stdout", "second"], ["stdout", "third"]]


def test_rest_of_c_is_told_at_the_end() -> None:
    """What C code left in the buffer of its stdout is not lost, though the process never exits."""
    assert capture(C + "c.printf(b'unfinished')") == ([["stdout", "unfinished"]], "")


def test_released_stdout_of_c_is_real() -> None:
    """C code that writes inside of `released()`, and no other, reaches the real stdout."""
    lines, stdout = capture(
        C + "c.printf(b'before')\n"
        "with streams.released():\n"
        "    c.printf(b'inside')\n"
        "c.printf(b' after')"
    )
    assert (lines, stdout) == ([["stdout", "before after"]], "inside")


def test_forked_child_repeats_nothing() -> None:
    """What lies unread in the files when a process forks is told once, by the parent."""
    lines, _ = capture(
        "os.write(1, b'native\\n')\n"
        "if os.fork() == 0:\n"
        "    streams.drain()\n"
        "    os.write(1, b'child %d\\n' % len(lines))\n"
        "    os._exit(0)\n"
        "os.wait()"
    )
    assert lines == [["stdout", "native"], ["stdout", "child 0"]]


@pytest.mark.timeout(60)
def test_fork_while_a_line_is_told() -> None:
    """A child does not wait for a lock that a thread of its parent held when it was forked."""
    lines, _ = capture(
        # From 3.12 on Python warns of a fork beside a thread, which is what is tried here.
        "import threading, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "held, over = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with streams._lock:\n"
        "        held.set()\n"
        "        over.wait()\n"
        "thread = threading.Thread(target=hold)\n"
        "thread.start()\n"
        "held.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    streams._log = os.open(os.devnull, os.O_WRONLY)\n"
        "    streams.write_log('child')\n"
        "    os._exit(7)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "over.set()\n"
        "thread.join()\n"
        "lines.append(['child', str(os.waitstatus_to_exitcode(status))])"
    )
    assert lines == [["child", "7"]]


def test_native_output_behind_a_release_is_captured() -> None:
    """Once the command that has stdout is over, C code and children do not have it any more."""
    lines, stdout = capture(
        "with streams.released():\n"
        "    os.write(1, b'inside\\n')\n"
        "os.write(1, b'behind\\n')\n"
        "os.system('echo child')"
    )
    assert (lines, stdout) == ([["stdout", "behind"], ["stdout", "child"]], "inside\n")
