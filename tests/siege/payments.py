"""A payment service that nobody kills: `python -m tests.siege.payments SOCKET SEED`, asked by lines of JSON.

It charges once under a key and remembers everything; of its answers it loses some, says that it failed when it did not,
and lets others wait.
"""

from __future__ import annotations

import asyncio
import json
import sys
from random import Random
from typing import Any

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Payment
from learnflow_core.ports import Storage
from payment_gateways.sandbox import OUTCOMES, SandboxGateway

PATIENCE_S = 3.0
"""How long a gateway waits for an answer."""


class Books:
    """What the service did, by idempotency key."""

    def __init__(self, random: Random) -> None:
        self.charges: dict[str, dict[str, Any]] = {}
        self._random = random

    def done(self, asked: dict[str, Any]) -> Any:
        """Do what is asked for, once under its key, and say what came of it."""
        if asked["call"] == "books":
            return list(self.charges.values())
        if asked["call"] == "refund":
            self.charges[asked["payment"]]["refunds"] += 1
            return None
        refusal = OUTCOMES[asked["token"]]
        new = {**asked, "refusal": None if refusal is None else refusal.value, "refunds": 0}
        return self.charges.setdefault(asked["payment"], new)["refusal"]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call on one connection, answered well as a rule."""
        line = await reader.readline()
        if not line.endswith(b"\n"):  # whoever began to ask was killed
            writer.close()
            return
        asked = json.loads(line)
        mood = "well" if asked["call"] == "books" else self._random.choices(MOODS, WEIGHTS)[0]
        if mood != "never":
            said = self.done(asked)
            await asyncio.sleep({"late": PATIENCE_S + 1, "slow": 0.3}.get(mood, 0))
            if mood in ("well", "slow", "late"):
                writer.write(json.dumps(said).encode() + b"\n")
        writer.close()


MOODS = ("well", "slow", "lost", "never", "late")
WEIGHTS = (90, 5, 2, 2, 1)


class RemoteGateway(SandboxGateway):
    """A gateway to that service, with the sandbox's means of payment."""

    def __init__(self, storage: Storage, socket: str) -> None:
        super().__init__(storage)
        self._socket = socket

    async def charge(self, payment: Payment) -> Code | None:
        refusal = await self._ask("charge", payment)
        return None if refusal is None else Code(refusal)

    async def refund(self, payment: Payment) -> None:
        await self._ask("refund", payment)

    async def _ask(self, call: str, payment: Payment) -> Any:
        asked = {"call": call, "payment": payment.id, "enrollment": payment.enrollment_id, "token": payment.token}
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await ask(self._socket, asked)
        except (TimeoutError, OSError, ValueError) as error:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1) from error


async def ask(socket: str, asked: dict[str, Any]) -> Any:
    """What the service answers; ValueError when it hangs up."""
    reader, writer = await asyncio.open_unix_connection(socket, limit=64 << 20)
    try:
        writer.write(json.dumps(asked).encode() + b"\n")
        return json.loads(await reader.readline())
    finally:
        writer.close()


async def main(socket: str, seed: str) -> None:
    """Serve for ever."""
    server = await asyncio.start_unix_server(Books(Random(seed)).answer, socket)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
