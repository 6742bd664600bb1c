"""Taking secrets out of text that people will read: the last line of defence before a log, an error or a repr."""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "***"

_SECRETS: Final = re.compile(
    r"""
    (?P<key> sk_(?:live|test)_[0-9A-Za-z]{4} ) [0-9A-Za-z_-]+    # an API key: what tells keys apart may stay
  | eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}(?:\.[0-9A-Za-z_-]*)? # a JSON Web Token, also without its signature
  | \$argon2[a-z]*\$[^\s"']+                                     # the hash of a password
  | (?P<scheme> (?i:authorization) [\s\\"':=,(b]+ (?:(?i:bearer|basic|digest|token)\s+)? ) [^\s"',;)}\]]+
  | (?P<bearer> \b(?i:bearer) \s+ ) [^\s"',;)}\]]+
  | (?P<field> (?i:passw(?:or)?d|secret|(?:access|refresh)_token) \\*["']? \s* [:=] \s* b?\\*["']? ) [^\s"',;&)}\]]+
  | (?P<user> \b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?\#:@]* : ) [^\s/?\#]* (?=@)   # the password in a URL
    """,
    re.VERBOSE,
)

_SIGNS: Final = ("sk_", "eyj", "$argon2", "authorization", "bearer", "passw", "secret", "_token", "://")
"""Every secret has one of these in it, in lower case; looking for them costs an eighth of the expression."""


def redact(text: str) -> str:
    """The text with `***` for API keys, tokens, hashes of passwords, credentials after `Authorization` or `Bearer`,
    values named as passwords and secrets, and passwords in URLs.

    What tells a key apart (`sk_live_` and four characters) and the user in a URL stay readable.
    """
    return _SECRETS.sub(_keep_what_leads_to_it, text) if suspicious(text) else text


def suspicious(text: str) -> bool:
    """Whether there may be a secret in the text; says so of some that have none, never the reverse."""
    return any(map(text.lower().__contains__, _SIGNS))


def _keep_what_leads_to_it(match: re.Match[str]) -> str:
    return (match[match.lastgroup] if match.lastgroup else "") + REDACTED
