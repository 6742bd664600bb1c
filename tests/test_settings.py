"""Settings: where they come from, what is refused and how it is said, and the secret that a database keeps."""

import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_http import setting_values
from learnflow_http.app import check_payments
from learnflow_http.settings import (
    SETTINGS,
    Settings,
    SettingsError,
    is_loopback,
    load,
    old_secret_for,
    secret_for,
)
from storage_backends import sqlite

SECRET = "a-secret-of-which-nobody-may-know-anything"

GOOD = {
    "host": ("0.0.0.0", "::1", "localhost", "api.example.com"),  # noqa: S104 - a value, nothing listens there
    "port": ("0", "8000", "65535"),
    "workers": ("1", "4"),
    "database": (
        "sqlite:///a b.db",
        "sqlite:////var/lib/x.db",
        "sqlite://",
        "postgresql://u:p@h:5432/x?sslmode=require",
    ),
    "limiter": (
        "memory://",
        *("valkey://127.0.0.1:6379/1", "redis://u:p@h", "valkeys://h?ca_file=/etc/ca.pem"),
        *("valkey+cluster://a,b:7000", "unix:///run/valkey.sock?db=2"),
    ),
    "limiter_fallback": ("local", "open", "closed"),
    "limiter_processes": ("1", "64"),
    "limiter_leases": ("off", "on"),
    "limiter_budget_ms": ("1", "1000"),
    "payments": ("sandbox", "stripe"),
    "stripe_secret_key": ("sk_live_0123456789", "rk_live_0123456789", "sk_test_0123456789"),
    "stripe_webhook_secrets": ("whsec_0123456789", "whsec_0123456789, whsec_abc/+=0123", ""),
    "stripe_api": ("https://api.stripe.com", "http://127.0.0.1:8080"),
    "jwt_secret": (SECRET, "x" * 32, "é" * 16),
    "jwt_secret_old": ("y" * 32,),
    "jwt_issuer": ("https://learnflow.example",),
    "jwt_audience": ("learnflow",),
    "refresh_rotation": ("off", "compatible", "strict"),
    "cors_origins": ("*", "https://a.example", "https://a.example, http://localhost:3000,http://[::1]:5173", ""),
    "trusted_proxies": ("10.0.0.1", "10.0.0.0/8, 2001:db8::/32", ""),
    "refund_window_days": ("0", "14", "3650"),
    "public_url": ("https://api.example.com", "http://localhost:8000/learn/"),
    "metrics_token": (SECRET, "x" * 32),
    "log_format": ("auto", "json", "plain"),
    "log_level": ("debug", "info", "warning", "error"),
    "max_connections": ("1", "100000"),
    "max_connections_per_address": ("1",),
    "limiter_max_buckets": ("1024",),
    "cache_mb": ("0", "512"),
}
BAD = {
    "host": ("a b", "999.999.1.1", "http://x", "x:80", "-" * 64),
    "workers": ("0", "-1", "two", "1001"),
    "port": ("-1", "65536", "8_000", " 80", "eighty", "\uff18\uff10", "9" * 5_000),
    "database": ("learnflow.db", "sqlite://x.db", "sqlite:///a/", "sqlite:///a?mode=ro", "postgresql:x"),
    "limiter": ("memory", "valkey:x", "memcached://x", "valkey://x y", "unix+cluster:///x"),
    "limiter_fallback": ("shut",),
    "limiter_processes": ("0", "-1", "2.5"),
    "limiter_leases": ("ON", "yes"),
    "limiter_budget_ms": ("0", "1001", "25ms"),
    "payments": ("cash", "Sandbox"),
    "stripe_secret_key": ("pk_live_0123456789", "sk_live_", "sk_live_0123 456789", "whsec_0123456789"),
    "stripe_webhook_secrets": ("we_0123456789", "whsec_", "whsec_0123456789,tiny"),
    "stripe_api": ("api.stripe.com", "https://u:p@api.stripe.com"),
    "jwt_secret": ("x" * 31, "é" * 15),
    "jwt_secret_old": ("short",),
    "jwt_issuer": (" x", "a\nb"),
    "jwt_audience": ("x ",),
    "refresh_rotation": ("on",),
    "cors_origins": (
        *("example.com", "https://a.example/", "https://A.example", "https://a.example:443", "null"),
        *("https://u@a.example", "https://a.example?x", "https://*.example.com", "*,https://a.example"),
    ),
    "trusted_proxies": ("10.0.0.1/8", "proxy.local", "*", "10.0.0.0/33"),
    "refund_window_days": ("-1", "3651", "1.5"),
    "public_url": (
        "api.example.com",
        "ftp://x",
        "https://u:p@x",
        "https://x?y",
        "https://x#y",
        "https://x:0",
        "https://",
    ),
    "metrics_token": ("x" * 31,),
    "log_format": ("xml",),
    "log_level": ("INFO",),
    "max_connections": ("0",),
    "max_connections_per_address": ("0",),
    "limiter_max_buckets": ("1", "1e6"),
    "cache_mb": ("-1", "8MB"),
}


