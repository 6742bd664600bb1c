"""The generated catalogue is spread as it says, is the same every time, and can be measured on an empty database."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import catalogue as benchmark
from benchmarks.catalogue_data import CATEGORIES, COMMONEST, catalogue
from learnflow_core.model import Course
from storage_backends import open_storage

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


async def test_a_database_is_filled_once_and_its_books_agree() -> None:
    storage = await open_storage("sqlite://")
    await benchmark.fill(storage, 60)
    await benchmark.fill(storage, 70)
    measured = [await case() for case in (await benchmark.cases(storage)).values()]
    assert await storage.check() == []
    await storage.close()
    assert measured[0].total == 60  # type: ignore[attr-defined]


def test_a_run_reports_the_time_of_every_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, report = f"sqlite:///{tmp_path}/catalogue.db", tmp_path / "report.json"
    assert benchmark.run(["--database", database, "--courses", "120", "--rounds", "5", "--json", str(report)]) == 0
    seconds = json.loads(report.read_text())["seconds"]
    assert "popular (120): middle" in seconds
    assert all(len(measured["samples"]) == 5 for measured in seconds.values())
    assert "popular (120): last" in capsys.readouterr().out
