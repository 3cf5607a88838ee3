"""What `import flask_migrate` adds to a process that has Flask and Flask-SQLAlchemy.

    python tests/benchmarks/import_time.py [RUNS]

Prints the median of several runs of `python -X importtime`, in milliseconds, and whether Alembic
and Mako were loaded.
"""

import re
import statistics
import subprocess
import sys

PROGRAM = (
    "import flask, flask_sqlalchemy, flask_migrate, sys; "
    "print(sorted({'alembic', 'mako'} & {*sys.modules}))"
)


def measure() -> tuple[float, str]:
    """Import once; return the milliseconds of `flask_migrate` with all it imports, and what."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
    )
    line = re.search(r"\|\s*(\d+) \| flask_migrate$", done.stderr, re.MULTILINE)
    assert line is not None, done.stderr
    return int(line[1]) / 1000, done.stdout.strip()


def main() -> None:
    """Measure and print."""
    runs = [measure() for _ in range(int(sys.argv[1]) if sys.argv[1:] else 15)]
    times = sorted(time for time, _ in runs)
    median = statistics.median(times)
    print(  # noqa: T201
        f"import flask_migrate: {median:.1f} ms (median of {len(times)}, "
        f"{times[0]:.1f} to {times[-1]:.1f}); of alembic and mako loaded: {runs[0][1]}"
    )


if __name__ == "__main__":
    main()
