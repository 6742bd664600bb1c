"""The application: `uvicorn benchmarks.peers.fastapi_sqlalchemy.app:app` with DATABASE_URL and SECRET_KEY set."""

# FastAPI reads the annotations of endpoints at run time, and slowapi's decorator hides in which module they stand, so
# they are not postponed here.

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Request, Response
from slowapi import _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from benchmarks.peers.fastapi_sqlalchemy.database import Session
from benchmarks.peers.fastapi_sqlalchemy.models import Course, Enrollment, User
from benchmarks.peers.fastapi_sqlalchemy.schemas import (
    CourseDetail,
    CoursePage,
    EnrollmentReply,
    Level,
    NewEnrollment,
    Sort,
)
from benchmarks.peers.fastapi_sqlalchemy.security import QUOTAS, CurrentUser, limiter

ORDERS: Final[dict[Sort, tuple[ColumnElement[Any], ColumnElement[str]]]] = {
    "popular": (Course.total_students.desc(), Course.id.desc()),
    "newest": (Course.created_at.desc(), Course.id.desc()),
    "rating": (Course.rating.desc().nulls_last(), Course.id.desc()),
    "price": (Course.price_cents.asc(), Course.id.asc()),
    "-price": (Course.price_cents.desc(), Course.id.desc()),
}
SEARCHED: Final = (Course.title, Course.instructor, Course.description, Course.category)

app = FastAPI(title="Courses")
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]


@app.get("/v1/courses", response_model=CoursePage)
@limiter.limit(QUOTAS)
async def list_courses(  # noqa: PLR0913, PLR0917 - a parameter for each of the query's, as in every such endpoint
    request: Request,
    response: Response,
    session: Session,
    user: CurrentUser,
    page: Annotated[int, Query(ge=1)] = 1,
    limit: Annotated[int, Query(ge=1, le=50)] = 50,
    category: str | None = None,
    level: Level | None = None,
    search: Annotated[str | None, Query(max_length=256)] = None,
    sort: Sort = "popular",
) -> dict[str, Any]:
    """A page of the courses, with how many there are."""
    wanted = filters(category, level, search)
    total = await session.scalar(select(func.count()).select_from(Course).where(*wanted)) or 0
    rows = select(Course).where(*wanted).order_by(*ORDERS[sort]).offset((page - 1) * limit).limit(limit)
    courses = (await session.scalars(rows)).all()
    meta = {"current_page": page, "total_pages": -(-total // limit), "total_items": total}
    return {"data": courses, "meta": meta}


@app.get("/v1/courses/{course_id}", response_model=CourseDetail)
@limiter.limit(QUOTAS)
async def get_course(
    request: Request, response: Response, session: Session, user: CurrentUser, course_id: str
) -> Course:
    """One course."""
    course = await session.get(Course, course_id)
    if course is None:
        raise HTTPException(404, "Course not found")
    return course


@app.post("/v1/enrollments", response_model=EnrollmentReply, status_code=201)
@limiter.limit(QUOTAS)
async def create_enrollment(
    request: Request, response: Response, session: Session, user: CurrentUser, new: NewEnrollment
) -> Enrollment:
    """Enrol a learner, who takes a seat."""
    learner = await session.get(User, new.user_id)
    if learner is None or not learner.is_active:
        raise HTTPException(404, "User not found")
    course = await session.get(Course, new.course_id)
    if course is None:
        raise HTTPException(404, "Course not found")
    free = or_(Course.seats.is_(None), Course.taken < Course.seats)
    seated = await session.execute(
        update(Course)
        .where(Course.id == course.id, free)
        .values(taken=Course.taken + 1)
        .returning(Course.id)
        .execution_options(synchronize_session=False)
    )
    if seated.scalar() is None:
        raise HTTPException(403, "Course is full")
    enrollment = Enrollment(
        id=f"enr_{secrets.token_hex(8)}",
        user_id=learner.id,
        course_id=course.id,
        status="active",
        progress=0,
        enrolled_at=datetime.now(UTC),
    )
    session.add(enrollment)
    try:
        await session.commit()
    except IntegrityError as error:
        raise HTTPException(400, "Already enrolled") from error
    return enrollment


def filters(category: str | None, level: str | None, search: str | None) -> list[ColumnElement[bool]]:
    """What a course must fulfil to be listed; every word of a search has to occur in it."""
    wanted: list[ColumnElement[bool]] = []
    if category is not None:
        wanted.append(Course.category == category)
    if level is not None:
        wanted.append(Course.level == level)
    words = (search or "").split()
    return wanted + [or_(*(column.icontains(word, autoescape=True) for column in SEARCHED)) for word in words]
