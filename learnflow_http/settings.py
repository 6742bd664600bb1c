"""Every setting once: its name, what it means, what it may be, and what it is when nobody says.

A setting `jwt_secret` is the option `--jwt-secret` and the environment variable `LEARNFLOW_JWT_SECRET`; an option wins
over the environment, and nothing else is read. Both write the value in the same way: lists are separated by commas, and
an empty variable counts as one that is not set. The command line's options, the reference in the documents and the
error messages all come from `SETTINGS`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec

from learnflow_core.enrollment import REFUND_WINDOW
from learnflow_core.model import DAY
from learnflow_core.usecases.tokens import Rotation
from learnflow_http import setting_values as values
from learnflow_http.redaction import REDACTED, redact

PREFIX: Final = "LEARNFLOW_"
LimiterFallback = Literal["local", "open", "closed"]
LogFormat = Literal["auto", "json", "plain"]
Payments = Literal["sandbox", "stripe"]
LogLevel = Literal["debug", "info", "warning", "error"]

# The first are for the test suite; the others are what Kubernetes and Docker tell of a service of such a name.
_FOREIGN_VARIABLES: Final = re.compile(
    rf"{PREFIX}((TEST_.*|REQUIRE_ALL|(.*_)?SERVICE_(HOST|PORT)(_.*)?|(.*_)?PORT_[0-9]+_(TCP|UDP)(_.*)?)=.*"
    r"|.*_PORT=(tcp|udp)://.*)",
    re.DOTALL,
)


class SettingsError(Exception):
    """A setting that the program cannot start with; the text names the option or variable and what is allowed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting.

    `read` makes its value of a text, and raises ValueError with what is allowed; the value of a `secret` is shown to
    nobody. `name` and `default` are those of the field in `Settings`.
    """

    description: str
    read: Callable[[str], object]
    metavar: str
    secret: bool = False
    name: str = ""
    default: object = None

    @property
    def option(self) -> str:
        """How the command line calls it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """How the environment calls it."""
        return PREFIX + self.name.upper()

    def shown(self, value: object) -> object:
        """The value as people may see it."""
        if self.secret and value:
            return REDACTED
        return redact(value) if isinstance(value, str) else value


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the server is told at its start. `load` checks; this holds."""

    host: Annotated[str, Setting("Address to listen on.", values.host, "HOST")] = "127.0.0.1"
    port: Annotated[int, Setting("Port to listen on; 0 takes any that is free.", values.number(0, 65_535), "PORT")] = (
        8000
    )
    workers: Annotated[
        int, Setting("Processes that serve, on this machine and at this port.", values.number(1, 1_000), "N")
    ] = 1
    database: Annotated[str, Setting("Where everything is kept.", values.database, "URL")] = "sqlite:///learnflow.db"
    limiter: Annotated[str, Setting("Where the rate limits are counted.", values.limiter, "URL")] = values.IN_MEMORY
    limiter_fallback: Annotated[
        LimiterFallback,
        Setting(
            "Who may pass while the limiter's store does not answer: each process's share, all, or nobody.",
            values.choice(LimiterFallback),
            "local|open|closed",
        ),
    ] = "local"
    limiter_processes: Annotated[
        int,
        Setting(
            "Processes that share the limits, when each has to enforce its share; at least the workers.",
            values.number(1, 10_000),
            "N",
        ),
    ] = 1
    limiter_leases: Annotated[
        Literal["off", "on"],
        Setting(
            "Whether processes take tokens from the limiter's store in blocks, and decide from memory.",
            values.choice(Literal["off", "on"]),
            "off|on",
        ),
    ] = "off"
    limiter_budget_ms: Annotated[
        int,
        Setting("For how long a decision waits for the limiter's store.", values.number(1, 1_000), "MILLISECONDS"),
    ] = 25
    payments: Annotated[
        Payments,
        Setting(
            "Payment service of the live mode; the sandbox moves no money.", values.choice(Payments), "sandbox|stripe"
        ),
    ] = "sandbox"
    stripe_secret_key: Annotated[
        str | None,
        Setting("Secret key of the account at Stripe.", values.stripe_key, "KEY", secret=True),
    ] = None
    stripe_webhook_secrets: Annotated[
        tuple[str, ...],
        Setting(
            "Secrets that sign what Stripe posts to /webhooks/stripe; without one there is no such address.",
            values.each(values.stripe_webhook_secret),
            "SECRET,…",
            secret=True,
        ),
    ] = ()
    stripe_api: Annotated[str, Setting("Where Stripe's API is; elsewhere only in tests.", values.public_url, "URL")] = (
        "https://api.stripe.com"
    )
    jwt_secret: Annotated[
        str | None,
        Setting(
            f"Secret that signs access tokens, {values.MIN_SECRET_BYTES} bytes or more. Beside an SQLite file, one is"
            " made and kept when none is given.",
            values.secret,
            "SECRET",
            secret=True,
        ),
    ] = None
    jwt_secret_old: Annotated[
        str | None,
        Setting(
            "The secret before: tokens it signed are accepted, none are made with it.",
            values.secret,
            "SECRET",
            secret=True,
        ),
    ] = None
    jwt_issuer: Annotated[str, Setting("Who issues the tokens (claim iss).", values.text, "NAME")] = "learnflow"
    jwt_audience: Annotated[str, Setting("For whom the tokens are (claim aud).", values.text, "NAME")] = "learnflow"
    refresh_rotation: Annotated[
        Rotation,
        Setting("What refreshing does to the refresh token.", values.choice(Rotation), "off|compatible|strict"),
    ] = "off"
    cors_origins: Annotated[
        tuple[str, ...],
        Setting(
            "Origins whose pages may call the API from a browser, or * for all.", values.each(values.origin), "ORIGIN,…"
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Setting("Proxies whose X-Forwarded-For is believed.", values.each(values.network), "NETWORK,…"),
    ] = ()
    refund_window_days: Annotated[
        int,
        Setting("For how many days a paid enrolment can be refunded.", values.number(0, 3_650), "DAYS"),
    ] = REFUND_WINDOW // DAY
    public_url: Annotated[
        str | None,
        Setting("Where clients reach the server, for links to it.", values.public_url, "URL"),
    ] = None
    metrics_token: Annotated[
        str | None,
        Setting(
            f"Secret that reads /metrics as a bearer token, {values.MIN_SECRET_BYTES} bytes or more; without one there"
            " is no such page.",
            values.secret,
            "SECRET",
            secret=True,
        ),
    ] = None
    log_format: Annotated[
        LogFormat,
        Setting(
            "How log lines look; auto is plain at a terminal, else JSON.", values.choice(LogFormat), "auto|json|plain"
        ),
    ] = "auto"
    log_level: Annotated[
        LogLevel, Setting("What is logged at least.", values.choice(LogLevel), "debug|info|warning|error")
    ] = "info"
    max_connections: Annotated[
        int,
        Setting("Connections that a worker holds at the same time.", values.number(1, 1_000_000), "N"),
    ] = 4_000
    max_connections_per_address: Annotated[
        int,
        Setting("Connections that a worker holds for one client address.", values.number(1, 1_000_000), "N"),
    ] = 1_000
    limiter_max_buckets: Annotated[
        int,
        Setting(
            "Callers whose limits are counted one by one; more share buckets.", values.number(1_024, 100_000_000), "N"
        ),
    ] = 1_000_000
    cache_mb: Annotated[
        int,
        Setting(
            "Memory of a worker for answers about the catalogue that are kept until it changes; 0 keeps none.",
            values.number(0, 100_000),
            "MEGABYTES",
        ),
    ] = 4

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Settings({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, setting.shown(getattr(self, name))) for name, setting in SETTINGS.items()]


def _settings() -> Iterator[Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        yield dataclasses.replace(hints[field.name].__metadata__[0], name=field.name, default=field.default)


SETTINGS: Final[Mapping[str, Setting]] = {setting.name: setting for setting in _settings()}
"""Every setting by its name, in the order in which a person reads them."""


def load(
    options: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    names: Collection[str] = SETTINGS.keys(),
    other_variables: Collection[str] = (),
) -> Settings:
    """The settings, from the command line's options (None: not given) and, where they say nothing, the environment.

    `names` are the settings the program at hand uses: the others keep their defaults, unread. `other_variables` are
    those beginning with `LEARNFLOW_` that mean something else to the program. Raises SettingsError for a value that is
    not allowed, for a variable nobody knows (most likely a slip of the pen, and then dangerous to ignore), and for
    settings that contradict each other.
    """
    _refuse_unknown(environ, other_variables)
    given = {name: _given(SETTINGS[name], options, environ) for name in names}
    settings = msgspec.convert({name: value for name, value in given.items() if value is not None}, Settings)
    if settings.jwt_secret is not None and settings.jwt_secret == settings.jwt_secret_old:
        raise SettingsError("--jwt-secret-old: must differ from --jwt-secret.")
    if "jwt_secret" in names and settings.jwt_secret is None and not _embedded(settings):
        raise _secret_needed()
    if settings.payments == "stripe" and settings.stripe_secret_key is None:
        raise SettingsError("--stripe-secret-key or LEARNFLOW_STRIPE_SECRET_KEY: --payments stripe needs it.")
    if settings.workers > 1 and _embedded(settings) and values.sqlite_file(settings.database) is None:
        raise SettingsError("--workers: a database in memory has one; sqlite:///FILE serves several.")
    if len(settings.cors_origins) > 1 and "*" in settings.cors_origins:
        raise SettingsError("--cors-origins: * stands alone, because it allows every origin.")
    return settings


def secret_for(settings: Settings) -> bytes:
    """The secret that signs access tokens: the one that is set, else the database's own.

    An SQLite file has one beside it, in a file that only its owner may read, made when it is first asked for; a
    database in memory has a new one each time. Raises SettingsError when there is none and none can be made or read.
    """
    if settings.jwt_secret is not None:
        return values.secret_bytes(settings.jwt_secret)
    if not _embedded(settings):
        raise _secret_needed()
    file = values.sqlite_file(settings.database)
    if file is None:
        return secrets.token_bytes(values.MIN_SECRET_BYTES)
    path = file.with_name(f"{file.name}.secret")
    try:
        return _kept_secret(path)
    except OSError as error:
        raise SettingsError(f"The secret beside the database, {path}: {error.strerror}.") from error


def old_secret_for(settings: Settings) -> bytes | None:
    """The secret before, whose tokens are still accepted; None when there is none."""
    return None if settings.jwt_secret_old is None else values.secret_bytes(settings.jwt_secret_old)


def is_loopback(host: str) -> bool:
    """Whether what listens on `host` is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _embedded(settings: Settings) -> bool:
    return settings.database.startswith("sqlite:")


