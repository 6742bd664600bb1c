"""What the service really did with money: one line of JSON for each movement, appended and never changed."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any


class Ledger:
    """The log, in a file where one is named, so that it outlives the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.lines: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self.lines = [json.loads(line) for line in path.read_text().splitlines()]

    def write(self, what: str, **facts: Any) -> None:
        """Write down that money moved: `charged` or `refunded`."""
        line = {"what": what, **facts}
        self.lines.append(line)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def count(self, what: str) -> Counter[str]:
        """How often each enrolment was `charged` or `refunded`."""
        return Counter(line["enrollment"] for line in self.lines if line["what"] == what)

    def kept(self) -> Counter[str]:
        """For how many charges of each enrolment the money was kept."""
        kept = self.count("charged")
        kept.subtract(self.count("refunded"))
        return kept
