"""The benchmark of the limiter: a tiny run of all of it, what it refuses to time, and what it says of its goals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limiter, valkey_server
from benchmarks.limiter import goals, run, worker
from benchmarks.limiter.groups import (
    FIRST_CALLS,
    IN_TASKS,
    ONE_AT_A_TIME,
    ONE_IN_A_LOOP,
    REPLIES,
    THREADED,
    row_of,
    title_of,
    title_of_batches,
    title_of_leases,
)
from benchmarks.limiter.names import EMPTY, PURE
from benchmarks.limiter.ours import ALLOWED, PLANS
from benchmarks.limiter.peers import PEERS
from benchmarks.limiter.plots import draw
from benchmarks.limiter.sampling import Worker
from benchmarks.limiter.subjects import OURS, SUBJECTS, THEIRS, Subject
from benchmarks.limiter.usage import BATCHES, FIGURES, HIT, Usage, compiled
from benchmarks.limiter.valkey import LEASED_KEYS
from benchmarks.limiter.worker import Ask, Bench, Order
from benchmarks.plots import can_draw
from learnflow_core.limiter import Quota
from learnflow_core.limiter.quota import SECOND_NS
from tests.conftest import missing
from tests.limiting import ROOT

QUICK = 0.0005


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run of everything wrote, with samples too short to say anything."""
    path = tmp_path_factory.mktemp("benchmark") / "limiter.json"
    assert run(["--rounds", "5", "--max-keys", "1", "--seconds", str(QUICK), "--json", str(path)]) == 0
    written: dict[str, Any] = json.loads(path.read_text())
    return written


def test_every_row_has_its_code_and_a_median_of_its_samples(report: dict[str, Any]) -> None:
    for rows in report["results"].values():
        for row in rows.values():
            assert "key" in row["code"]
            assert row["cpu_ns"]["median"] > 0
            assert len(row["wall_ns"]["samples"]) == 5


def test_the_limiter_is_measured_in_every_group(report: dict[str, Any]) -> None:
    without = {
        title for title, rows in report["results"].items() if not any(name.startswith("learnflow") for name in rows)
    }
    assert not without


def test_every_part_is_measured(report: dict[str, Any]) -> None:
    if valkey_server.found() is None:
        missing("a Valkey server")
    titles = report["results"].keys()
    assert titles >= {title_of_leases(size) for size in LEASED_KEYS}
    assert titles >= {title_of(1, plan) for plan in PLANS}
    assert titles >= {FIRST_CALLS, THREADED, title_of_batches(1), REPLIES, ONE_AT_A_TIME, ONE_IN_A_LOOP, IN_TASKS}
    assert report["import_ms"].keys() == {"pass", "import learnflow_core.limiter"}


def test_a_report_judges_every_goal_and_names_the_versions_of_the_peers(report: dict[str, Any]) -> None:
    assert len(report["goals"]) == len(goals.GOALS)
    assert report["versions"].keys() >= THEIRS.keys()


def test_peers_that_are_not_installed_are_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PEERS, "nobody", next(iter(PEERS.values()))._replace(module="a_module_of_nobody"))
    run(["--rounds", "5", "--only", "batches", "--max-keys", "1", "--seconds", str(QUICK)])
    told = capsys.readouterr()
    assert "nobody" in told.err
    assert "nobody" not in told.out


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_every_limiter_answers_as_the_plan_says_in_every_way(name: str, plan: str) -> None:
    subject = SUBJECTS[name]
    if len(PLANS[plan]) > subject.quotas:
        return
    bench = Bench(Order(name, plan, 3, 1))
    assert set(subject.ways) <= bench.fill()["ways"].keys()
    for way in subject.ways:
        bench.sample(Ask(way, QUICK))
    bench.close()


def test_the_document_says_of_every_peer_what_it_does_not_do() -> None:
    rows = (ROOT / "docs/benchmarks.md").read_text("utf-8").splitlines()
    for name, peer in PEERS.items():
        assert any(row.startswith(f"| {name} |") and row.endswith(f"| {peer.lacks} |") for row in rows), name


def test_a_key_never_runs_dry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLANS, ALLOWED, (Quota("minute", 10_000, 10_000 * 30 * SECOND_NS),))
    monkeypatch.setattr(worker, "MINUTE", PLANS[ALLOWED][0])
    bench = Bench(Order(PURE, ALLOWED, 1, 1))
    for _ in range(20):
        bench.sample(Ask(HIT, QUICK))
    bench.close()


def test_an_answer_that_the_plan_does_not_expect_is_an_error_and_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Subject(lambda plan: Usage({HIT: "allowed = False"}, {}), (HIT,))
    monkeypatch.setitem(SUBJECTS, "one that refuses", refusing)
    bench = Bench(Order("one that refuses", ALLOWED, 1, 1))
    with pytest.raises(RuntimeError, match="it is False"):
        bench.sample(Ask(HIT, QUICK))
    bench.close()


def test_a_process_that_fails_ends_the_run() -> None:
    with Worker(Order(EMPTY, ALLOWED, 1, 1)) as worker:
        worker.told()
        with pytest.raises(RuntimeError, match="has ended"):
            worker.sample(Ask("a way that is not there", QUICK))


def test_a_batch_asks_for_every_key_once() -> None:
    asked: list[str] = []
    usage = Usage(dict.fromkeys(BATCHES, "allowed = not asked.extend(key)"), {"asked": asked})
    for way in BATCHES:
        SUBJECTS["one that notes"] = Subject(lambda plan: usage, (way,))
        bench = Bench(Order("one that notes", ALLOWED, 1, 1))
        asked.clear()
        calls = bench.sample(Ask(way, QUICK))["calls"]
        assert len(asked) == calls + calls // 4
        bench.close()
    del SUBJECTS["one that notes"]


def test_the_clocked_loop_notes_every_call() -> None:
    took: list[int] = []
    loops = compiled(Usage({HIT: "allowed = key"}, {}), HIT)
    assert loops.plain(["a", "b"]) == loops.clocked(["a", "b"], took) == "b"
    assert len(took) == 2
    assert min(took) >= 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell resident memory so")
def test_a_key_takes_less_than_a_kilobyte_for_two_quotas() -> None:
    with Worker(Order(PURE, ALLOWED, 20_000, 1)) as worker:
        assert 0 < worker.told()["bytes_a_key"] < 1_024


def test_plots_without_matplotlib_are_bad_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limiter, "can_draw", lambda: False)
    with pytest.raises(SystemExit):
        run(["--plots", str(tmp_path)])


@pytest.mark.skipif(not can_draw(), reason="matplotlib is not installed")
def test_the_same_figures_make_the_same_plots(report: dict[str, Any], tmp_path: Path) -> None:
    first, second = (draw(report["results"], tmp_path / folder) for folder in ("first", "second"))
    assert [path.stem for path in first] == ["one-key", "threads", "valkey"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_row_is_named_by_its_limiter_and_its_way() -> None:
    assert row_of(PURE, HIT) == PURE
    assert row_of(PURE, FIGURES) == f"{PURE}: {FIGURES}"
