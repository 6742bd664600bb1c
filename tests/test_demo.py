"""The demo: what a new user sees, that it is there again at the next start, and that its secrets are kept nowhere."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from learnflow_core.fields import Price
from learnflow_core.instants import timestamp
from learnflow_core.model import Course
from learnflow_core.money import CURRENCIES
from learnflow_core.search import parse_search
from learnflow_core.usecases.courses import NewCourse
from learnflow_http.cli.demo import EXAMPLE_USER_ID, Tour, prepare
from learnflow_http.cli.demo_catalogue import EXAMPLE_ID, category_names, courses
from tests.conftest import missing
from tests.terminal import COMMAND, Operator, started
from tests.world import World, open_world

EXAMPLE = {
    "id": "crs_8x92k1",
    "title": "Complete Web Development Bootcamp",
    "instructor": "Dr. John Smith",
    "category": "development",
    "level": "all",
    "price": {"amount": 49.99, "currency": "USD"},
    "rating": 4.9,
    "total_students": 12450,
}


# --- The catalogue


@pytest.fixture(scope="module")
def catalogue() -> list[Course]:
    return list(courses({"acct_1": "usr_1", "acct_2": "usr_2"}))


def test_the_catalogue_is_the_same_every_time(catalogue: list[Course]) -> None:
    assert list(courses({"acct_1": "usr_1", "acct_2": "usr_2"})) == catalogue


def test_every_course_is_one_that_the_api_would_take(catalogue: list[Course]) -> None:
    for course in catalogue:
        taken = {name: getattr(course, name) for name in NewCourse.__struct_fields__}
        body = msgspec.json.encode(taken | {"price": Price.of(course.price)})
        assert msgspec.json.decode(body, type=NewCourse).price.money() == course.price


def test_courses_differ_from_each_other(catalogue: list[Course]) -> None:
    assert len(catalogue) == 2_085
    for fact in ("id", "title", "external_id"):
        assert len({getattr(course, fact) for course in catalogue}) == 2_085


def test_there_is_something_for_every_filter_and_rule(catalogue: list[Course]) -> None:
    assert {course.category for course in catalogue} == set(category_names())
    assert {course.level for course in catalogue} == {"all", "beginner", "intermediate", "advanced"}
    assert {CURRENCIES[course.price.currency] for course in catalogue} == {0, 2, 3}
    assert any(course.price.amount_minor == 0 for course in catalogue)
    assert {0, 1} < {course.seats for course in catalogue}
    assert any(course.rating is None for course in catalogue)
    assert sum(course.price.currency == "USD" for course in catalogue) > 1_500


def test_a_prerequisite_is_an_easier_course_on_the_same_matter(catalogue: list[Course]) -> None:
    by_id = {course.id: course for course in catalogue}
    pairs = [(course, by_id[needed]) for course in catalogue for needed in course.prerequisites]
    assert len(pairs) > 20
    assert all((course.level, needed.level) == ("advanced", "beginner") for course, needed in pairs)
    assert all(course.category == needed.category for course, needed in pairs)


# --- The demo in a server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def demo() -> AsyncIterator[tuple[World, Tour]]:
    """A server that was started with the demo, for tests that only read."""
    async with open_world() as world:
        yield world, await prepare(world.services)


async def data(world: World, path: str, credential: str | None = None) -> Any:
    reply = await world.ask("GET", path, credential)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_new_user_sees_the_published_example_first_on_42_pages(demo: tuple[World, Tour]) -> None:
    page = await data(demo[0], "/v1/courses", demo[1].keys["enterprise"])
    assert page["meta"] == {"current_page": 1, "total_pages": 42, "total_items": 2_085}
    assert page["data"][0] == EXAMPLE
    last = await data(demo[0], "/v1/courses?page=42", demo[1].keys["enterprise"])
    assert len(last["data"]) == 35


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("patisserie", "Pâtisserie"),
        ("PÂTISSERIE", "Pâtisserie"),
        ("creme brulee", "Crème Brûlée"),
        ("C++", "C++"),
        ("c#", "C#"),
        (".net", ".NET"),
        ("bootcamp", "Bootcamp"),
        ("入門", "入門"),
    ],
)
async def test_courses_are_found_by_accents_symbols_and_scripts(
    demo: tuple[World, Tour], words: str, found: str
) -> None:
    reply = await demo[0].client.get(
        "/v1/courses", params={"search": words}, headers={"Authorization": f"Bearer {demo[1].keys['enterprise']}"}
    )
    assert parse_search(words) is not None
    assert found in reply.json()["data"][0]["title"]


@pytest.mark.asyncio(loop_scope="module")
async def test_there_is_a_key_of_each_plan_that_may_do_everything(demo: tuple[World, Tour]) -> None:
    assert list(demo[1].keys) == ["starter", "professional", "enterprise"]
    for plan, secret in demo[1].keys.items():
        assert (await data(demo[0], "/v1/account", secret))["plan"] == plan
        assert {user["role"] for user in (await data(demo[0], "/v1/users", secret))["data"]} == {
            "admin", "instructor", "learner",
        }  # fmt: skip


@pytest.mark.asyncio(loop_scope="module")
async def test_everybody_of_the_demo_signs_in_with_the_password_of_this_start(demo: tuple[World, Tour]) -> None:
    for plan in demo[1].keys:
        for role in ("admin", "instructor", "learner"):
            login = {"email": f"{role}@{plan}.example", "password": demo[1].password}
            reply = await demo[0].ask("POST", "/v1/auth/token", json=login)
            me = await data(demo[0], "/v1/users/me", reply.json()["access_token"])
            assert me["role"] == role


@pytest.mark.asyncio(loop_scope="module")
async def test_the_books_of_the_demo_agree(demo: tuple[World, Tour]) -> None:
    assert list(await demo[0].services.storage.check()) == []


async def test_another_start_keeps_what_people_did_and_makes_new_secrets() -> None:
    async with open_world() as world:
        first = await prepare(world.services)
        key = first.keys["professional"]
        order = {"user_id": EXAMPLE_USER_ID, "course_id": EXAMPLE_ID, "payment_method_id": "pm_visa_4242"}
        enrolled = (await world.ask("POST", "/v1/enrollments", key, json=order)).json()
        own = (await world.services.storage.read(lambda tx: tx.courses.get("crs_8x92k1"))).account_id  # type: ignore[union-attr]
        owner = first.keys[own.removeprefix("acct_demo")]  # type: ignore[index]
        await world.ask("PATCH", f"/v1/courses/{EXAMPLE_ID}", owner, json={"title": "Renamed"})
        archived = 0
        for course in (await data(world, "/v1/courses?page=2", owner))["data"]:
            reply = await world.ask("DELETE", f"/v1/courses/{course['id']}", owner)
            archived += reply.status_code == 200

        second = await prepare(world.services)

        assert set(second.keys.values()).isdisjoint(first.keys.values())
        assert (await world.ask("GET", "/v1/account", key)).status_code == 401
        assert second.password != first.password
        login = {"email": "learner@professional.example", "password": first.password}
        assert (await world.ask("POST", "/v1/auth/token", json=login)).status_code == 401
        key = second.keys["professional"]
        assert (await data(world, f"/v1/enrollments/{enrolled['id']}", key))["status"] == "active"
        assert (await data(world, f"/v1/courses/{EXAMPLE_ID}", key))["title"] == "Renamed"
        assert archived > 0
        assert (await data(world, "/v1/courses", key))["meta"]["total_items"] == 2_085 - archived


async def test_people_who_were_deleted_stay_so_and_somebody_else_is_shown() -> None:
    async with open_world() as world:
        tour = await prepare(world.services)
        await world.ask("DELETE", f"/v1/users/{EXAMPLE_USER_ID}", tour.keys["professional"])
        again = await prepare(world.services)
        assert again.person is not None
        assert again.person.id != EXAMPLE_USER_ID
        assert again.person.email in again.text("http://127.0.0.1:8000")
        assert (await world.ask("GET", f"/v1/users/{EXAMPLE_USER_ID}", again.keys["professional"])).status_code == 404


# --- The demo on the command line


def test_what_serve_prints_works_when_pasted_and_no_secret_is_kept(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    operator = Operator(tmp_path)
    with started(*COMMAND, "serve", "--demo", "--port", "0", "--database", operator.url) as server:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line.rstrip())
            if "/v1/enrollments" in line:
                break
        find, sign_in, enroll = (pasted(line) for line in lines if line.startswith("    curl "))
        printed = "\n".join(lines)
        for page in re.findall(r"http://127\.0\.0\.1:[0-9]+/(?:docs|openapi\.json)$", printed, re.MULTILINE):
            assert subprocess.run(["curl", "-sf", page], capture_output=True, check=False).returncode == 0  # noqa: S607
    assert find["data"][0] == EXAMPLE
    assert sign_in["token_type"] == "Bearer"
    assert (enroll["user_id"], enroll["course_id"], enroll["status"]) == ("usr_7f3d9a", "crs_8x92k1", "active")

    secrets = re.findall(r"sk_live_\w+|(?<=the password )\S+", printed)
    assert len(set(secrets)) == 4
    assert not any(secret.encode() in operator.kept() for secret in secrets)

    record = json.loads(operator.told("users", "export", "learner@professional.example"))
    assert record["user"]["name"] == "Lena Learner"
    assert [one["course_id"] for one in record["enrollments"]] == ["crs_8x92k1"]
    (payment,) = record["payments"]
    assert (payment["amount"], payment["status"]) == ({"amount": 49.99, "currency": "USD"}, "charged")
    assert operator.told("doctor") == ""


def pasted(line: str) -> Any:
    """What a line of the tour answers in a shell."""
    done = subprocess.run(["sh", "-c", f"{line} -s"], capture_output=True, text=True, check=True)  # noqa: S607
    assert shlex.split(line)[0] == "curl"
    return json.loads(done.stdout)


def test_a_shown_time_is_one_that_the_api_shows(catalogue: list[Course]) -> None:
    assert timestamp(min(course.created_at for course in catalogue)).startswith("2022-01")
    assert max(course.created_at for course in catalogue) < 1_705_311_000 * 1_000_000
