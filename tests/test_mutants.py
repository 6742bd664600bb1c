"""Mutants are what they are said to be; `make mutants` tries them."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.__main__ import CORE, equivalents, interval
from tests.mutants.changes import changes
from tests.mutants.covering import Covering
from tests.planted.__main__ import ROOT

FEW = '''
"""Text."""

TABLE: Final[dict[Literal["word"], int]] = {"word": 1}


class Promise(Protocol):
    def keep(self, cost: int = 1) -> None: ...


@lru_cache(maxsize=7)
def decide(a: int = 5) -> None:
    """Text."""
    assert a, "that is so"
    if a < 3 and not TABLE:
        raise ValueError(f"no {a - 1}")
    self.a = max(a, 4)
    note("two words")
'''


def test_operators_constants_conditions_and_statements_are_changed_one_at_a_time() -> None:
    assert [(change.line, change.before, change.after) for change in changes(FEW)] == [
        (4, "'word'", "'word~'"),
        (4, "1", "2"),
        (12, "5", "6"),
        (15, "if a < 3 and (not TABLE)", "if not (a < 3 and (not TABLE))"),
        (15, "a < 3 and (not TABLE)", "a < 3 or not TABLE"),
        (15, "a < 3", "a <= 3"),
        (15, "3", "4"),
        (15, "not TABLE", "TABLE"),
        (16, "raise ValueError(f'no {a - 1}')", "pass"),
        (16, "a - 1", "a + 1"),
        (16, "1", "2"),
        (17, "self.a = max(a, 4)", "pass"),
        (17, "max(a, 4)", "min(a, 4)"),
        (17, "4", "5"),
        (18, "note('two words')", "pass"),
    ]


def test_a_change_names_the_statement_in_which_it_stands_and_its_lines() -> None:
    found = {(change.before, change.after): (change.statement, change.lines) for change in changes(FEW)}
    assert found["'word'", "'word~'"] == ("TABLE: Final[dict[Literal['word'], int]] = {'word': 1}", range(4, 5))
    assert found["a < 3", "a <= 3"] == ("if a < 3 and (not TABLE):", range(15, 16))
    assert found["5", "6"] == ("def decide(a: int=5) -> None:", range(12, 13))


def test_each_mutant_is_a_module_that_differs_from_the_one_before_it() -> None:
    path = ROOT / CORE / "ledger.py"
    sound = ast.unparse(ast.parse(path.read_text("utf-8")))
    sources = [change.source() for change in changes(path.read_text("utf-8"))]
    assert len(sources) == len(set(sources))
    assert sound not in sources
    for source in sources:
        compile(source, "mutant", "exec")


def test_what_makes_no_difference_is_a_change_that_can_be_made() -> None:
    possible = {
        (str(path.relative_to(ROOT)), change.statement, change.before, change.after)
        for path in {ROOT / module for module, *_ in equivalents()}
        for change in changes(path.read_text("utf-8"))
    }
    assert equivalents() <= possible


def test_the_tests_named_for_a_module_come_first_then_the_quickest_that_run_the_line_as_many_as_there_is_time_for() -> (
    None
):
    seconds = {"test_http.py::a": 2.0, "test_http.py::b": 1.0, "test_money.py::c": 3.0, "test_ids.py::d": 0.1}
    runs = {7: ["test_http.py::a", "test_http.py::b", "test_money.py::c"], 8: [""], 9: ["test_http.py::b"]}
    covering = Covering(seconds, {"core/money.py": runs})
    assert covering.of("core/money.py", range(7, 8), 10) == ["test_money.py::c", "test_http.py::b", "test_http.py::a"]
    assert covering.of("core/money.py", range(7, 8), 5) == ["test_money.py::c", "test_http.py::b"]
    assert covering.of("core/money.py", range(9, 10), 0) == ["test_http.py::b"]
    # What runs at import is everybody's who uses the module, and what nobody runs may be anybody's.
    assert covering.of("core/money.py", range(8, 9), 5) == ["test_money.py::c", "test_http.py::b"]
    assert covering.of("core/other.py", range(1, 2), 1.5) == ["test_ids.py::d", "test_http.py::b"]


@pytest.mark.parametrize(
    ("killed", "tried", "low", "high"), [(95, 100, 0.888, 0.978), (300, 300, 0.987, 1.0), (0, 10, 0.0, 0.278)]
)
def test_a_sample_says_how_much_it_says_of_all(killed: int, tried: int, low: float, high: float) -> None:
    assert interval(killed, tried) == pytest.approx((low, high), abs=0.001)
