"""Faults that a tired programmer would make, each with the test that notices it: `table.toml`."""

from __future__ import annotations

import ast
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: what `run.py` calls it; what stands before the first dash is its area.
        file: where, from the top of the tree.
        line: the line as it is, or a few lines, less the indentation that they share.
        fault: the line as it should not be.
        test: the test that fails with it, as pytest names it.
    """

    name: str
    file: str
    line: str
    fault: str
    test: str

    def put_into(self, source: str) -> str:
        """Give the source with the fault in it.

        Raises:
            ValueError: the line is not there exactly once, or stays as it is.
            SyntaxError: the fault is no Python.
        """
        lines, wanted = source.splitlines(), self.line.strip("\n")
        height = wanted.count("\n") + 1
        starts = [
            start
            for start in range(len(lines) - height + 1)
            if lines[start].strip()
            and textwrap.dedent("\n".join(lines[start : start + height])) == wanted
        ]
        if len(starts) != 1:
            raise ValueError(f"{self.name}: {len(starts)} places in {self.file} read {wanted!r}")
        [start] = starts
        indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
        changed = textwrap.indent(self.fault.strip("\n"), indent).splitlines()
        text = "\n".join([*lines[:start], *changed, *lines[start + height :]]) + "\n"
        if text == source:
            raise ValueError(f"{self.name} changes nothing")
        ast.parse(text)
        return text


def read_table(path: Path) -> tuple[Fault, ...]:
    """Read the faults from a file."""
    with path.open("rb") as file:
        return tuple(Fault(**row) for row in tomllib.load(file)["fault"])


FAULTS: Final = read_table(Path(__file__).with_name("table.toml"))
