"""What benchmarks share: samples in random order, a report that says where it comes from, and a list of them all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.documents import markdown_table, rewrite
from benchmarks.goals import Goal, judged
from benchmarks.measure import interleaved, options, print_table, summary, write_report
from benchmarks.processes import cpu_ns, family, uss_bytes
from tests.limiting import ROOT


def test_without_a_name_every_benchmark_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in listed] == [["python", "-m", "benchmarks", name] for name in BENCHMARKS]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_listed_can_be_run(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").run)


def test_a_name_that_is_not_there_is_bad_usage() -> None:
    command = [sys.executable, "-m", "benchmarks", "limit"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 2
    assert "there is no 'limit'" in run.stderr


def test_every_round_takes_every_case_once_in_an_order_of_its_own_and_the_first_round_warms_up() -> None:
    order: list[str] = []

    def sample(name: str) -> float:
        order.append(name)
        return float(len(order))

    cases = {name: partial(sample, name) for name in "abcd"}
    figures = interleaved(cases, rounds=6, seed=7)
    rounds = [tuple(order[start : start + 4]) for start in range(0, len(order), 4)]
    assert len(rounds) == 7
    assert all(Counter(taken) == Counter("abcd") for taken in rounds)
    assert len(set(rounds)) > 1
    assert {name: len(samples) for name, samples in figures.items()} == dict.fromkeys("abcd", 6)
    assert min(min(samples) for samples in figures.values()) == 5
    first = list(order)
    order.clear()
    interleaved(cases, rounds=6, seed=7)
    assert order == first


def test_a_report_has_the_machine_the_seed_and_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(None, "nothing", 1, {})
    write_report(path, "limiter", 7, {"ns": summary([3.0, 1.0, 2.0])})
    report = json.loads(path.read_text())
    assert report["ns"] == {"median": 2.0, "samples": [3.0, 1.0, 2.0]}
    assert (report["benchmark"], report["seed"]) == ("limiter", 7)
    assert report["machine"].keys() >= {"processor", "cores", "system", "python", "gil"}


def test_fewer_than_five_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = options("limiter", "about")
    assert parser.parse_args(["--rounds", "5"]).rounds == 5
    with pytest.raises(SystemExit):
        parser.parse_args(["--rounds", "4"])
    assert "fewer than 5" in capsys.readouterr().err


def test_a_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("case", "ns"), [("a", "1,000"), ("longer", "2")])
    assert capsys.readouterr().out == "case       ns\n------  -----\na       1,000\nlonger      2\n\n"


def test_a_goal_is_met_missed_or_not_measured() -> None:
    goals = (
        Goal("fast", 2, "x", lambda results: results["group"]["row"]["figure"]),
        Goal("small", 2, "B", lambda results: results["group"]["row"]["figure"], at_least=False),
        Goal("elsewhere", 2, "x", lambda results: results["another"]["row"]["figure"]),
    )
    assert judged(goals, {"group": {"row": {"figure": 3.0}}}) == [
        {"goal": "fast", "asked": "≥ 2 x", "found": 3.0, "met": True},
        {"goal": "small", "asked": "≤ 2 B", "found": 3.0, "met": False},
        {"goal": "elsewhere", "asked": "≥ 2 x", "found": None, "met": None},
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell it so")
def test_the_time_of_threads_that_have_ended_and_of_children_counts_as_a_servers() -> None:
    spin = "while time.thread_time() < 0.05: pass"
    program = f"""
import os, sys, threading, time
def spin():
    {spin}
thread = threading.Thread(target=spin)
thread.start()
thread.join()
for ends in (True, False):
    child = os.fork()
    if not child:
        spin()
        if ends:
            os._exit(0)
        print("done", flush=True)
        break
    if ends:
        os.waitpid(child, 0)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        assert len(family(process.pid)) == 2
        assert cpu_ns(process.pid) >= 140_000_000  # to a tick of the system's clock
        assert 0 < uss_bytes(process.pid) < 100_000_000


def test_a_part_of_a_document_is_written_anew_and_the_rest_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- http: what a run found -->\nold\n<!-- http: end -->\nafter\n", "utf-8")
    rewrite(page, "http", markdown_table(("case", "ns"), [("a", "1")]))
    rewrite(page, "http", markdown_table(("case", "ns"), [("a", "2")]))
    table = "| case | ns |\n| --- | ---: |\n| a | 2 |\n"
    assert page.read_text("utf-8") == (
        f"before\n<!-- http: what a run found -->\n\n{table}\n<!-- http: end -->\nafter\n"
    )
    with pytest.raises(ValueError, match="no marks for limiter"):
        rewrite(page, "limiter", "")
