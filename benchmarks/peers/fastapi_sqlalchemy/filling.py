"""Its database, filled with the generated catalogue, and a token for it; neither is part of the application."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import jwt
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.peers.fastapi_sqlalchemy.models import Base, Course, User
from learnflow_core import model

READER: Final = "usr_reader"
_BATCH: Final = 2_000
_LIFETIME_S: Final = 3_600


async def fill(url: str, courses: Iterable[model.Course], learners: Iterable[str] = ()) -> None:
    """Make the tables in an empty database, with these courses, the reader, and learners with these ids in them."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        users = [{"id": user_id, "email": f"{user_id}@example.com", "name": user_id} for user_id in (READER, *learners)]
        await connection.execute(insert(User), users)
        remaining = iter(courses)
        while batch := [_row(course) for course in islice(remaining, _BATCH)]:
            await connection.execute(insert(Course), batch)
        await connection.execute(text("ANALYZE"))
    await engine.dispose()


def token(secret: str) -> str:
    """An access token of the user, for an hour."""
    now = int(time.time())
    return jwt.encode({"sub": READER, "iat": now, "exp": now + _LIFETIME_S}, secret, algorithm="HS256")


def async_url(url: str) -> str:
    """The URL of a database as SQLAlchemy writes it, with the drivers that we use too."""
    scheme, _, rest = url.partition(":")
    return f"{scheme}+{'aiosqlite' if scheme == 'sqlite' else 'asyncpg'}:{rest}"


def _row(course: model.Course) -> dict[str, Any]:
    return {
        "id": course.id,
        "title": course.title,
        "instructor": course.instructor,
        "category": course.category,
        "level": course.level,
        "price_cents": course.price.amount_minor,
        "currency": course.price.currency,
        "rating": None if course.rating is None else course.rating / 100,
        "total_students": course.total_students,
        "description": course.description,
        "language": course.language,
        "created_at": datetime.fromtimestamp(course.created_at / 1e6, UTC),
        "seats": course.seats,
        "taken": 0,
    }
