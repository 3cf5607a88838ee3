"""How the pauses between tries grow."""

from flask_migrate_sidecar.database.backoff import next_pause


def test_pauses_are_a_part_of_the_time_waited() -> None:
    """The first tries are 25 to 50 ms apart, later ones a tenth of the wait, none over 1 s."""
    assert all(0.025 <= next_pause(0) <= 0.05 for _ in range(50))
    assert all(0.25 <= next_pause(5) <= 0.5 for _ in range(50))
    assert all(0.5 <= next_pause(3600) <= 1.0 for _ in range(50))


def test_no_two_waiters_are_in_step() -> None:
    """Replicas that started together do not knock together."""
    assert len({next_pause(10) for _ in range(50)}) > 40


def test_bounds_are_the_callers() -> None:
    """A login that was refused, and a process that starts anew, pause longer."""
    assert all(0.25 <= next_pause(0, least=0.5) <= 0.5 for _ in range(50))
    assert all(1.0 <= next_pause(3600, longest=2.0) <= 2.0 for _ in range(50))
