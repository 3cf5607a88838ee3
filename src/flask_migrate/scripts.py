"""The revisions of a repository: what is refused when they are read, and when one is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from .databases import MAIN_DATABASE, check_functions, function_of
from .seen import current_command, logger

# Alembic takes them for something else, wherever a revision can be named.
RESERVED = ("head", "heads", "base", "current")

# What these show is right, or shows what is wrong.
LOOKING = ("heads", "history", "branches", "show", "current")

# Alembic makes the column of the version table so wide.
LONGEST_ID = 32

# The message as the first words of a docstring, as all templates of Flask-Migrate have it.
_DOCSTRING = re.compile(r'^(?:"""|\'\'\')\s*\$\{\s*message\s*\}', re.MULTILINE)


class Scripts(ScriptDirectory):
    """The revisions of a repository, each with a function for every database of today."""

    database_names: Sequence[str] = ()
    selected: Sequence[str] = ()
    known: Mapping[str, Script] = {}

    def _load_revisions(self) -> Iterator[Script]:
        self._warn_of_missing_folders()
        self.known = known = dict[str, Script]()
        functions: set[str] = set()
        for script in super()._load_revisions():
            _check_unique(script, known)
            functions |= {name for name in vars(script.module) if name.startswith("upgrade_")}
            self._supply_functions(script.module)
            yield script
        self._check_functions(functions)
        if not known and current_command() in ("upgrade", "stamp"):
            logger.warning(
                "There is no revision in %s, so there is nothing to %s to: the command 'migrate' "
                "writes the first one.",
                ", ".join(map(str, self._version_locations)),
                current_command(),
            )

    def _warn_of_missing_folders(self) -> None:
        """Name the folders of `version_locations` that are not there, which Alembic passes over."""
        # A repository of one folder may have none yet: version control keeps no empty ones.
        for folder in self.version_locations or ():
            if not Path(folder).is_dir():
                logger.warning(
                    "version_locations names %s, which is not there: if it has revisions, they "
                    "are passed over.",
                    Path(folder).absolute(),
                )

    def _check_functions(self, found: set[str]) -> None:
        """Refuse to pass over a database that was renamed, and two that share their functions.

        Args:
            found: names of the functions that any of the revisions has.

        Raises:
            CommandError: a database would be called up to date without any of its tables.
        """
        names = {function_of(name): name for name in self.database_names}
        if not found & {*names}:
            return
        check_functions(self.database_names)
        if current_command() not in ("upgrade", "downgrade"):
            return
        missing = sorted(
            function
            for function, name in names.items()
            if function not in found
            and (not self.selected or (name or MAIN_DATABASE) in self.selected)
        )
        gone = sorted(found - {*names})
        if missing and gone:
            raise CommandError(
                f"No revision has a function {', '.join(missing)}, but there are "
                f"{', '.join(gone)}, for which the application has no database: if it was renamed, "
                "rename them too; if it is another one, make a revision first."
            )

    def _supply_functions(self, module: ModuleType) -> None:
        """Give a revision that is older than a bind the function that it lacks for it.

        Revisions for several databases call `globals()["upgrade_<bind>"]`.
        """
        functions = vars(module)
        if not any(f"upgrade_{name}" in functions for name in self.database_names):
            return
        for name in self.database_names:
            for direction in ("upgrade", "downgrade"):
                functions.setdefault(f"{direction}_{name}", lambda: None)

    def _rev_path(self, path: Any, rev_id: str, *args: Any) -> Any:
        """Name the file of a new revision, unless it would take another one's place.

        Alembic asks for it once it has read the revisions, and before it writes anything.
        """
        _check_identifier(rev_id, self.known)
        if "/" in rev_id and not self.recursive_version_locations:
            raise CommandError(
                f"{rev_id!r} cannot be a revision: it would not be found in a folder below."
            )
        path = super()._rev_path(path, rev_id, *args)
        if os.path.lexists(path):
            raise CommandError(
                f"{path} is there already, and would be overwritten: give another message or "
                "--rev-id, or let file_template contain %(rev)s."
            )
        return path

    def _generate_template(self, src: Any, dest: Any, **variables: Any) -> None:
        """Fill the template of new revisions, which has functions by database where it says so."""
        template = Path(src).read_text(encoding="utf-8")
        if "engine_name" in template:
            check_functions(self.database_names)
        if _DOCSTRING.search(template):
            variables["message"] = _escape_docstring(variables["message"])
        super()._generate_template(src, dest, **variables)


def _check_unique(script: Script, known: dict[str, Script]) -> None:
    """Refuse two files of one identifier, of which Alembic would forget the first."""
    other = known.setdefault(script.revision, script)
    if other is not script and current_command() not in LOOKING:
        raise CommandError(
            f"Two files have the revision {script.revision}: {other.path} and {script.path}. "
            "Delete one of them, or give it an identifier and a down_revision of its own."
        )


def _check_identifier(revid: str, known: Mapping[str, Script]) -> None:
    """Refuse an identifier that is taken or means something else, and warn of a long one."""
    labels = {label for script in known.values() for label in script.branch_labels}
    if revid in known:
        raise CommandError(f"There is a revision {revid} already: {known[revid].path}.")
    if revid in RESERVED or revid in labels:
        raise CommandError(f"{revid!r} cannot be a revision: it has a meaning where one is named.")
    if "\\" in revid:
        raise CommandError(f"{revid!r} cannot be a revision: Python takes a backslash for more.")
    if '"' in revid or not revid.isprintable():
        raise CommandError(f"{revid!r} cannot be a revision: no text of Python takes all of it.")
    if len(revid) > LONGEST_ID and not any(len(other) > LONGEST_ID for other in known):
        logger.warning(
            "The identifier %s is longer than %d characters, which is all that the version table "
            "has room for: SQLite takes it, but a server refuses the upgrade.",
            revid,
            LONGEST_ID,
        )


def _escape_docstring(message: str) -> str:
    """Let a message stand in a docstring, where backslashes and three quotes mean something."""
    return message.replace("\\", "\\\\").replace('"""', r"\"\"\"").replace("'''", r"\'\'\'")