def _given(setting: Setting, options: Mapping[str, object], environ: Mapping[str, str]) -> object:
    option, variable = options.get(setting.name), environ.get(setting.variable)
    if option is not None:
        text = ",".join(option) if isinstance(option, list | tuple) else str(option)
        return _read(setting, text, setting.option)
    return _read(setting, variable, setting.variable) if variable else None


def _read(setting: Setting, text: str, source: str) -> object:
    try:
        return setting.read(text)
    except ValueError as error:
        shown = "" if setting.secret or "URL" in setting.metavar else f", not {redact(text[:100])!r}"
        raise SettingsError(f"{source}: {error}{shown}.") from None


def _refuse_unknown(environ: Mapping[str, str], other_variables: Collection[str]) -> None:
    known = {setting.variable for setting in SETTINGS.values()} | set(other_variables)
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and name not in known and not _FOREIGN_VARIABLES.fullmatch(f"{name}={value}"):
            near = difflib.get_close_matches(name, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name}: there is no such setting.{meant}")


def _secret_needed() -> SettingsError:
    return SettingsError(
        "--jwt-secret or LEARNFLOW_JWT_SECRET: this database needs one, the same for every process;"
        " `openssl rand -hex 32` makes a good one."
    )


def _kept_secret(path: Path) -> bytes:
    """What the file holds; when there is no file, it appears whole or not at all, and the first of several wins."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(values.MIN_SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            _link_unless_there(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"The secret beside the database, {path}: others may read it; `chmod 600` closes it.")
    secret = path.read_bytes().strip()
    if len(secret) < values.MIN_SECRET_BYTES:
        raise SettingsError(f"The secret beside the database, {path}: is shorter than {values.MIN_SECRET_BYTES} bytes.")
    return secret


def _link_unless_there(draft: Path, path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