NEEDED = {
    "database": {"jwt_secret": "needed where the database keeps none"},
    "payments": {"stripe_secret_key": "sk_test_neededByStripe"},
}
"""What a setting takes beside it."""


def cases(values: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(name, value) for name, several in values.items() for value in several]


def given_as(source: str, name: str, value: str) -> Settings:
    needed = NEEDED.get(name, {})
    if source == "option":
        return load({**needed, name: value}, {})
    return load(needed, {SETTINGS[name].variable: value})


def test_every_setting_has_values_that_are_tried_here() -> None:
    assert GOOD.keys() == BAD.keys() == SETTINGS.keys() == set(Settings.__struct_fields__)


@pytest.mark.parametrize("source", ["option", "environment"])
@pytest.mark.parametrize(("name", "value"), cases(GOOD))
def test_a_good_value_is_taken_from_options_and_environment_alike(source: str, name: str, value: str) -> None:
    settings = given_as(source, name, value)
    assert msgspec.convert(msgspec.structs.asdict(settings), Settings, strict=True) == settings
    assert given_as("option", name, value) == settings


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_a_bad_value_is_refused_by_the_name_of_its_option_or_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{SETTINGS[name].option}: ."):
        given_as("option", name, value)
    with pytest.raises(SettingsError, match=f"^({SETTINGS[name].variable}|--cors-origins): ."):
        given_as("environment", name, value)


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_what_is_refused_is_said_in_one_short_printable_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        given_as("option", name, value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300


def test_an_option_wins_over_the_environment_which_is_then_not_even_read() -> None:
    assert load({"port": "9000"}, {"LEARNFLOW_PORT": "no port at all"}).port == 9000


def test_an_option_that_was_not_given_and_an_empty_variable_leave_the_default() -> None:
    assert load({"port": None}, {"LEARNFLOW_PORT": "", "LEARNFLOW_JWT_SECRET": ""}) == Settings()


def test_options_may_be_values_instead_of_their_texts() -> None:
    settings = load({"port": 9000, "cors_origins": ["https://a.example", "https://b.example"]}, {})
    assert (settings.port, settings.cors_origins) == (9000, ("https://a.example", "https://b.example"))


def test_settings_that_a_program_does_not_use_are_not_read() -> None:
    environ = {"LEARNFLOW_PORT": "bad", "LEARNFLOW_DATABASE": "postgresql://h/x"}
    assert load({}, environ, names=("database",)) == Settings(database="postgresql://h/x")


def test_a_variable_nobody_knows_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(SettingsError, match=r"LEARNFLOW_JWT_SECRT: .*LEARNFLOW_JWT_SECRET\?"):
        load({}, {"LEARNFLOW_JWT_SECRT": SECRET})


def test_variables_that_belong_to_others_are_left_alone() -> None:
    service = {
        "LEARNFLOW_SERVICE_HOST": "10.1.2.3",
        "LEARNFLOW_SERVICE_PORT_HTTP": "80",
        "LEARNFLOW_DB_PORT": "tcp://10.1.2.3:5432",
        "LEARNFLOW_DB_PORT_5432_TCP_ADDR": "10.1.2.3",
    }
    tests = {"LEARNFLOW_TEST_POSTGRES": "x", "LEARNFLOW_REQUIRE_ALL": "1", "PATH": "/bin"}
    assert load({}, service | tests | {"LEARNFLOW_DEMO": "1"}, other_variables={"LEARNFLOW_DEMO"}) == Settings()


def test_a_database_that_keeps_no_secret_must_be_given_one() -> None:
    with pytest.raises(SettingsError, match="LEARNFLOW_JWT_SECRET"):
        load({"database": "postgresql://h/x"}, {})
    settings = load({"database": "postgresql://h/x", "jwt_secret": SECRET}, {})
    assert secret_for(settings) == SECRET.encode()


def test_stripe_takes_a_key() -> None:
    with pytest.raises(SettingsError, match=r"--stripe-secret-key or LEARNFLOW_STRIPE_SECRET_KEY: .*stripe"):
        load({"payments": "stripe"}, {})
    assert load({"payments": "stripe"}, {"LEARNFLOW_STRIPE_SECRET_KEY": "rk_live_0123456789"}).payments == "stripe"


@pytest.mark.parametrize("missing", ["stripe", "httpx"])
def test_where_the_library_of_stripe_is_missing_the_extra_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learnflow_http.app.find_spec", lambda name: None if name == missing else object())
    with pytest.raises(SettingsError, match=f"--payments stripe: {missing} is not installed; the extra stripe"):
        check_payments(load({"payments": "stripe", "stripe_secret_key": "sk_live_0123456789"}, {}))
    check_payments(Settings())


def test_the_old_secret_must_be_another_than_the_new_one() -> None:
    with pytest.raises(SettingsError, match="--jwt-secret-old"):
        load({"jwt_secret": SECRET, "jwt_secret_old": SECRET}, {})
    settings = load({"jwt_secret": SECRET, "jwt_secret_old": "o" * 32}, {})
    assert old_secret_for(settings) == b"o" * 32
    assert old_secret_for(Settings()) is None


def test_a_secret_that_is_no_utf8_is_the_bytes_that_were_given() -> None:
    raw = bytes(range(128, 192))
    assert secret_for(load({}, {"LEARNFLOW_JWT_SECRET": raw.decode("utf-8", "surrogateescape")})) == raw


# --- Nothing secret in what people see


@given(st.text(min_size=8).filter(lambda text: text.isprintable() and " " not in text))
def test_no_secret_stands_in_the_repr_of_settings(text: str) -> None:
    password = "".join(character for character in text if character not in "/?#@:%[]\\") + "pässword"
    settings = load(
        {
            "jwt_secret": f"{text}{SECRET}",
            "metrics_token": f"{text}{SECRET}",
            "stripe_secret_key": "sk_live_" + "S3cr3tOfStripe",
            "stripe_webhook_secrets": "whsec_S3cr3tOfStripe,whsec_S3cr3tOfStripe2",
            "database": f"postgresql://user:{password}@host/name",
        },
        {},
    )
    shown = f"{settings!r} {settings} {settings.__rich_repr__()}"
    assert SECRET not in shown
    assert "S3cr3t" not in shown
    assert password not in shown
    assert "postgresql://user:***@host/name" in shown


def test_no_secret_stands_in_a_refusal() -> None:
    for name, value in (
        ("jwt_secret", "tiny"),
        ("metrics_token", "tiny"),
        ("stripe_secret_key", "tiny"),
        ("stripe_webhook_secrets", "whsec_0123456789,tiny"),
        ("database", "postgresql:u:tiny@h"),
        ("limiter", "valkey:u:tiny@h"),
    ):
        with pytest.raises(SettingsError) as refusal:
            load({name: value}, {})
        assert "tiny" not in str(refusal.value)
        assert refusal.value.__cause__ is None


# --- The secret that is kept beside a database


def test_a_database_file_keeps_one_secret_that_only_its_owner_can_read(tmp_path: Path) -> None:
    settings = load({"database": f"sqlite:///{tmp_path}/school.db"}, {})
    secret = secret_for(settings)
    assert len(secret) >= 32
    assert secret_for(settings) == secret
    (file,) = tmp_path.iterdir()
    assert file.name == "school.db.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_many_who_ask_first_at_the_same_time_get_the_same_secret(tmp_path: Path) -> None:
    settings = load({"database": f"sqlite:///{tmp_path}/school.db"}, {})
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: secret_for(settings), range(64)))) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_databases_have_secrets_of_their_own_and_one_in_memory_a_new_one_each_time(tmp_path: Path) -> None:
    files = [load({"database": f"sqlite:///{tmp_path}/{name}.db"}, {}) for name in "ab"]
    memory = load({"database": "sqlite:///:memory:"}, {})
    secrets = [secret_for(settings) for settings in [*files, memory, memory]]
    assert len(set(secrets)) == 4


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_kept_secret_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    settings = load({"database": f"sqlite:///{tmp_path}/school.db"}, {})
    secret_for(settings)
    (tmp_path / "school.db.secret").chmod(mode)
    with pytest.raises(SettingsError, match=r"school\.db\.secret: others may read it"):
        secret_for(settings)


