"""What a run writes into a document: the part of it between two marks, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.measure import machine


def rewrite(document: Path, part: str, text: str) -> None:
    """Put `text` between the marks of a part, in place of what stands there. Raises ValueError where there are none."""
    begin, end = f"<!-- {part}: what a run found -->\n", f"<!-- {part}: end -->\n"
    head, found, rest = document.read_text("utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{document} has no marks for {part}")
    document.write_text(f"{head}{begin}\n{text.strip()}\n\n{end}{tail}", "utf-8")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def where_and_when() -> str:
    """On what machine a run was made, and when, as a sentence."""
    told = machine()
    load = f", load {told['load'][0]:.1f}" if told["load"] else ""
    return (
        f"Measured on {told['at'][:10]}, on {told['cores']} cores of {told['processor']}{load}, with {told['python']}."
    )
