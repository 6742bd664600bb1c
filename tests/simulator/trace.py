"""What happened in a world, and a digest that two runs share only when they were the same to the last statement."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Trace(logging.Handler):
    """The lines of a run. It takes down what the program logs, too."""

    def __init__(self, elapsed_ns: Callable[[], int]) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._elapsed_ns = elapsed_ns
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of every line and statement, each with its instant."""
        return self._hash.hexdigest()

    def note(self, what: str) -> None:
        """Tell what happens now."""
        self.lines.append(f"{self._elapsed_ns() / 1e9:10.3f} s  {what}")
        self.count(what)

    def count(self, what: str) -> None:
        """Let something that nobody wants to read be part of the digest."""
        self._hash.update(f"{self._elapsed_ns()} {what}\n".encode())

    def emit(self, record: logging.LogRecord) -> None:
        """Take down what is logged, and what it is about."""
        error = record.exc_info[1] if record.exc_info else None
        self.note(f"log: {record.getMessage()}" + (f": {_causes(error)}" if error else ""))

    @contextmanager
    def of_logs(self) -> Iterator[None]:
        """While this lasts, the program logs here and nowhere else."""
        logger = logging.getLogger("learnflow")
        logger.addHandler(self)
        before, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.propagate = before
            logger.removeHandler(self)


def _causes(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_causes(one) for one in error.exceptions)
    return f"{error!r}"
