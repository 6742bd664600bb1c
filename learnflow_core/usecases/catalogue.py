"""Taking over a catalogue that is kept elsewhere: many courses at once, and again, each known by its external id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from learnflow_core.fields import CategorySlug, ExternalId, Language, LongText, Title
from learnflow_core.model import Account, Course, Instant, Level
from learnflow_core.money import Money
from learnflow_core.ports import Context, Transaction
from learnflow_core.usecases.courses import revised

Outcome = Literal["added", "updated", "unchanged"]


class ImportedCourse(msgspec.Struct, frozen=True):
    """What a catalogue elsewhere says of one course; what is UNSET it does not say.

    `category_name` is what a category that is new will be called. `created_at` counts when the course is added and
    never later. `rating` is in hundredths, `students` what the catalogue elsewhere has counted.
    """

    external_id: ExternalId
    title: Title
    category: CategorySlug
    category_name: Title
    price: Money
    instructor: Title | UnsetType = UNSET
    level: Level | UnsetType = UNSET
    rating: int | UnsetType = UNSET
    students: int | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    language: Language | UnsetType = UNSET
    created_at: Instant | UnsetType = UNSET


async def import_courses(
    tx: Transaction, account: Account, rows: Sequence[ImportedCourse], ctx: Context, *, dry_run: bool = False
) -> list[Outcome]:
    """Add the courses that the account does not have and change those that differ; what happened to each, in order.

    No two rows may have the same external id. With `dry_run`, what would happen, and the transaction may be a read.
    """
    existing = await tx.courses.by_external_ids(account.id, [row.external_id for row in rows])
    added, updated, outcomes, names = list[Course](), list[Course](), list[Outcome](), dict[str, str]()
    for row in rows:
        before = existing.get(row.external_id)
        course = _new(account, row, ctx) if before is None else msgspec.structs.replace(before, **_said(row))
        if course == before:
            outcomes.append("unchanged")
            continue
        if before is None:
            added.append(course)
        else:
            updated.append(revised(before, course, ctx.now))
        outcomes.append("added" if before is None else "updated")
        names.setdefault(row.category, row.category_name)
    if not dry_run:
        await _keep(tx, added, updated, names)
    return outcomes


async def _keep(
    tx: Transaction, added: Sequence[Course], updated: Sequence[Course], category_names: Mapping[str, str]
) -> None:
    await tx.courses.add_all(added)
    for course in updated:
        kept = await tx.courses.put(course)
        assert kept, "the external id is this course's own"
    for slug, name in category_names.items():
        await tx.courses.name_category(slug, name)


def _said(row: ImportedCourse) -> dict[str, Any]:
    """The fields of a course that the row speaks of, by their names in the model."""
    said = {name: value for name, value in msgspec.structs.asdict(row).items() if value is not UNSET}
    if "students" in said:
        said["students_base"] = said.pop("students")
    return {name: value for name, value in said.items() if name not in {"category_name", "created_at"}}


def _new(account: Account, row: ImportedCourse, ctx: Context) -> Course:
    blank = Course(
        id=ctx.new_id("crs"),
        account_id=account.id,
        created_by=None,
        title=row.title,
        instructor=account.name,
        category=row.category,
        level="all",
        price=row.price,
        rating=None,
        total_students=0,
        students_base=0,
        description="",
        language="en",
        curriculum=(),
        status="published",
        seats=None,
        prerequisites=(),
        external_id=row.external_id,
        created_at=ctx.now if row.created_at is UNSET else row.created_at,
        updated_at=ctx.now,
    )
    return msgspec.structs.replace(blank, **_said(row))
