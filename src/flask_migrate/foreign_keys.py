"""The foreign keys of a SQLite database that point nowhere, before a run and after it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from alembic.util import CommandError

Ask = Callable[[str], Sequence[Sequence[Any]]]

# So many are named in a message.
_NAMED = 5


class Violation(NamedTuple):
    """A row that refers to one that is not there, known by what it says and not by its number.

    A table that was copied may have numbered its rows and its keys anew.

    Args:
        table: where the row is.
        parent: the table that it refers to.
        values: what it refers to there.
    """

    table: str
    parent: str
    values: tuple[str, ...]


class ForeignKeys:
    """What SQLite enforces of foreign keys on one connection, and what is checked instead.

    Args:
        ask: runs a statement on the driver's connection, and gives its rows.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.are_enforced = ask("PRAGMA foreign_keys") == [(1,)]
        self._before: Counter[Violation] | None = None

    def enforce(self, *, enforced: bool) -> None:
        """Switch what was on off, or on again; in a transaction SQLite does nothing."""
        if self.are_enforced:
            self._ask(f"PRAGMA foreign_keys = {'ON' if enforced else 'OFF'}")

    def note_violations(self) -> None:
        """Remember, once, those that are there before the first revision."""
        if self.are_enforced and self._before is None:
            self._before = Counter(self._find_violations())

    def check(self) -> None:
        """Make sure that no revision has added one.

        Raises:
            CommandError: it has.
        """
        if self._before is None:
            return
        added = Counter(self._find_violations()) - self._before
        if added and (added := self._forgive_renamed(added, self._before)):
            raise CommandError(_describe(added))

    def _find_violations(self) -> Iterator[Violation]:
        """Ask SQLite table by table, for a key that fits none of the parent's is an error."""
        for name in self._list_tables():
            try:
                found = self._ask(f"PRAGMA foreign_key_check({_quote(name)})")
            except Exception as error:
                if "foreign key mismatch" not in str(error):
                    raise
                yield Violation(name, _parent_of_mismatch(str(error)), ("no such key",))
                continue
            keys = self._list_keys(name) if found else {}
            for table, row, parent, key in found:
                yield Violation(table, parent, self._read_values(table, row, keys[key]))

    def _list_tables(self) -> list[str]:
        rows = self._ask("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return [name for (name,) in rows]

    def _list_keys(self, table: str) -> dict[int, list[str]]:
        """Give the columns of each foreign key of a table."""
        found: dict[int, list[str]] = {}
        for key, _number, _parent, column, *_ in self._ask(
            f"PRAGMA foreign_key_list({_quote(table)})"
        ):
            found.setdefault(key, []).append(column)
        return found

    def _read_values(self, table: str, row: int | None, columns: Sequence[str]) -> tuple[str, ...]:
        """Read what a row refers to; a table WITHOUT ROWID does not say which row it is."""
        if row is None:
            return ()
        listed = ", ".join(map(_quote, columns))
        rows = self._ask(f"SELECT {listed} FROM {_quote(table)} WHERE rowid = {row}")  # noqa: S608
        return tuple(str(value) for value in rows[0])

    def _forgive_renamed(
        self, added: Counter[Violation], before: Counter[Violation]
    ) -> Counter[Violation]:
        """Leave out those that were there under the name of a table that is no more."""
        tables = {*self._list_tables()}
        gone = Counter(
            {
                violation: count
                for violation, count in before.items()
                if not {violation.table, violation.parent} <= tables
            }
        )
        known = Counter(violation.values for violation in gone.elements())
        left: list[Violation] = []
        for violation in added.elements():
            if known[violation.values]:
                known[violation.values] -= 1
            else:
                left.append(violation)
        return Counter(left)


def _describe(added: Counter[Violation]) -> str:
    count = added.total()
    rows = "a row refers" if count == 1 else f"{count} rows refer"
    return (
        f"Nothing was committed: {rows} to what is not there: {_list(added)}. While revisions run, "
        "SQLite's foreign keys neither cascade nor refuse: let the revision change or delete the "
        "rows that refer to others itself."
    )


def _list(added: Iterable[Violation]) -> str:
    told = [f"{v.table} to {v.parent} ({', '.join(v.values)})" for v in sorted(added)]
    return ", ".join(told[:_NAMED] + ["..."] * (len(told) > _NAMED))


def _parent_of_mismatch(text: str) -> str:
    found = re.search(r'referencing "(.*)"', text)
    return found[1] if found else ""


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
