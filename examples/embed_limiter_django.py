"""Rate limits for Django, in a middleware of Django's own kind: `python examples/embed_limiter_django.py`.

`application` is the WSGI app, for `gunicorn --chdir examples embed_limiter_django:application`. To limit a whole Django
without touching its settings, wrap that: `learnflow_core.limiter.wsgi.RateLimitMiddleware(application, ...)`.
"""

import time
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client
from django.urls import path

from learnflow_core.limiter import MemoryLimiter, headers
from learnflow_core.limiter.plans import PLANS
from learnflow_core.limiter.wsgi import client

limiter = MemoryLimiter()
COSTS = {"/export": 10}


def rate_limit(get_response: Any) -> Any:
    """A middleware; behind AuthenticationMiddleware it could tell by `request.user` who asks, and on which plan."""

    def limited(request: HttpRequest) -> HttpResponse:
        decision = limiter.hit(client(request.META), PLANS["starter"], COSTS.get(request.path_info, 1))
        reply = get_response(request) if decision else JsonResponse({"error": "rate_limit_exceeded"}, status=429)
        for name, value in headers(decision, time.time_ns()):
            reply[name] = value
        return reply

    return limited


def export(_request: HttpRequest) -> HttpResponse:
    return JsonResponse({"rows": 10})


urlpatterns = [path("export", export)]
settings.configure(ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.rate_limit"], ALLOWED_HOSTS=["*"])
application = get_wsgi_application()

if __name__ == "__main__":
    browser = Client()
    for target in ("/export", "/export", "/nowhere", "/export"):
        reply = browser.get(target)
        print(target, reply.status_code, reply.headers["RateLimit"], reply.headers.get("Retry-After"))
