"""Importing catalogues over the command line: row by row, as often as one likes, telling what was not taken."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from learnflow_core.money import Money
from learnflow_core.usecases.catalogue import ImportedCourse
from learnflow_http.cli import columns, importing, learnflow
from learnflow_http.cli.importing import BATCH, BATCH_LETTERS, _batches
from learnflow_http.cli.tables import Row, open_text, read_table
from storage_backends import open_storage
from storage_backends.conformance.samples import course
from storage_backends.repository.courses import Courses
from tests.conftest import missing
from tests.postgres import Postgres

CATALOGUE = Path(__file__).resolve().parents[2] / "shared" / "data" / "udemy_courses.csv"

HEADER = "course_id,course_title,subject,price\n"


class Shop:
    """A database with one account, and the command line that works on it."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.environ = {"LEARNFLOW_DATABASE": database}
        self.account = self.run("accounts", "create", "--name", "Acme", "--plan", "starter").stdout.strip()

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(learnflow, arguments, env=self.environ)

    def take(self, content: str | bytes, *options: str, name: str = "courses.csv") -> Result:
        (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.run("import", "courses", str(self.folder / name), *options)

    def counts(self, result: Result) -> tuple[int, ...]:
        assert result.exit_code == 0, result.output
        words = result.stderr.splitlines()[-1].replace(",", "").split()
        return tuple(int(word) for word in words if word.isdigit())


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A shop on SQLite, or on what the test's parameter says."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield Shop(tmp_path, f"sqlite:///{tmp_path}/shop.db")
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = asyncio.run(server.make())
    yield Shop(tmp_path, server.url(name))
    asyncio.run(server.drop(name))


on_both = pytest.mark.parametrize("shop", ["sqlite", "postgres"], indirect=True)


def rows(count: int) -> str:
    return HEADER + "".join(f"{number},Course {number},Cooking,9.5\n" for number in range(count))


@on_both
def test_an_import_can_be_repeated_and_changes_what_differs_only(shop: Shop) -> None:
    assert shop.counts(shop.take(rows(3))) == (3, 3, 0, 0, 0)
    assert shop.counts(shop.take(rows(3))) == (3, 0, 0, 3, 0)
    changed = rows(4).replace("Course 1", "Another 1").replace("2,Course 2,Cooking,9.5", "2,Course 2,Cooking,Free")
    assert shop.counts(shop.take(changed)) == (4, 1, 2, 1, 0)


@on_both
def test_an_import_leaves_little_uncounted_however_much_it_changes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_UNCOUNTED", 1_000)
    for price in ("5", "6"):
        assert shop.take(rows(1_500).replace("9.5", price)).exit_code == 0
        assert asyncio.run(uncounted(shop)) < 1_000


async def uncounted(shop: Shop) -> int:
    """How many notes of changes there are in the shop's database."""
    storage = await open_storage(shop.environ["LEARNFLOW_DATABASE"])
    noted: int = await storage.read(lambda tx: tx.courses.uncounted(10_000))
    await storage.close()
    return noted


def test_what_a_file_does_not_mention_stays_as_it_is(shop: Shop) -> None:
    shop.take("id,title,subject,price,rating,description\n1,A,Cooking,5,4.5,Long words\n")
    assert shop.counts(shop.take("id,title,subject,price,rating,description\n1,A,Cooking,5,,\n")) == (1, 0, 0, 1, 0)
    assert shop.counts(shop.take("id,title,subject,price\n1,A,Cooking,5\n")) == (1, 0, 0, 1, 0)


def test_when_a_course_was_made_counts_when_it_is_added_and_never_later(shop: Shop) -> None:
    content = "id,title,subject,price,created\n1,A,Cooking,5,2017-01-18\n"
    assert shop.counts(shop.take(content)) == (1, 1, 0, 0, 0)
    assert shop.counts(shop.take(content.replace("2017", "2018"))) == (1, 0, 0, 1, 0)


@on_both
def test_a_dry_run_tells_what_would_happen_and_changes_nothing(shop: Shop) -> None:
    assert shop.counts(shop.take(rows(3), "--dry-run")) == (3, 3, 0, 0, 0)
    assert shop.counts(shop.take(rows(3))) == (3, 3, 0, 0, 0)
    assert shop.counts(shop.take(rows(3).replace("9.5", "9"), "--dry-run")) == (3, 0, 3, 0, 0)
    assert shop.counts(shop.take(rows(3))) == (3, 0, 0, 3, 0)


def test_a_dry_run_counts_nothing_though_much_is_noted(shop: Shop) -> None:
    asyncio.run(note_much(shop))
    assert shop.take(rows(1), "--dry-run").exit_code == 0
    assert asyncio.run(uncounted(shop)) == 1_200


async def note_much(shop: Shop) -> None:
    """Add courses as a server does that has not counted them yet."""
    storage = await open_storage(shop.environ["LEARNFLOW_DATABASE"])
    added = [course(f"crs_{number}", account_id=shop.account) for number in range(600)]
    await storage.write(lambda tx: tx.courses.add_all(added))
    await storage.close()


def test_more_rows_than_a_transaction_takes_are_all_taken_and_bad_ones_among_them_reported(shop: Shop) -> None:
    content = rows(2 * BATCH + 7).splitlines(keepends=True)
    content.insert(BATCH, "x,y\n")
    content.insert(2 * BATCH, "5,Again,Cooking,1\n")
    result = shop.take("".join(content))
    assert shop.counts(result) == (2 * BATCH + 9, 2 * BATCH + 7, 0, 0, 2)
    assert f"line {BATCH + 1}: skipped: has 2 fields where the header has 4" in result.stderr
    assert f"line {2 * BATCH + 1}: skipped: external_id: '5' is a duplicate of line 7" in result.stderr


def test_a_row_is_told_everything_that_is_wrong_with_it(shop: Shop) -> None:
    result = shop.take("id,title,subject,price,level,students\n1,,Cooking,5,easy,many\n")
    assert "line 2: skipped: title: is missing; level: 'easy' is none of" in result.stderr
    assert "students: 'many' is no whole number" in result.stderr


def test_what_is_too_long_is_reported_and_not_cut(shop: Shop) -> None:
    result = shop.take(HEADER + f"1,{'x' * 201},Cooking,5\n{'2' * 129},B,Cooking,5\n3,C,{'y' * 65},5\n")
    assert shop.counts(result) == (3, 0, 0, 0, 3)
    assert "line 2: skipped: title: must have 1 to 200 characters, not 201" in result.stderr


def test_of_a_title_of_several_lines_the_first_is_taken_and_that_is_told(shop: Shop) -> None:
    result = shop.take(HEADER + '1,"First  line\nSecond",Cooking,5\n')
    assert shop.counts(result) == (1, 1, 0, 0, 0)
    assert "line 2: title: has several lines, of which the first was taken" in result.stderr


def test_what_a_file_says_cannot_command_the_terminal(shop: Shop) -> None:
    result = shop.take("\x1b]0;x\x07," + HEADER + "z,1,A,Cooking,\x1b[2J\n")
    assert "\x1b" not in result.stderr
    assert "skipped: price: '\\x1b[2J'" in result.stderr


def test_reports_go_to_a_file_that_is_named(shop: Shop) -> None:
    result = shop.take(HEADER + "1,A,Cooking,\n", "--report", f"{shop.folder}/report.txt")
    assert "line 2" not in result.stderr
    assert (shop.folder / "report.txt").read_text() == "line 2: skipped: price: is missing\n"


def test_the_summary_is_json_on_request_and_alone_on_standard_output(shop: Shop) -> None:
    result = shop.take(rows(2), "--json")
    assert json.loads(result.stdout) == {
        "file": f"{shop.folder}/courses.csv", "account_id": shop.account, "dry_run": False,
        "read": 2, "added": 2, "updated": 0, "unchanged": 0, "skipped": 0,
    }  # fmt: skip


def test_which_columns_were_guessed_and_ignored_is_told(shop: Shop) -> None:
    result = shop.take("id,title,subject,price,colour\n1,A,Cooking,5,red\n")
    assert "Columns: external_id=id, title=title, category=subject, price=price\nIgnored: colour\n" in result.stderr


def test_columns_can_be_said_and_currency_and_language_given(shop: Shop) -> None:
    options = ("--map", "title=b, category=c,external_id=a,price=d", "--currency", "jpy", "--language", "Japanese")
    assert shop.counts(shop.take("a,b,c,d\n1,A,Cooking,500\n", *options)) == (1, 1, 0, 0, 0)
    assert shop.counts(shop.take("a,b,c,d,lang,cur\n1,A,Cooking,500,ja,JPY\n", *options[:2])) == (1, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--map", "titel=x"), "there is no titel; there are external_id, title"),
        (("--map", "title=nope"), "the file has no column 'nope'; it has course_id"),
        (("--map", "title"), "must be FACT=COLUMN"),
        (("--map", "price="), "no column looks like price"),
        (("--currency", "XYZ"), "--currency"),
        (("--language", "!"), "--language"),
    ],
)
def test_a_wrong_option_is_bad_usage_and_nothing_is_imported(shop: Shop, options: tuple[str, str], said: str) -> None:
    result = shop.take(rows(1), *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert shop.counts(shop.take(rows(1))) == (1, 1, 0, 0, 0)


def test_a_file_that_is_no_table_fails_with_its_name(shop: Shop) -> None:
    result = shop.take(b"")
    assert result.exit_code == 1
    assert f"{shop.folder}/courses.csv: The file is empty." in result.stderr


def test_an_account_must_be_named_where_there_are_several_and_there_must_be_one(shop: Shop, tmp_path: Path) -> None:
    shop.run("accounts", "create", "--name", "Other", "--plan", "starter")
    refused = shop.take(rows(1))
    assert (refused.exit_code, "--account" in refused.stderr) == (2, True)
    assert shop.counts(shop.take(rows(1), "--account", shop.account)) == (1, 1, 0, 0, 0)
    assert shop.take(rows(1), "--account", "acct_nope").exit_code == 1
    nobody = CliRunner().invoke(
        learnflow, ["import", "courses", f"{shop.folder}/courses.csv", "--database", f"sqlite:///{tmp_path}/new.db"]
    )
    assert (nobody.exit_code, "accounts create" in nobody.stderr) == (1, True)


def test_json_lines_as_the_api_shows_courses_can_be_imported(shop: Shop) -> None:
    course = {
        "id": "crs_1",
        "title": "Pâtisserie",
        "category": "cooking",
        "price": {"amount": 49.99, "currency": "EUR"},
    }
    assert shop.counts(shop.take(json.dumps(course), name="courses.jsonl")) == (1, 1, 0, 0, 0)


def long_export(folder: Path, count: int) -> Path:
    path = folder / "long.csv"
    with path.open("w") as file:
        file.write(HEADER)
        file.writelines(f"{number},{'Course ' * 20}{number},Cooking,bad\n" for number in range(count))
    return path


def peak_of_reading(path: Path) -> int:
    tracemalloc.start()
    with open_text(path) as file:
        found = read_table(path, file, columns.recognised)
        taken = columns.choose(found.columns, {})
        for row in found.rows:
            if isinstance(row, Row):
                with pytest.raises(columns.RowError):
                    columns.read_course(row.cells, taken, "USD", None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    short, long = (peak_of_reading(long_export(tmp_path, count)) for count in (500, 10_000))
    assert long < short + 100_000


# --- The real catalogue


@pytest.fixture(scope="module")
def catalogue() -> Path:
    if not CATALOGUE.exists():
        missing("The real catalogue")
    return CATALOGUE


@on_both
def test_the_real_catalogue_is_imported_whole_and_its_duplicates_reported(shop: Shop, catalogue: Path) -> None:
    result = shop.run("import", "courses", str(catalogue))
    assert shop.counts(result) == (3_678, 3_672, 0, 0, 6)
    skipped = [line for line in result.stderr.splitlines() if "skipped:" in line]
    assert len(skipped) == 6
    assert all(" is a duplicate of line " in line for line in skipped)
    told = [line for line in result.stderr.splitlines() if "several lines" in line]
    assert len(told) == 5  # titles that a slip of the exporting program has filled with the row after
    assert shop.counts(shop.run("import", "courses", str(catalogue))) == (3_678, 0, 0, 3_672, 6)
    assert shop.run("doctor").exit_code == 0


def imported(number: int, letters: int) -> ImportedCourse:
    price = Money(0, "USD")
    return ImportedCourse(str(number), "t", "art", "Art", price, instructor="i", description="x" * (letters - 2))


def test_batches_hold_every_row_in_order_and_no_more_letters_than_a_transaction_takes() -> None:
    sizes = [10, BATCH_LETTERS - 10, 2, BATCH_LETTERS + 5, BATCH_LETTERS - 3, 3, 2] + [2] * (BATCH + 1)
    batches = list(_batches(imported(number, size) for number, size in enumerate(sizes)))
    assert [int(course.external_id) for batch in batches for course in batch] == list(range(len(sizes)))
    assert [len(batch) for batch in batches] == [2, 1, 1, 2, BATCH, 2]
    assert list(_batches([])) == []


def test_what_a_row_does_not_say_has_no_letters() -> None:
    course = ImportedCourse("1", "title", "art", "Art", Money(0, "USD"))
    assert list(_batches([course, course])) == [[course, course]]


@pytest.mark.parametrize(("count", "expected"), [(900, []), (1_000, [1_000]), (2_600, [1_000, 2_000, 2_600])])
def test_an_import_lets_the_database_look_at_what_it_has_become_each_time_that_doubled(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, count: int, expected: list[int]
) -> None:
    surveyed: list[int] = []

    async def survey(self: Courses) -> None:
        ((courses,),) = await self._tx.rows("SELECT count(*) FROM courses")
        surveyed.append(courses)

    monkeypatch.setattr(Courses, "survey", survey)
    shop.take(rows(count), "--dry-run")
    assert surveyed == []
    shop.take(rows(count))
    assert surveyed == expected
    shop.take(rows(count))
    assert surveyed == expected
