"""Rules of the architecture that syntax trees can show."""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import flask_migrate
import flask_migrate_sidecar

LIBRARY = Path(flask_migrate.__file__).parent
SIDECAR = Path(flask_migrate_sidecar.__file__).parent
# What upstream offers beside its top-level names: the group of commands.
UPSTREAM = {"flask_migrate.cli.db"}

# The library's modules; each imports only what stands after it.
LIBRARY_ORDER = [
    "__init__",
    "extension",
    "cli",
    "commands",
    "repository",
    "runner",
    "stand_ins",
    "scripts",
    "isolation",
    "errors",
    "comparison",
    "coverage",
    "databases",
    "state",
    "arguments",
    "commits",
    "transaction",
    "foreign_keys",
    "config",
    "invocation",
    "seen",
]


# The sidecar's rooms; each imports only what stands after it.
ROOMS = [
    "__main__",
    "commands",
    "history",
    "lock",
    "application",
    "database",
    "log",
    "process",
    "settings",
    "errors",
]


def identify(path: Path) -> str:
    """Name a module of the sidecar's by room and name."""
    return ".".join(path.relative_to(SIDECAR).with_suffix("").parts)


def modules(folder: Path) -> list[Path]:
    """List the modules of a package, folders in it included; templates are no modules."""
    return sorted(p for p in folder.rglob("*.py") if "templates" not in p.parts)


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """List what is imported absolutely, as dotted names."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parse(path: Path) -> ast.Module:
    """Read the syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", modules(LIBRARY), ids=lambda path: path.stem)
def test_library_does_not_know_the_sidecar(path: Path) -> None:
    """`flask_migrate` never imports the sidecar, nor what only the sidecar needs."""
    roots = {name.partition(".")[0] for name in imported(ast.walk(parse(path)))}
    assert not roots & {"flask_migrate_sidecar", "structlog", "psycopg", "pymysql"}


