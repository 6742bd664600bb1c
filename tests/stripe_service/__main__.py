"""The service as a process of its own: `python -m tests.stripe_service --log FILE [--fault NAME --times N]`.

It prints its address, and serves until its standard input closes. FILE is what it did with money, over restarts too.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tests.stripe_service import FAULTS, StripeService


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.stripe_service")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    async with StripeService(log=options.log) as service:
        if options.fault is not None:
            service.fail(FAULTS[options.fault], times=options.times)
        print(service.url, flush=True)  # noqa: T201 - whoever started it reads this
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
