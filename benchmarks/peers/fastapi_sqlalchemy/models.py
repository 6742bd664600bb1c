"""The tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What the tables have in common: their metadata."""


class User(Base):
    """Who may ask."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    is_active: Mapped[bool] = mapped_column(default=True)


class Course(Base):
    """What is listed."""

    __tablename__ = "courses"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    instructor: Mapped[str] = mapped_column(String(200))
    category: Mapped[str] = mapped_column(String(64))
    level: Mapped[str] = mapped_column(String(16))
    price_cents: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    rating: Mapped[float | None]
    total_students: Mapped[int]
    description: Mapped[str] = mapped_column(Text)
    language: Mapped[str] = mapped_column(String(35))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    seats: Mapped[int | None]
    taken: Mapped[int] = mapped_column(default=0)

    @property
    def price(self) -> dict[str, Any]:
        """The price as a reply has it."""
        return {"amount": self.price_cents / 100, "currency": self.currency}


class Enrollment(Base):
    """Who takes what."""

    __tablename__ = "enrollments"
    __table_args__ = (UniqueConstraint("user_id", "course_id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    course_id: Mapped[str] = mapped_column(ForeignKey("courses.id"), index=True)
    status: Mapped[str] = mapped_column(String(16))
    progress: Mapped[int] = mapped_column(default=0)
    enrolled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


# Every order of the list, and the usual one under each filter and both, is read from an index.
Index("courses_popular", Course.total_students, Course.id)
Index("courses_popular_of_category", Course.category, Course.total_students, Course.id)
Index("courses_popular_of_level", Course.level, Course.total_students, Course.id)
Index("courses_popular_of_both", Course.category, Course.level, Course.total_students, Course.id)
Index("courses_newest", Course.created_at, Course.id)
Index("courses_cheapest", Course.price_cents, Course.id)
# Unrated courses come last: where they do anyway, an index cannot say so.
Index("courses_best", Course.rating, Course.id).ddl_if(dialect="sqlite")
Index("courses_best_rated", Course.rating.desc().nulls_last(), Course.id.desc()).ddl_if(dialect="postgresql")