def library_modules(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """List what a module of the library imports of the library, in whichever way."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [f"{node.module or ''}.{alias.name}".lstrip(".") for alias in node.names]
        else:
            every = [name.partition(".") for name in imported(iter([node]))]
            names = [rest for package, _, rest in every if package == LIBRARY.name]
        # A name that is no module is one of the package itself.
        heads = [name.partition(".")[0] for name in names]
        yield from (head if head in LIBRARY_ORDER else "__init__" for head in heads)


def test_order_names_every_module_of_the_library() -> None:
    """A new module has to take its place in the order."""
    assert sorted(path.stem for path in modules(LIBRARY)) == sorted(LIBRARY_ORDER)


@pytest.mark.parametrize("name", LIBRARY_ORDER)
def test_library_imports_one_way(name: str) -> None:
    """A module imports only later ones, imports in functions and for types alone included."""
    used = {*library_modules(ast.walk(parse(LIBRARY / f"{name}.py")))}
    later = LIBRARY_ORDER[LIBRARY_ORDER.index(name) + 1 :]
    assert used <= {*later}


@pytest.mark.parametrize("path", modules(SIDECAR), ids=identify)
def test_sidecar_uses_public_names_of_the_library(path: Path) -> None:
    """The sidecar imports of `flask_migrate` only what an upstream Flask-Migrate offers too."""
    used = {n for n in imported(ast.walk(parse(path))) if n.partition(".")[0] == "flask_migrate"}
    public = {"flask_migrate", *(f"flask_migrate.{name}" for name in flask_migrate.__all__)}
    assert used <= public | UPSTREAM


@pytest.mark.parametrize(
    "path",
    [path for path in modules(SIDECAR) if path != SIDECAR / "errors.py"],
    ids=identify,
)
def test_exit_codes_are_numbers_in_one_place(path: Path) -> None:
    """Outside of errors.py no exit code but 0 is written as a number."""
    assert not [number for number in written_codes(parse(path)) if number]


def written_codes(tree: ast.Module) -> Iterator[int]:
    """List the numbers that are given to an exit, or assigned to or passed as `exit_code`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            arguments = node.args if name in {"exit", "_exit", "SystemExit", "Exit"} else []
            yield from map(number, arguments)
            yield from (number(k.value) for k in node.keywords if k.arg == "exit_code")
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if "exit_code" in {ast.unparse(target).rpartition(".")[2] for target in targets}:
                yield number(node.value)


def number(node: ast.expr) -> int:
    """Give the number that an expression is, else 0."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else 0


def test_each_error_owns_its_code() -> None:
    """No two classes of errors share an exit code, and none is 0."""
    from flask_migrate_sidecar.errors import SidecarError

    classes = [SidecarError, *SidecarError.__subclasses__()]
    codes = [kind.__dict__.get("exit_code") for kind in classes]
    assert sorted(code for code in codes if code) == [*range(1, 11)]


def own_module(dotted: str) -> Path | None:
    """Give the file that a dotted name of the sidecar's means, or the module that has the name."""
    parts = dotted.split(".")[1:]
    for length in (len(parts), len(parts) - 1):
        path = SIDECAR.joinpath(*parts[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if length and file.exists():
                return file
    return None


def own_imports(path: Path, nodes: Iterable[ast.AST]) -> Iterator[Path]:
    """List the sidecar's modules that a module imports, in whichever way."""
    package = [SIDECAR.name, *path.relative_to(SIDECAR).parent.parts]
    for node in nodes:
        names = list(imported(iter([node])))
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [".".join([*base, *filter(None, [node.module, a.name])]) for a in node.names]
        for name in names:
            found = own_module(name) if name.partition(".")[0] == SIDECAR.name else None
            if found is not None:
                yield found


def room(path: Path) -> str:
    """Name the room that a module lies in: a package, or a module at the top."""
    return path.relative_to(SIDECAR).parts[0].removesuffix(".py")


def test_every_module_lies_in_a_room() -> None:
    """There is no module beside the rooms, and no room beside the list."""
    assert {room(path) for path in modules(SIDECAR)} == {"__init__", *ROOMS}


@pytest.mark.parametrize("path", modules(SIDECAR), ids=identify)
def test_rooms_import_one_way(path: Path) -> None:
    """A room imports only from rooms below it, in functions and for types alone too."""
    used = {room(found) for found in own_imports(path, ast.walk(parse(path)))} - {room(path)}
    below = ROOMS[ROOMS.index(room(path)) + 1 :] if room(path) in ROOMS else []
    assert used <= {*below}


@pytest.mark.parametrize("path", modules(SIDECAR), ids=identify)
def test_no_module_imports_in_a_circle(path: Path) -> None:
    """Inside a room, too, no module needs one that needs it, at once or late."""
    seen: set[Path] = set()
    todo = [*own_imports(path, ast.walk(parse(path)))]
    while todo:
        found = todo.pop()
        if found not in seen:
            seen.add(found)
            todo += own_imports(found, ast.walk(parse(found)))
    assert path not in seen


@pytest.mark.parametrize("path", modules(SIDECAR), ids=identify)
def test_errors_of_drivers_are_read_in_one_place(path: Path) -> None:
    """Nothing but the classifier reads an SQLSTATE, a number or a result code."""
    tree = ast.walk(parse(path))
    words = {node.attr for node in tree if isinstance(node, ast.Attribute)}
    tree = ast.walk(parse(path))
    words |= {str(node.value) for node in tree if isinstance(node, ast.Constant)}
    # The drivers of MariaDB and MySQL have the number among the arguments of their exceptions.
    indexed = {
        node.value.attr
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute)
    }
    codes = words & {"sqlstate", "pgcode", "errno", "sqlite_errorname", "sqlite_errorcode"}
    codes |= indexed & {"args"}
    assert not codes or path == SIDECAR / "database" / "errors.py"


# A module by its name as data: the dialects, which stand beside, and drivers, which are others'.
BY_NAME = {"database.dialect", "application.driver_fallback"}


@pytest.mark.parametrize("path", modules(SIDECAR), ids=identify)
def test_imports_are_statements(path: Path) -> None:
    """What is imported by a name in a text, the direction of imports would not be held for."""
    nodes = [*ast.walk(parse(path))]
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    words |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    words |= {name.rpartition(".")[2] for name in imported(iter(nodes))}
    words &= {"import_module", "__import__", "run_module", "run_path", "exec", "eval"}
    assert not words or identify(path) in BY_NAME


def test_packages_are_found_before_any_is_imported() -> None:
    """What runs before the app's packages come first on the path imports the standard library."""
    seen: set[Path] = set()
    todo = [SIDECAR / "__main__.py"]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        nodes = list(parse(path).body)
        roots = {name.partition(".")[0] for name in imported(iter(nodes))}
        assert roots <= sys.stdlib_module_names | {SIDECAR.name}, identify(path)
        todo += own_imports(path, nodes)
    names = {identify(path) for path in seen}
    assert names >= {"__main__", "settings.sources", "application.site_packages"}
