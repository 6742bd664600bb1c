"""The first words on a connection, for both clients: who one is, which database, and the scripts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from storage_backends.valkey.resp import ErrorReply, ProtocolError, parse
from storage_backends.valkey.scripts import SCRIPTS

if TYPE_CHECKING:
    from storage_backends.valkey.address import Location

_LOADS = [script.load for script in SCRIPTS]


class UnwelcomeError(Exception):
    """The server refused the first words; `kind` is the code of its error."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Greeting:
    """What to send first, `words`, and whether the answers welcome us.

    The scripts are loaded ahead of their use. Where that is refused, the first call that misses one brings it along, or
    is refused for the same reason.
    """

    def __init__(self, location: Location) -> None:
        introduction = location.introduction()
        self.words = b"".join(introduction + _LOADS)
        self._must = len(introduction)

    def is_over(self, data: bytes) -> bool:
        """Whether all answers have arrived; UnwelcomeError, ProtocolError when one is not as it should be."""
        at = 0
        for number in range(self._must + len(_LOADS)):
            parsed = parse(data, at)
            if parsed is None:
                return False
            reply, at = parsed
            if isinstance(reply, ErrorReply) and number < self._must:
                raise UnwelcomeError(reply.code)
        if at < len(data):
            raise ProtocolError("more answers than questions")
        return True


FAILURES: Final = (OSError, ProtocolError, UnwelcomeError, ValueError)
"""What an attempt to connect, or to use a connection, may raise; ValueError stands for a host that is no name."""


def kind_of(failure: Exception) -> str:
    """The kind, as `Counts` has it, of one of `FAILURES` that ended an attempt to connect."""
    if isinstance(failure, UnwelcomeError):
        return failure.kind
    if isinstance(failure, ProtocolError):
        return "protocol"
    return "timeout" if isinstance(failure, TimeoutError) else "connect"
