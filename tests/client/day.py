"""A short day of a scanner and a front end in one program, for a loop to be chosen on the command
line.

`python -m tests.client.day asyncio|uvloop DIRECTORY`. Prints the loop it ran on and `done`.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from tests.client.conftest import QUICK_BACKOFF
from tests.client.fault_server import Fault, FaultServer
from tests.client.journeys import numbered_scan
from trackd.client import FrontEnd, Scanner, ScannerOptions, Spool

SCANS = [numbered_scan(number) for number in range(300)]


async def live_through(directory: Path) -> None:
    """Scans through a fault with a spool, then looks everything up."""
    options = ScannerOptions(batch_events_max=20, backoff=QUICK_BACKOFF, answer_timeout_ms=200)
    async with FaultServer() as server:
        server.faults.extend([Fault.LOST_AFTER_STORE, Fault.NEVER_ANSWERED, Fault.OVERLOADED])
        with Spool(directory / "spool.db", device_id="gun-1") as spool:
            async with Scanner(server.address, spool=spool, options=options) as scanner:
                await asyncio.gather(*map(scanner.scan, SCANS))
                await scanner.flush()
        assert server.shelf.arrived == SCANS
        async with FrontEnd(server.address) as front_end:
            numbers = sorted({scan.waybill_number for scan in SCANS})
            statuses = await front_end.get_statuses(numbers)
            assert [status.waybill_number for status in statuses.found] == numbers
            timelines = [await front_end.timeline(number) for number in numbers]
            assert sum(map(len, timelines)) == 300
    print(type(asyncio.get_running_loop()).__module__.partition(".")[0])
    print("done")


if __name__ == "__main__":
    factory = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(live_through(Path(sys.argv[2])))
