"""Which server of a cluster has which key: slots, redirections, and the map that is learnt from both. Pure.

See the cluster specification of Valkey. Every caller's state is one key, so a decision concerns one slot.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final

from storage_backends.valkey.address import Address
from storage_backends.valkey.resp import ErrorReply, ProtocolError, command, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOTS: Final = 16_384
REFRESH_NS: Final = 1_000_000_000
"""The map is asked for once in this time at most, whatever the servers redirect."""


def slot_of(name: bytes) -> int:
    """The slot of a key: CRC-16 of what stands in its first pair of braces, or of all of it where there is none."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS


def _number(text: str) -> int:
    """A slot or a port; a number that neither can be, where it is none or has more digits than they have."""
    return int(text) if text.isdecimal() and len(text) <= 5 else 100_000


class Redirection:
    """MOVED and ASK: the slot and where it is, for good or (`once`) for the next command only."""

    __slots__ = ("address", "once", "slot")

    def __init__(self, error: ErrorReply, asked: Address) -> None:
        """Raises ProtocolError where the error names no place."""
        slot, _, place = error.rest.partition(" ")
        host, _, port = place.strip().rpartition(":")
        if not (_number(slot) < SLOTS and 0 < _number(port) < 65_536) or "\0" in host:
            raise ProtocolError("a redirection to nowhere")
        self.once = error.code == "ASK"
        self.slot = int(slot)
        self.address = Address(host or asked.host, int(port))


class SlotMap:
    """The server of every slot, as far as it is known; `is_learnt` once a server has told of all of them."""

    __slots__ = ("_next_refresh", "is_learnt", "owners", "seeds")

    def __init__(self, seeds: Sequence[Address]) -> None:
        self.seeds = list(seeds)
        self.owners: list[Address | None] = [None] * SLOTS
        self.is_learnt = False
        self._next_refresh = 0

    def is_refresh_due(self, now: int) -> bool:
        """Whether to ask for the map now; a true answer is the caller's to act on."""
        due = now >= self._next_refresh
        if due:
            self._next_refresh = now + REFRESH_NS
        return due

    def known(self) -> set[Address]:
        """Every server that is known."""
        return {address for address in self.owners if address is not None}.union(self.seeds)

    def learn(self, reply: Any, asked: Address) -> None:
        """Take in the answer to CLUSTER SLOTS; ProtocolError when it is none."""
        owners: list[Address | None] = [None] * SLOTS
        try:
            for first, last, (host, port, *_), *_ in reply:
                if not (0 <= first <= last < SLOTS and 0 < port < 65_536) or b"\0" in (host or b""):
                    raise ProtocolError("slots, ports or hosts that there are not")
                address = Address(host.decode() if host else asked.host, port)
                owners[first : last + 1] = [address] * (last + 1 - first)
        except (TypeError, ValueError, AttributeError):
            raise ProtocolError("no map of slots") from None
        self.owners = owners
        self.is_learnt = True


class Command:
    """A command of the cluster's protocol, with the interface of a `Call`; its answer is the reply itself."""

    __slots__ = ("_words",)

    def __init__(self, *words: str) -> None:
        self._words = command(*words)

    def request(self, key: str) -> bytes:
        """The command; the key is not its business."""
        del key
        return self._words

    request_with_script = request

    def read(self, data: bytes, at: int, key: str) -> tuple[object, int] | None:
        """The reply that begins there, and where it ends; None when the rest has not arrived."""
        del key
        return parse(data, at)


class Learn(Command):
    """Asks a server for the map, and takes in what it answers."""

    __slots__ = ("_asked", "_map")

    def __init__(self, slots: SlotMap, asked: Address) -> None:
        super().__init__("CLUSTER", "SLOTS")
        self._map = slots
        self._asked = asked

    def read(self, data: bytes, at: int, key: str) -> tuple[object, int] | None:
        """As for any command; ProtocolError when the answer is no map."""
        parsed = super().read(data, at, key)
        if parsed is not None and not isinstance(parsed[0], ErrorReply):
            self._map.learn(parsed[0], self._asked)
        return parsed


ASKING: Final = Command("ASKING")
