"""Where databases stand among the revisions of the code, and what a failed run left of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from flask_migrate_sidecar.errors import HistoryError, UsageError
from flask_migrate_sidecar.history.environment import Place, label_place
from flask_migrate_sidecar.history.outcome import find_outcome
from flask_migrate_sidecar.history.position import (
    check_known,
    check_progress,
    describe_position,
    find_missing,
    judge,
)
from flask_migrate_sidecar.history.progress import Progress, Step
from flask_migrate_sidecar.history.revisions import (
    find_ancestors,
    find_pending,
    is_known,
    is_relative,
)

# Revision, what it follows, what it depends on.
LINE = [("r1", None, None), ("r2", "r1", None), ("r3", "r2", None)]
TREE = [("root", None, None), ("left", "root", None), ("right", "root", None)]
DEPENDING = [("a", None, None), ("b", None, None), ("c", "b", "a")]

MAIN, OTHER = Place("default"), Place("users")

MakeHistory = Callable[[Sequence[tuple[str, str | None, str | None]]], ScriptDirectory]


@pytest.fixture
def make_history(tmp_path: Path) -> MakeHistory:
    """Return a function that writes a repository and opens it."""

    def make(revisions: Sequence[tuple[str, str | None, str | None]]) -> ScriptDirectory:
        (tmp_path / "versions").mkdir()
        for revision, down, depends_on in revisions:
            (tmp_path / "versions" / f"{revision}.py").write_text(
                f'"""step {revision}"""\n'
                f"revision = {revision!r}\ndown_revision = {down!r}\ndepends_on = {depends_on!r}\n"
                "def upgrade(): pass\n"
            )
        return ScriptDirectory(str(tmp_path))

    return make


@pytest.fixture
def line(make_history: MakeHistory) -> ScriptDirectory:
    """Return a history of three revisions in a row."""
    return make_history(LINE)


@pytest.mark.parametrize(
    ("held", "state"),
    [
        ((), "empty"),
        (("r1",), "behind"),
        (("r2",), "behind"),
        (("r3",), "at_head"),
        (("unknown",), "ahead"),
        (("r3", "unknown"), "ahead"),
        (("r2", "unknown"), "diverged"),
        # Alembic would take it for r3; the database means something else.
        (("r",), "ahead"),
    ],
)
def test_state_of_a_line(line: ScriptDirectory, held: Sequence[str], state: str) -> None:
    """What is unknown makes a database ahead, unless it is not at the code's head beside it."""
    assert judge(line, held) == state


@pytest.mark.parametrize(
    ("held", "state"),
    [
        (("left",), "behind"),
        (("left", "right"), "at_head"),
        (("left", "unknown"), "ahead"),
        (("root", "unknown"), "diverged"),
    ],
)
def test_state_of_a_tree(make_history: MakeHistory, held: Sequence[str], state: str) -> None:
    """Every head of the code must be there."""
    assert judge(make_history(TREE), held) == state


def test_dependencies_are_ancestors(make_history: MakeHistory) -> None:
    """What a revision depends on has run before it, though it is on another branch."""
    history = make_history(DEPENDING)
    assert find_ancestors(history, ["c"]) == {"a", "b", "c"}
    assert judge(history, ["c"]) == "at_head"


def test_unknown_revisions_have_no_ancestors(line: ScriptDirectory) -> None:
    """What the code does not know tells nothing of what has run."""
    assert find_ancestors(line, ["unknown"]) == set()
    assert find_ancestors(line, ["unknown", "r2"]) == {"r1", "r2"}


def test_identifiers_are_whole(line: ScriptDirectory) -> None:
    """A part of an identifier is none, though Alembic takes it for one."""
    assert is_known(line, "r3")
    assert not is_known(line, "r")


def test_position_lists_what_is_pending(line: ScriptDirectory) -> None:
    """Pending revisions stand in the order in which they would run."""
    position = describe_position(line, ["r1"])
    assert position == {
        "state": "behind",
        "current": ["r1"],
        "heads": ["r3"],
        "pending": [
            {"revision": "r2", "message": "step r2"},
            {"revision": "r3", "message": "step r3"},
        ],
        "unknown": [],
    }
    assert describe_position(line, ["unknown"])["pending"] == []


