"""`python -m benchmarks` lists the benchmarks; `python -m benchmarks NAME …` runs one, `-h` tells its options."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = {
    "limiter": "decisions of the limiter beside floors and peers, in memory and over Valkey; bytes a key",
    "catalogue": "lists, pages and searches, at any number of courses, on SQLite and PostgreSQL",
    "http": "lists, searches, courses and enrolments, beside the floor of the same uvicorn and a peer",
}
"""The module `benchmarks.<name>` has `run(argv) -> int`, and is loaded only when it is asked for."""


def main(argv: list[str]) -> int:
    """Run the benchmark named first, with the arguments behind it; without a name, list them all."""
    if not argv:
        for name, measures in BENCHMARKS.items():
            print(f"python -m benchmarks {name:<9}  {measures}")
        return 0
    name, *arguments = argv
    if name not in BENCHMARKS:
        print(f"benchmarks: there is no {name!r}, only {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    status: int = import_module(f"benchmarks.{name}").run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
