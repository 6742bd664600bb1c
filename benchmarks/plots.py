"""How plots look and are written, where matplotlib is installed: SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OURS, FLOOR, PEER = "#c2410c", "#9ca3af", "#1d4ed8"
"""The colours of the project, of what nothing can be cheaper than, and of the others."""

_STYLE = {
    "svg.hashsalt": "learnflow",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def can_draw() -> bool:
    """Whether matplotlib is here."""
    return find_spec("matplotlib") is not None


def pyplot() -> Any:
    """What makes figures, in the style of all of them."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update(_STYLE)
    return import_module("matplotlib.pyplot")


def written(figures: Iterable[tuple[str, Any]], folder: Path) -> list[Path]:
    """Write figures into a folder, each under its name, and say which files that made."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures:
        path = folder / f"{name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        pyplot().close(figure)
        paths.append(path)
    return paths
