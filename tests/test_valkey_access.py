"""Passwords, users, databases and TLS: who may enter does, who may not is decided for by the policy, and no password is
ever shown."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from learnflow_core.limiter import Quota
from storage_backends.valkey.address import locate
from storage_backends.valkey.greeting import Greeting, UnwelcomeError
from storage_backends.valkey.resp import ProtocolError
from storage_backends.valkey.scripts import SCRIPTS
from tests.conftest import missing
from tests.servers import Proxy, Valkey
from tests.valkey import CLIENTS, PATIENT_NS, open_client

PLAN = (Quota.per_day(1_000),)
SECRET = "p@ss:w/rd %"
QUOTED = "p%40ss%3Aw%2Frd%20%25"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Valkey]:
    """A server with a password, and a user who may do what a limiter does and nothing else."""
    with Valkey("--requirepass", SECRET) as server:
        rights = ["~limiter:*", "+evalsha", "+eval", "+time", "+get", "+set"]
        server.call_as(SECRET, "ACL", "SETUSER", "narrow", "on", f">{SECRET}", *rights)
        yield server


def with_credentials(server: Valkey, credentials: str) -> str:
    return server.url.replace("unix://", f"unix://{credentials}@")


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("credentials", [f":{QUOTED}", f"default:{QUOTED}", f"narrow:{QUOTED}"])
def test_who_has_the_password_is_served(kind: str, credentials: str, guarded: Valkey) -> None:
    with open_client(kind, with_credentials(guarded, credentials), budget_ns=PATIENT_NS) as client:
        decision = client.hit("key", PLAN, 5)
        assert decision.fallback is None
        assert client.refund(decision)
        client.reset("key", PLAN)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("credentials", "code"), [("", "NOAUTH"), (":wrong-hunter2", "WRONGPASS"), ("nobody:wrong-hunter2", "WRONGPASS")]
)
def test_who_has_not_is_decided_for_by_the_policy_and_no_log_has_the_password(
    kind: str, credentials: str, code: str, guarded: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = with_credentials(guarded, credentials) if credentials else guarded.url
    with open_client(kind, url, fallback="closed", budget_ns=PATIENT_NS) as client:
        assert client.hit("key", PLAN).fallback == "closed"
        assert client.counts.failures == {code: 1}
        assert "hunter2" not in repr(client.limiter)
    assert code in caplog.text
    assert "hunter2" not in caplog.text


def test_a_greeting_is_over_when_each_of_its_commands_is_answered_and_no_earlier() -> None:
    greeting = Greeting(locate("valkey://:pw@h/2"))
    loaded = b"$1\r\nx\r\n" * len(SCRIPTS)
    answers = b"+OK\r\n+OK\r\n" + loaded
    assert [greeting.is_over(answers[:end]) for end in range(len(answers))] == [False] * len(answers)
    assert greeting.is_over(answers)
    assert greeting.is_over(b"+OK\r\n+OK\r\n" + b"-NOPERM\r\n" * len(SCRIPTS))
    for bad, error in ((answers + b"+OK\r\n", ProtocolError), (b"+OK\r\n-ERR DB index\r\n" + loaded, UnwelcomeError)):
        with pytest.raises(error):
            greeting.is_over(bad)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_database_is_a_store_of_its_own(kind: str, valkey: Valkey) -> None:
    urls = [f"{valkey.url}?db={number}" for number in (0, 3)]
    for url in urls:
        with open_client(kind, url, budget_ns=PATIENT_NS, prefix=f"{kind}:") as client:
            assert client.hit("key", PLAN, 1_000).allowed
    with open_client(kind, f"{valkey.url}?db=99", fallback="open", budget_ns=PATIENT_NS) as client:
        assert client.hit("key", PLAN).fallback == "open"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed but itself, and its key."""
    if shutil.which("openssl") is None:
        missing("openssl")
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=store -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *words.split(), "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def encrypted(valkey: Valkey, certificates: Path) -> Iterator[Proxy]:
    """A server that speaks TLS, by a proxy: not every build of the server can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "certificate.pem", certificates / "key.pem")
    with Proxy(valkey, context) as proxy:
        yield proxy


@pytest.mark.parametrize("kind", CLIENTS)
def test_tls_against_a_known_authority_is_served(kind: str, encrypted: Proxy, certificates: Path) -> None:
    url = f"valkeys://127.0.0.1:{encrypted.port}?ca_file={certificates / 'certificate.pem'}"
    with open_client(kind, url, budget_ns=PATIENT_NS, prefix=f"tls {kind}:") as client:
        before = encrypted.connections
        assert [client.hit("key", PLAN).remaining for _ in range(20)] == list(range(999, 979, -1))
        assert len(client.hit_many(["many"] * 2_000, (Quota.per_day(100_000),))) == 2_000
        assert encrypted.connections == before + 1
        assert client.counts.by_fallback == 0


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("url", ["valkeys://127.0.0.1:{port}", "valkeys://localhost:{port}?ca_file={ca}"])
def test_tls_with_a_certificate_that_proves_nothing_is_no_connection(
    kind: str, url: str, encrypted: Proxy, certificates: Path
) -> None:
    named = url.format(port=encrypted.port, ca=certificates / "certificate.pem")
    with open_client(kind, named, fallback="closed", budget_ns=PATIENT_NS) as client:
        assert client.hit("key", PLAN).fallback == "closed"
        assert client.counts.failures == {"connect": 1}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_without_tls_is_not_spoken_to_in_the_clear(kind: str, valkey: Valkey) -> None:
    with (
        Proxy(valkey) as proxy,
        open_client(kind, f"valkeys://127.0.0.1:{proxy.port}", fallback="open") as client,
    ):
        assert client.hit("key", PLAN).fallback == "open"
