"""The benchmark of the server: it measures what it says, and stops when it would measure something else."""

from __future__ import annotations

import asyncio
import json
import shutil
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from benchmarks import http
from benchmarks.catalogue_data import catalogue
from benchmarks.databases import KEEPERS, POSTGRESQL, SQLITE, Databases, database_options, databases
from benchmarks.goals import judged
from benchmarks.http import enrolments, lists, workers
from benchmarks.http.goals import GOALS, MEMORY
from benchmarks.http.requests import LIMITS, SORTS, Catalogue, fetch, request, search_target
from benchmarks.http.servers import servers
from benchmarks.http.tables import document, draw
from benchmarks.peers.fastapi_sqlalchemy import filling
from benchmarks.plots import can_draw
from benchmarks.processes import Server
from tests.conftest import missing
from tests.limiting import ROOT
from tests.postgres import found_programs

COURSES = 300
QUICK = ["--rounds", "5", "--seconds", "0.02", "--enrolling", "2", "--connections", "2", "--seed", "7"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where databases are kept; not in pytest's own folder, which another user cannot reach, as PostgreSQL's is."""
    with TemporaryDirectory(prefix="learnflow-kept-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run of everything wrote, with samples too short to say anything."""
    path = tmp_path_factory.mktemp("benchmark") / "report.json"
    everything = ["--courses", f"60,{COURSES}", "--databases", SQLITE]
    assert http.run([*QUICK, *everything, "--folder", str(folder), "--json", str(path)]) == 0
    written: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return written


def kept(folder: Path, *engines: str) -> AbstractContextManager[Databases]:
    """The databases of the run, to be used again."""
    parser = ArgumentParser()
    database_options(parser, (COURSES,))
    return databases(parser.parse_args(["--folder", str(folder), "--databases", *engines]))


def test_every_case_is_measured_beside_its_floor_and_its_peer_at_every_size(report: dict[str, Any]) -> None:
    assert (report["benchmark"], report["seed"], report["connections"]) == ("http", 7, 2)
    for courses in (60, COURSES):
        rows = report["results"][lists.title_of(SQLITE, courses)]
        assert set(rows) == {lists.FLOOR, lists.FLOOR_OF_ONE} | {
            lists.row_of(subject, asked) for subject in (lists.LEARNFLOW, lists.PEER) for asked in lists.ASKED
        }
        assert set(report["results"][MEMORY][lists.title_of(SQLITE, courses)]) >= {lists.LEARNFLOW, lists.PEER}
    rows = report["results"][enrolments.title_of(SQLITE, 2)]
    assert set(rows) == {
        enrolments.FLOOR,
        *(enrolments.row_of(lists.LEARNFLOW, kind) for kind in enrolments.OURS),
        *(enrolments.row_of(lists.PEER, kind) for kind in enrolments.THEIRS),
    }
    assert set(report["results"][workers.WORKERS]) == {workers.ONE, workers.TWO}


def test_every_row_has_its_samples_and_every_goal_is_judged(report: dict[str, Any]) -> None:
    for title, rows in report["results"].items():
        for row in rows.values() if title != MEMORY else ():
            assert len(row["requests_per_s"]["samples"]) == 5
            assert row["p50_ms"]["median"] <= row["p99_ms"]["median"]
    assert len(report["goals"]) == len(GOALS)
    assert report["versions"].keys() >= {"uvicorn", "fastapi", "sqlalchemy", "slowapi"}


def test_on_postgresql_what_its_own_server_takes_is_measured_too(folder: Path, tmp_path: Path) -> None:
    if found_programs() is None:
        missing("A PostgreSQL server")
    path = tmp_path / "report.json"
    lists_only = ["--only", "lists", "--courses", str(COURSES), "--databases", POSTGRESQL]
    assert http.run([*QUICK, *lists_only, "--folder", str(folder), "--json", str(path)]) == 0
    rows = json.loads(path.read_text("utf-8"))["results"][lists.title_of(POSTGRESQL, COURSES)]
    assert rows[lists.row_of(lists.PEER, lists.ANY_PAGE)]["database_cpu_us"]["median"] > 0
    assert rows[lists.FLOOR]["requests_per_s"]["median"] > 0


def test_goals_find_their_figures_in_a_run_of_their_sizes() -> None:
    figures = {"median": 2.0, "samples": [2.0]}
    row = dict.fromkeys(("requests_per_s", "cpu_us"), figures)
    names = [
        lists.FLOOR,
        *(lists.row_of(subject, asked) for subject in ("learnflow", "FastAPI") for asked in lists.ASKED),
    ]
    groups = [lists.title_of(engine, size) for engine in (SQLITE, POSTGRESQL) for size in http.SIZES]
    results: dict[str, Any] = {title: dict.fromkeys(names, row) for title in groups}
    results[MEMORY] = {title: {lists.LEARNFLOW: 30_000_000} for title in groups}
    for engine in (SQLITE, POSTGRESQL):
        kinds = {enrolments.row_of(subject, enrolments.FREE): row for subject in ("learnflow", "FastAPI")}
        results[enrolments.title_of(engine, enrolments.AT_ONCE[0])] = kinds
    results[workers.WORKERS] = {workers.ONE: row, workers.TWO: row}
    assert not [goal for goal in judged(GOALS, results) if goal["found"] is None]


@pytest.mark.skipif(not can_draw(), reason="matplotlib is not installed")
def test_the_same_figures_make_the_same_document_and_plots(report: dict[str, Any], tmp_path: Path) -> None:
    first, second = (draw(report["results"], tmp_path / name) for name in ("first", "second"))
    assert [path.name for path in first] == ["http-by-size.svg"]
    assert first[0].read_bytes() == second[0].read_bytes()
    text = document(report["results"], report["goals"], first)
    assert "(benchmarks/http-by-size.svg)" in text
    assert all(f"| {title}" in text for title in report["results"])


def test_a_run_writes_its_part_of_the_document_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    if not can_draw():
        with pytest.raises(SystemExit):
            http.run(["--docs", str(tmp_path)])
        return
    page = tmp_path / "benchmarks.md"
    shutil.copy(ROOT / "docs/benchmarks.md", page)
    before = page.read_text("utf-8")
    sizes = ["--courses", f"{COURSES}", "--databases", SQLITE, "--only", "workers", "--folder", str(folder)]
    assert http.run([*QUICK, *sizes, "--docs", str(tmp_path)]) == 0
    begin, end = "<!-- http: what a run found -->", "<!-- http: end -->"
    after = page.read_text("utf-8")
    assert after.partition(begin)[0] == before.partition(begin)[0]
    assert after.partition(end)[2] == before.partition(end)[2]
    assert workers.WORKERS in after.partition(begin)[2].partition(end)[0]


class Pair:
    """The project and the peer over the same courses, and how each is asked."""

    def __init__(self, ours: Server, token: str, peer: Server, peers_token: str) -> None:
        self._asked = {ours: token, peer: peers_token}
        self.catalogue = Catalogue(ours, token)

    def answers(self, target: str) -> list[dict[str, Any]]:
        replies = [fetch(server, request(target, token)) for server, token in self._asked.items()]
        return [msgspec.json.decode(reply.body) for reply in replies]


@pytest.fixture(scope="module", params=[SQLITE, POSTGRESQL])
def pair(request: pytest.FixtureRequest, folder: Path) -> Iterator[Pair]:
    if request.param == POSTGRESQL and found_programs() is None:
        missing("A PostgreSQL server")
    with kept(folder, request.param) as found, servers() as starts:
        ours, theirs = found.ours(request.param, COURSES), found.peers(request.param, COURSES)
        token = asyncio.run(starts.token(ours))
        with starts.learnflow(ours) as learnflow, starts.peer(theirs) as peer:
            yield Pair(learnflow, token, peer, starts.peers_token())


def test_the_peer_answers_every_page_of_every_list_as_the_project_does(pair: Pair) -> None:
    targets = [
        *islice(pair.catalogue.any_page(1), 60),
        *(page for pages in pair.catalogue.each_list(1) for page in pages),
    ]
    for target in dict.fromkeys(targets[:160]):
        ours, theirs = pair.answers(target)
        assert ours == theirs, target


def test_the_peer_knows_the_same_courses_and_finds_what_is_searched(pair: Pair) -> None:
    ours, theirs = pair.answers(next(pair.catalogue.courses(1)))
    assert ours["id"] == theirs["id"]
    assert ours["description"] == theirs["description"]
    ours, theirs = pair.answers(search_target("python"))
    assert theirs["meta"]["total_items"] >= ours["meta"]["total_items"] > COURSES / 10  # it finds parts of words too
    assert all(isinstance(reply["data"], list) for reply in pair.answers(next(pair.catalogue.searches(1))))


def test_each_reply_of_the_peer_tells_a_quota_and_a_bad_token_is_refused(folder: Path) -> None:
    with kept(folder, SQLITE) as found, servers() as starts, starts.peer(found.peers(SQLITE, COURSES)) as peer:
        reply = fetch(peer, request("/v1/courses", starts.peers_token()))
        assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= {
            name for name, _ in reply.headers
        }
        for target, status in (("/v1/courses", 401), ("/v1/courses/crs_nobody", 404), ("/v1/courses?limit=51", 422)):
            token = "nonsense" if status == 401 else starts.peers_token()
            with pytest.raises(RuntimeError, match=str(status)):
                fetch(peer, request(target, token))


def test_any_page_is_a_full_one_and_rarely_the_same_as_another(pair: Pair) -> None:
    targets = list(islice(pair.catalogue.any_page(3), 200))
    assert len(set(targets)) > 100
    assert {sort for sort in SORTS for target in targets if f"sort={sort}" in target} == set(SORTS)
    for target in targets[:10]:
        assert len(pair.answers(target)[0]["data"]) in LIMITS


def test_databases_are_filled_once_and_again_when_the_code_that_fills_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with kept(tmp_path, SQLITE) as found:
        url = found.ours(SQLITE, 5)
        assert found.ours(SQLITE, 5) == url
        assert capsys.readouterr().err.count("kept on SQLite") == 1
        monkeypatch.setitem(KEEPERS, "ours", KEEPERS["ours"]._replace(sources=("benchmarks/floor.py",)))
        assert found.ours(SQLITE, 5) != url
    assert len(list((tmp_path / "sqlite").iterdir())) == 1


def test_a_database_whose_filling_was_broken_off_is_filled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(url: str, courses: int) -> None:
        raise RuntimeError("broken off")

    with kept(tmp_path, SQLITE) as found:
        with monkeypatch.context() as patched:
            patched.setitem(KEEPERS, "ours", KEEPERS["ours"]._replace(fill=fail))
            with pytest.raises(RuntimeError, match="broken off"):
                found.ours(SQLITE, 5)
        found.ours(SQLITE, 5)
    assert len(list((tmp_path / "sqlite").iterdir())) == 1


def test_the_peer_enrols_each_once_and_never_beyond_the_seats() -> None:
    with TemporaryDirectory() as made, servers() as starts:
        url = filling.async_url(f"sqlite:///{made}/peers.db")
        course = msgspec.structs.replace(next(catalogue(1, account_id="acct_1")), seats=3)
        asyncio.run(filling.fill(url, [course], [f"usr_{number}" for number in range(5)]))
        with starts.peer(url) as peer:

            def enrolled(number: int) -> bool:
                body = msgspec.json.encode({"user_id": f"usr_{number}", "course_id": course.id})
                asked = request("/v1/enrollments", starts.peers_token(), method="POST", body=body)
                with suppress(RuntimeError):
                    return fetch(peer, asked).status == 201
                return False

            assert [enrolled(number) for number in (0, 0, 1, 2, 3, 4)] == [True, False, True, True, False, False]
