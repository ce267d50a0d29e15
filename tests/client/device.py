"""A scanning device as a program of its own, to be killed: scans without end through a spool.

`python -m tests.client.device SERVER SPOOL LEDGER`. Each id that `scan` has returned for goes to
the ledger, a line each, written to the file at once. With `--drain` it scans nothing and ends when
the server has answered for everything.
"""

import argparse
import asyncio
import os
import random

from tests.client.conftest import QUICK_BACKOFF
from trackd.client import Scanner, ScannerOptions, Spool, SpoolOptions, scan_event

# So many that a long campaign stays below what the server takes for one waybill.
WAYBILLS = [f"SF{number:010d}" for number in range(300)]

OPTIONS = ScannerOptions(
    batch_events_max=20, batch_delay_ms_max=1, batches_in_flight_max=4, backoff=QUICK_BACKOFF
)


async def scan_until_killed(server: str, spool: Spool, ledger: int, *, seed: int) -> None:
    """Scans in bursts of every size, over all waybills."""
    dice = random.Random(seed)
    async with Scanner(server, spool=spool, options=OPTIONS) as scanner:
        while True:
            burst = [spool.event_id() for _ in range(dice.choice([1, 1, 1, 5, 60]))]
            await scanner.scan_many(
                scan_event(
                    event_id=event_id,
                    waybill_number=dice.choice(WAYBILLS),
                    code="SORTED",
                    device_id=spool.device_id,
                )
                for event_id in burst
            )
            os.write(ledger, "".join(f"{event_id}\n" for event_id in burst).encode())
            await asyncio.sleep(dice.random() * 0.004)


async def drain(server: str, spool: Spool) -> None:
    """Sends what the killed ones left behind."""
    async with Scanner(server, spool=spool, options=OPTIONS) as scanner:
        await scanner.flush()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("spool")
    parser.add_argument("ledger")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drain", action="store_true")
    chosen = parser.parse_args()
    ids = SpoolOptions(event_ids_reserved=50)
    with Spool(chosen.spool, device_id="gun-1", options=ids) as spool:
        print("up", flush=True)
        if chosen.drain:
            asyncio.run(drain(chosen.server, spool))
            return
        ledger = os.open(chosen.ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        asyncio.run(scan_until_killed(chosen.server, spool, ledger, seed=chosen.seed))


if __name__ == "__main__":
    main()
