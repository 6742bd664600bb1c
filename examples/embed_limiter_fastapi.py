"""Rate limits for FastAPI, a plan for each caller: `python examples/embed_limiter_fastapi.py` asks it a few times.

`uvicorn embed_limiter_fastapi:app --app-dir examples` serves it.
"""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from learnflow_core.limiter import MemoryLimiter, seconds_up
from learnflow_core.limiter.asgi import RateLimitMiddleware, client
from learnflow_core.limiter.plans import PLANS

ACCOUNTS = {"key of Ada": ("ada", "starter"), "key of Ben": ("ben", "professional")}


def account(scope: Scope) -> tuple[str, str]:
    """Whose request it is, and on which plan; without a key that exists it is the address's, on the smallest."""
    return ACCOUNTS.get(Request(scope).headers.get("x-api-key", ""), (client(scope), "starter"))


async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    """A refusal in an envelope of one's own; the headers are added by the middleware."""
    wait = seconds_up(scope["learnflow.decision"].retry_after_ns)
    reply = JSONResponse({"error": {"code": "rate_limit_exceeded", "retry_after": wait}}, status_code=429)
    await reply(scope, receive, send)


app = FastAPI()
app.add_middleware(
    RateLimitMiddleware,
    limiter=MemoryLimiter(),
    quotas=lambda scope: PLANS[account(scope)[1]],
    key=lambda scope: account(scope)[0],
    cost={"/exports": 10, "/healthz": 0},  # everything else costs 1
    refused=refused,
)


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/courses/{course}")
async def show_course(course: str) -> dict[str, str]:
    return {"course": course}


@app.post("/exports")
async def export() -> dict[str, str]:
    return {"export": "started"}


if __name__ == "__main__":
    browser = TestClient(app)
    for method, path, key in [
        ("GET", "/healthz", ""),
        ("GET", "/courses/knots", "key of Ada"),
        ("POST", "/exports", "key of Ada"),
        ("POST", "/exports", "key of Ada"),
        ("POST", "/exports", "key of Ada"),
        ("POST", "/exports", "key of Ben"),
        ("GET", "/courses/knots", "a key that does not exist"),
    ]:
        reply = browser.request(method, path, headers={"X-API-Key": key})
        print(method, path, reply.status_code, reply.text)
        print("   ", reply.headers.get("RateLimit"))