def test_unknown_revision_is_refused_by_name(line: ScriptDirectory) -> None:
    """The error names the database and the revisions that the code has not."""
    check_known(line, {MAIN: ("r3",)})
    with pytest.raises(HistoryError, match="database users is at revision x") as caught:
        check_known(line, {MAIN: ("r3",), OTHER: ("x",)})
    assert caught.value.fields == {"database": "users", "unknown": ["x"]}


def test_pending_of_each_database(line: ScriptDirectory) -> None:
    """Each database has what it lacks before it, up to the target."""
    assert find_pending(line, "head", {"a": (), "b": ("r2",), "c": ("r3",)}) == {
        "a": ["r1", "r2", "r3"],
        "b": ["r3"],
        "c": [],
    }
    assert find_pending(line, "r2", {"a": ("r1",)}) == {"a": ["r2"]}


def test_missing_databases(line: ScriptDirectory) -> None:
    """A database is missing as long as it lacks one of the revisions that were pending."""
    a, b = Place("a"), Place("b")
    pending = {a: ["r2", "r3"], b: ["r3"], Place("c"): []}
    assert find_missing(line, {a: ("r2",), b: ("r3",)}, pending) == {a}
    assert find_missing(line, {a: ("r3",)}, pending) == {b}


PROGRESS = {
    "all of it": (("r3",), True),
    "a part of it": (("r2",), True),
    "nothing": (("r1",), True),
    "back": ((), False),
    "elsewhere": (("unknown",), False),
}


@pytest.mark.parametrize(("now", "accepted"), PROGRESS.values(), ids=PROGRESS.keys())
def test_what_another_migrator_may_have_done(
    line: ScriptDirectory, now: tuple[str, ...], accepted: bool
) -> None:
    """On our way to an absolute target anything will do, and nothing beside that way."""
    arguments = ({MAIN: ("r1",)}, {MAIN: now}, {MAIN: ["r2", "r3"]})
    if accepted:
        check_progress(line, *arguments, is_relative=False)
        return
    with pytest.raises(HistoryError, match="the database default moved"):
        check_progress(line, *arguments, is_relative=False)


def test_half_of_a_relative_target_is_elsewhere(line: ScriptDirectory) -> None:
    """`+2` means something else after the first of the two."""
    with pytest.raises(HistoryError):
        check_progress(
            line, {MAIN: ("r1",)}, {MAIN: ("r2",)}, {MAIN: ["r2", "r3"]}, is_relative=True
        )


def test_other_branch_is_not_on_the_way(make_history: MakeHistory) -> None:
    """A revision that this run would not have applied is somewhere else."""
    history = make_history(TREE)
    with pytest.raises(HistoryError):
        check_progress(
            history, {MAIN: ("root",)}, {MAIN: ("right",)}, {MAIN: ["left"]}, is_relative=False
        )


@pytest.mark.parametrize(
    ("target", "relative"),
    [("+1", True), ("-2", True), ("r1+1", True), ("head", False), ("r-1x", False), ("12", False)],
)
def test_relative_targets(target: str, relative: bool) -> None:
    """A target that counts from where the database is means another one later."""
    assert is_relative(target) is relative


@pytest.mark.parametrize(
    ("places", "labels"),
    [
        ([Place("a", "public")], ["a"]),
        ([Place("a", "x"), Place("a", "y"), Place("b", "x")], ["a/x", "a/y", "b"]),
        ([Place("a", "x", "t"), Place("a", "x", "u")], ["a/x.t", "a/x.u"]),
    ],
)
def test_places_are_told_apart(places: Sequence[Place], labels: Sequence[str]) -> None:
    """A version table is called by its database, and with tenants by its schema, or by itself."""
    assert [label_place(place, places) for place in places] == labels


