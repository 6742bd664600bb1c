"""The servers of one store, as an event loop sees them: who is asked, and who instead."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, cast

from storage_backends.valkey.cluster import ASKING, Learn, Redirection, SlotMap
from storage_backends.valkey.node import NOBODY, Node
from storage_backends.valkey.resp import ProtocolError

if TYPE_CHECKING:
    from storage_backends.valkey.address import Address
    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.cluster import Command
    from storage_backends.valkey.node import Asked, Waiter
    from storage_backends.valkey.resp import ErrorReply
    from storage_backends.valkey.store import Store


class Nodes:
    """One server, or the nodes of a cluster, each with a connection of its own."""

    def __init__(self, store: Store) -> None:
        location = store.location
        self._store = store
        self._nodes: dict[Address, Node] = {}
        self._map = SlotMap(location.addresses) if location.is_cluster else None
        self._only = None if self._map else self._node(location.addresses[0])

    def put(self, waiter: Waiter, call: Call, key: str) -> None:
        """Answer the waiter: by the server that has the key or, when that is not to be asked now, without."""
        node = self._only or self._owner(call.slot(key))
        if node.health.breaker.is_open:
            now = time.monotonic_ns()
            if not node.health.breaker.may_ask(now):
                waiter.set_result(self.otherwise(call, key, node.health.breaker.rest(now)))
                return
            node = self._messenger(node)
        node.ask(waiter, call, key)

    def otherwise(self, call: Call | Command, key: str, rest_ns: int) -> object:
        """See `Owner`."""
        return self._store.otherwise(call, key, rest_ns)

    def answered(self, calls: int) -> None:
        """See `Owner`."""
        self._store.counts.by_store += calls

    def redirect(self, node: Node, asked: Asked, error: ErrorReply, until: float) -> bool:
        """See `Owner`."""
        if self._map is None or error.code not in ("MOVED", "ASK"):
            return False
        try:
            found = Redirection(error, node.address)
        except ProtocolError:
            return False
        if found.once:
            self._node(found.address).ask_again(asked, until, ASKING)
            return True
        self._map.owners[found.slot] = found.address
        self._node(found.address).ask_again(asked, until)
        if self._map.is_refresh_due(time.monotonic_ns()):
            node.ask(NOBODY, Learn(self._map, node.address), "")
        return True

    async def close(self) -> None:
        """Answer all that wait without the store, and let go of the connections."""
        for node in self._nodes.values():
            await node.close()

    def end(self) -> None:
        """The same, without waiting until it is done."""
        for node in self._nodes.values():
            node.end()

    def descriptors(self) -> list[int]:
        """The numbers of the files of the connections' sockets."""
        return [number for node in self._nodes.values() if (number := node.descriptor()) >= 0]

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            self._forget_strangers()
            store = self._store
            budget_s = store.budget_ns / 1e9
            node = self._nodes[address] = Node(self, address, store.location, store.health(address), budget_s)
        return node

    def _forget_strangers(self) -> None:
        """Let go of servers that the cluster has no more, as where each start gives them another address."""
        known = self._map.known() if self._map else ()
        for address, node in list(self._nodes.items()):
            if address not in known and not node.is_busy():
                self._nodes.pop(address).end()

    def _owner(self, slot: int) -> Node:
        """The server that is known to have the slot or, when none is, a seed that answers."""
        known = cast("SlotMap", self._map)
        address = known.owners[slot]
        if address is not None:
            return self._node(address)
        seeds = [self._node(seed) for seed in known.seeds]
        return next((node for node in seeds if not node.health.breaker.is_open), seeds[0])

    def _messenger(self, node: Node) -> Node:
        """Whom to ask in place of a node that did not answer: in a cluster another one, which knows of its successor
        or sends the call on to it."""
        if self._map is None:
            return node
        others = [self._node(address) for address in self._map.known()]
        healthy = [other for other in others if not other.health.breaker.is_open]
        return random.choice(healthy) if healthy else node  # noqa: S311 - to spread probes, not to hide them
