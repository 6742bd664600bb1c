"""Taking secrets out of text that people will read: the last line of defence before a log, an error or a repr."""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "***"

_NAME: Final = r"(?i:passw(?:or)?d|secret|(?:access|refresh)_token)"

_ASSIGNED: Final = rf"""{_NAME} \\*["']? \s* [:=] \s*"""

# A text may be cut off, so that a quote is never closed: then a quote before a word is not the closing one, and what is
# named as a secret within the quotes is looked at by itself.
_SECRETS: Final = re.compile(
    rf"""
    (?P<key> [sr]k_(?:live|test)_[0-9A-Za-z]{{4}} ) [0-9A-Za-z_-]+ # an API key: what tells keys apart may stay
  | (?P<hook> whsec_ ) [0-9A-Za-z+/=_-]+                         # what signs webhooks
  | (?P<intent> (?:pi|seti)_[0-9A-Za-z]+_secret_ ) [0-9A-Za-z]+  # what lets a client finish an intent at Stripe
  | eyJ[0-9A-Za-z_-]{{8,}}\.[0-9A-Za-z_-]{{8,}}(?:\.[0-9A-Za-z_-]*)? # a JSON Web Token, also without its signature
  | \$argon2[a-z]*\$[^\s"']+                                     # the hash of a password
  | (?P<scheme> (?i:authorization) [\s\\"':=,(b]+ (?:(?i:bearer|basic|digest|token)\s+)? ) [^\s"',;)}}\]]+
  | (?P<bearer> \b(?i:bearer) \s+ ) [^\s"',;)}}\]]+
  | (?P<quoted> {_ASSIGNED} b?(?P<quote>\\*["']) ) (?: (?! (?<!\\)(?P=quote)(?!\w) | {_ASSIGNED} ) . )+
  | (?P<field> {_ASSIGNED} ) (?! b?\\*["'] ) [^\s"',;&)}}\]]+
  | (?P<user> \b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?\#:@]* : ) [^\s/?\#]* (?=@)   # the password in a URL
    """,
    re.VERBOSE,
)

_SECRET_NAME: Final = re.compile(rf"{_NAME}|(?i:authorization)")

_SIGNS: Final = (
    "sk_",
    "rk_",
    "whsec_",
    "eyj",
    "$argon2",
    "authorization",
    "bearer",
    "passw",
    "secret",
    "_token",
    "://",
)
"""Every secret has one of these in it, in lower case; looking for them costs an eighth of the expression."""


def redact(text: str) -> str:
    """The text with `***` for API keys, tokens, hashes of passwords, Stripe's secrets, credentials after
    `Authorization` or `Bearer`, values named as passwords and secrets (in quotes, up to the closing one), and passwords
    in URLs.

    What tells a key apart (`sk_live_` and four characters) and the user in a URL stay readable.
    """
    return _SECRETS.sub(_keep_what_leads_to_it, text) if suspicious(text) else text


def names_secret(name: str) -> bool:
    """Whether what bears this name is a secret, whatever it looks like."""
    return _SECRET_NAME.search(name) is not None


def suspicious(text: str) -> bool:
    """Whether there may be a secret in the text; says so of some that have none, never the reverse."""
    return any(map(text.lower().__contains__, _SIGNS))


def _keep_what_leads_to_it(match: re.Match[str]) -> str:
    return (match[match.lastgroup] if match.lastgroup else "") + REDACTED
