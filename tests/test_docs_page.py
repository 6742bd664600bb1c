import gzip
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, sync_playwright

from learnflow_http.docs_page import ASSETS_PATH, CONTENT_SECURITY_POLICY, assets, page

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "LearnFlow API", "version": "1"},
    "paths": {
        "/v1/courses": {
            "get": {
                "operationId": "listCourses",
                "summary": "List courses",
                "responses": {"200": {"description": "A page."}},
            }
        }
    },
}

# The sandbox needs rights that root in a container lacks; the rest keeps Chromium from calling home.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in {"src", "href", "data-openapi"} and value is not None]


def links(openapi_path: str) -> list[str]:
    parser = Links()
    parser.feed(page(openapi_path).decode())
    return parser.found


def test_the_page_names_nothing_but_its_own_files_and_the_document() -> None:
    for link in links("/openapi.json"):
        assert link == "/openapi.json" or link.startswith(ASSETS_PATH)


def test_every_file_the_page_names_is_served_and_carries_the_digest_of_its_bytes() -> None:
    named = [link.removeprefix(ASSETS_PATH) for link in links("/openapi.json") if link.startswith(ASSETS_PATH)]
    assert named
    for name, _, digest in (link.partition("?v=") for link in named):
        assert digest == hashlib.sha256(assets()[name].body).hexdigest()[:16]


def test_a_document_path_cannot_leave_its_attribute() -> None:
    assert '/a"><script>alert(1)</script>&amp;' in links('/a"><script>alert(1)</script>&amp;')


def test_the_bundle_is_the_published_file_that_versions_names() -> None:
    versions = (files("learnflow_http") / "static" / "VERSIONS.md").read_text()
    [digest] = re.findall(r"`([0-9a-f]{64})`", versions)
    assert hashlib.sha256(gzip.decompress(assets()["scalar.js"].body)).hexdigest() == digest


@dataclass
class Visit:
    """What a browser did with the page: everything it asked for, and everything it complained about."""

    origin: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, tab: Page) -> None:
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)

    @property
    def foreign(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.origin + "/", "data:"))]


class Reference(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the base class gives it
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/docs":
            self.reply(
                page("/openapi.json"), "text/html; charset=utf-8", {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
            )
        elif path == "/openapi.json":
            self.reply(json.dumps(DOCUMENT).encode(), "application/json")
        elif asset := assets().get(path.removeprefix(ASSETS_PATH)):
            encoding = {"Content-Encoding": asset.content_encoding} if asset.content_encoding else {}
            self.reply(asset.body, asset.content_type, encoding)
        else:
            self.reply(b'{"data": "an answer"}', "application/json")

    def reply(self, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Reference) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def visit(chromium: Path, origin: str, scheme: Literal["light", "dark"]) -> Iterator[tuple[Page, Visit]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        tab = browser.new_page(color_scheme=scheme)
        seen = Visit(origin)
        seen.watch(tab)
        tab.goto(f"{origin}/docs")
        tab.get_by_role("heading", name="List courses").wait_for()
        yield tab, seen
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reference_follows_the_readers_colour_scheme_without_complaint(
    chromium: Path, origin: str, scheme: Literal["light", "dark"]
) -> None:
    with visit(chromium, origin, scheme) as (tab, seen):
        assert f"{scheme}-mode" in (tab.locator("body").get_attribute("class") or "")
        assert seen.complaints == []


def test_the_reference_sends_a_request_and_asks_nothing_of_another_origin(chromium: Path, origin: str) -> None:
    with visit(chromium, origin, "light") as (tab, seen):
        tab.get_by_role("button", name="Test Request").click()
        tab.get_by_role("button", name="Send").first.click()
        tab.get_by_text("an answer").wait_for()
        assert f"{origin}/v1/courses" in seen.requests
        assert seen.foreign == []
        assert seen.complaints == []
