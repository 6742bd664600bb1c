"""The generated catalogue is spread as it says and is the same every time; the benchmark of it measures every list."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from benchmarks import catalogue as benchmark
from benchmarks.catalogue import lists, searches, serving
from benchmarks.catalogue.goals import GOALS, LISTS, MEMORY, PAGES, SEARCHES, STALLS, WORKER, title_of
from benchmarks.catalogue.tables import document, draw
from benchmarks.catalogue_data import CATEGORIES, COMMONEST, catalogue
from benchmarks.databases import ENGINES, POSTGRESQL, SQLITE, database_options, databases, fill
from benchmarks.goals import judged
from benchmarks.plots import can_draw
from learnflow_core.model import Course
from learnflow_core.pagination import Page
from storage_backends import open_storage
from tests.conftest import missing
from tests.postgres import found_programs

SAMPLE = 4_000


@pytest.fixture(scope="module")
def sample() -> list[Course]:
    return list(catalogue(SAMPLE, account_id="acct_1"))


def test_the_same_seed_and_number_make_the_same_course_at_any_size(sample: list[Course]) -> None:
    assert list(catalogue(20, account_id="acct_1")) == sample[:20]
    assert list(islice(catalogue(SAMPLE, account_id="acct_1", seed=2), 20)) != sample[:20]


def test_words_students_categories_and_levels_are_spread_as_in_real_catalogues(sample: list[Course]) -> None:
    words = Counter(word for course in sample for word in set(course.title.lower().split()))
    assert words[COMMONEST] / SAMPLE == pytest.approx(0.22, abs=0.02)
    assert len(words) > SAMPLE  # most words are rare
    students = sorted(course.total_students for course in sample)
    assert students.count(0) / SAMPLE == pytest.approx(0.15, abs=0.02)
    assert sum(students[-SAMPLE // 10 :]) > sum(students) / 2
    assert {course.category for course in sample} == set(CATEGORIES)
    assert {course.level for course in sample} == {"all", "beginner", "intermediate", "advanced"}


def test_courses_are_told_apart_and_what_is_said_of_students_agrees(sample: list[Course]) -> None:
    assert len({course.id for course in sample}) == len({course.external_id for course in sample}) == SAMPLE
    assert all(course.total_students == course.students_base for course in sample)


async def test_a_database_is_filled_with_so_many_courses_and_its_books_agree() -> None:
    storage = await open_storage("sqlite://")
    await fill(storage, 60)
    assert await storage.check() == []
    assert (await lists.listed(storage, lists.QUERIES["popular"], Page(1, 50))).total == 60
    await storage.close()


async def test_every_list_that_is_compared_fills_its_page_at_a_thousand_courses() -> None:
    storage = await open_storage("sqlite://")
    await fill(storage, 1_000)
    for name, read in (await lists.reads(storage)).items():
        part = await read()
        assert len(part.items) == lists.LIMIT, name  # type: ignore[attr-defined]
    await storage.close()


@pytest.mark.parametrize("kind", searches.KINDS)
def test_texts_that_are_searched_are_not_asked_for_twice_unless_there_is_but_one(kind: str) -> None:
    texts = list(islice(searches.texts(kind, 1_000_000), 21))
    assert len(set(texts)) == (1 if kind == searches.COMMON else len(texts))


@pytest.fixture(scope="module", params=ENGINES)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run at two small sizes wrote."""
    if request.param == POSTGRESQL and found_programs() is None:
        missing("A PostgreSQL server")
    path = tmp_path_factory.mktemp("benchmark") / "report.json"
    with TemporaryDirectory(prefix="learnflow-kept-") as folder:  # see tests/test_benchmark_http.py
        Path(folder).chmod(0o755)
        small = ["--courses", "60,200", "--databases", request.param, "--rounds", "5", "--seconds", "0.05"]
        assert benchmark.run([*small, "--folder", folder, "--json", str(path)]) == 0
    written: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return written | {"engine": request.param}


def test_every_list_and_search_is_measured_at_every_size_and_served(report: dict[str, Any]) -> None:
    results, engine = report["results"], report["engine"]
    assert set(results) == {title_of(engine, group) for group in (LISTS, SEARCHES, PAGES, STALLS, MEMORY)}
    expected = {lists.row_of(name, part) for name in lists.QUERIES for part in lists.PARTS}
    assert set(results[title_of(engine, LISTS)]) == expected
    for title, rows in results.items():
        for row in rows.values():
            assert set(row) == {"60", "200"}
            assert all(len(figures["samples"]) == 5 or title.endswith(MEMORY) for figures in row.values())
    assert set(results[title_of(engine, PAGES)]) == {serving.FIRST, serving.ANY}
    assert len(report["goals"]) == len(GOALS)


def test_goals_find_their_figures_in_a_run_of_their_sizes() -> None:
    figures = {size: {"median": 2.0, "samples": [2.0]} for size in ("1000", "1000000")}
    names = {
        LISTS: [lists.row_of(name, part) for name in lists.QUERIES for part in lists.PARTS],
        SEARCHES: [searches.row_of(kind, part) for kind in searches.KINDS for part in searches.MEASURED],
        PAGES: [serving.FIRST, serving.ANY],
        STALLS: [serving.QUIET, serving.SEARCHING, serving.STALLED],
        MEMORY: [WORKER],
    }
    results = {
        title_of(engine, group): dict.fromkeys(rows, figures) for engine in ENGINES for group, rows in names.items()
    }
    assert not [goal for goal in judged(GOALS, results) if goal["found"] is None]


@pytest.mark.skipif(not can_draw(), reason="matplotlib is not installed")
def test_the_same_figures_make_the_same_document_and_plot(report: dict[str, Any], tmp_path: Path) -> None:
    first, second = (draw(report["results"], tmp_path / name) for name in ("first", "second"))
    assert [path.name for path in first] == ["catalogue-by-size.svg"]
    assert first[0].read_bytes() == second[0].read_bytes()
    assert "(benchmarks/catalogue-by-size.svg)" in document(report["results"], report["goals"], first)


def test_a_database_that_is_not_here_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.databases.found_programs", lambda: None)
    parser = ArgumentParser()
    database_options(parser, (10,))
    with databases(parser.parse_args(["--folder", str(tmp_path)])) as kept:
        assert kept.engines == (SQLITE,)
    assert POSTGRESQL in capsys.readouterr().err
