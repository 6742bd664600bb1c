"""The life of an enrolment as a picture and a table, both made from the state machine of the core.

`python -m learnflow_http.lifecycle` prints `docs/enrolling.svg`; the table stands in `docs/enrolling.md`. A test holds
both to this.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Final

from learnflow_core.enrollment import BEGINNINGS, PAYMENTS, TRANSITIONS, Event, Payable
from learnflow_core.model import LIVE_STATUSES, EnrollmentStatus

Point = tuple[float, float]

_PLACES: Final[dict[EnrollmentStatus, Point]] = {
    "pending": (210, 190),
    "active": (500, 190),
    "completed": (810, 80),
    "expired": (810, 190),
    "cancelled": (500, 350),
    "refunded": (810, 350),
}
_BENDS: Final[dict[tuple[EnrollmentStatus, EnrollmentStatus], float]] = {("pending", "refunded"): -190}
"""How far the middle of an arrow lies to the left of the straight line; 0 where nothing is said."""
_WIDTH, _HEIGHT = 132, 48

_BEGINS: Final[dict[Payable, str]] = {"free": "free of charge", "license": "by a licence", "charge": "money is owed"}

MEANINGS: Final[dict[Event, str]] = {
    "pay": "the payment service says that the charge was paid",
    "decline": "it says that the charge was refused, and never will be paid",
    "withdraw": "the user leaves, or is deleted, before it has said anything",
    "reverse": "it says that the charge was paid, and the user has left: the money goes back",
    "complete": "progress reaches 100, and the certificate is issued",
    "cancel": "the user leaves what cost no money, or is deleted after the refund window",
    "refund": "the user leaves within the refund window, or is deleted in it: the money goes back",
    "expire": "access is over",
}
"""What each event is."""

_STYLE: Final = """
    text { font: 15px system-ui, sans-serif; fill: #1a2330; text-anchor: middle; }
    .label { font-size: 13px; paint-order: stroke; stroke: #ffffff; stroke-width: 5px; }
    .note { font-size: 13px; fill: #5a6675; text-anchor: start; }
    .box { stroke: #1a2330; stroke-width: 1.5; }
    .live { fill: #d8f0dd; }
    .ended { fill: #eef2f6; }
    .arrow { fill: none; stroke: #5a6675; stroke-width: 1.5; marker-end: url(#head); }
"""


def svg() -> str:
    """The picture: a box for each status, an arrow for each transition with its event, and where it all begins."""
    parts = [*_beginnings(), *_arrows(), *map(_box, _PLACES), *_legend()]
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 480" role="img">
<title>The life of an enrolment</title>
<style>{_STYLE}</style>
<defs>
<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
<path d="M0 0L10 5L0 10z" fill="#5a6675"/>
</marker>
</defs>
<rect width="920" height="480" fill="#ffffff"/>
{chr(10).join(parts)}
</svg>
"""


def table() -> str:
    """The same in Markdown, with what each event is and how far the payment then can be."""
    lines = ["| from | event | to | what happened | its payment, if there is one |", "| --- | --- | --- | --- | --- |"]
    for (status, event), target in TRANSITIONS.items():
        payments = ", ".join(f"`{name}`" for name in sorted(PAYMENTS[target]))
        lines.append(f"| `{status}` | {event} | `{target}` | {MEANINGS[event]} | {payments} |")
    return "\n".join(lines) + "\n"


def _box(status: EnrollmentStatus) -> str:
    x, y = _PLACES[status]
    kind = "live" if status in LIVE_STATUSES else "ended"
    corner = f'x="{x - _WIDTH / 2:g}" y="{y - _HEIGHT / 2:g}"'
    size = f'width="{_WIDTH}" height="{_HEIGHT}" rx="10"'
    return f'<rect class="box {kind}" {corner} {size}/><text x="{x:g}" y="{y + 5:g}">{status}</text>'


def _arrows() -> Iterator[str]:
    events: dict[tuple[EnrollmentStatus, EnrollmentStatus], list[str]] = {}
    for (status, event), target in TRANSITIONS.items():
        events.setdefault((status, target), []).append(event)
    for (status, target), names in events.items():
        label = ", ".join(names)
        yield _loop(_PLACES[status], label) if status == target else _arrow(status, target, label)


def _arrow(status: EnrollmentStatus, target: EnrollmentStatus, label: str) -> str:
    start, end = _PLACES[status], _PLACES[target]
    middle = _beside(start, end, _BENDS.get((status, target), 0))
    # A quadratic curve passes half way between its control point and the middle of its ends.
    control = (2 * middle[0] - (start[0] + end[0]) / 2, 2 * middle[1] - (start[1] + end[1]) / 2)
    return _path([_edge(start, control), control, _edge(end, control)], label)


def _loop(place: Point, label: str) -> str:
    x, y = place[0], place[1] - _HEIGHT / 2
    path = f"M{x - 34:g} {y:g}C{x - 60:g} {y - 70:g} {x + 60:g} {y - 70:g} {x + 34:g} {y:g}"
    return f'<path class="arrow" d="{path}"/><text class="label" x="{x:g}" y="{y - 48:g}">{label}</text>'


def _beginnings() -> Iterator[str]:
    words: dict[EnrollmentStatus, list[str]] = {}
    for way, status in BEGINNINGS.items():
        words.setdefault(status, []).append(_BEGINS[way])
    for status, reasons in words.items():
        x, y = _PLACES[status]
        start = (x - 175, y + 85) if status == "pending" else (x - 105, y - 110)
        dot = f'<circle cx="{start[0]:g}" cy="{start[1]:g}" r="6" fill="#1a2330"/>'
        end = _edge((x, y), start)
        label = f'<text class="label" x="{start[0] + 22:g}" y="{start[1] + (26 if status == "pending" else -16):g}">'
        yield f"{dot}{_path([start, start, end])}{label}{' or '.join(reasons)}</text>"


def _legend() -> Iterator[str]:
    for row, (kind, words) in enumerate((("live", "holds a seat, and its licence"), ("ended", "has ended"))):
        y = 410 + 28 * row
        yield f'<rect class="box {kind}" x="36" y="{y}" width="24" height="16" rx="4"/>'
        yield f'<text class="note" x="70" y="{y + 13}">{words}</text>'


def _path(points: list[Point], label: str = "") -> str:
    (x0, y0), (x1, y1), (x2, y2) = points
    path = f'<path class="arrow" d="M{x0:.1f} {y0:.1f}Q{x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}"/>'
    x, y = (x0 + 2 * x1 + x2) / 4, (y0 + 2 * y1 + y2) / 4
    return f'{path}<text class="label" x="{x:.1f}" y="{y + 4:.1f}">{label}</text>' if label else path


def _beside(start: Point, end: Point, bend: float) -> Point:
    """The point half way, moved to the left of the direction by `bend`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    return ((start[0] + end[0]) / 2 + dy / length * bend, (start[1] + end[1]) / 2 - dx / length * bend)


def _edge(place: Point, towards: Point) -> Point:
    """Where the line from the middle of a box towards a point leaves the box."""
    dx, dy = towards[0] - place[0], towards[1] - place[1]
    share = min(_WIDTH / 2 / abs(dx) if dx else math.inf, _HEIGHT / 2 / abs(dy) if dy else math.inf)
    return (place[0] + dx * share, place[1] + dy * share)


if __name__ == "__main__":
    sys.stdout.write(svg())
