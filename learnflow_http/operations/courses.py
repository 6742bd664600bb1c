"""The catalogue."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import PlainText
from learnflow_core.model import CourseStatus, Level
from learnflow_core.ports import CourseQuery, CourseSort
from learnflow_core.search import MAX_SEARCH_LENGTH, MAX_SEARCH_WORDS, parse_search
from learnflow_core.usecases import courses, visible
from learnflow_http import wire
from learnflow_http.call import Call
from learnflow_http.operations.changes import Changes, updated_since
from learnflow_http.operations.row import STAFF, Operation


class CourseFilters(Changes, frozen=True):
    """Which courses are listed; `draft` and `archived` are the caller's account's own."""

    search: Annotated[
        str | None,
        Meta(
            description=f"At most {MAX_SEARCH_WORDS} words; every one must occur, the last may be a beginning.",
            extra_json_schema={"maxLength": MAX_SEARCH_LENGTH},
        ),
    ] = None
    category: Annotated[PlainText | None, Meta(description="The slug of a category.")] = None
    level: Level | None = None
    sort: CourseSort | None = None
    status: CourseStatus = "published"


async def _list_courses(tx: Any, call: Call) -> Any:
    return await tx.courses.list(_course_query(call), call.paging)


def _course_query(call: Call) -> CourseQuery:
    filters: CourseFilters = call.query
    search = parse_search(filters.search or "")
    own = filters.status != "published"
    if own and call.actor is None:
        raise LearnFlowError(Code.INVALID_PARAMETER, "Without a credential, only published courses.", param="status")
    since = updated_since(call)
    if since is not None and (filters.search is not None or filters.sort is not None):
        message = "What changed has an order of its own: updated_since stands beside neither search nor sort."
        raise LearnFlowError(Code.INVALID_PARAMETER, message, param="updated_since")
    sort = filters.sort or ("relevance" if search else "popular")
    return CourseQuery(
        sort="popular" if sort == "relevance" and search is None else sort,
        search=search,
        category=filters.category or None,
        level=filters.level,
        status=filters.status,
        account_id=call.actor.account_id if own else None,
        updated_since=since,
    )


COURSES = (
    Operation(
        method="GET",
        path="/v1/courses",
        name="listCourses",
        summary="List and search the catalogue",
        tag="Courses",
        kind="read",
        run=_list_courses,
        reply=wire.CourseItem,
        show=wire.course_item,
        query=CourseFilters,
        paged=True,
        public=True,
        shared=lambda call: call.query.status == "published",
    ),
    Operation(
        method="POST",
        path="/v1/courses",
        name="createCourse",
        summary="Publish a course, or keep it as a draft",
        tag="Courses",
        run=lambda tx, call: courses.create_course(tx, call.actor, call.body, call.ctx),
        reply=wire.Course,
        show=wire.course,
        status=201,
        body=courses.NewCourse,
        scope="courses:write",
        roles=STAFF,
    ),
    Operation(
        method="GET",
        path="/v1/courses/{id}",
        name="getCourse",
        summary="Read a course with its curriculum",
        tag="Courses",
        kind="read",
        run=lambda tx, call: visible.get_course(tx, call.actor, call.path["id"]),
        reply=wire.Course,
        show=wire.course,
        public=True,
        shared=lambda _: True,
        errors=(Code.COURSE_NOT_FOUND,),
    ),
    Operation(
        method="PATCH",
        path="/v1/courses/{id}",
        name="changeCourse",
        summary="Change a course",
        tag="Courses",
        run=lambda tx, call: courses.change_course(tx, call.actor, call.path["id"], call.body, call.ctx),
        reply=wire.Course,
        show=wire.course,
        body=courses.CourseChanges,
        scope="courses:write",
        roles=STAFF,
        errors=(Code.COURSE_NOT_FOUND,),
    ),
    Operation(
        method="DELETE",
        path="/v1/courses/{id}",
        name="archiveCourse",
        summary="Take a course out of the catalogue",
        tag="Courses",
        run=lambda tx, call: courses.archive_course(tx, call.actor, call.path["id"], call.ctx),
        reply=wire.Course,
        show=wire.course,
        scope="courses:write",
        roles=STAFF,
        errors=(Code.COURSE_NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/categories",
        name="listCategories",
        summary="List the categories with their numbers of courses",
        tag="Courses",
        kind="read",
        run=lambda tx, call: tx.courses.categories(call.paging),
        reply=wire.Category,
        show=wire.category,
        paged=True,
        public=True,
        shared=lambda _: True,
    ),
)
