"""Taking secrets out of text that people will read: the last line of defence before a log, an error or a repr."""

from __future__ import annotations

import re
from typing import Final

_SECRETS: Final = re.compile(
    r"""
    (?P<key> sk_(?:live|test)_[0-9A-Za-z]{4} ) [0-9A-Za-z_-]+     # an API key: what tells keys apart may stay
  | eyJ[0-9A-Za-z_-]*(?:\.[0-9A-Za-z_-]*){1,2}                    # a JSON Web Token, whole or its first parts
  | (?P<scheme> (?i:authorization)["']? \s* [:=,] \s* b?["']?
      (?: (?i:bearer|basic|digest|token) \s+ )? ) [^\s"',;)}\]]+   # whatever credential the header was given
  | (?P<bearer> \b(?i:bearer) \s+ ) [^\s"',;)}\]]+
  | (?P<user> \b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?\#:@]* : ) [^\s/?\#]* (?=@)   # the password in a URL
    """,
    re.VERBOSE,
)

REDACTED: Final = "***"


def redact(text: str) -> str:
    """The text with API keys, tokens, credentials of `Authorization` and passwords in URLs replaced by `***`.

    What tells a key apart (`sk_live_` and four characters) and the user in a URL stay readable.
    """
    return _SECRETS.sub(_kept, text)


def _kept(match: re.Match[str]) -> str:
    return (match[match.lastgroup] if match.lastgroup else "") + REDACTED
