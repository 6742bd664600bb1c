"""Logs: what a line holds, and what it never does."""

import asyncio
import fcntl
import io
import json
import logging
import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learnflow_core.ids import new_api_key
from learnflow_http import logs
from learnflow_http.auth import TokenSigner
from learnflow_http.redaction import redact, suspicious

Format = Literal["json", "plain"]

NOISE = st.text(max_size=40)
TOKEN_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
SAFE = st.text(TOKEN_CHARACTERS, min_size=12, max_size=40).map("x9Q{}".format)
"""Secrets of a client's own making; no word that stands around them in a test contains one."""


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Give the process back the logging it had; a server that another test ran here has quietened uvicorn."""
    root, flags = logging.root, ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks")
    before = root.handlers[:], root.level, [getattr(logging, flag, True) for flag in flags]
    hooks = sys.excepthook, threading.excepthook
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
    yield
    for logger, its in zip(loggers, levels, strict=True):
        logger.setLevel(its)
    logging.captureWarnings(capture=False)
    root.handlers[:], level, values = before
    root.setLevel(level)
    for flag, value in zip(flags, values, strict=True):
        setattr(logging, flag, value)
    sys.excepthook, threading.excepthook = hooks


def lines(log_format: Format, log: Any, level: str = "debug") -> str:
    stream = io.StringIO()
    logs.configure(log_format, level, stream)  # type: ignore[arg-type]
    log(logging.getLogger("learnflow.test"))
    return stream.getvalue()


def record(log: Any) -> dict[str, Any]:
    (line,) = lines("json", log).splitlines()
    return dict(json.loads(line))


def fail(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


# --- What a line holds


def test_a_json_line_has_time_level_logger_message_and_what_extra_brings() -> None:
    found = record(lambda log: log.warning("sweep of %d failed", 3, extra={"count": 3, "why": None, "ok": False}))
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning", "logger": "learnflow.test", "message": "sweep of 3 failed", "count": 3, "ok": False,
    }  # fmt: skip


def test_a_time_is_utc_with_milliseconds() -> None:
    stamped = logging.makeLogRecord({"created": 1_705_311_000.0625, "msg": "x"})
    assert json.loads(logs.JsonFormatter().format(stamped))["time"] == "2024-01-15T09:30:00.062Z"


def test_an_access_line_has_the_facts_it_was_given() -> None:
    found = record(lambda log: logs.access(log, method="GET", path="/v1/courses", status=200, account=None))
    assert (found["message"], found["level"]) == ("request", "info")
    assert (found["method"], found["path"], found["status"]) == ("GET", "/v1/courses", 200)
    assert "account" not in found


def test_an_access_line_is_not_even_made_when_nobody_wants_it() -> None:
    assert lines("json", lambda log: logs.access(log, status=200), level="warning") == ""


def test_a_plain_line_reads_well_and_quotes_what_has_spaces() -> None:
    (line,) = lines("plain", lambda log: logs.access(log, method="GET", path="/a b", client="::1")).splitlines()
    assert line.split(" ", 1)[1] == 'INFO     request method=GET path="/a b" client=::1'


@pytest.mark.parametrize("terminal", [True, False])
def test_auto_is_plain_at_a_terminal_and_json_elsewhere(terminal: bool) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    logs.configure("auto", "info", stream)
    logging.getLogger("x").info("hello")
    assert stream.getvalue().startswith("{") is not terminal


def test_uvicorns_loggers_warnings_and_uncaught_errors_become_lines_as_well() -> None:
    def log(_: logging.Logger) -> None:
        logging.getLogger("uvicorn.error").error("a", extra={"color_message": "\x1b[1ma"})
        logging.getLogger("py.warnings").warning("b")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()

    found = [json.loads(line) for line in lines("json", log).splitlines()]
    assert [one["message"] for one in found] == ["a", "b", "stopped by a defect"]
    assert "ZeroDivisionError" in found[2]["exception"]
    assert not any("color_message" in one for one in found)


def test_interrupting_is_no_defect(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert stream.getvalue() == capsys.readouterr().err == ""


# --- A line is always made, and always one


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.text(), st.dictionaries(st.sampled_from(["path", "client", "count"]), anything))
@example("\ud800", {"path": "\udcff", "count": 10**400})
def test_whatever_is_logged_it_is_one_line_of_json_without_control_characters(message: str, extra: Any) -> None:
    text = lines("json", lambda log: log.info("%s", message, extra=extra))
    assert text.endswith("\n")
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text[:-1])
    assert isinstance(json.loads(text), dict)


@given(st.text(), st.text())
@example("a\n12:00:00 INFO     forged", "\x1b]0;title\x07\u2028")
def test_in_plain_lines_a_client_cannot_forge_a_line_or_command_the_terminal(message: str, path: str) -> None:
    text = lines("plain", lambda log: log.info("%s", message, extra={"path": path}))
    (line,) = text.split("\n")[:-1]
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line)
    assert "\u2028" not in line


def test_what_an_exception_says_cannot_pass_for_a_line_of_its_own() -> None:
    def log(log: logging.Logger) -> None:
        try:
            fail(ValueError("x\n12:00:00 INFO     forged\r\x1b[2K"))
        except ValueError:
            log.exception("trouble")

    first, *rest = lines("plain", log).splitlines()
    assert first.endswith("trouble")
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_line_that_cannot_be_made_says_so_without_what_it_was_about(capsys: pytest.CaptureFixture[str]) -> None:
    found = record(lambda log: log.info("%d and more", "sk_live_abcdefghijkl"))
    assert (found["message"], found["template"]) == ("a log line could not be made", "%d and more")
    assert capsys.readouterr().err == ""


class Unshowable:
    """What no line can hold."""

    def __str__(self) -> str:
        raise LookupError("a defect")


@pytest.mark.parametrize("log_format", ["json", "plain"])
def test_a_line_about_a_request_that_cannot_be_made_disturbs_nobody(
    log_format: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ask(log: logging.Logger) -> None:
        logs.access(log, path="/first")
        logs.access(log, path="/second", account=Unshowable())

    first, second = lines(log_format, lambda log: asyncio.run(ask(log)), "info").splitlines()
    assert "/first" in first
    assert "a log line could not be made" in second
    assert "LookupError" in second
    assert capsys.readouterr().err == ""


def test_a_line_about_a_request_holds_other_facts_as_well() -> None:
    found = record(lambda log: logs.access(log, path="/v1/courses", status=200, attempt=2))
    assert (found["message"], found["path"], found["attempt"]) == ("request", "/v1/courses", 2)


def test_a_stream_that_is_gone_disturbs_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    stream.close()
    logging.getLogger("x").info("hello")
    logging.getLogger("x").info("%d", "not a number")
    assert capsys.readouterr().err == ""


# --- Lines of several processes


def handlers_of(pipe: int, count: int) -> Iterator[Any]:
    """Handlers as `count` processes have them which write to the same pipe."""
    for number in range(count):
        stream = os.fdopen(os.dup(pipe), "w", encoding="utf-8", buffering=1)  # as standard error is
        logs.configure("json", "info", stream, pid=number)
        yield logging.root.handlers[0]


def write_requests(handler: Any, bursts: int, burst: int, path: str) -> None:
    async def write() -> None:
        for _ in range(bursts):
            for _ in range(burst):
                handler.access("learnflow.http", {"path": path, "status": 200})
            handler.flush()

    asyncio.run(write())
    handler.stream.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no way to make a pipe small")
@pytest.mark.parametrize("path", ["/v1/courses", "/v1/größe"])
def test_lines_that_several_processes_write_into_a_pipe_stay_whole(path: str) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    threads = [
        threading.Thread(target=write_requests, args=(handler, 10, 100, path)) for handler in handlers_of(writing, 2)
    ]
    os.close(writing)
    for thread in threads:
        thread.start()
    with os.fdopen(reading, encoding="utf-8") as pipe:
        written = pipe.read().splitlines()
    for thread in threads:
        thread.join()
    told = [json.loads(line) for line in written]
    assert [line["path"] for line in told] == [path] * 2_000
    assert {line["pid"] for line in told} == {0, 1}


@given(st.lists(st.integers(0, 2 * select.PIPE_BUF), max_size=20), st.sampled_from("aß\ud800"))
def test_a_write_is_as_many_whole_lines_as_a_pipe_takes_at_once(lengths: list[int], character: str) -> None:
    class Recorded(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    written: list[str] = []
    logs.configure("plain", "info", Recorded())
    handler: Any = logging.root.handlers[0]
    sent = [character * length for length in lengths]
    handler._waiting.extend(sent)
    handler.flush()
    assert "".join(written) == "".join(f"{line}\n" for line in sent)
    assert all(text.endswith("\n") for text in written)
    sizes = [len(text.encode(errors="backslashreplace")) for text in written]
    assert all(size <= select.PIPE_BUF or text.count("\n") == 1 for size, text in zip(sizes, written, strict=True))
    assert all(
        size + len(text[: text.index("\n") + 1].encode(errors="backslashreplace")) > select.PIPE_BUF
        for size, text in zip(sizes, written[1:], strict=False)
    )


def test_of_what_clients_write_only_what_is_short_is_kept() -> None:
    path = "/" + "x" * 32_000
    held = sys.getrefcount(path)
    logs.JsonFormatter().access("learnflow.http", {"path": path, "client_request_id": None, "status": 404})
    assert sys.getrefcount(path) == held


# --- Never a secret


def after(*beginnings: str) -> st.SearchStrategy[tuple[str, str]]:
    """A secret that follows one of these, and the part of it that nobody may see: all of it."""
    return st.tuples(st.sampled_from(beginnings), SAFE).map(lambda parts: ("".join(parts), parts[1]))


def api_key(seed: bytes) -> tuple[str, str]:
    secret = new_api_key("live", lambda length: (seed * 9)[:length])
    return secret, secret[12:]


def token(seed: bytes) -> tuple[str, str]:
    signer = TokenSigner((seed,), "issuer", "audience")
    text = signer.sign("access", user_id="usr_1", family_id="fam_1", token_id="tok_1", issued_at=0)
    return text, text.rpartition(".")[2]


secrets: dict[str, st.SearchStrategy[tuple[str, str]]] = {
    "an API key": st.binary(min_size=64, max_size=64).map(api_key),
    "a secret of Stripe": st.tuples(
        st.sampled_from(["rk_live_51Ab", "sk_test_51Ab", "whsec_", "pi_3Abc_secret_", "seti_1Abc_secret_"]),
        st.from_regex(r"[0-9A-Za-z]{20}", fullmatch=True),
    ).map(lambda two: (two[0] + two[1], two[1])),
    "a JSON Web Token": st.binary(min_size=32, max_size=32).map(token),
    "a credential": after("Bearer ", "bearer  ", "Authorization: ", "authorization', b'", '"AUTHORIZATION": "Basic '),
    "a password in a URL": after("postgresql://user:", "valkey://:").map(lambda two: (f"{two[0]}@host/0", two[1])),
    "a named secret": after("password=", '"password": "', "jwt_secret: ", "refresh_token=", "passwd='"),
    "a password's hash": after("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$"),
}
"""Kinds of secrets, each with its hidden part."""


def channels(secret: str) -> dict[str, Any]:
    """Every way by which a text can come into a log."""

    def raising(log: logging.Logger) -> None:
        try:
            fail(RuntimeError(f"could not use {secret} today"), KeyError(secret))
        except RuntimeError:
            log.exception("trouble")

    return {
        "message": lambda log: log.info("got " + secret + " from a client"),  # noqa: G003 - as somebody might
        "argument": lambda log: log.info("got %s", secret),
        "arguments shown": lambda log: log.info("got %r", {"headers": [(b"x", secret.encode()), secret]}),
        "extra": lambda log: log.info("got", extra={"path": f"/x/{secret}"}),
        "extra with parts": lambda log: log.info("got", extra={"headers": [("x", [secret])], "raw": secret.encode()}),
        "access": lambda log: logs.access(log, path=f"/v1/{secret}", client_request_id=secret),
        "exception": raising,
        "stack": lambda log: log.info("got", stack_info=True, extra={"why": RuntimeError(secret)}),
        "uvicorn": lambda _: logging.getLogger("uvicorn.error").info("%s", secret),
        "template that fails": lambda log: log.info(f"{secret} %d", "x"),  # noqa: G004 - as somebody might
        "uncaught": lambda _: sys.excepthook(ValueError, ValueError(secret), None),
    }


@pytest.mark.parametrize("log_format", ["json", "plain"])
@pytest.mark.parametrize("channel", channels(""))
@pytest.mark.parametrize("kind", secrets)
@given(data=st.data())
def test_no_secret_stands_in_a_log_by_whatever_way_it_comes(
    kind: str, channel: str, log_format: Format, data: st.DataObject
) -> None:
    secret, hidden = data.draw(secrets[kind])
    text = lines(log_format, channels(secret)[channel])
    assert text.count("\n") >= 1
    assert hidden not in text, text
    assert "***" in text


@pytest.mark.parametrize("name", ["password", "Authorization", "jwt_secret", "refresh_token"])
@pytest.mark.parametrize("log_format", ["json", "plain"])
def test_a_field_that_is_called_a_secret_is_one(name: str, log_format: Format) -> None:
    text = lines(log_format, lambda log: log.info("got", extra={name: "my hunter2, 'is' secret"}))
    assert "***" in text
    assert "hunter2" not in text
    assert "is" not in text.partition("***")[2]


@given(NOISE, st.sampled_from(sorted(secrets)), NOISE, st.data())
def test_a_text_that_changes_is_one_that_was_looked_at_closely(
    before: str, kind: str, after: str, data: st.DataObject
) -> None:
    text = f"{before} {data.draw(secrets[kind])} {after}"
    assert suspicious(text)
    assert redact(text) != text


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/courses?search=web 200",
        "key sk_live_ab12",
        "http://127.0.0.1:8000/docs",
        "mail someone@example.com about http://a:80/x",
        "the secretary passed the tokens on",
        "postgresql://user@host/name",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"password": "my pass word", "name": "Ann"}', '{"password": "***", "name": "Ann"}'),
        ("{'password': 'it is \"mine\"', 'x': 1}", "{'password': '***', 'x': 1}"),
        (r'{"password": "a \" b", "x": 1}', '{"password": "***", "x": 1}'),
        (r'"{\"password\": \"a, \\\" b\", \"x\": 1}"', r'"{\"password\": \"***\", \"x\": 1}"'),
        ("(b'secret', secret=b'a b')", "(b'secret', secret=b'***')"),
        ('password="never closed, a\nnext line', 'password="***\nnext line'),
        ('password="", x=1', 'password="", x=1'),
    ],
)
def test_in_quotes_a_secret_reaches_to_the_closing_one(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_whatever_a_password_is_nothing_of_it_stands_behind_its_name_in_json(password: str, nested: bool) -> None:
    text = json.dumps({"password": f"x9Q{password}Q9x"})
    text = json.dumps({"body": text}) if nested else text
    assert "x9Q" not in redact(text)
    assert "Q9x" not in redact(text)


def test_what_tells_keys_apart_and_who_connects_stays_readable() -> None:
    assert redact("sk_live_ab12CDEFGHIJ failed") == "sk_live_ab12*** failed"
    assert redact("postgresql://ann:hunter2@db/x") == "postgresql://ann:***@db/x"
