"""A world made of one seed: it is built, a storm passes over it, it comes to rest, and is looked at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from learnflow_core.ports import Context, Storage
from tests.simulator import invariants
from tests.simulator.clients import Clients
from tests.simulator.database import Database
from tests.simulator.faults import Faults, SeededFaults
from tests.simulator.loop import Process, SimulatedLoop
from tests.simulator.node import AHEAD_S, Node
from tests.simulator.payments import PaymentService
from tests.simulator.post import Post
from tests.simulator.school import NOW_NS, school
from tests.simulator.trace import Trace

REST_S = 60.0
"""How long after the storm everything must be settled."""
RESTS = 6
DAY_S = 86_400
CLOCKS_DIFFER_S = max(AHEAD_S) - min(AHEAD_S)
SWEPT_S = 1.5
"""Longer than from one sweep to the next."""

_MEMORY = Path("/dev/shm")  # noqa: S108 - a disk that costs nothing, where there is one; each world has its own folder


class Outcome(NamedTuple):
    """What came of a seed. `trace` tells what happened, line by line; `digest` also of every statement and its time."""

    seed: int
    violations: list[str]
    digest: str
    trace: list[str]
    deaths: int
    charges: int
    enrolled: int


NODES = ("north", "south")


def simulate(
    seed: int,
    faults: Faults | None = None,
    clients: type[Clients] = Clients,
    nodes: Sequence[str] = NODES,
) -> Outcome:
    """Run the world of a seed, with faults by chance unless they are planned."""
    folder = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with TemporaryDirectory(dir=folder, prefix="learnflow-") as path:
        return World(seed, Path(path) / "simulated.db", faults, clients, nodes).run()


class World:
    """A few nodes on one database, a payment service, and clients."""

    def __init__(
        self, seed: int, path: Path, faults: Faults | None, clients: type[Clients], nodes: Sequence[str]
    ) -> None:
        path.write_bytes(school().file)
        self._seed = seed
        self._violations: list[str] = []
        self._faults = faults or SeededFaults(self._random("faults"))
        # What it lacks of an event loop is what a simulation has not: sockets, signals, processes.
        self._loop = SimulatedLoop(  # type: ignore[abstract]
            self._random("order"), NOW_NS, self._before_step
        )
        self._trace = Trace(lambda: self._loop.now_ns - NOW_NS)
        self._database = Database(path, self._loop, self._faults, self._trace)
        self._service = PaymentService(self._loop, self._faults, self._trace)
        self._nodes = [
            Node(name, self._loop, self._random(name), self._database, self._service, self._trace, self._committed)
            for name in nodes
        ]
        self._post = Post(self._random("post"), self._service, self._nodes)
        self._clients = clients(self._random("clients"), self._nodes, school(), self._trace)

    def run(self) -> Outcome:
        """From the first request to the last look."""
        try:
            with self._trace.of_logs(), closing(self._loop):
                self._loop.run_until_complete(self._live())
                lines, digest = self._trace.lines.copy(), self._trace.digest
        finally:
            self._database.close()
        held = [charge for charge in self._service.charges.values() if charge.holds_money]
        return Outcome(
            self._seed,
            self._violations,
            digest,
            lines,
            sum(node.deaths for node in self._nodes),
            len(self._service.charges),
            len(held),
        )

    async def _live(self) -> None:
        await asyncio.sleep(0.1)
        post, doctor = (self._loop.create_task(work) for work in (self._post.carry_for_ever(), self._visit()))
        await self._clients.all()
        self._trace.note("the storm is over")
        self._faults.calm()
        post.cancel()
        await self._post.carry_all()
        await self._rest()
        await self._clients.ask_again()
        await asyncio.sleep(1)
        await doctor
        self._violations += invariants.in_the_end(self._database, self._service, self._clients)
        self._trace.note("a day passes")
        self._loop.pass_time(DAY_S + CLOCKS_DIFFER_S)
        await asyncio.sleep(SWEPT_S)
        self._violations += invariants.a_day_later(self._database)
        self._violations += [str(finding) for finding in await self._patient().check()]

    async def _rest(self) -> None:
        """Let time pass, in leaps: of the sweeps that there would be, some are enough."""
        for _ in range(RESTS):
            self._loop.pass_time(REST_S / RESTS - SWEPT_S)
            await asyncio.sleep(SWEPT_S)

    async def _visit(self) -> None:
        """In the midst of it all, have the program put right what it finds: there must be nothing."""
        await asyncio.sleep(self._random("visit").uniform(1, 20))
        storage, ctx = self._patient(), Context(self._loop.now_ns // 1_000, self._random("doctor").randbytes)
        self._violations += [str(one) for found in (await storage.check(), await storage.repair(ctx)) for one in found]

    def _patient(self) -> Storage:
        """The database as the program's own doctor sees it."""
        return self._database.open(Process("doctor"), lambda _: None, self._committed, faulty=False)

    def _random(self, purpose: str) -> Random:
        """Chance of one purpose, so that a change of one part leaves the others' as it was."""
        return Random(f"{self._seed}: {purpose}")

    def _before_step(self, process: Process) -> None:
        if self._faults.of_step(process):
            next(node for node in self._nodes if node.name == process.name).crash(process)

    def _committed(self) -> None:
        self._violations += invariants.at_any_moment(self._database)