def test_revisions_of_several_places_say_which(line: ScriptDirectory) -> None:
    """Of several tenants, what stayed and what did not is told with the tenant of each."""
    blue, green = Place("default", "blue"), Place("default", "green")
    progress = Progress(
        applied=[Step(blue, "blue", "upgrade", "r1", None, "")],
        running=Step(green, "green", "upgrade", "r1", None, ""),
    )
    assert find_outcome(progress, line, {blue: ("r1",), green: ()}) == {
        "kept": ["default/blue: r1"],
        "rolled_back": ["default/green: r1"],
    }


def make_step(revision: str, direction: str = "upgrade") -> Step:
    """Make a step of the main database."""
    return Step(MAIN, None, direction, revision, None, "")


OUTCOMES: Mapping[str, tuple[Progress, tuple[str, ...], dict[str, list[str]]]] = {
    "all rolled back": (
        Progress(applied=[make_step("r1")], running=make_step("r2")),
        (),
        {"kept": [], "rolled_back": ["r1", "r2"]},
    ),
    "each one committed": (
        Progress(applied=[make_step("r1")], running=make_step("r2")),
        ("r1",),
        {"kept": ["r1"], "rolled_back": ["r2"]},
    ),
    "no transactional DDL": (
        Progress(applied=[make_step("r1")], running=make_step("r2"), is_transactional=False),
        ("r1",),
        {"kept": ["r1"], "rolled_back": [], "unfinished": ["r2"]},
    ),
    "an earlier one is never unfinished": (
        Progress(applied=[make_step("r1")], running=make_step("r2"), is_transactional=False),
        (),
        {"kept": [], "rolled_back": ["r1"], "unfinished": ["r2"]},
    ),
    "downgrade": (
        Progress(applied=[make_step("r3", "downgrade")], running=make_step("r2", "downgrade")),
        ("r2",),
        {"kept": [], "reverted": ["r3"], "rolled_back": ["r2"]},
    ),
    "up and down": (
        Progress(applied=[make_step("r1"), make_step("r2"), make_step("r2", "downgrade")]),
        ("r1",),
        {"kept": ["r1"], "reverted": ["r2"], "rolled_back": []},
    ),
    "down and up": (
        Progress(applied=[make_step("r2", "downgrade"), make_step("r2")]),
        ("r2",),
        {"kept": ["r2"], "rolled_back": []},
    ),
}


@pytest.mark.parametrize(("progress", "held", "outcome"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_outcome(
    line: ScriptDirectory,
    progress: Progress,
    held: tuple[str, ...],
    outcome: dict[str, list[str]],
) -> None:
    """What the database holds decides what was kept, whatever the run had thought."""
    assert find_outcome(progress, line, {MAIN: held}) == outcome


def test_run_has_begun_with_its_first_revision() -> None:
    """From the first one on, a failure tells what stayed."""
    assert not Progress().has_begun
    assert Progress(running=make_step("r1")).has_begun
    assert Progress(applied=[make_step("r1")]).has_begun


@pytest.mark.parametrize(
    ("held", "targets", "state"),
    [
        (("left",), ["left"], "at_head"),
        (("left",), ["right"], "behind"),
        (("left",), ["left", "right"], "behind"),
        (("left",), ["root"], "at_head"),
        ((), ["left"], "empty"),
        (("left", "unknown"), ["left"], "ahead"),
        (("root", "unknown"), ["left"], "diverged"),
        (("right", "unknown"), ["left"], "diverged"),
        (("left", "right"), ["heads"], "at_head"),
    ],
)
def test_state_for_targets(
    make_history: MakeHistory, held: Sequence[str], targets: Sequence[str], state: str
) -> None:
    """Where not every branch is everyone's, a database is compared with those that are named."""
    assert judge(make_history(TREE), held, targets) == state


def test_pending_for_targets(make_history: MakeHistory) -> None:
    """What is pending is what the target lacks, and no other branch."""
    history = make_history(TREE)
    position = describe_position(history, ["root"], ["left"])
    assert [revision["revision"] for revision in position["pending"]] == ["left"]


@pytest.mark.parametrize("target", ["+1", "left-1", "base"])
def test_targets_that_are_none(make_history: MakeHistory, target: str) -> None:
    """A target that is another one for each database, or before all, compares nothing."""
    with pytest.raises(UsageError):
        judge(make_history(TREE), ["root"], [target])
