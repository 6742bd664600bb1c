"""Rate limits for Flask, by address and by the person who signs in: `python examples/embed_limiter_flask.py`.

`flask --app examples/embed_limiter_flask run` serves it. Behind a proxy, werkzeug's ProxyFix must stand in front.
"""

from typing import Any

from flask import Flask, jsonify, request

from learnflow_core.limiter import LimitExceeded, MemoryLimiter, Quota, limited, seconds_up
from learnflow_core.limiter.wsgi import RateLimitMiddleware

limiter = MemoryLimiter()
app = Flask(__name__)
app.wsgi_app = RateLimitMiddleware(  # type: ignore[method-assign] # as Flask's documentation has it
    app.wsgi_app,
    limiter=limiter,
    quotas=(Quota.per_minute(30), Quota.per_day(1_000)),
    cost={"/export": 10, "/static": 0},
)


@limited(limiter, (Quota.per_hour(2, name="password"),), key=lambda email, _password: f"password:{email}"[:100])
def password_is_right(email: str, password: str) -> bool:
    """Whoever guesses at one person's password runs dry, from however many addresses."""
    return (email, password) == ("ada@school.example", "correct horse")


@app.errorhandler(LimitExceeded)
def refused(refusal: LimitExceeded) -> Any:
    return {"error": str(refusal)}, 429, {"Retry-After": str(seconds_up(refusal.decision.retry_after_ns))}


@app.post("/login")
def log_in() -> Any:
    right = password_is_right(request.form["email"], request.form["password"])
    return jsonify(right=right)


@app.get("/export")
def export() -> Any:
    return jsonify(rows=10)


if __name__ == "__main__":
    browser = app.test_client()
    for guess in ("battery", "staple", "correct horse"):
        reply = browser.post("/login", data={"email": "ada@school.example", "password": guess})
        print(reply.status_code, reply.json, reply.headers["RateLimit"], reply.headers.get("Retry-After"))
    for _ in range(3):
        reply = browser.get("/export")
        print(reply.status_code, reply.text.strip(), reply.headers["RateLimit"], reply.headers.get("Retry-After"))
