"""URLs: what they name, what is refused, and that no message repeats a password."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_backends.valkey import AsyncValkeyLimiter, ValkeyLimiter
from storage_backends.valkey.address import Address, locate
from storage_backends.valkey.resp import parse


def said_first(url: str) -> list[list[str]]:
    """The commands that begin a connection, as words."""
    found = [parse(words) for words in locate(url).introduction()]
    return [[word.decode() for word in words[0]] for words in found if words]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("url", "addresses", "is_cluster"),
    [
        ("valkey://localhost", [("localhost", 6379)], False),
        ("redis://example.com:7000/3", [("example.com", 7000)], False),
        ("valkey://[::1]:7000", [("::1", 7000)], False),
        ("valkey://user:pa%2Fss%40@h:1/0", [("h", 1)], False),
        ("unix:///run/valkey/valkey.sock", [("/run/valkey/valkey.sock", None)], False),
        ("unix:///tmp/a%20b.sock?db=4", [("/tmp/a b.sock", None)], False),  # noqa: S108 - only a name
        ("valkey+cluster://a:7000,b:7001,[::1]:7002", [("a", 7000), ("b", 7001), ("::1", 7002)], True),
        ("redis+cluster://:pw@a,b", [("a", 6379), ("b", 6379)], True),
    ],
)
def test_a_url_names_servers(url: str, addresses: list[tuple[str, int | None]], is_cluster: bool) -> None:
    location = locate(url)
    assert location.addresses == addresses
    assert location.is_cluster is is_cluster
    assert location.tls is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("valkey://h", []),
        ("valkey://h/0", []),
        ("valkey://:pw@h", [["AUTH", "pw"]]),
        ("valkey://user:p%40%3A%2F%C3%A9@h/2", [["AUTH", "user", "p@:/é"], ["SELECT", "2"]]),
        ("unix://us%20er:pw@/run/valkey.sock?db=7", [["AUTH", "us er", "pw"], ["SELECT", "7"]]),
        ("valkey+cluster://user:pw@a,b", [["AUTH", "user", "pw"]]),
    ],
)
def test_a_connection_begins_with_what_the_url_says(url: str, words: list[list[str]]) -> None:
    assert said_first(url) == words


@given(st.text(), st.text(min_size=1))
def test_any_user_and_password_can_be_named(user: str, password: str) -> None:
    from urllib.parse import quote  # noqa: PLC0415

    try:
        url = f"valkey://{quote(user, safe='')}:{quote(password, safe='')}@h"
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    assert said_first(url) == [["AUTH", *([user] if user else []), password]]


@pytest.mark.parametrize("scheme", ["valkeys", "rediss", "valkeys+cluster", "rediss+cluster"])
def test_with_tls_certificates_and_names_are_verified(scheme: str) -> None:
    import ssl  # noqa: PLC0415

    tls = locate(f"{scheme}://h").tls
    assert tls is not None
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname


@pytest.mark.parametrize(
    "url",
    [
        "",
        "valkey",
        "valkey:h",
        "http://h",
        "unix+cluster:///run/x",
        "valkey+sentinel://h",
        "valkey://",
        "valkey://:6379",
        "valkey://h:0x1",
        "valkey://h:65536",
        "valkey://h:-1",
        "valkey://a,b",
        "valkey://h/one",
        "valkey://h/1/2",
        "valkey://h/-1",
        "valkey://h/\u0661",
        "valkey://h?db=1",
        "valkey://h?ca_file=/x",
        "valkeys://h?verify=no",
        "valkeys://h?key_file",
        "valkeys://h?key_file=/x",
        "valkey://h#1",
        "valkey://[::1",
        "valkey://user@h",
        "valkey+cluster://a,b/1",
        "valkey+cluster://a,",
        "unix://run/valkey.sock",
        "unix://",
        "unix:///run/x?db=",
        "unix:///run/%00",
        "valkey://a%00b",
        "unix:///run/x?ca_file=/x",
    ],
)
def test_what_names_no_store_is_a_clear_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(the store's URL|a socket's URL|a cluster has)"):
        locate(url)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("ca_file={0}/missing.pem", "{0}/missing.pem"),
        ("ca_file={0}/empty.pem", "{0}/empty.pem"),
        ("cert_file={0}/missing.pem&key_file={0}/missing.key", "{0}/missing.pem or {0}/missing.key"),
        ("cert_file={0}/empty.pem", "{0}/empty.pem"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(options: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ValueError, match=f"names {named.format(tmp_path)}, which cannot be used: ") as refusal:
        locate(f"valkeys://user:hunter2@h?{options.format(tmp_path)}")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "valkey://user:hunter2@",
        "valkey://user:hunter2@h:99999",
        "http://user:hunter2@h",
        "valkey://user:hunter2@a,b",
        "valkey://user:hunter2@h/x",
        "valkey://user:hunter2@h?x=1",
        "valkey://user:hunter2@[::1",
        "unix://user:hunter2@x/y",
        "valkey+cluster://user:hunter2@a,b/1",
    ],
)
def test_no_error_and_no_repr_has_the_password(url: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - any message but one that has the password
        locate(url)
    good = "valkey://user:hunter2@h"
    shown: list[object] = [refusal.value, locate(good), ValkeyLimiter(good), AsyncValkeyLimiter(good)]
    assert not any("hunter2" in f"{thing!r} {thing}" for thing in shown)


def test_an_address_reads_as_it_is_written() -> None:
    assert [str(Address("h", 1)), str(Address("/run/x.sock", None))] == ["h:1", "/run/x.sock"]


@pytest.mark.parametrize("limiter", [ValkeyLimiter, AsyncValkeyLimiter])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fallback": "shut"}, ValueError, "fallback: one of open, closed, local"),
        ({"processes": 0}, ValueError, "processes: it must be at least 1"),
        ({"processes": True}, TypeError, "processes: an int is needed, not bool"),
        ({"budget_ns": 0.025}, TypeError, "budget_ns: an int is needed, not float"),
        ({"budget_ns": 999_999}, ValueError, "budget_ns: it must be at least a millisecond"),
    ],
)
def test_options_that_make_no_sense_are_clear_errors(
    limiter: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        limiter("valkey://h", **options)


def test_the_client_for_threads_is_loaded_without_asyncio_and_without_anything_to_install() -> None:
    program = """
import sys
before = set(sys.modules)
from storage_backends.valkey import ValkeyLimiter
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*loaded - sys.stdlib_module_names, *loaded & {"asyncio", "ssl"})
"""
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert set(run.stdout.split()) - {"_learnflow_limiter"} == {"learnflow_core", "storage_backends"}
