"""The table of faults (`tests/mutants`) speaks of the tree as it is."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from mutants.table import FAULTS, Fault

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_finds_its_line_and_its_test(fault: Fault) -> None:
    """Each line is there exactly once, and each test is where the table says."""
    source = (ROOT / fault.file).read_text(encoding="utf-8")
    assert fault.put_into(source) != source
    module, _, name = fault.test.partition("::")
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name.partition("[")[0] in tests


def test_names_are_given_once() -> None:
    """A fault is called by its name."""
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1


@pytest.mark.parametrize(
    ("line", "source"),
    [("a = 1", "b = 1\n"), ("a = 1", "a = 1\nif b:\n    a = 1\n"), ("a = 1", "aa = 1\n")],
    ids=["missing", "twice", "a part"],
)
def test_line_that_is_not_there_once_is_refused(line: str, source: str) -> None:
    """A row that fits nowhere, or in two places, is not put in anywhere."""
    with pytest.raises(ValueError, match="places"):
        Fault("x", "f", line, "a = 2", "t").put_into(source)


def test_indentation_is_kept() -> None:
    """A fault stands as deep as its line, and may take several lines."""
    fault = Fault("x", "f", "a = 1", "a = 2\nb = 3", "t")
    assert fault.put_into("if c:\n    a = 1\n") == "if c:\n    a = 2\n    b = 3\n"
