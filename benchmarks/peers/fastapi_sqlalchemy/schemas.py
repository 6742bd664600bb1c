"""What replies look like."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["all", "beginner", "intermediate", "advanced"]
Sort = Literal["popular", "newest", "rating", "price", "-price"]


class Price(BaseModel):
    """An amount of money."""

    amount: float
    currency: str


class CourseItem(BaseModel):
    """A course in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    title: str
    instructor: str
    category: str
    level: Level
    price: Price
    rating: float | None
    total_students: int


class CourseDetail(CourseItem):
    """A course alone."""

    description: str
    language: str
    created_at: datetime


class NewEnrollment(BaseModel):
    """Who is to be enrolled in what."""

    user_id: str
    course_id: str


class EnrollmentReply(BaseModel):
    """An enrolment."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    user_id: str
    course_id: str
    status: Literal["active"]
    progress: int
    enrolled_at: datetime


class PageMeta(BaseModel):
    """Where a page stands."""

    current_page: int
    total_pages: int
    total_items: int


class CoursePage(BaseModel):
    """A page of courses."""

    data: list[CourseItem]
    meta: PageMeta
