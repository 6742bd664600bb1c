"""The API reference at `/docs`: one page and its files, all served from here, none from elsewhere.

The page shows the OpenAPI document with Scalar, whose bundle lies in `static/docs` (`static/VERSIONS.md` says which
one and how to renew it). The bundle could speak to services of its maker; the Content-Security-Policy forbids it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        # The bundle writes style elements and style attributes; with every other source closed they can send nothing.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may do (CSP Level 3): run these files, call this origin, and nothing else."""

ASSETS_PATH: Final = "/docs/"
"""Where the page expects its files: this path, then the name that `assets` gives."""

_CONTENT_TYPES: Final = {
    "scalar.js": "text/javascript; charset=utf-8",
    "reference.js": "text/javascript; charset=utf-8",
    "reference.css": "text/css; charset=utf-8",
    "favicon.svg": "image/svg+xml",
    "scalar.LICENSES.txt": "text/plain; charset=utf-8",
}

_COMPRESSED: Final = frozenset({"scalar.js"})


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it goes over the wire. `content_encoding` is `gzip` where the bytes are compressed, else None.

    The page asks for a file with a digest of its bytes in the query, so a reply may be kept for ever.
    """

    body: bytes
    content_type: str
    content_encoding: str | None

    @property
    def digest(self) -> str:
        """The start of the SHA-256 of `body`, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()[:16]


@cache
def assets() -> dict[str, Asset]:
    """Every file the page needs, by its name below `ASSETS_PATH`."""
    return {name: _load(name, content_type) for name, content_type in _CONTENT_TYPES.items()}


@cache
def page(openapi_path: str) -> bytes:
    """The HTML of the reference for the document at `openapi_path`, a path of this origin; send it with the policy."""
    address = {name: f"{ASSETS_PATH}{name}?v={asset.digest}" for name, asset in assets().items()}
    document = escape(openapi_path, quote=True)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LearnFlow API reference</title>
<link rel="icon" type="image/svg+xml" href="{address["favicon.svg"]}">
<link rel="stylesheet" href="{address["reference.css"]}">
<script defer src="{address["scalar.js"]}"></script>
<script defer src="{address["reference.js"]}"></script>
</head>
<body>
<header class="masthead">
<img src="{address["favicon.svg"]}" width="28" height="28" alt="">
<strong>LearnFlow</strong> <span>API reference</span>
<a href="{document}">OpenAPI document</a>
</header>
<main id="reference" data-openapi="{document}"></main>
<noscript><p>The reference needs JavaScript; the <a href="{document}">OpenAPI document</a> says the same.</p></noscript>
</body>
</html>
""".encode()


def _load(name: str, content_type: str) -> Asset:
    compressed = name in _COMPRESSED
    file = files("learnflow_http") / "static" / "docs" / (f"{name}.gz" if compressed else name)
    return Asset(file.read_bytes(), content_type, "gzip" if compressed else None)