def test_a_kept_secret_that_is_cut_or_cannot_be_made_is_told_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "school.db.secret"
    file.touch(0o600)
    with pytest.raises(SettingsError, match=r"school\.db\.secret: is shorter"):
        secret_for(load({"database": f"sqlite:///{tmp_path}/school.db"}, {}))
    with pytest.raises(SettingsError, match=r"school\.db\.secret: No such file"):
        secret_for(load({"database": f"sqlite:///{tmp_path}/nowhere/school.db"}, {}))


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:a.db", "sqlite:///a.db", "sqlite:////b/a%20b.db", "sqlite:///a b.db"],
)
def test_the_secret_stands_beside_the_file_that_the_storage_opens(url: str) -> None:
    file = setting_values.sqlite_file(url)
    assert sqlite._path(url) == (":memory:" if file is None else str(file.absolute()))


@pytest.mark.parametrize("url", ["sqlite:///a/", "sqlite://x.db", "sqlite:///a?b", "sqlite:///a#b"])
def test_what_is_no_database_file_here_is_none_for_the_storage(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        setting_values.sqlite_file(url)
    with pytest.raises(ValueError, match="sqlite:///"):
        sqlite._path(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "LocalHost"])
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com"])  # noqa: S104 - values
def test_everything_else_is_beyond_it(host: str) -> None:
    assert not is_loopback(host)
